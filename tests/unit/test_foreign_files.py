#!/usr/bin/env python3
"""Configurations as users of mihomo and hev-socks5-tunnel have them: each loads, or every error is one that the file announces
("# says: ...")."""
import os
import pathlib
import subprocess
import sys

CULVERT = pathlib.Path(os.environ.get("BUILD_DIR", "build/dev")) / "culvert"
DATA = pathlib.Path(__file__).parent / "data"
FILES = sorted([*(DATA / "mihomo").glob("*.yaml"), *(DATA / "hev").glob("*.yaml")])


def main():
    if not CULVERT.exists():
        print(f"{CULVERT} is not built")
        return 1
    wrong = 0
    for path in FILES:
        announced = [line[8:].strip() for line in path.read_text().splitlines() if line.startswith("# says:")]
        done = subprocess.run([CULVERT, "check", path], capture_output=True, text=True, timeout=30)
        errors = [line for line in done.stderr.splitlines() if ": warning: " not in line]
        unexpected = [line for line in errors if not any(text in line for text in announced)]
        unsaid = [text for text in announced if not any(text in line for line in errors)]
        if unexpected or unsaid or done.returncode != (2 if announced else 0):
            print(f"{path.name}: status {done.returncode}")
            print("".join(f"  not announced: {line}\n" for line in unexpected)
                  + "".join(f"  not said: {text}\n" for text in unsaid), end="")
            wrong += 1
    print(f"{len(FILES)} files, {wrong} wrong")
    return 1 if wrong or not FILES else 0


if __name__ == "__main__":
    sys.exit(main())
