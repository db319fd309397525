"""The stack library is arithmetic: it asks the C library for nothing but moving bytes, and keeps no variable of its own
(tcp-stack.md ARC-1, PERF-13; design.md 3.10)."""
import os
import re
import subprocess
import sys

ALLOWED = {"memcpy", "memset", "memcmp", "memmove", "__assert_fail", "__stack_chk_fail", "_GLOBAL_OFFSET_TABLE_"}
IMPURE = re.compile(r"^(random_bytes|log_)")  # of base: these reach the kernel
TOOLS = re.compile(r"^(__|\.)?(__)?(odr_asan|asan|ubsan|tsan|sanitizer|lsan|sancov|start___sancov|stop___sancov|gcov|llvm)")


def symbols(archive):
    """(defined, undefined, writable) names of an archive, without those of instrumentation."""
    text = subprocess.run(["nm", archive], check=True, capture_output=True, text=True).stdout
    defined, undefined, writable = set(), set(), set()
    for line in text.splitlines():
        parts = line.split()
        if len(parts) < 2 or TOOLS.match(parts[-1]):
            continue
        if parts[-2] == "U":
            undefined.add(parts[-1])
        elif parts[-2] in "TDRBWV":
            defined.add(parts[-1])
        if len(parts) == 3 and parts[1] in "BbC":
            writable.add(parts[-1])
    return defined, undefined, writable


def main():
    build = os.environ["BUILD_DIR"]
    defined, undefined, writable = symbols(os.path.join(build, "libstack.a"))
    base = {name for name in symbols(os.path.join(build, "libbase.a"))[0] if not IMPURE.match(name)}
    foreign = undefined - defined - base - ALLOWED
    if foreign:
        print("src/stack uses:", ", ".join(sorted(foreign)))
    if writable:
        print("src/stack has variables:", ", ".join(sorted(writable)))
    return 1 if foreign or writable else 0


if __name__ == "__main__":
    sys.exit(main())
