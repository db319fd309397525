#!/usr/bin/env python3
"""The systemd unit is valid, is as tight as was promised (a score of at most 1.9), and asks for what the program gives."""
import pathlib
import re
import shutil
import subprocess
import sys

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "packaging" / "systemd"
UNIT = FOLDER / "culvert.service"
MOST = 1.9


def says(*keys):
    lines = UNIT.read_text().splitlines()
    return [key for key in keys if key not in lines]


def main():
    missing = says("Type=notify", "KillMode=mixed", "Restart=on-failure", "RestartSec=1", "NoNewPrivileges=yes")
    if missing:
        print("culvert.service does not say", ", ".join(missing))
        return 1
    if "[Service]" not in (FOLDER / "process-rules.conf").read_text():
        print("process-rules.conf has no [Service]")
        return 1
    if shutil.which("systemd-analyze") is None:
        print("skipped: systemd-analyze is not here, so the score was not taken")
        return 77
    run = subprocess.run(["systemd-analyze", "security", "--offline=yes", str(UNIT)], stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, text=True, timeout=60)
    score = re.search(r"exposure level for \S+: (\d+\.\d+)", run.stdout)
    if score is None:       # systemd before 250 has no --offline
        print("skipped: systemd-analyze gave no score:", (run.stderr or run.stdout).strip()[-200:])
        return 77
    print("systemd-analyze security: %s" % score.group(1))
    return 0 if float(score.group(1)) <= MOST else 1


if __name__ == "__main__":
    sys.exit(main())
