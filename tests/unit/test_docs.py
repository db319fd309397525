#!/usr/bin/env python3
"""What the documents show is true: every ```yaml block loads, every command line is one that the program takes, the manual
page has every line of --help, links lead somewhere. Run from the top of the tree; BUILD_DIR names a build with the program.
"""
import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile

PROGRAM = os.path.join(os.environ.get("BUILD_DIR", "build/dev"), "culvert")
MANUAL = "docs/culvert.1.scd"
GENERATED = {"docs/config.md"}  # from the schema; a test of its own compares it

faults = []


def fault(where, text):
    faults.append(f"{where}: {text}")


def culvert(*argv):
    return subprocess.run([PROGRAM, *argv], capture_output=True, text=True, timeout=60,
                          env={**os.environ, "CORP_PASSWORD": "change-me"})


def blocks(path):
    """(line, language, text) of each fenced block."""
    text = open(path, encoding="utf-8").read()
    for m in re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.M | re.S):
        yield text.count("\n", 0, m.start()) + 1, m.group(1), m.group(2)


def make_files(folder):
    """What examples expect in /etc/culvert: a certificate with its key, and a password."""
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                    "-subj", "/CN=exit.example.net", "-addext", "subjectAltName=DNS:exit.example.net",
                    "-keyout", os.path.join(folder, "privkey.pem"), "-out", os.path.join(folder, "fullchain.pem")],
                   check=True, capture_output=True, timeout=60)
    with open(os.path.join(folder, "proxy.password"), "w", encoding="utf-8") as f:
        f.write("change-me\n")
    os.chmod(os.path.join(folder, "proxy.password"), 0o600)


def check_yaml(where, text, folder):
    name = os.path.join(folder, "example.yaml")
    text = text.replace("/etc/culvert/", folder + "/")
    with open(name, "w", encoding="utf-8") as f:
        f.write(text)
    os.chmod(name, 0o600)
    r = culvert("check", name)
    if r.returncode != 0:
        fault(where, f"the example does not load:\n{r.stderr.strip()}")
    elif "warning" in r.stderr:
        fault(where, f"the example earns a warning:\n{r.stderr.strip()}")


def check_command(where, line):
    """`culvert COMMAND ...`: the command exists, and so do its options; what follows "--" is another program's."""
    words = line.split("#")[0].split()
    words = words[words.index("culvert") + 1:]
    if "--" in words:
        words = words[:words.index("--")]
    r = culvert(words[0], "--help") if not words[0].startswith("-") else culvert("--help")
    if r.returncode != 0:
        fault(where, f'"{line.strip()}": {r.stderr.splitlines()[0]}')
        return
    for option in [w.split("=")[0] for w in words[1:] if w.startswith("-")]:
        if not re.search(rf"(^|[ \[]){re.escape(option)}\b", r.stdout, re.M):
            fault(where, f'"{line.strip()}": {words[0]} has no option {option}')


def check_document(path, folder):
    count = 0
    for number, language, text in blocks(path):
        if language == "yaml":
            check_yaml(f"{path}:{number}", text, folder)
            count += 1
        for line in text.splitlines() if language == "sh" else []:
            if re.match(r"(sudo )?culvert [a-z-]", line):
                check_command(f"{path}:{number}", line)
                count += 1
    text = open(path, encoding="utf-8").read()
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        if not os.path.exists(os.path.join(os.path.dirname(path), target)):
            fault(path, f"a link leads nowhere: {target}")
    return count


def check_manual():
    """The synopsis and the options of --help, word by word."""
    text = open(MANUAL, encoding="utf-8").read()
    plain = text.replace("*", "").replace("++\n", "\n")
    lines = [x.strip() for x in culvert("--help").stdout.splitlines()]
    for line in [x for x in lines if x.startswith("culvert ") and ":" not in x.split(" ")[0]]:
        if line not in plain.splitlines():
            fault(MANUAL, f"lacks the command line: {line}")
    for line in [x for x in lines if x.startswith("-")]:
        option = re.split(r"  +", line)[0]
        if option not in plain.splitlines():
            fault(MANUAL, f"lacks the option: {option}")
    for line in [x.strip() for x in text.splitlines() if x.startswith("\tculvert ")]:
        check_command(MANUAL, line)
    if shutil.which("scdoc") is None:
        print("skipped: the manual page as scdoc reads it, since there is no scdoc")
        return
    for page in sorted(glob.glob("docs/*.scd")):
        with open(page, encoding="utf-8") as f:
            r = subprocess.run(["scdoc"], stdin=f, capture_output=True, text=True, timeout=20)
        if r.returncode != 0:
            fault(page, r.stderr.strip())


def main():
    if not os.path.exists(PROGRAM):
        print(f"{PROGRAM} is not built")
        return 1
    documents = sorted({"README.md", *glob.glob("docs/*.md")} - GENERATED)
    with tempfile.TemporaryDirectory() as folder:
        make_files(folder)
        examples = sum(check_document(path, folder) for path in documents)
    check_manual()
    for line in faults:
        print(line)
    print(f"{len(documents)} documents, {examples} examples, {len(faults)} faults")
    return 1 if faults or examples == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
