#!/usr/bin/env python3
"""The tree keeps its shape: src/LAYERS holds for every #include, folders are flat, files short, the stack core pure.

Run from the top of the tree. BUILD_DIR names a build whose libstack.a is looked at with nm (tcp-stack.md ARC-1).
Prints one line for each fault, as FILE:LINE: what is wrong, and exits 1 if there was any.
"""
import glob
import os
import re
import shutil
import subprocess
import sys

FILE_LINES_MAX = 700

# A library's header and the folder that alone opens it. Folders that do not exist yet are named already.
LIBRARY_HOMES = [
    (r"ev\.h|ev\+\+\.h|libev/.*", {"loop"}),
    (r"libmnl/.*", {"loop"}),
    (r"linux/netlink\.h", {"loop", "app"}),                # app: which protocols the sandbox lets through
    # Constants only: whoever asks netlink through culvert/loop.h speaks of RTN_UNICAST and the like.
    (r"linux/(rtnetlink|if_link|if_addr|fib_rules)\.h", {"loop", "tun", "route", "app"}),
    (r"linux/netfilter(/.*)?\.h", {"loop", "route"}),
    (r"nftables/.*|libnftnl/.*", {"route"}),
    (r"yaml\.h", {"config"}),
    (r"mbedtls/.*|psa/.*", {"tls"}),
    (r"nghttp2/.*", {"h2"}),
    (r"jansson.*|microhttpd\.h|wslay/.*", {"api"}),
    (r"pcre2\.h|maxminddb.*", {"rules"}),
    (r"linux/virtio_net\.h", {"tun"}),
    (r"linux/if_tun\.h", {"tun", "app"}),                  # app: the helper attaches a queue again; the sandbox's list
    (r"cap-ng\.h|seccomp\.h|sys/capability\.h|linux/landlock\.h", {"app"}),
    (r"cmocka\.h", set()),
]

# What the core must not call: it gets time, dice, packets and memory from its caller (tcp-stack.md ARC-1).
CORE_FORBIDDEN = {
    "clock": r"time|gettimeofday|clock_(gettime|getres|nanosleep)|nanosleep|u?sleep|alarm|timer_(create|settime|gettime)|timerfd\w*|clock_now_us",
    "dice": r"s?random|s?rand|rand_r|[dejlmn]rand48|getrandom|getentropy|arc4random\w*|random_bytes",
    "socket": r"socket(pair)?|bind|listen|accept4?|connect|send(to|msg|mmsg)?|recv(from|msg|mmsg)?|shutdown"
              r"|[gs]etsockopt|getaddrinfo|epoll\w*|poll|ppoll|p?select|ev_\w+|loop_\w+",
    "file": r"(open|openat|creat|fopen|fdopen|freopen|tmpfile|truncate|ftruncate)(64)?|close|p?(read|write)v?(64)?|ioctl"
            r"|fcntl(64)?|printf|puts|putchar|(__)?v?f?printf(_chk)?|fputs|fwrite|fread|fflush|perror|syslog"
            r"|stdout|stderr|stdin|log_\w+",
    "thread": r"pthread_\w+|thrd_\w+|mtx_\w+|cnd_\w+|sem_\w+|fork|vfork|clone|exec\w*|posix_spawn\w*",
    "allocation": r"malloc|calloc|realloc(array)?|free|posix_memalign|aligned_alloc|memalign|strn?dup|v?asprintf"
                  r"|s?brk|mmap(64)?|mremap|munmap",
}

faults = []


def fault(where, text):
    faults.append(f"{where}: {text}")


def read_layers(path):
    """{folder: folders it may use}; a folder may only use one that stands above it, so there is no circle."""
    uses = {}
    for number, line in enumerate(open(path, encoding="utf-8"), 1):
        if line.startswith("#") or not line.strip():
            continue
        m = re.fullmatch(r"([a-z0-9]+): *([a-z0-9 ]*?) *\|.*\n?", line)
        if not m:
            fault(f"{path}:{number}", 'not "folder: folders | libraries"')
            continue
        folder, others = m.group(1), m.group(2).split()
        for other in others:
            if other not in uses:
                fault(f"{path}:{number}", f'"{folder}" uses "{other}", which is not above it')
        uses[folder] = set(others)
    return uses


def includes(path):
    """Each #include of a file, as (line number, "<" or a quote, name)."""
    for number, line in enumerate(open(path, encoding="utf-8"), 1):
        m = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
        if m:
            yield number, m.group(1), m.group(2)


def check_include(where, folder, kind, name, uses):
    m = re.fullmatch(r"culvert/([a-z0-9_]+)\.h", name)
    if m:
        target = m.group(1)
        if target not in uses:
            fault(where, f'"{name}" is the header of no folder in src/LAYERS')
        elif target != folder and target not in uses[folder]:
            fault(where, f'src/{folder} may not include "{name}"; src/LAYERS allows: {sorted(uses[folder])}')
        return
    if name == "culvert.h" and folder == "app":
        return
    if kind == '"':
        if not os.path.exists(os.path.join("src", folder, name)) or "/" in name:
            fault(where, f'"{name}" is no header of src/{folder}; other folders are reached by "culvert/x.h"')
        return
    for pattern, homes in LIBRARY_HOMES:
        if re.fullmatch(pattern, name) and folder not in homes:
            fault(where, f"<{name}> is opened only by src/{', src/'.join(sorted(homes)) or '(no folder)'}")


def check_source(path, folder, uses):
    with open(path, encoding="utf-8") as f:
        lines = sum(1 for _ in f)
    if lines > FILE_LINES_MAX:
        fault(f"{path}:{lines}", f"a file of {lines} lines; {FILE_LINES_MAX} is the most that one sitting reads")
    for number, kind, name in includes(path):
        check_include(f"{path}:{number}", folder, kind, name, uses)


def check_tree(uses):
    """Every file under src/, and the public headers, which follow the rule of their folder."""
    checked = 0
    for top, _, names in sorted(os.walk("src")):
        parts = top.split(os.sep)
        for name in sorted(names):
            path = os.path.join(top, name)
            if len(parts) == 1:
                if name != "LAYERS":
                    fault(f"{path}:1", "a file of no folder; src/ holds folders and LAYERS only")
            elif len(parts) > 2:
                fault(f"{path}:1", "more than one level of folders under src/")
            elif parts[1] not in uses:
                fault(f"{path}:1", f'folder "{parts[1]}" is not in src/LAYERS')
            elif name.endswith((".c", ".h")):
                check_source(path, parts[1], uses)
                checked += 1
    for path in sorted(glob.glob("include/culvert/*.h")):
        folder = os.path.basename(path)[:-2]
        if folder not in uses:
            fault(f"{path}:1", f'header of "{folder}", which is not in src/LAYERS')
        else:
            check_source(path, folder, uses)
            checked += 1
    return checked


def check_core_symbols(archive):
    """tcp-stack.md ARC-1: what the archive wants from outside itself."""
    text = subprocess.run(["nm", "-A", archive], check=True, capture_output=True, text=True).stdout
    own = set(re.findall(r" [TDBRVW] (\w+)$", text, re.M))
    for line in text.splitlines():
        m = re.match(r"(.*?):\s*[Uw] (\w+)", line)
        if not m or m.group(2) in own:
            continue
        for what, pattern in CORE_FORBIDDEN.items():
            if re.fullmatch(pattern, m.group(2)):
                fault(m.group(1), f"the core calls {m.group(2)}(): {what} is its caller's business (ARC-1)")


def main():
    uses = read_layers("src/LAYERS")
    checked = check_tree(uses)
    archive = os.path.join(os.environ.get("BUILD_DIR", "build/dev"), "libstack.a")
    if not os.path.exists(archive):
        fault("src/stack", f"its symbols cannot be looked at, since {archive} is not built")
    elif shutil.which("nm") is None:
        print("skipped: the symbols of the stack core, since there is no nm (package binutils)")
    else:
        check_core_symbols(archive)
    for line in faults:
        print(line)
    print(f"{checked} files, {len(uses)} folders, {len(faults)} faults")
    return 1 if faults or checked == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
