"""As a router with 64 MiB: what clients do, the memory holds and the others keep their rate (issue F; faults.md R3)."""
import os
import select
import socket
import threading
import time

from harness import check, check_equal, client, servers, test, within
from harness import lab as at
from harness.cgroup import MemoryGroup
from harness.core import Skip, errno_name
from harness.proc import Process
from harness.wire import built

HERE = os.path.dirname(os.path.abspath(__file__))
MIB = 1 << 20
ROUTER, BUDGET = 64 * MIB, 48 * MIB
FLOWS = 2000
PACE = 4 * MIB                  # a second: the line of each bystander


def stalled(t, lab, n):
    """Half of them want an endless stream and do not read it, half send to one who does not read."""
    sockets = client.open_many(lab.cli, (at.TARGET[0], servers.Services.LINE), n, at_once=100)
    for i, s in enumerate(sockets):
        t.own(s, "close")
        s.sendall(b"down 0\n" if i % 2 else b"stall\n")
    return sockets


def push(sockets):
    """More bytes into each that takes them."""
    for s in sockets[::2]:
        s.setblocking(False)
        try:
            s.send(b"s" * 65536)
        except BlockingIOError:
            pass


class Swarm(threading.Thread):
    """Datagrams from many ports to many ports, as a torrent client sends them, until stop()."""

    def __init__(self, lab, ports=400):
        super().__init__()
        self.sockets = [lab.cli.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(ports)]
        self.ended, self.sent, self.refused = threading.Event(), 0, set()

    def run(self):
        turn = 0
        while not self.ended.wait(0.02):
            for s in self.sockets[turn % 10::10]:
                try:
                    s.sendto(b"u" * 200, socket.MSG_DONTWAIT, (at.TARGET[0], 20000 + self.sent % 5000))
                except OSError as e:
                    self.refused.add(errno_name(e))     # port unreachable, of one sent before
                self.sent += 1
            turn += 1

    def stop(self):
        self.ended.set()
        self.join()
        for s in self.sockets:
            s.close()


class Line(threading.Thread):
    """A bystander: a paced download by another client, every byte compared."""

    def __init__(self, lab, family):
        super().__init__()
        self.s = client.tcp(lab.cli, at.TARGET2[family], servers.Services.LINE, 20, at.CLI2[family])
        self.s.sendall(b"down 0 %d\n" % PACE)
        self.count, self.wrong, self.ended = 0, None, threading.Event()
        self.start()

    def run(self):
        checker = client.StreamChecker()
        try:
            while not self.ended.is_set() and self.wrong is None:
                data = self.s.recv(1 << 16)
                self.wrong = "ended" if not data else checker.feed(data)
                self.count += len(data)
        except OSError as e:
            self.wrong = errno_name(e)

    def stop(self):
        self.ended.set()
        self.join()
        client.reset(self.s)
        check(self.wrong is None, "a bystander: %s" % self.wrong)


def rates(lines, seconds):
    """Bytes a second of each for a while."""
    before, start = [x.count for x in lines], time.monotonic()
    while time.monotonic() - start < seconds:
        time.sleep(0.1)         # the time is what is measured against
    return [(x.count - b) / (time.monotonic() - start) for x, b in zip(lines, before)]


class Watch(threading.Thread):
    """The most that the group and the process had, every 100 ms (faults.md G3)."""

    def __init__(self, gw, group):
        super().__init__()
        self.gw, self.group, self.ended, self.used, self.rss = gw, group, threading.Event(), 0, 0
        self.start()

    def run(self):
        while not self.ended.wait(0.1):
            self.used = max(self.used, self.group.used())
            self.rss = max(self.rss, self.gw.resources().rss_kib << 10)

    def stop(self):
        self.ended.set()
        self.join()


def router(t, seconds, per_second):
    if t.sanitized:
        raise Skip("sanitizers need more memory than a router has")
    group = MemoryGroup(t, ROUTER)
    lab = t.lab()
    for namespace in (lab.srv, lab.gw):     # 2,000 stalled streams must not take the memory that the machine has for TCP
        for which in ("tcp_rmem", "tcp_wmem"):
            namespace.sysctl("net/ipv4/" + which, "4096 32768 131072")
    lab.services(addresses=at.TARGET)
    lab.services(addresses=at.TARGET2)      # the bystanders' own: nobody else keeps it busy
    lab.gw.ip("route add blackhole 10.99.0.0/16")
    gw = lab.gateway(proxies=[servers.culvert_serve(lab)], limits={"memory": "48MiB"}, log={"level": "warning"}, prefix=group.prefix)
    lines = [Line(lab, 0), Line(lab, 1)]
    within(10, lambda: min(x.count for x in lines) > PACE / 4, "the bystanders", every=0.05)
    alone = rates(lines, min(seconds, 3))
    watch, swarm = Watch(gw, group), Swarm(lab)
    sockets = stalled(t, lab, FLOWS)
    swarm.start()
    flood = Process(t, lab.cli, [built(t, "flood", os.path.join(HERE, "harness", "flood.c")), "10.99.0.0/16", at.TARGET[0], "7-7",
                                 str(per_second), str(seconds)], "flood")
    push(sockets)
    if seconds > 10:
        rates(lines, 5)         # until the clients' kernels hold all that they take
    beside = rates(lines, seconds)
    flows = gw.flows()
    flood.wait(10)
    swarm.stop()
    watch.stop()
    for x in lines:
        x.stop()
    t.note("%d flows, %d datagrams, %s SYNs: RSS at most %.1f MiB, the group %.1f of %d" % (
        flows, swarm.sent, flood.lines[-1].split()[0], watch.rss / MIB, watch.used / MIB, ROUTER / MIB))
    t.note("the others had %s of their rate" % ", ".join("%.0f %%" % (b / a * 100) for a, b in zip(alone, beside)))
    check_equal(group.killed(), 0, "processes ended for want of memory")
    check(watch.rss <= BUDGET, "RSS %.1f MiB with a budget of %d" % (watch.rss / MIB, BUDGET / MIB))
    check(watch.used <= ROUTER, "the group had %.1f MiB" % (watch.used / MIB))
    check(flows >= FLOWS * 0.7, "only %d flows of %d" % (flows, FLOWS))       # the ladder may end some that stand still
    for s in sockets:
        client.reset(s)
    gw.check_alive()
    client.download(lab.cli, at.TARGET[0], 1 << 20)
    return alone, beside


@test("a router with 64 MiB: 2,000 stalled flows, a swarm of datagrams and a SYN flood, and nobody is ended", rows=["R3", "LIM-1"], limit=90)
def _(t):
    router(t, 3, 20000)


@test("a router with 64 MiB for half a minute: the others keep nine tenths of their rate", rows=["R3"], limit=180, long=True)
def _(t):
    alone, beside = router(t, 30, 50000)
    check(all(b > 0.9 * a for a, b in zip(alone, beside)), "bystanders had %s of %s MB/s" % (
        ["%.2f" % (x / 1e6) for x in beside], ["%.2f" % (x / 1e6) for x in alone]))


def still_open(sockets):
    """Those of them that nobody has ended; the others are let go."""
    poll, of = select.poll(), {s.fileno(): s for s in sockets}
    for fd in of:
        poll.register(fd, select.POLLHUP | select.POLLERR)
    for fd, _ in poll.poll(0):
        of.pop(fd).close()
    return list(of.values())


def crowd(lab, n, at_once=500):
    """n connections, a wave after the other. Half of them want an endless stream and do not read it, half send to one who does not read.
    What did not open within 2 s is given up. Return: those that are open at the end, how many ever were."""
    opened, ever = [], 0
    for first in range(0, n, at_once):
        pending, end = {}, time.monotonic() + 2
        poll = select.poll()
        for _ in range(min(at_once, n - first)):
            s = lab.cli.socket(socket.AF_INET, socket.SOCK_STREAM)
            s.setblocking(False)
            s.connect_ex((at.TARGET[0], servers.Services.LINE))
            pending[s.fileno()] = s
            poll.register(s, select.POLLOUT)
        while pending and time.monotonic() < end:
            for fd, _ in poll.poll(100):
                s = pending.pop(fd)
                poll.unregister(fd)
                if s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    s.close()
                    continue
                ever += 1
                opened.append(s)
                try:
                    s.send(b"down 0\n" if ever % 2 else b"stall\n" + b"s" * 16384)
                except OSError:
                    pass                        # ended by then: still_open() lets it go
        for s in pending.values():
            s.close()
        opened = still_open(opened)
    return opened, ever


def small(t, flows, memory, group_bytes):
    """As many flows as come, and what they leave: the budget holds, nobody is ended for want of memory, and the next client is served."""
    if t.sanitized:
        raise Skip("sanitizers need more memory than a router has")
    group = MemoryGroup(t, group_bytes)
    lab = t.lab()
    for namespace in (lab.srv, lab.gw):
        for which in ("tcp_rmem", "tcp_wmem"):
            namespace.sysctl("net/ipv4/" + which, "4096 16384 32768")
    lab.cli.sysctl("net/ipv4/ip_local_port_range", "10000 65535")
    lab.services(addresses=at.TARGET)
    lab.services(addresses=at.TARGET2)
    gw = lab.gateway(proxies=[servers.culvert_serve(lab)], limits={"memory": "%dMiB" % (memory // MIB)}, log={"level": "warning"},
                     prefix=group.prefix)
    line = Line(lab, 0)
    within(10, lambda: line.count > PACE / 4, "the bystander", every=0.05)
    watch = Watch(gw, group)
    opened, ever = crowd(lab, flows)
    live, ladder = gw.flows(), {k: gw.counter("tcp." + k) for k in ("conn_limit", "pressure_refused", "pressure_aborted")}
    line.stop()
    watch.stop()
    t.note("%d of %d connections were opened, %d flows at the end; RSS at most %.1f MiB of %d, the group %.1f of %d; %s" % (
        ever, flows, live, watch.rss / MIB, memory / MIB, watch.used / MIB, group_bytes / MIB, ladder))
    check_equal(group.killed(), 0, "processes ended for want of memory")
    # Six of them are pages of the program and of libraries, each worker has 2 MiB for packets in any case, and a wave of clients takes
    # more for a second than it keeps (docs/standards.md).
    check(watch.rss <= memory * 5 / 4, "RSS %.1f MiB with a budget of %d" % (watch.rss / MIB, memory / MIB))
    check(sum(ladder.values()) > 0, "no limit was met: this shows nothing")
    check(live > 500, "only %d flows" % live)
    for s in opened:
        client.reset(s)
    gw.wait_no_flows(20)
    client.download(lab.cli, at.TARGET[0], 1 << 20)
    gw.check_alive()


@test("16 MiB and 3,000 clients that stand still: the budget holds", rows=["R3", "LIM-1"], limit=120)
def _(t):
    small(t, 3000, 16 * MIB, 64 * MIB)


@test("16 MiB and 20,000 clients that stand still: the budget holds", rows=["R3", "LIM-1"], limit=400, long=True)
def _(t):
    small(t, 20000, 16 * MIB, 64 * MIB)
