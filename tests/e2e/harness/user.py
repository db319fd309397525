"""user.py - an ordinary user for the tests of `culvert exec`, who exists only inside a mount namespace.

The user's passwd entry, resolv.conf and TUN node are bind mounts there: nothing of the host is changed (design.md section 6).
"""
import os
import shutil
import subprocess
import tempfile

from . import gateway
from .core import Skip, check
from .proc import Process

UID = 61234
NAME = "culvert-e2e"

SETUP = """
set -e
dir=$1; shift
mount -t tmpfs -o mode=755 none $dir/dev
mknod -m %(tun_mode)s $dir/dev/tun c 10 200
mount --bind $dir/dev /dev/net
mount --bind $dir/etc /etc
exec %(with)s setpriv --reuid %(uid)d --regid %(uid)d --clear-groups --inh-caps=-all "$@"
"""


class User:
    """Runs commands in a namespace of the lab as an ordinary user with a TUN node of its own."""

    def __init__(self, t, lab, nameserver=None, tun_mode="0666", prefix=""):
        if t.options.preset == "tsan":
            raise Skip("the thread sanitizer has a thread of its own, and unshare(CLONE_NEWUSER) wants a process without")
        self.t, self.lab, self.dir = t, lab, tempfile.mkdtemp(prefix="user-", dir=t.dir)
        for folder in (t.dir, self.dir):
            os.chmod(folder, 0o755)
        for folder in ("dev", "etc", "bin", "home"):
            os.mkdir(self.path(folder))
        self.home = self.path("home")
        os.chown(self.home, UID, UID)
        self._etc(nameserver)
        self.setup = t.write(os.path.basename(self.dir) + ".sh", SETUP % {"tun_mode": tun_mode, "uid": UID, "with": prefix}, 0o755)

    def path(self, name):
        return os.path.join(self.dir, name)

    @property
    def program(self):
        """culvert where the user may read it: the repository may be in a folder of root's."""
        copy = self.path("bin/culvert")
        if not os.path.exists(copy):
            shutil.copy(gateway.program(self.t), copy)
        return copy

    def _etc(self, nameserver):
        """A copy of what programs read in /etc, with the user in it."""
        etc = self.path("etc")
        for name in ("nsswitch.conf", "hosts", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "protocols", "services", "alternatives",
                     "host.conf", "gai.conf", "bash.bashrc", "profile", "ssl"):
            source = "/etc/" + name
            if os.path.isdir(source):
                shutil.copytree(source, os.path.join(etc, name), symlinks=True, dirs_exist_ok=True,
                                ignore=shutil.ignore_patterns("private"))
            elif os.path.exists(source):
                shutil.copy(source, etc)
        with open(os.path.join(etc, "passwd"), "w") as f:
            f.write("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n"
                    "%s:x:%d:%d::%s:/bin/sh\n" % (NAME, UID, UID, self.home))
        with open(os.path.join(etc, "group"), "w") as f:
            f.write("root:x:0:\nnogroup:x:65534:\n%s:x:%d:\n" % (NAME, UID))
        if nameserver:
            with open(os.path.join(etc, "resolv.conf"), "w") as f:
                f.write("nameserver %s\noptions timeout:2 attempts:1\n" % nameserver)

    def etc(self, name, text=None, link=None):
        """Put a file, or a link, into the user's /etc; neither removes what is there."""
        path = self.path("etc/" + name)
        if os.path.lexists(path):
            os.unlink(path)
        if link:
            os.symlink(link, path)
        elif text is not None:
            with open(path, "w") as f:
                f.write(text)

    def argv(self, argv):
        return self.lab.gw.argv(["unshare", "-m", "--propagation", "private", "sh", self.setup, self.dir] + argv)

    def environment(self):
        return dict(gateway.sanitizer_env(), PATH="/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", LANG="C.UTF-8", HOME=self.home,
                    USER=NAME, TERM="xterm")

    def run(self, argv, timeout=30, stdin=subprocess.DEVNULL, **kw):
        """Run to the end as the user: CompletedProcess with output and errors apart."""
        return subprocess.run(self.argv(argv), stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=self.t.slow(timeout),
                              stdin=stdin, cwd=self.home, env=self.environment(), **kw)

    def exec(self, url, *command, timeout=30, options=(), **kw):
        """`culvert exec --proxy URL -- COMMAND` as the user."""
        r = self.run([self.program, "exec", "--proxy", url, *options, "--", *command], timeout, **kw)
        errors = r.stderr if isinstance(r.stderr, str) else r.stderr.decode("utf-8", "replace")
        check(not gateway.SANITIZER_NOISE.search(errors), errors)
        check(gateway.REFUSED not in errors, errors)
        return r

    def start(self, url, *command, name="exec", **kw):
        """The same, running beside the test."""
        return Process(self.t, None, self.argv([self.program, "exec", "--proxy", url, "--", *command]), name,
                       env=self.environment(), **kw)

    def processes(self):
        """Pids of everything alive that runs as the user (the owner of /proc/PID is root for some, so the status is read)."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open("/proc/%s/status" % pid) as f:
                    status = dict(line.split(":\t", 1) for line in f if ":\t" in line)
                if int(status["Uid"].split()[0]) == UID and status["State"][0] not in "ZX" and self.mine(pid):
                    found.append(int(pid))
            except (OSError, KeyError):
                continue
        return found

    def mine(self, pid):
        """Other tests have users of the same number; ours have our folder in their mounts or command line."""
        try:
            with open("/proc/%s/mountinfo" % pid) as f:
                return self.dir in f.read()
        except OSError:
            return False

