#!/usr/bin/env python3
"""The completions work in their shells: bash and fish are asked what they would offer, zsh reads its file. Run from the top of the
tree; BUILD_DIR names a build with the program. That the files say what the program takes is tests/unit/test_cli_docs.c's to compare.
"""
import os
import re
import shutil
import subprocess
import sys

PROGRAM = os.path.join(os.environ.get("BUILD_DIR", "build/dev"), "culvert")
FOLDER = "packaging/completions"

# what is typed, and some of what must and must not be offered
ROWS = [
    (["culvert", ""], ["run", "exec", "check"], ["--config"]),
    (["culvert", "ru"], ["run"], ["exec"]),
    (["culvert", "run", "--"], ["--config", "--dry-run"], ["--builtin", "--flows"]),
    (["culvert", "explain", "--net", ""], ["tcp", "udp", "icmp"], ["--net"]),
    (["culvert", "check", "config/"], ["config/culvert.yaml"], ["run"]),
    (["culvert", "run", "-c", "config/"], ["config/router.yaml"], ["run"]),
]


def run(*argv):
    r = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    return r.stdout if r.returncode == 0 else f"exit {r.returncode}: {r.stderr}"


def bash(words):
    quoted = " ".join(f"'{w}'" for w in words)
    script = (f". {FOLDER}/culvert.bash; COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _culvert; "
              'printf "%s\\n" "${COMPREPLY[@]}"')
    return run("bash", "-c", script).split()


def fish(words):
    out = run("fish", "--no-config", "-c", f"source {FOLDER}/culvert.fish; complete -C '{' '.join(words)}'")
    return [line.split("\t")[0] for line in out.splitlines()]


def check(shell, offers):
    faults = 0
    for words, wanted, unwanted in ROWS:
        offered = offers(words)
        for word in wanted:
            if word not in offered:
                print(f"{shell}: {words}: does not offer {word}: {offered}")
                faults += 1
        for word in unwanted:
            if word in offered:
                print(f"{shell}: {words}: offers {word}")
                faults += 1
    return faults


def all_options_are_known_to_zsh():
    text = open(f"{FOLDER}/_culvert", encoding="utf-8").read()
    faults = 0
    for option in set(re.findall(r"^ +(?:-\w, )?(--[a-z-]+)", run(PROGRAM, "--help"), re.M)):
        if f"'{option}" not in text:
            print(f"zsh: {option} is missing")
            faults += 1
    if shutil.which("zsh") is None:
        print("skipped: zsh reads its file, since there is no zsh")
    elif (out := run("zsh", "-n", f"{FOLDER}/_culvert")) != "":
        print(f"zsh: {out}")
        faults += 1
    return faults


def main():
    faults = check("bash", bash) + all_options_are_known_to_zsh()
    if shutil.which("fish") is None:
        print("skipped: what fish offers, since there is no fish")
    else:
        faults += check("fish", fish)
    print(f"{len(ROWS)} lines completed, {faults} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
