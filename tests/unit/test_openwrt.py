#!/usr/bin/env python3
"""The OpenWrt package as far as it can be looked at without its SDK: ash reads the scripts, shellcheck has nothing to say, UCI files turn
into configurations that load, and the Makefile names files that are there. Not looked at: that OpenWrt's build takes the Makefile, procd itself, and
a router. Run from the top of the tree; BUILD_DIR names a build with the program.
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile

PROGRAM = os.path.abspath(os.path.join(os.environ.get("BUILD_DIR", "build/dev"), "culvert"))
FOLDER = "packaging/openwrt"
SCRIPTS = [f"{FOLDER}/files/uci-to-yaml", f"{FOLDER}/files/culvert.init"]
faults = []

# OpenWrt's functions.sh, as much of it as we use: a UCI file is shell, if `config`, `option` and `list` are functions.
FUNCTIONS = r"""
config_load() { count=0; sections=; . "$UCI_FOLDER/$1"; }
config() {
    count=$((count + 1)); section=${2:-cfg$count}; sections="$sections $section"; eval "type_$section=\$1"
}
option() { eval "value_${section}_$1=\$2"; }
list() {
    eval "n=\$((\${items_${section}_$1:-0} + 1))"
    eval "items_${section}_$1=$n; item_${section}_$1_$n=\$2; value_${section}_$1=\"\${value_${section}_$1} \$2\""
}
config_get() { eval "$1=\${value_$2_$3:-\$4}"; }
config_get_bool() {
    config_get "$@"
    eval "case \$$1 in 1 | on | true | yes | enabled) $1=1 ;; *) $1=0 ;; esac"
}
config_foreach() {
    local function=$1 type=$2 s
    for s in $sections; do eval "[ \"\$type_$s\" = $type ]" && $function "$s"; done
    return 0
}
config_list_foreach() {
    local s=$1 o=$2 f=$3 i=1 n
    shift 3
    eval "n=\${items_${s}_$o:-0}"
    while [ "$i" -le "$n" ]; do eval "$f \"\$item_${s}_${o}_$i\" \"\$@\""; i=$((i + 1)); done
}
"""

# what is in the UCI file, and what is in the configuration then; "!" in front: the file must be refused, with this sentence
ROWS = [
    ("", []),
    ("config proxy\n\toption name \"it's\"\n\toption type 'http'\n\toption server 'proxy.example.net'\n"
     "\toption port '3128'\n\toption tls '1'\n\toption username 'a #b'\n\toption password 'yes'\n",
     ["  - name: 'it''s'", "    tls: true", "    username: 'a #b'", "    password: 'yes'"]),
    ("config rules 'rules'\n\tlist rule 'DST-PORT,25,REJECT'\n\tlist rule 'MATCH,DIRECT'\n",
     ["  - 'DST-PORT,25,REJECT'", "  - 'MATCH,DIRECT'"]),
    ("config proxy\n\toption name 'two'\n\toption type 'socks5'\n\toption server '2001:db8::1'\n\toption port '99999'\n",
     ["!proxies[1].port"]),
    ("config culvert 'main'\n\toption memory '32MiB\nrules: [MATCH,DIRECT]'\n", ["!limits.memory"]),
]


def run(*argv, **more):
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, **more)


def make(folder, uci):
    with open(os.path.join(folder, "culvert"), "w", encoding="utf-8") as f:
        f.write(uci)
    r = run("busybox", "ash", SCRIPTS[0], env={**os.environ, "IPKG_INSTROOT": folder, "UCI_FOLDER": folder})
    if r.returncode != 0 or r.stderr:
        faults.append(f"uci-to-yaml: exit {r.returncode}: {r.stderr}")
    name = os.path.join(folder, "culvert.yaml")
    with open(name, "w", encoding="utf-8") as f:
        f.write(r.stdout)
    os.chmod(name, 0o600)
    return r.stdout, run(PROGRAM, "check", name)


def check_uci():
    shipped = open(f"{FOLDER}/files/culvert.config", encoding="utf-8").read()
    with tempfile.TemporaryDirectory() as folder:
        os.mkdir(os.path.join(folder, "lib"))
        with open(os.path.join(folder, "lib", "functions.sh"), "w", encoding="utf-8") as f:
            f.write(FUNCTIONS)
        for more, wanted in ROWS:
            base = re.sub(r"config rules.*", "", shipped, flags=re.S) if "config rules" in more else shipped
            text, r = make(folder, base + more)
            refused = [w[1:] for w in wanted if w.startswith("!")]
            if (r.returncode != 0) != bool(refused) or any(w not in r.stderr for w in refused):
                faults.append(f"{more!r}: exit {r.returncode}: {r.stderr}{text}")
            for line in [w for w in wanted if not w.startswith("!")]:
                if line not in text.splitlines():
                    faults.append(f"{more!r}: lacks {line!r}:\n{text}")


def check_makefile():
    text = open(f"{FOLDER}/Makefile", encoding="utf-8").read()
    version = re.search(r"project\(culvert VERSION ([0-9.]+)", open("CMakeLists.txt", encoding="utf-8").read()).group(1)
    if f"PKG_VERSION:={version}\n" not in text:
        faults.append(f"Makefile: the version is not {version}")
    for name in re.findall(r"\./(files/\S+)", text):
        if not os.path.exists(f"{FOLDER}/{name}"):
            faults.append(f"Makefile: {name} is not there")
    options = re.findall(r"^option\((WITH_\w+)", open("CMakeLists.txt", encoding="utf-8").read(), re.M)
    for option in options:
        if f"-D{option}=OFF" not in text:
            faults.append(f"Makefile: does not say {option}")
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("        "):
            faults.append(f"Makefile:{number}: spaces where make wants a tab")
    if text.count("\ndefine ") != text.count("\nendef"):
        faults.append("Makefile: a define without its endef")


def main():
    if shutil.which("busybox") is None:
        print("skipped: the scripts of OpenWrt, since there is no busybox")
        return 77
    for script in SCRIPTS:
        if (r := run("busybox", "ash", "-n", script)).returncode != 0:
            faults.append(f"{script}: {r.stderr}")
        if shutil.which("shellcheck") and (r := run("shellcheck", "-s", "dash", script)).returncode != 0:
            faults.append(f"{script}: {r.stdout}")
    check_uci()
    check_makefile()
    for line in faults:
        print(line)
    print(f"{len(ROWS)} UCI files, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
