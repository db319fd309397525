#!/usr/bin/env python3
"""Every row of the fault list that a finished part promises is named by at least one test.

A test names its rows in words: a C test in a comment, "faults.md S8" or "faults.md P1 to P13" or "faults.md V1, V2";
an end-to-end test in its list, rows = ["S1", "G1"]. What has no test is listed here, and this test fails.
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def span(letter, first, last):
    return [f"{letter}{n}" for n in range(first, last + 1)]


# The rows of the parts that are finished. A part adds its own when it is done.
FINISHED = {
    "A": span("P", 1, 13) + span("F", 1, 8) + span("V", 1, 12) + span("U", 1, 14) + span("Q", 1, 10)
    + span("S", 1, 11) + span("S", 14, 19) + ["S23"] + span("C", 1, 5) + ["C7", "C12", "R1", "R2"]
    + span("R", 4, 6) + ["X1", "X4", "E1"],
}

NAMED = re.compile(r"faults\.md[ \n*/#]+(?:rows? )?([A-Z]\d+(?:(?:,? and |, ?| to |\.\.)[A-Z]?\d+)*)")
LISTED = re.compile(r"rows\s*=\s*[\[(]([^\])]*)[\])]")
STEP = re.compile(r"(,? and |, ?| to |\.\.)?([A-Z]?)(\d+)")


def expand(text):
    """'V1, V2 and V4 to V6' -> V1 V2 V4 V5 V6"""
    letter, previous, out = "", 0, set()
    for joiner, new_letter, number in STEP.findall(text):
        letter, number = new_letter or letter, int(number)
        first = previous + 1 if joiner in (" to ", "..") else number
        out |= set(span(letter, first, number))
        previous = number
    return out


def rows_named():
    found = set()
    for path in sorted((ROOT / "tests").rglob("*")):
        if path.suffix not in (".c", ".h", ".py", ".sh") or path.name == "test_rows.py":
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        for match in NAMED.finditer(text):
            found |= expand(match.group(1))
        for match in LISTED.finditer(text):
            for item in re.findall(r"[\"']([A-Z]\d+)[\"']", match.group(1)):
                found.add(item)
    return found


def main():
    assert expand("V1, V2 and V4 to V6") == {"V1", "V2", "V4", "V5", "V6"}, "this test's own reader is broken"
    found = rows_named()
    missing = [f"part {part}: {row}" for part, rows in FINISHED.items() for row in rows if row not in found]
    for line in missing:
        print(f"no test names faults.md {line}")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
