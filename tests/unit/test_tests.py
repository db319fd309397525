#!/usr/bin/env python3
"""The tests keep their own rules: who skips says why, nobody sleeps, and a file is one sitting.

Run from the top of the tree. Prints one line for each fault, as FILE:LINE: what is wrong, and exits 1 if there was any.
"""
import glob
import re
import sys

FILE_LINES_MAX = 700

# What a line of a C test must not have, and what to write instead. Comments do not count.
NOT_IN_C = [
    (r"(?<!\w)skip\(\)", "skips without a reason; use SKIP(why) of tests/support/skip.h"),
    (r'"skipped: ', "a skip that cmocka does not know; use SKIP(why) or run_unless(why, tests) of tests/support/skip.h"),
    (r"(?<!\w)(u?sleep|nanosleep)\(", "sleeps blindly; wait for the event (loop_wait_until(), poll())"),
]
# Where a pattern is at home, or right for the reason beside it.
ALLOWED = {
    "tests/support/skip.h": "the one place that prints it",
    "tests/bench/load.c": "a load at a pace; it measures and proves nothing",
    "tests/e2e/harness/flood.c": "a flood at a pace",
    "tests/unit/test_tun_missing.c": "rows of one test that cannot be prepared, each with its reason",
    "tests/unit/test_tun.c": "one rung of several that this kernel lacks, with its reason",
}


def without_comments(text):
    return re.sub(r"/\*.*?\*/", lambda m: "\n" * m.group().count("\n"), text, flags=re.S)


def check(path, faults):
    with open(path, encoding="utf-8") as f:
        text = f.read()
    lines = text.count("\n")
    if lines > FILE_LINES_MAX:
        faults.append(f"{path}:{lines}: a file of {lines} lines; {FILE_LINES_MAX} is the most that one sitting reads")
    if not path.endswith((".c", ".h")):
        return
    for number, line in enumerate(without_comments(text).split("\n"), 1):
        for pattern, instead in NOT_IN_C:
            if re.search(pattern, line) and path not in ALLOWED:
                faults.append(f"{path}:{number}: {instead}")


def main():
    faults = []
    paths = [p for kind in ("c", "h", "py") for p in glob.glob(f"tests/**/*.{kind}", recursive=True)]
    for path in sorted(paths):
        check(path, faults)
    for line in faults:
        print(line)
    print(f"{len(paths)} files, {len(faults)} faults")
    return 1 if faults or not paths else 0


if __name__ == "__main__":
    sys.exit(main())
