"""For tests of the tree that run an example: a network namespace of its own, with a TUN device allowed in it."""
import os
import shutil
import subprocess
import sys


def main(inside, program):
    """Run inside() in a new network namespace, where there can be one; the exit status of the test: 77 means that it was skipped."""
    if "--inside" in sys.argv:
        return inside()
    if not os.path.exists(program):
        print(f"{program} is not built")
        return 1
    private = ["unshare", "-n"] if os.geteuid() == 0 else ["unshare", "-rn"]
    if not shutil.which("unshare") or not shutil.which("ip") or not os.access("/dev/net/tun", os.R_OK | os.W_OK) or \
            subprocess.run([*private, "true"], capture_output=True).returncode != 0:
        print("skipped: needs a network namespace and /dev/net/tun")
        return 77
    return subprocess.run([*private, sys.executable, os.path.abspath(sys.argv[0]), "--inside"], env=os.environ).returncode
