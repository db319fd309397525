#!/usr/bin/env python3
"""The OpenWrt package as far as it can be looked at without its SDK: ash reads the scripts, shellcheck has nothing to say, UCI files turn
into configurations that load, the service asks procd for what it should, and the Makefile names files that are there. Not looked at: that OpenWrt's build takes the Makefile, procd itself, and
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


# rc.common and procd as far as the service uses them: each call becomes a line. What runs and what was asked for are the test's.
PROCD = r"""
procd_open_instance() { echo open; }
procd_close_instance() { echo close; }
procd_set_param() { echo "$@"; }
procd_send_signal() { echo signal "$@"; }
procd_add_reload_trigger() { echo trigger "$@"; }
service_running() { [ -n "$RUNNING" ]; }
start() { start_service; }
stop() { echo stop; }
logger() { sed 's/^/log: /'; }
modprobe() { :; }
"""

GOOD = "config culvert 'main'\n\toption enabled '1'\nconfig rules 'rules'\n\tlist rule 'MATCH,DIRECT'\n"
BAD = GOOD.replace("MATCH,DIRECT", "MATCH,nobody")
STARTED = ["open", "command PROG run -c FILE", "respawn 3600 5 5", "limits nofile=16384 16384", "stderr 1", "file FILE", "close"]
# what is called, is it running, the UCI file; exit status, and what it says ("log:" lines: those that have these words)
SERVICE_ROWS = [
    ("start_service", "", GOOD.replace("'1'", "'0'"), 0, []),
    ("start_service", "", GOOD, 0, STARTED),
    ("start_service", "", BAD, 1, ["log: nobody"]),
    ("start_service", "", GOOD + "config culvert 'main'\n\toption enabled '1'\n\toption config_file '/nonexistent'\n", 1, ["log: no such file"]),
    ("reload_service", "1", GOOD, 0, ["signal culvert * HUP"]),
    ("reload_service", "1", BAD, 2, ["log: nobody"]),
    ("reload_service", "", GOOD, 0, STARTED),
    ("reload_service", "1", GOOD.replace("'1'", "'0'"), 0, ["stop"]),
    ("service_triggers", "", GOOD, 0, ["trigger culvert"]),
]


def same(said, wanted):
    """Lines of the program's own (warnings, "fine") come from logger; one of them must have the words that a row names."""
    logged = [line for line in said if line.startswith("log:")]
    rest = [line for line in said if not line.startswith("log:")]
    return rest == [w for w in wanted if not w.startswith("log:")] and \
        all(any(w[5:] in line for line in logged) for w in wanted if w.startswith("log:"))


def check_service():
    """The init script itself, in busybox's shell."""
    with tempfile.TemporaryDirectory() as folder:
        os.mkdir(os.path.join(folder, "lib"))
        with open(os.path.join(folder, "lib", "functions.sh"), "w", encoding="utf-8") as f:
            f.write(FUNCTIONS)
        with open(os.path.join(folder, "procd.sh"), "w", encoding="utf-8") as f:
            f.write(PROCD)
        script = open(SCRIPTS[1], encoding="utf-8").read().replace("/usr/lib/culvert/uci-to-yaml", f"busybox ash {os.path.abspath(SCRIPTS[0])}")
        script = script.replace("PROG=/usr/sbin/culvert", f"PROG={PROGRAM}").replace("FOLDER=/var/run/culvert", f"FOLDER={folder}/run")
        with open(os.path.join(folder, "init.sh"), "w", encoding="utf-8") as f:
            f.write(script)
        for call, running, uci, status, wanted in SERVICE_ROWS:
            with open(os.path.join(folder, "culvert"), "w", encoding="utf-8") as f:
                f.write(uci)
            lines = f". {folder}/lib/functions.sh; . {folder}/procd.sh; . {folder}/init.sh; {call}"
            r = run("busybox", "ash", "-c", lines, env={**os.environ, "IPKG_INSTROOT": folder, "UCI_FOLDER": folder, "RUNNING": running})
            said = r.stdout.replace(PROGRAM, "PROG").replace(f"{folder}/run/culvert.yaml", "FILE").splitlines()
            if r.returncode != status or not same(said, wanted):
                faults.append(f"{call} with {uci!r}: exit {r.returncode}: {said} {r.stderr}")
        made = os.path.join(folder, "run", "culvert.yaml")
        if os.stat(made).st_mode & 0o077:
            faults.append(f"{made} holds passwords and is open to others")


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
    check_service()
    check_makefile()
    for line in faults:
        print(line)
    print(f"{len(ROWS)} UCI files, {len(SERVICE_ROWS)} calls of the service, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
