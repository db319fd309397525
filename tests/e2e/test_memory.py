"""Allocations that fail, one at a time: at start a sentence, later one flow (faults.md R2)."""
import fcntl
import mmap
import os
import signal
import struct
import subprocess

from harness import Skip, check, check_equal, client, gateway, net, servers, test, within
from harness import lab as at
from harness.core import check_table

SPREAD = 12         # in ./check so many allocations of each part are failed; with --long all of them


class FailingAllocations:
    """The library tests/support/preload/fail_alloc.c, and the numbers that it shares with us."""

    def __init__(self, t):
        if t.sanitized:
            raise Skip("sanitizers have an allocator of their own")
        self.library = self._built(os.path.dirname(gateway.program(t)))
        self.path = t.path("allocations")
        with open(self.path, "wb") as f:
            f.write(bytes(16))
        with open(self.path, "r+b") as f:
            self.shared = mmap.mmap(f.fileno(), 16)
        self.prefix = ["env", "FAIL_ALLOC=" + self.path, "LD_PRELOAD=" + self.library]

    @staticmethod
    def _built(folder):
        if not os.path.exists(os.path.join(folder, "CMakeCache.txt")):
            raise Skip("%s is not a build folder" % folder)
        with open(os.path.join(folder, "fail_alloc.lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            net.command(["cmake", "--build", folder, "--target", "fail_alloc"], timeout=60)
        return os.path.join(folder, "libfail_alloc.so")

    @property
    def count(self):
        return struct.unpack("Q", self.shared[:8])[0]

    def restart(self, n):
        """Count from 0, and fail the n-th."""
        self.shared[:16] = struct.pack("QQ", 0, n)

    def fail_in(self, k):
        """Fail the k-th from now; 0: none."""
        self.shared[8:16] = struct.pack("Q", self.count + k if k else 0)


def spread(t, total):
    """Which of 1..total to fail."""
    if t.options.long or total <= SPREAD:
        return range(1, total + 1)
    return sorted({1 + i * (total - 1) // (SPREAD - 1) for i in range(SPREAD)})


@test("culvert check without memory: a sentence and exit status 1", rows=["R2", "G1"], limit=120)
def _(t):
    memory = FailingAllocations(t)
    path = t.write("checked.yaml", gateway.config_text(gateway.config(
        [{"name": "up", "type": "socks5", "server": "proxy.example", "port": 1080, "username": "u", "password": "p"}],
        ["DST-PORT,53,up", "IP-CIDR,10.0.0.0/8,DIRECT", "MATCH,up"])), 0o600)
    lab = t.lab()
    argv = memory.prefix + [gateway.program(t), "check", path]
    check(lab.gw.result(argv).returncode == 0, "the file is fine")
    total, wrong = memory.count, []
    for n in spread(t, total):
        memory.restart(n)
        r = lab.gw.result(argv)
        fine = r.returncode == 0 or (r.returncode == 1 and r.stderr.startswith("culvert: ") and r.stderr.count("\n") == 1)
        if not fine:
            wrong.append("allocation %d of %d: status %d, %s" % (n, total, r.returncode, r.stderr.strip()))
    check_table(wrong)
    t.note("%d allocations" % total)


@test("a start without memory: a sentence and exit status 1, or a gateway that works", rows=["R2", "G1"], limit=500)
def _(t):
    memory = FailingAllocations(t)
    lab = t.lab()
    lab.services()
    server = servers.culvert_serve(lab)
    before = gateway.network_state(lab.gw)
    first = lab.gateway(proxies=[server], prefix=memory.prefix, name="first", tun={"auto-route": True}, route=False)
    total = memory.count
    first.terminate()
    wrong, worked = [], 0
    for n in spread(t, total):
        memory.restart(n)
        how = start_and_end(lab, server, memory)
        worked += how is None
        if how:
            wrong.append("allocation %d of %d: %s" % (n, total, how))
    wrong = [x for x in wrong if not x.endswith("refused")]
    check_table(wrong)
    check(gateway.network_state(lab.gw) == before, "the network is not as it was")
    t.note("%d allocations at start; %d starts of %d worked all the same" % (total, worked, len(spread(t, total))))


# libnftables, and the scanner inside it, end the process by themselves, or use what they did not get.
LIBNFTABLES_ENDS = ("Memory allocation failure", "Unable to initialize Netlink socket", "out of dynamic memory in yy",
                    "out of memory expanding start-condition stack")


def ended_by_libnftables(lines):
    crash = next((i for i, x in enumerate(lines) if " crashed: signal " in x), None)
    frames = lines[crash + 3:crash + 4] if crash is not None else []       # behind our handler and the kernel's frame
    return any(said in x for x in lines for said in LIBNFTABLES_ENDS) or any("libnftables.so" in x for x in frames)


def start_and_end(lab, server, memory):
    """None: it runs and carries a flow; "refused": status 1 and a sentence; otherwise what is wrong."""
    gw = lab.gateway(proxies=[server], prefix=memory.prefix, name="start", ready=False, route=False,
                     tun={"auto-route": True}, workers=2)
    gw.stopped = True
    try:
        gw.wait_ready()
    except AssertionError:
        status = gw.process.wait(5)
        gw.check_log()
        if ended_by_libnftables(gw.process.lines):
            lab.gw.run([gateway.program(lab.context), "cleanup"])    # libnftables ends the process by itself: as after kill -9
            return "ended by libnftables, refused"
        if status == 1 and any(x.startswith("culvert: ") for x in gw.process.lines):
            return "refused"
        return "exit status %s: %s" % (status, gw.log)
    memory.fail_in(0)
    client.download(lab.gw, at.TARGET[0], 1000)
    status = gw.terminate()
    return None if status == 0 else "it worked, and ended with status %s" % status


def tcp_flow(lab):
    """Bytes there and back, or an OSError."""
    with client.tcp(lab.cli, at.TARGET[0], 7, timeout=3) as s:
        s.sendall(b"x" * 100000)
        return client.receive(s, 100000) == b"x" * 100000


def udp_flow(lab):
    with client.udp(lab.cli, at.TARGET[0], 7, timeout=0.5) as s:
        s.send(b"datagram")
        return s.recv(100) == b"datagram"


def ping(lab):
    return lab.cli.result(["ping", "-c", "1", "-W", "1", at.TARGET[0]]).returncode == 0


def status(gw):
    return gw.namespace.result([gateway.program(gw.context), "status", "--api", gw.api], timeout=5).returncode == 0


@test("a flow without memory fails alone, whichever allocation it was", rows=["R2", "G1", "G4"], limit=400)
def _(t):
    memory = FailingAllocations(t)
    lab = t.lab()
    lab.services()
    gw = lab.gateway(proxies=[servers.culvert_serve(lab)], prefix=memory.prefix,
                     stack={"udp": {"idle-timeout": "1s"}})
    scenarios = {"TCP": lambda: tcp_flow(lab), "UDP": lambda: udp_flow(lab), "ping": lambda: ping(lab),
                 "status": lambda: status(gw)}
    bystander = client.tcp(lab.cli, at.TARGET[0], 7, timeout=5)
    wrong = []
    for name, scenario in scenarios.items():
        scenario()
        start = memory.count
        check(scenario(), "%s with memory" % name)
        total, failed = memory.count - start, 0
        for k in spread(t, total + 1):
            memory.fail_in(k)
            failed += not tried(scenario)
            memory.fail_in(0)
            within(3, lambda: tried(scenario), "%s again after allocation %d failed" % (name, k))
            bystander.sendall(b"alive")
            if client.receive(bystander, 5) != b"alive":
                wrong.append("%s, allocation %d: another flow is broken" % (name, k))
        t.note("%s: %d allocations, %d of %d tries failed" % (name, total, failed, len(spread(t, total + 1))))
    check_table(wrong)
    bystander.close()
    gw.wait_no_flows()
    gw.check_alive()


def tried(scenario):
    try:
        return scenario()
    except (OSError, subprocess.TimeoutExpired):
        return False


@test("it ends in order when memory fails at the end", rows=["R2", "X1"], limit=120)
def _(t):
    memory = FailingAllocations(t)
    lab = t.lab()
    server = servers.culvert_serve(lab)
    lab.services()
    before = gateway.network_state(lab.gw)
    gw = lab.gateway(proxies=[server], prefix=memory.prefix, tun={"auto-route": True}, route=False, name="first")
    client.download(lab.gw, at.TARGET[0], 1000)
    start = memory.count
    gw.terminate()
    total = memory.count - start
    for k in spread(t, max(total, 1)):
        gw = lab.gateway(proxies=[server], prefix=memory.prefix, tun={"auto-route": True}, route=False, name="again")
        client.download(lab.gw, at.TARGET[0], 1000)
        memory.fail_in(k)
        check(gw.terminate(signal.SIGTERM) == 0, "exit status after allocation %d at the end failed:\n%s" % (k, gw.log))
        memory.restart(0)
        check(gateway.network_state(lab.gw) == before, "the network after allocation %d at the end failed" % k)
    t.note("%d allocations at the end" % total)


def address_space(gw):
    """Bytes that the process has reserved."""
    with open("/proc/%d/status" % gw.pid) as f:
        return next(int(x.split()[1]) << 10 for x in f if x.startswith("VmPeak:"))


def started_with(lab, server, limit):
    """None: it ended with status 1 and a sentence; otherwise a gateway that runs."""
    gw = lab.gateway(proxies=[server], prefix=["prlimit", "--as=%d" % limit], name="as-%d" % (limit >> 10), ready=False, route=False,
                     tun={"auto-route": True})
    gw.stopped = True           # how it ends is our concern
    try:
        gw.wait_ready()
        return gw
    except AssertionError:
        status = gw.process.wait(5)
        gw.check_log()
        check(status == 1 and any(x.startswith("culvert: ") for x in gw.process.lines),
              "with %d KiB: exit status %s: %s" % (limit >> 10, status, gw.log))
        check(not any(" cannot be set up: Cannot allocate" in x and "ulimit" not in x for x in gw.process.lines), gw.log)
        return None


@test("a limit of address space: a sentence at start, or a gateway that lives", rows=["R3", "R2", "G1"], limit=120)
def _(t):
    if t.sanitized:
        raise Skip("sanitizers reserve terabytes")
    lab = t.lab()
    lab.services()
    server = servers.culvert_serve(lab)
    first = lab.gateway(proxies=[server], name="first", route=False, tun={"auto-route": True})
    need = address_space(first)
    check_equal(first.terminate(), 0)
    ran = {}
    for percent in (5, 50, 90, 97, 99, 100, 103):
        gw = started_with(lab, server, need * percent // 100)
        if gw is None:
            continue
        # What needs more than there is fails alone.
        ran[percent] = [tried(what) for what in (lambda: tcp_flow(lab), lambda: udp_flow(lab), lambda: status(gw))]
        gw.process.signal(signal.SIGHUP)
        check(gw.process.alive(), "with %d %% of its address space it ended: %s" % (percent, gw.log))
        check_equal(gw.terminate(), 0, "exit status with %d %%" % percent)
    t.note("%.0f MiB; it ran with %s of that" % (need / (1 << 20), ", ".join("%d %%" % x for x in ran)))
    check(5 not in ran and ran.get(103) == [True, True, True], "TCP, UDP and status by percentage: %s" % ran)


@test("connections and datagrams take nothing from the heap once it is warm", rows=["PERF-7"], limit=60)
def _(t):
    memory = FailingAllocations(t)
    lab = t.lab()
    lab.services()
    gw = lab.gateway(proxies=[servers.culvert_serve(lab)], prefix=memory.prefix, log={"level": "warning"})
    for rounds in (20, 100):        # the first are the warm-up
        start = memory.count
        for _ in range(rounds):
            check(tcp_flow(lab) and udp_flow(lab), "a flow")
        taken = memory.count - start
    t.note("%d allocations for 100 connections and 100 mappings" % taken)
    # Not one for each: libev's arrays double when the number of descriptors does, and mappings live for minutes.
    check(taken <= 15, "%d allocations for 100 connections and 100 mappings" % taken)
    gw.check_alive()
