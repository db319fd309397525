"""No atomic read-modify-write and no lock on the packet path: shards share nothing, so a packet waits for nobody
(tcp-stack.md PERF-13; design.md 3.3). Looks at the machine code of the objects that a packet runs through.

Not among them: own_flows.c and dial.c (once for each connection), and the messages of loop.c (between threads by design)."""
import os
import platform
import re
import subprocess
import sys

PACKET_PATH = {
    "base": ["addr.c.o", "bytes.c.o", "hash.c.o", "ring.c.o", "slab.c.o", "wheel.c.o"],
    "tun": ["tun.c.o", "vnet.c.o"],
    "stack": None,  # all of it
    "forward": ["tcp_flow.c.o", "tcp_bytes.c.o", "udp_flow.c.o", "rate.c.o", "rate_bucket.c.o", "share.c.o"],
    "upstream": ["stream.c.o", "udp.c.o", "udp_io.c.o", "udp_socks.c.o", "udp_direct.c.o"],
    "app": ["worker.c.o"],
}
ATOMIC = {
    "x86_64": re.compile(r"\tlock\b|\txchg\w*\s.*\("),
    "aarch64": re.compile(r"\t(ld[ax]*xr|st[lx]*xr|cas|swp|ld(add|clr|eor|set|smax|smin|umax|umin))[a-z]*\s"),
}
LOCKS = re.compile(r"\b(pthread_(mutex|rwlock|spin|cond)_\w+|sem_(wait|post)|mtx_\w+|__aarch64_(cas|swp|ld)\w+|__atomic_\w+)")
HEADING = re.compile(r"^(\S+\.o):\s+file format")


def looked_at(archive, wanted, *options):
    """(object, line) of objdump for the objects of an archive that count."""
    text = subprocess.run(["objdump", *options, archive], check=True, capture_output=True, text=True).stdout
    name = ""
    for line in text.splitlines():
        heading = HEADING.match(line)
        name = heading.group(1) if heading else name
        if wanted is None or name in wanted:
            yield name, line


def main():
    build, machine = os.environ["BUILD_DIR"], platform.machine()
    with open(os.path.join(build, "CMakeCache.txt"), encoding="utf-8") as f:
        if re.search(r"^SANITIZE:\w+=.*thread", f.read(), re.M):
            print("skipped: the thread sanitizer adds atomics of its own")
            return 77
    if machine not in ATOMIC:
        print("skipped: no pattern for the atomics of", machine)
        return 77
    wrong, seen = [], set()
    for folder, wanted in PACKET_PATH.items():
        archive = os.path.join(build, "lib%s.a" % folder)
        function = ""
        for name, line in looked_at(archive, wanted, "-d", "--no-show-raw-insn"):
            seen.add((folder, name))
            if line.endswith(">:"):
                function = line.split("<")[-1][:-2]
            elif ATOMIC[machine].search(line):
                wrong.append("%s/%s: %s: %s" % (folder, name, function, line.split("\t", 1)[1]))
        wrong += ["%s/%s: calls %s" % (folder, name, m.group(1))
                  for name, line in looked_at(archive, wanted, "-t") if (m := LOCKS.search(line))]
        wrong += ["%s/%s is not there: has it been renamed?" % (folder, o) for o in wanted or [] if (folder, o) not in seen]
    for line in wrong:
        print(line)
    return 1 if wrong or not seen else 0


if __name__ == "__main__":
    sys.exit(main())
