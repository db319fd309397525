"""The TUN device's queues while everything runs: one goes and comes back, a rung of offloads is missing, the device drops
(tcp-stack.md 1.6 and 2)."""
import ctypes
import fcntl
import os
import signal
import socket
import struct
import threading

from harness import Skip, check, check_equal, client, servers, test, within
from harness import lab as at
from harness.core import check_table
from harness.services import StreamChecker, stream_sha256, stream_blocks

TUNSETQUEUE, IFF_ATTACH, IFF_DETACH = 0x400454d9, 0x200, 0x400
NR_PIDFD_GETFD = 438
MIB = 1 << 20
WORKERS = 4
PACE = 4 * MIB


class Queues:
    """The gateway's own descriptors of its TUN, copied out of it: nothing in the program takes a queue away, so we do."""

    def __init__(self, t, gw):
        libc, pidfd = ctypes.CDLL(None, use_errno=True), os.pidfd_open(gw.pid)
        self.fds = []
        t.own(self, "close")
        for name in sorted(os.listdir("/proc/%d/fd" % gw.pid), key=int):
            if os.readlink("/proc/%d/fd/%s" % (gw.pid, name)) == "/dev/net/tun":
                fd = libc.syscall(NR_PIDFD_GETFD, pidfd, int(name), 0)
                if fd < 0:
                    raise Skip("no copy of its descriptors: %s" % os.strerror(ctypes.get_errno()))
                self.fds.append(fd)
        os.close(pidfd)

    def detach(self, i):
        fcntl.ioctl(self.fds[i], TUNSETQUEUE, struct.pack("16sH22x", b"", IFF_DETACH))

    def attach(self, i):
        fcntl.ioctl(self.fds[i], TUNSETQUEUE, struct.pack("16sH22x", b"", IFF_ATTACH))

    def close(self):
        for fd in self.fds:
            os.close(fd)
        self.fds = []


class Streams:
    """Connections of both families and both directions that are open already, and every byte of them."""

    def __init__(self, lab, each):
        self.ending, self.wrong, self.moved = threading.Event(), [], 0
        self.threads = []
        for i in range(each):
            for way in (self.down, self.up):
                s = client.tcp(lab.cli, at.TARGET[i % 2], 7000, 30)
                self.threads.append(threading.Thread(target=self.guard, args=(way, s, i), daemon=True))
        for x in self.threads:
            x.start()

    def guard(self, way, s, i):
        try:
            with s:
                way(s)
        except (OSError, AssertionError) as e:
            self.wrong.append("%s %d: %s" % (way.__name__, i, e))

    def down(self, s):
        s.sendall(b"down 0 %d\n" % PACE)
        checker = StreamChecker()
        while not self.ending.is_set():
            data = s.recv(1 << 18)
            check(data, "ended after %d bytes" % checker.count)
            wrong = checker.feed(data)
            check(wrong is None, "byte %s is wrong" % wrong)
            self.moved += len(data)

    def up(self, s):
        s.sendall(b"up\n")
        n = 0
        for b in stream_blocks(0):
            if self.ending.wait(len(b) / PACE):
                break
            s.sendall(b)
            n += len(b)
            self.moved += len(b)
        s.shutdown(socket.SHUT_WR)
        check_equal(client.receive_end(s), (b"%s %d\n" % (stream_sha256(n).encode(), n), "FIN"), "the far end's hash")

    def stop(self):
        self.ending.set()
        for x in self.threads:
            x.join(60)
        check(not any(x.is_alive() for x in self.threads), "a stream is stuck")
        check_table(self.wrong)


@test("queues go and come back under load: every stream stays exact", rows=["STR-2"], limit=120)
def _(t):
    """What a queue's flows become then is the kernel's affair: they arrive anywhere, and walk to their owner."""
    lab = t.lab()
    lab.services()
    gw = lab.gateway(proxies=[servers.culvert_serve(lab)], workers=WORKERS, log={"level": "warning"})
    queues = Queues(t, gw)
    check_equal(len(queues.fds), WORKERS, "queues")
    streams = Streams(lab, 8)
    crossed = []
    for i in range(2 * WORKERS):
        for change in (queues.detach, queues.attach):
            before, moved = gw.counter("ip.handoff_in"), streams.moved
            change(i % WORKERS)
            within(20, lambda m=moved: streams.wrong or streams.moved > m + 8 * MIB, "8 MiB after a change of queues")
            crossed.append(gw.counter("ip.handoff_in") - before)
    with client.udp(lab.cli, at.TARGET[0], 7) as s:
        s.send(b"x" * 5000)
        check_equal(s.recv(65536), b"x" * 5000, "a datagram in fragments")
    streams.stop()
    gw.wait_no_flows()
    c = gw.settled_counters()
    t.note("packets handed over after each change: %s; %d found a ring full" % (crossed, c["ip.handoff_full"]))
    check(sum(crossed) > 0, "nothing was handed over: the test tests nothing")
    check_equal(c["flow.tcp_reset_by_client"], 8, "resets by clients: those of the downloads that have no end")
    check_equal(c["flow.tcp_reset_by_upstream"], 0, "resets by targets")
    client.download(lab.cli, at.TARGET[0], MIB)
    client.upload(lab.cli, at.TARGET[1], MIB)


@test("what the device drops because a queue is full is in the status", rows=["STR-5"], limit=30)
def _(t):
    lab = t.lab()
    gw = lab.gateway(rules=["MATCH,REJECT-DROP"], workers=1)

    def said_by_kernel():
        return lab.gw.ip_json("-s", "link", "show", "tun0")[0]["stats64"]["tx"]["dropped"]
    check_equal(lab.gw.ip_json("link", "show", "tun0")[0]["txqlen"], 4096, "the queue that we ask for")
    lab.gw.ip("link set tun0 txqueuelen 20")
    before = gw.status()["tun-kernel-drops"]
    check_equal(before, said_by_kernel(), "drops at first")
    gw.process.signal(signal.SIGSTOP)
    with client.udp(lab.gw, at.TARGET[0], 9) as s:
        for _ in range(200):
            s.send(b"x")
    gw.process.signal(signal.SIGCONT)
    dropped = gw.status(seconds=5)["tun-kernel-drops"]
    check_equal(dropped, said_by_kernel(), "drops afterwards")
    check(150 <= dropped - before <= 180, "%d of 200 dropped by a queue of 20" % (dropped - before))


@test("the middle rung: segmentation of TCP, none of UDP", rows=["VN-1", "V8"], limit=60)
def _(t):
    """As on kernels before 6.2: a filter refuses TUNSETOFFLOAD with the two flags that they do not know."""
    lab = t.lab()
    lab.services()
    forbid = os.path.join(os.path.dirname(os.path.abspath(__file__)), "harness", "forbid.py")
    gw = lab.gateway(proxies=[servers.dante(lab)], prefix=["/usr/bin/python3", forbid, "uso"])
    check("offload tso," in gw.wait_ready() + ",", "not the middle rung: " + gw.wait_ready())
    before = gw.counter("tcp.super_out")
    for where in (lab.cli, lab.gw):
        for target in at.TARGET:
            client.download(where, target, 8 * MIB)
            client.upload(where, target, 8 * MIB)
            for size in (0, 1, 1400, 9000, 30000):
                check_equal(client.ask(where, target, 7, b"d" * size), b"d" * size, "echo of %d bytes" % size)
    check(gw.counter("tcp.super_out") > before, "no super-segment was written")
    check_equal(gw.counter("tcp.checksum") + gw.counter("udp.checksum"), 0, "bad checksums")
