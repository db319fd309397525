#!/usr/bin/env python3
"""100,000 rules load in less than 2 s, and a list of 1,000,000 lines with one bad one loads but for that line (faults.md C6).

With sanitizers the time is printed and not judged.
"""
import os
import pathlib
import subprocess
import sys
import tempfile
import time

BUILD = pathlib.Path(os.environ.get("BUILD_DIR", "build/dev"))
CULVERT = BUILD / "culvert"
LIMIT_S = 2


def check(path):
    """(exit status, what was said, seconds of processor time: the machine may be busy)"""
    before = os.times()
    done = subprocess.run([CULVERT, "check", path], capture_output=True, text=True, timeout=100)
    after = os.times()
    return (done.returncode, done.stderr.splitlines(),
            after.children_user + after.children_system - before.children_user - before.children_system)


def rules(count):
    kinds = ("DOMAIN-SUFFIX,n%d.example,REJECT", "IP-CIDR,10.%d.%d.0/24,REJECT", "DOMAIN,h%d.example.net,DIRECT",
             "DST-PORT,%d,DIRECT")
    yield "tun: {auto-route: true}\nrules:\n"
    for i in range(count - 1):
        kind = i % 4
        value = (i // 256 % 256, i % 256) if kind == 1 else 1 + i % 65535 if kind == 3 else i
        yield "- " + kinds[kind] % value + "\n"
    yield "- MATCH,DIRECT\n"


def main():
    if not CULVERT.exists():
        print(f"{CULVERT} is not built")
        return 1
    symbols = subprocess.run(["grep", "-q", "-a", "__asan_init\\|__tsan_init", CULVERT]).returncode == 0
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        file, names = pathlib.Path(folder, "many.yaml"), pathlib.Path(folder, "names.txt")
        file.write_text("".join(rules(100000)))
        status, said, took = check(file)
        print(f"100,000 rules: {took:.2f} s of processor time")
        if status != 0 or [x for x in said if "warning" not in x and "fine" not in x]:
            wrong.append(f"status {status}: {said[:3]}")
        if took >= LIMIT_S and not symbols:
            wrong.append(f"{took:.2f} s; {LIMIT_S} s are the most")
        lines = [f"+.n{i}.example" for i in range(1000000)]
        lines[777776] = "not a name!"
        names.write_text("\n".join(lines) + "\n")
        file.write_text("tun: {auto-route: true}\nrule-providers: {big: {type: file, behavior: domain, path: names.txt}}\n"
                        "rules: ['RULE-SET,big,REJECT', 'MATCH,DIRECT']\n")
        began = time.monotonic()
        status, said, took = check(file)
        print(f"1,000,000 lines: {took:.2f} s of processor time, {time.monotonic() - began:.2f} s")
        bad = [x for x in said if "line 777777 of its list is skipped" in x]
        if status != 0 or len(bad) != 1:
            wrong.append(f"status {status}: {said[:3]}")
    print("".join(x + "\n" for x in wrong), end="")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
