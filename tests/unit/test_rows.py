#!/usr/bin/env python3
"""Every row of the fault list that a finished part promises is named by at least one test.

A test names its rows in words: a C test in a comment, "faults.md S8" or "faults.md P1 to P13" or "faults.md V1, V2";
an end-to-end test in its list, rows = ["S1", "G1"]. What has no test is listed here, and this test fails.

The rows of tcp-stack.md have names of their own, "tcp-stack.md SYN-4", so the id alone will do. Those that wait for what is not
built yet stand in WAITING; they are printed, and so are those that no longer wait.
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
    "D": ["S12", "S13", "S20", "S22"] + span("L", 1, 17),
    "E, names": span("D", 1, 13),
    "F, process life": span("X", 5, 11) + ["R7", "R8", "R11"],
    "F, operations": span("A", 1, 8) + ["D14", "E11"],
    "E, lists and reload": ["C6"] + span("C", 9, 11),
}

STACK = {
    "ARC": 3, "MEM": 3, "UP": 3, "DN": 4, "BAT": 4, "STR": 5, "TMR": 3, "VN": 7, "IP": 7, "ICM": 4, "SEQ": 8, "RST": 6, "SYN": 8,
    "MSS": 3, "ACK": 3, "WND": 5, "OOO": 1, "SND": 3, "ZWP": 1, "UTO": 1, "RTO": 3, "REC": 6, "CC": 5, "ECN": 2, "TS": 1, "CLS": 4,
    "TW": 2, "KA": 1, "UDP": 4, "LIM": 2, "TST": 9, "FUZ": 8, "PERF": 15, "OBS": 1,
}
STACK_ROWS = [f"{name}-{n}" for name, last in STACK.items() for n in range(1, last + 1)] + ["PERF-0"]
FAULT_ROWS_B = span("T", 1, 20) + ["R3", "R9", "R10", "E10", "E12"]

# What holds without a test that could name it, and why.
BY_CONSTRUCTION = {
    "ARC-2": "tests/support/lab.c, sim.c and the fuzz targets know no other header than stack.h for what an embedder does",
    "TST-1": "every test in tests/unit of the stack is such a script: time is a number in struct lab",
    "TST-2": "src/stack/tcp_check.c runs after every segment and every output in builds without NDEBUG",
    "PERF-0": "the rows PERF-1 to PERF-15 are asserted, each where it is named",
}

WAITING = {
}

# icmp.md: the last number of each family of ids. M1 to M5 are section 3.5's, M10 to M18 section 5.3's; X29 was never given.
ICMP = {"V": 11, "O": 26, "R": 11, "B": 7, "L": 8, "F": 10, "P": 7, "U": 8, "W": 7, "A": 8, "J": 4, "X": 37, "E": 14, "T": 17,
        "TF": 9, "UF": 8, "N": 5}
ICMP_ROWS = ([f"{name}{n}" for name, last in ICMP.items() for n in range(1, last + 1) if f"{name}{n}" != "X29"]
             + span("M", 1, 5) + span("M", 10, 18))
ICMP_WAITING = {}

ICMP_NAMED = re.compile(r"icmp\.md([^;\"\n]*(?:\n \*[^;\"\n]*)?)")
ICMP_STEP = re.compile(r"( to )?\b(TF|UF|[VORBLFPUWAJMXETN])(\d+)\b")

STACK_NAMED = re.compile(r"\b(%s)-(\d+)\b" % "|".join(STACK))
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
    """Ids of faults.md as they are, of tcp-stack.md with their dash: {"S8", "SYN-4"}."""
    found = set()
    for path in sorted((ROOT / "tests").rglob("*")):
        if path.suffix not in (".c", ".h", ".py", ".sh") or path.name == "test_rows.py":
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        for match in NAMED.finditer(text):
            found |= expand(match.group(1))
        found |= {f"{name}-{number}" for name, number in STACK_NAMED.findall(text)}
        for match in LISTED.finditer(text):
            for item in re.findall(r"[\"']([A-Z]\d+)[\"']", match.group(1)):
                found.add(item)
    return found


def icmp_rows_of(text):
    """'O4, O15 to O17; RFC 792' behind icmp.md -> O4 O15 O16 O17"""
    out, previous = set(), 0
    for to, name, number in ICMP_STEP.findall(text):
        first = previous + 1 if to else int(number)
        out |= {f"{name}{n}" for n in range(first, int(number) + 1)}
        previous = int(number)
    return out


def icmp_rows_named():
    """"icmp.md O4" in a comment or a row's name, "icmp X31" in an end-to-end test's list."""
    found = set()
    for path in sorted((ROOT / "tests").rglob("*")):
        if path.suffix not in (".c", ".py", ".sh") or path.name == "test_rows.py":
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        for match in ICMP_NAMED.finditer(text):
            found |= icmp_rows_of(match.group(1))
        for item in re.findall(r"[\"']icmp ([A-Z]+\d+(?: to [A-Z]+\d+)?)[\"']", text):
            found |= icmp_rows_of(item)
    return found


def missing_of_part_c():
    found = icmp_rows_named()
    for row, what in ICMP_WAITING.items():
        print(f"icmp.md {row} waits for {what}" if row not in found else f"icmp.md {row} waits no longer: it has a test")
    return [row for row in ICMP_ROWS if row not in found and row not in ICMP_WAITING]


def missing_of_part_b(found):
    """Ids of part B without a test; what waits is only printed."""
    ids = STACK_ROWS + ["faults.md " + row for row in FAULT_ROWS_B]
    named = {row for row in ids if row.replace("faults.md ", "") in found or row in BY_CONSTRUCTION}
    for row, what in WAITING.items():
        print(f"{row} waits for {what}" if row not in named else f"{row} waits no longer: it has a test")
    return [row for row in ids if row not in named and row not in WAITING]


def main():
    assert expand("V1, V2 and V4 to V6") == {"V1", "V2", "V4", "V5", "V6"}, "this test's own reader is broken"
    found = rows_named()
    missing = [f"part {part}: {row}" for part, rows in FINISHED.items() for row in rows if row not in found]
    for line in missing:
        print(f"no test names faults.md {line}")
    missing_b = missing_of_part_b(found)
    for row in missing_b:
        print(f"no test names {row}, of part B")
    assert icmp_rows_of(" V1 to V3, TF7") == {"V1", "V2", "V3", "TF7"}, "this test's own reader is broken"
    missing_c = missing_of_part_c()
    for row in missing_c:
        print(f"no test names icmp.md {row}, of part C")
    return 1 if missing or missing_b or missing_c else 0


if __name__ == "__main__":
    sys.exit(main())
