#!/usr/bin/env python3
"""Of libculvert-gateway, shared and static, a program sees the functions of include/culvert.h and nothing else; the list for the linker
(packaging/library.map) names the same; the header
compiles alone, as C99 and as C11."""
import os
import re
import shutil
import subprocess
import sys

BUILD = os.environ.get("BUILD_DIR", "build/dev")
SHARED, STATIC = (os.path.join(BUILD, "libculvert-gateway." + end) for end in ("so", "a"))


def header():
    text = open("include/culvert.h", encoding="utf-8").read()
    return set(re.findall(r"^CULVERT_PUBLIC [^;(]*?\b(culvert_\w+)\(", text, re.M))


def linker_list():
    text = open("packaging/library.map", encoding="utf-8").read()
    return set(re.findall(r"^    (culvert_\w+);$", text, re.M))


def seen(*words):
    """Names that are defined and can be seen from outside; what sanitizers add is not ours."""
    text = subprocess.run(["nm", "--defined-only", "-P", *words], check=True, capture_output=True, text=True).stdout
    names = {line.split()[0].split("@")[0] for line in text.splitlines() if len(line.split()) >= 2 and line.split()[1] in "TDBRVWC"}
    return {name for name in names if not re.match(r"_*(odr_)?(asan|ubsan|tsan|sanitizer)|__(start|stop)_|_(init|fini)$", name)}


def main():
    if not os.path.exists(SHARED) or shutil.which("nm") is None:
        print("skipped: libculvert-gateway is not built, or there is no nm")
        return 77
    wanted, wrong = header(), []
    for what, have in (("packaging/library.map", linker_list()), ("the shared library", seen("-D", SHARED)),
                       ("the static library", seen("-g", STATIC))):
        if have != wanted:
            wrong.append(f"{what} has {sorted(have - wanted)} beyond include/culvert.h, and lacks {sorted(wanted - have)}")
    for words in (["-x", "c", "-std=c99"], ["-x", "c", "-std=c11"]):
        command = [os.environ.get("CC", "cc"), *words, "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only", "include/culvert.h"]
        if subprocess.run(command, capture_output=True).returncode != 0:
            wrong.append(" ".join(command) + " fails")
    print("\n".join(wrong) or f"{len(wanted)} functions")
    return 1 if wrong or len(wanted) < 10 else 0


if __name__ == "__main__":
    sys.exit(main())
