"""Facts of the kernel that the design was made from (tcp-stack.md TST-9): one probe each, without culvert.

A kernel that does otherwise is no failure: the difference is printed with what follows from it. Only where streams would be wrong
(STR-2, VN-4, VN-7) a changed fact fails, because then the design has to be thought over.
"""
import ctypes
import errno
import fcntl
import os
import select
import socket
import struct
import time

from harness import Skip, check, net, test, within
from harness.core import errno_name

TUNSETIFF, TUNSETOFFLOAD, TUNSETQUEUE, TUNSETSTEERINGEBPF = 0x400454ca, 0x400454d0, 0x400454d9, 0x800454e0
IFF_TUN, IFF_MULTI_QUEUE, IFF_ATTACH, IFF_DETACH, IFF_NO_PI, IFF_VNET_HDR = 1, 0x100, 0x200, 0x400, 0x1000, 0x4000
CSUM, TSO4, TSO6, TSO_ECN, USO4, USO6 = 1, 2, 4, 8, 0x20, 0x40
NEEDS_CSUM, DATA_VALID = 1, 2
GSO_TCP4, GSO_UDP, GSO_TCP6, GSO_UDP_L4 = 1, 3, 4, 5
OURS, THEIRS = "198.18.0.1", "198.18.0.2"       # the kernel's address on the device, and one behind it
MTU = 1500


def fact(t, holds, text, otherwise, must=False):
    """What was observed when the design was made; `otherwise`: what follows if it is not so here."""
    if holds:
        return
    check(not must, "this kernel differs: not \"%s\"; %s" % (text, otherwise))
    t.note("this kernel differs: not \"%s\"; so %s" % (text, otherwise))


# ---- packets ----

def ones_sum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return total


def ip4(src, dst, proto, body, df=True):
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 7, 0x4000 if df else 0, 64, proto, 0,
                       socket.inet_aton(src), socket.inet_aton(dst))
    return head[:10] + struct.pack("!H", 0xffff ^ ones_sum(head)) + head[12:] + body


def pseudo(src, dst, proto, length):
    return ones_sum(socket.inet_aton(src) + socket.inet_aton(dst) + struct.pack("!HH", proto, length))


def udp4(src, sport, dst, dport, data, check_field=None):
    body = struct.pack("!HHHH", sport, dport, 8 + len(data),
                       pseudo(src, dst, 17, 8 + len(data)) if check_field is None else check_field) + data
    return ip4(src, dst, 17, body)


def tcp4(src, sport, dst, dport, seq, ack, flags, data=b"", options=b""):
    words = 5 + len(options) // 4
    length = 4 * words + len(data)
    return ip4(src, dst, 6, struct.pack("!HHIIBBHHH", sport, dport, seq, ack, words << 4, flags, 65535,
                                        pseudo(src, dst, 6, length), 0) + options + data)


def header(flags=0, gso=0, hdr_len=0, gso_size=0, start=0, offset=0):
    return struct.pack("=BBHHHH", flags, gso, hdr_len, gso_size, start, offset)


UDP_CSUM = header(NEEDS_CSUM, start=20, offset=6)
TCP_CSUM = header(NEEDS_CSUM, start=20, offset=16)


def five_tuple(packet):
    """(protocol, source port, target port) of what was read; fragments and ICMP have no ports."""
    proto, fragment = packet[9], struct.unpack("!H", packet[6:8])[0] & 0x3fff
    return (proto,) + (struct.unpack("!HH", packet[20:24]) if proto in (6, 17) and not fragment else (0, 0))


# ---- a device ----

class Tun:
    """A bare TUN device in a namespace of its own; read and write as the driver does."""

    def __init__(self, t, queues=1, offload=CSUM, name="probe0"):
        self.namespace = t.own(net.Namespace("%s-kern" % t.tag), "remove")
        self.name, self.fds = name, []
        for _ in range(queues):
            self.fds.append(self.attach())
            t.stack.callback(self.close, len(self.fds) - 1)
        self.offloads(offload)
        self.namespace.sysctl("net/ipv4/icmp_ratelimit", 0)
        self.namespace.sysctl("net/ipv6/conf/%s/autoconf" % name, 0, missing_ok=True)
        self.namespace.sysctl("net/ipv6/conf/%s/disable_ipv6" % name, 1)
        self.namespace.ip("addr add %s/30 dev %s" % (OURS, name), "link set %s up mtu %d" % (name, MTU))

    def attach(self):
        with self.namespace.entered():
            fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        self.make(fd)
        return fd

    def make(self, fd):
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", self.name.encode(),
                                               IFF_TUN | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE))

    def close(self, q):
        os.close(self.fds[q])

    def offloads(self, flags):
        """0 or an errno's name."""
        try:
            fcntl.ioctl(self.fds[0], TUNSETOFFLOAD, flags)
            return 0
        except OSError as e:
            return errno_name(e)

    def set_queue(self, q, flag):
        fcntl.ioctl(self.fds[q], TUNSETQUEUE, struct.pack("16sH22x", b"", flag))

    def write(self, data, q=0):
        """0 or an errno's name."""
        try:
            os.write(self.fds[q], data)
            return 0
        except OSError as e:
            return errno_name(e)

    def read_all(self, seconds=0.05, wanted=None):
        """[(queue, packet)] until nothing has come for a while, or `wanted` have."""
        out, end = [], time.monotonic() + seconds
        while True:
            ready = select.select(self.fds, [], [], max(0, end - time.monotonic()))[0]
            for fd in ready:
                data = os.read(fd, 70000)
                if data[10] >> 4 == 4:
                    out.append((self.fds.index(fd), data[10:]))
            if (wanted and len(out) >= wanted) or (not ready and time.monotonic() >= end):
                return out

    def udp_socket(self, port=0):
        s = self.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.bind((OURS, port))
        s.setblocking(False)
        return s

    def queue_of(self, s, target=(THEIRS, 9), data=b"x"):
        """Which queue a datagram of this socket arrives on."""
        s.sendto(data, target)
        got = self.read_all(2, wanted=1)
        check(got, "a datagram did not arrive at the device")
        return got[0][0]


@test("a flow's queue is stable, a write pins it, and the answer made inside the write comes by the old one", rows=["TST-9", "STR-1"],
      culvert=False)
def _(t):
    tun = Tun(t, 4)
    sockets = [tun.udp_socket() for _ in range(16)]
    home = [tun.queue_of(s) for s in sockets]
    fact(t, len(set(home)) > 1, "flows spread over queues", "one worker does all")
    fact(t, home == [tun.queue_of(s) for s in sockets], "an unpinned flow keeps its queue", "TCP is handed between shards more often")
    stays = moved = 0
    for s, q in zip(sockets, home):
        other = (q + 1) % 4
        tun.write(UDP_CSUM + udp4(THEIRS, 9, OURS, s.getsockname()[1], b"pin"), other)
        now = tun.queue_of(s)
        moved, stays = moved + (now == other), stays + (now == q)
    fact(t, moved == 16, "a write pins its flow to its queue (%d of 16; %d stayed)" % (moved, stays),
         "owners are found by hand-off alone")
    c = tun.namespace.socket(socket.AF_INET, socket.SOCK_STREAM)
    c.setblocking(False)
    c.connect_ex((THEIRS, 80))
    (q, syn), = tun.read_all(2, wanted=1)
    port, seq = c.getsockname()[1], struct.unpack("!I", syn[24:28])[0]
    tun.write(TCP_CSUM + tcp4(THEIRS, 80, OURS, port, 1000, seq + 1, 0x12), (q + 1) % 4)
    (first, _), = tun.read_all(2, wanted=1)
    c.send(b"data")
    (second, _), = tun.read_all(2, wanted=1)
    fact(t, first == q, "an answer made inside a write comes by the old queue", "nothing follows")
    fact(t, second == (q + 1) % 4, "what the client sends next comes by the new queue", "its owner gets it by hand-off")


@test("a pin ends some seconds after the last write", rows=["TST-9"], culvert=False, long=True, limit=40)
def _(t):
    tun = Tun(t, 4)
    s = tun.udp_socket()
    home = tun.queue_of(s)
    tun.write(UDP_CSUM + udp4(THEIRS, 9, OURS, s.getsockname()[1], b"pin"), (home + 1) % 4)
    start = time.monotonic()
    within(20, lambda: tun.queue_of(s) == home, "the flow came home", every=0.2)
    seconds = time.monotonic() - start
    t.note("the pin lasted %.1f s" % seconds)
    fact(t, 2 <= seconds <= 8, "a pin lasts 3 to 6 s (%.1f)" % seconds,
         "hand-offs after pauses are as frequent as that")


@test("fragments come by one queue whatever their ports, and so do ICMP errors", rows=["TST-9", "STR-2", "F7"], culvert=False)
def _(t):
    tun = Tun(t, 4)
    sockets = [tun.udp_socket() for _ in range(12)]
    plain = {tun.queue_of(s) for s in sockets}
    wrong, seen = 0, set()
    for s in sockets:
        s.sendto(b"f" * 4000, (THEIRS, 9))
        queues = {q for q, _ in tun.read_all(2, wanted=3)}
        wrong += len(queues) != 1
        seen |= queues
    fact(t, wrong == 0, "all fragments of a datagram come by one queue",
         "a shard would wait for pieces that another one has: reassembly must move to one owner (STR-2)", must=True)
    fact(t, len(seen) == 1 and len(plain) > 1, "fragments are hashed without ports", "datagrams are handed over less often")
    errors = set()
    for port in range(40000, 40012):
        tun.write(UDP_CSUM + udp4(THEIRS, port, OURS, 1, b"closed"))
        got = tun.read_all(2, wanted=1)
        check(got and got[0][1][9] == 1, "no ICMP error came for a closed port")
        errors.add(got[0][0])
    fact(t, len(errors) == 1, "ICMP errors are hashed by their own addresses", "they reach their owner more or less often by hand-off")


@test("a queue that is detached loses its flows to the others at once", rows=["TST-9", "STR-3"], culvert=False)
def _(t):
    tun = Tun(t, 4)
    sockets = [tun.udp_socket() for _ in range(24)]
    home = [tun.queue_of(s) for s in sockets]
    gone = home[0]
    tun.set_queue(gone, IFF_DETACH)
    now = [tun.queue_of(s) for s in sockets]
    fact(t, gone not in now, "no packet goes to a detached queue",
         "packets would be lost while the number of queues changes (STR-2)", must=True)
    tun.set_queue(gone, IFF_ATTACH)
    back = [tun.queue_of(s) for s in sockets]
    t.note("%d of 24 flows changed their queue when one of 4 went, %d are back after it came again"
           % (sum(a != b for a, b in zip(home, now)), sum(a == b for a, b in zip(home, back))))


@test("a device holds 4,096 pins", rows=["TST-9"], culvert=False, limit=60)
def _(t):
    tun = Tun(t, 8)
    flows = 6000
    tun.namespace.ip("link set %s txqueuelen 1000" % tun.name)
    s = tun.udp_socket(9000)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    for port in range(10000, 10000 + flows):
        tun.write(UDP_CSUM + udp4(THEIRS, port, OURS, 9000, b"p"), 3)
    pinned = seen = 0
    for first in range(10000, 10000 + flows, 200):
        for port in range(first, first + 200):
            s.sendto(b"x", (THEIRS, port))
        got = tun.read_all(1, wanted=200)
        seen += len(got)
        pinned += sum(q == 3 for q, _ in got)
    others = (pinned - 4096) / max(1, seen - 4096)
    t.note("%d of %d flows came by the queue that had written to them" % (pinned, seen))
    fact(t, 4096 <= pinned < 5400 and others < 0.3, "about 4,096 flows are pinned",
         "more flows than that stay or move: hand-offs only")


def socket_filter(result):
    """A loaded eBPF program that returns a constant."""
    code = struct.pack("<BBhi", 0xb7, 0, 0, result) + struct.pack("<BBhi", 0x95, 0, 0, 0)
    memory, licence = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(b"MIT")
    attributes = struct.pack("<IIQQIIQII", 1, 2, ctypes.addressof(memory), ctypes.addressof(licence), 0, 0, 0, 0, 0)
    attributes = ctypes.create_string_buffer(attributes + bytes(72), len(attributes) + 72)
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(321, 5, attributes, len(attributes))          # bpf(BPF_PROG_LOAD), x86-64
    if fd < 0:
        raise Skip("no eBPF here: %s" % os.strerror(ctypes.get_errno()))
    return fd


@test("a steering program decides the queue alone", rows=["TST-9", "STR-4"], culvert=False)
def _(t):
    if os.uname().machine != "x86_64":
        raise Skip("the number of bpf() is x86-64's")
    tun = Tun(t, 4)
    program = socket_filter(2)
    t.stack.callback(os.close, program)
    fcntl.ioctl(tun.fds[0], TUNSETSTEERINGEBPF, struct.pack("i", program))
    sockets = [tun.udp_socket() for _ in range(12)]
    before = {tun.queue_of(s) for s in sockets}
    for s in sockets:
        tun.write(UDP_CSUM + udp4(THEIRS, 9, OURS, s.getsockname()[1], b"pin"), 1)
    after = {tun.queue_of(s) for s in sockets}
    fact(t, before == after == {2}, "a steering program decides, and nothing is pinned (%s, %s)" % (before, after),
         "a program would not be used: hand-offs only")


@test("the ring is as long as txqueuelen and drops silently", rows=["TST-9", "STR-5", "V10"], culvert=False)
def _(t):
    tun = Tun(t)
    length = tun.namespace.ip_json("link", "show", tun.name)[0]["txqlen"]
    fact(t, length == 500, "txqueuelen is 500 by default (%d)" % length, "nothing follows, since we set it")
    tun.namespace.ip("link set %s txqueuelen 20" % tun.name)
    s = tun.udp_socket()
    for _ in range(100):
        s.sendto(b"x", (THEIRS, 9))         # none of them fails
    got = len(tun.read_all())
    dropped = tun.namespace.ip_json("-s", "link", "show", tun.name)[0]["stats64"]["tx"]["dropped"]
    fact(t, 20 <= got <= 40 and got + dropped == 100, "it holds txqueuelen packets (%d of 20) and counts the rest (%d)" % (got, dropped),
         "the driver's counter of drops says something else")


@test("segmentation of datagrams needs both families and checksums", rows=["TST-9", "VN-1", "V8"], culvert=False)
def _(t):
    tun = Tun(t)
    if tun.offloads(CSUM | TSO4 | TSO6 | TSO_ECN | USO4 | USO6) != 0:
        t.note("this kernel has no USO: the rung below is taken")
        check(tun.offloads(CSUM | TSO4 | TSO6 | TSO_ECN) == 0, "not even TSO")
        return
    for flags, why in ((CSUM | USO4, "IPv4 alone"), (CSUM | USO6, "IPv6 alone"), (USO4 | USO6, "without checksums")):
        fact(t, tun.offloads(flags) == "EINVAL", "USO %s is refused" % why, "nothing follows, since we ask for all of it")


def written(tun):
    """What the kernel says to writes that only an error of ours could make (faults.md V2): [(what, bytes, answer)]."""
    small, big = udp4(THEIRS, 9, OURS, 7, b"d" * 100), udp4(THEIRS, 9, OURS, 7, b"d" * 4000)
    tcp = tcp4(THEIRS, 80, OURS, 5000, 1, 1, 0x10, b"d" * 4000)
    usable = dict(start=20, offset=16, hdr_len=40, gso_size=1000)
    ipv6 = b"\x60" + bytes(3) + struct.pack("!HBB", 20, 6, 64) + bytes(15) + b"\1" + bytes(15) + b"\2" + bytes(20)
    return [
        ("a checksum outside the packet", header(NEEDS_CSUM, start=4000, offset=6) + small, "EINVAL"),
        ("a checksum at the last byte", header(NEEDS_CSUM, start=len(small) - 1, offset=0) + small, "EINVAL"),
        ("a segment size of 0", header(NEEDS_CSUM, GSO_TCP4, 40, 0, 20, 16) + tcp, "EINVAL"),
        ("segmentation of type 7", header(NEEDS_CSUM, 7, **usable) + tcp, "EINVAL"),
        ("IPv6's type on an IPv4 packet", header(NEEDS_CSUM, GSO_TCP6, **usable) + tcp, "EINVAL"),
        ("headers longer than the packet", header(NEEDS_CSUM, GSO_TCP4, 5000, 1000, 20, 16) + tcp, "EINVAL"),
        ("datagrams without NEEDS_CSUM", header(0, GSO_UDP_L4, 28, 1000) + big, "EINVAL"),
        ("version 5", UDP_CSUM + b"\x55" + small[1:], "EINVAL"),
        ("half a header", UDP_CSUM[:6], "EINVAL"),
        ("no packet", header(), "EINVAL"),
        ("65,536 bytes", header() + small + bytes(65536 - len(small)), "EINVAL"),
        ("129 datagrams", header(NEEDS_CSUM, GSO_UDP_L4, 28, 10, 20, 6) + udp4(THEIRS, 9, OURS, 7, b"d" * 1290), "EINVAL"),
        ("128 datagrams", header(NEEDS_CSUM, GSO_UDP_L4, 28, 10, 20, 6) + udp4(THEIRS, 9, OURS, 7, b"d" * 1280), 0),
        ("TCP segmentation without NEEDS_CSUM", header(0, GSO_TCP4, 40, 1000) + tcp, 0),
        ("a lying header length", header(NEEDS_CSUM, GSO_TCP4, 20, 1000, 20, 16) + tcp, 0),
        ("less payload than a segment", header(NEEDS_CSUM, GSO_TCP4, 40, 9000, 20, 16) + tcp, 0),
        ("segments of 8 bytes", header(NEEDS_CSUM, GSO_TCP4, 40, 8, 20, 16) + tcp, 0),
        ("fragmentation offload", header(NEEDS_CSUM, GSO_UDP, 28, 1000, 20, 6) + big, 0),
        ("more than the MTU", UDP_CSUM + big, 0),
        ("an IPv6 packet to nobody", header() + ipv6, 0),
    ]


@test("what the kernel refuses to take, and what it takes although it should not", rows=["TST-9", "V2", "VN-6"], culvert=False)
def _(t):
    tun = Tun(t, 1, CSUM | TSO4 | TSO6 | TSO_ECN)
    tun.offloads(CSUM | TSO4 | TSO6 | TSO_ECN | USO4 | USO6)
    for what, data, wanted in written(tun):
        seen = tun.write(data)
        fact(t, seen == wanted, "%s: %s (%s here)" % (what, wanted or "taken", seen or "taken"),
             "nothing follows, since our encoder makes none")
    s = tun.udp_socket(7)
    tun.write(UDP_CSUM + udp4(THEIRS, 9, OURS, 7, b"still"))
    check(select.select([s], [], [], 2)[0], "after bad writes the descriptor takes nothing any more")


class Routed:
    """A second namespace behind the first one, by veth: what is written to the device is forwarded there."""

    HERE, THERE = "10.79.0.1", "10.79.0.2"

    def __init__(self, t, tun, mtu=1500):
        self.namespace = t.own(net.Namespace("%s-far" % t.tag), "remove")
        net.link(tun.namespace, "far0", [self.HERE + "/24", "fd79::1/64"], self.namespace, "eth0", [self.THERE + "/24", "fd79::2/64"], mtu)
        tun.namespace.sysctl("net/ipv4/ip_forward", 1)
        for ns, name in ((tun.namespace, "far0"), (self.namespace, "eth0")):
            ns.run(["ethtool", "-K", name, "tx", "off", "tso", "off", "gso", "off", "gro", "off", "rx", "off"], check=False)
        self.raw = self.namespace.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
        self.raw.bind(("eth0", 0x0800))
        self.raw.settimeout(2)

    def packet(self):
        """The next IPv4 packet of TCP or UDP that arrives at the far end; None: none within 2 s."""
        try:
            while True:
                data = self.raw.recv(70000)
                if data[9] in (6, 17):
                    return data
        except TimeoutError:
            return None


def l4_sum_is_right(packet):
    length = struct.unpack("!H", packet[2:4])[0]
    body = packet[20:length]
    return ones_sum(body + b"") == 0xffff or (
        ones_sum(struct.pack("!H", ones_sum(body)) + packet[12:20] + struct.pack("!HH", packet[9], len(body))) == 0xffff)


@test("a pseudo-header sum becomes a checksum on the way out, and nobody looks at it on the way in", rows=["TST-9", "VN-4"], culvert=False)
def _(t):
    tun = Tun(t, 1, CSUM | TSO4 | TSO6)
    far = Routed(t, tun)
    for what, data in (("UDP", UDP_CSUM + udp4(THEIRS, 9, far.THERE, 7, b"datagram")),
                       ("TCP", TCP_CSUM + tcp4(THEIRS, 80, far.THERE, 5000, 1, 1, 0x10, b"segment")),
                       ("a super-segment", header(NEEDS_CSUM, GSO_TCP4, 40, 1000, 20, 16) +
                        tcp4(THEIRS, 80, far.THERE, 5000, 1, 1, 0x10, b"s" * 3500))):
        check(tun.write(data) == 0, "%s was not taken" % what)
        packet = far.packet()
        check(packet is not None, "%s did not arrive at the far end" % what)
        fact(t, l4_sum_is_right(packet), "%s leaves with a right checksum" % what,
             "clients behind a router would drop it (VN-4)", must=True)
    tun.write(UDP_CSUM + udp4(THEIRS, 9, far.THERE, 7, b"datagram", check_field=0x1234))
    while (packet := far.packet()) is not None and packet[9] != 17:
        continue
    fact(t, packet is not None and not l4_sum_is_right(packet), "a wrong pseudo-header sum leaves as a wrong checksum", "nothing follows")
    s = tun.udp_socket(7)
    for flags, text in ((UDP_CSUM, "local delivery takes any value in the checksum field"),
                        (header(DATA_VALID), "DATA_VALID is not believed")):
        tun.write(flags + udp4(THEIRS, 9, OURS, 7, b"anything", check_field=0x1234))
        taken = bool(select.select([s], [], [], 0.3)[0])
        if taken:
            s.recv(100)
        fact(t, taken == (flags == UDP_CSUM), text, "our own tests see more, or less, of such an error")


@test("segments too long for the way out are told by ICMP, and reach local sockets", rows=["TST-9", "VN-7", "ICM-3"], culvert=False)
def _(t):
    tun = Tun(t, 1, CSUM | TSO4 | TSO6)
    far = Routed(t, tun, mtu=1400)
    data = header(NEEDS_CSUM, GSO_TCP4, 40, 1460, 20, 16) + tcp4(THEIRS, 80, far.THERE, 5000, 1, 1, 0x10, b"s" * 4380)
    check(tun.write(data) == 0, "it was not taken")
    told = [p for _, p in tun.read_all(2, wanted=1) if p[9] == 1]
    fact(t, bool(told) and told[0][20:22] == b"\3\4" and struct.unpack("!H", told[0][26:28])[0] == 1400,
         "fragmentation needed, with the MTU, comes through the device", "large segments would vanish on routed paths (VN-7)", must=True)
    listener = tun.namespace.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind((OURS, 5001))
    listener.listen()
    tun.write(TCP_CSUM + tcp4(THEIRS, 80, OURS, 5001, 1, 0, 2, options=b"\2\4\5\xb4"))
    (_, synack), = tun.read_all(2, wanted=1)
    seq = struct.unpack("!I", synack[24:28])[0]
    tun.write(TCP_CSUM + tcp4(THEIRS, 80, OURS, 5001, 2, seq + 1, 0x10))
    tun.write(header(NEEDS_CSUM, GSO_TCP4, 40, 3000, 20, 16) + tcp4(THEIRS, 80, OURS, 5001, 2, seq + 1, 0x10, b"s" * 9000))
    s = listener.accept()[0]
    fact(t, bool(select.select([s], [], [], 2)[0]), "a local socket gets segments larger than the MTU",
         "nothing follows, since we send none")


@test("a device that is down, and one that is deleted", rows=["TST-9", "V3", "V4"], culvert=False)
def _(t):
    tun = Tun(t)
    tun.namespace.sysctl("net/ipv6/conf/%s/disable_ipv6" % tun.name, 0)
    tun.namespace.ip("addr add fd80::1/64 dev %s nodad" % tun.name, "route add 203.0.113.0/24 dev %s table 77" % tun.name,
                     "rule add to 203.0.113.0/24 lookup 77 pref 40")
    tun.read_all(0.2)
    tun.namespace.ip("link set %s down" % tun.name)
    try:
        os.read(tun.fds[0], 2000)
        how = "a packet"
    except OSError as e:
        how = errno_name(e)
    fact(t, how == "EAGAIN", "reading a downed device says EAGAIN (%s)" % how, "its loss is seen twice")
    fact(t, not select.select(tun.fds, [], tun.fds, 0)[0], "poll says nothing", "its loss is seen at once, too")
    fact(t, tun.write(UDP_CSUM + udp4(THEIRS, 9, OURS, 7, b"x")) == "EIO", "writing says EIO", "the counter of drops has another reason")
    families = [a["family"] for a in tun.namespace.ip_json("addr", "show", tun.name)[0]["addr_info"]]
    fact(t, families == ["inet"], "the IPv4 address stays and IPv6 addresses go (%s)" % families,
         "nothing follows: both are looked at again")
    routes = net.command(["ip", "-n", tun.namespace.name, "route", "show", "table", "77"], check=False)
    rules = net.command(["ip", "-n", tun.namespace.name, "rule"])
    fact(t, tun.name not in routes and "lookup 77" in rules, "routes through it go, rules stay",
         "nothing follows: our table ends in unreachable")
    tun.namespace.ip("link set %s up" % tun.name)
    tun.namespace.ip("link del %s" % tun.name)
    try:
        os.read(tun.fds[0], 2000)
        how = "a packet"
    except OSError as e:
        how = e.errno
    fact(t, how == errno.EBADFD, "reading a deleted device says EBADFD (%s)" % how, "its loss is seen by netlink alone")
    fact(t, tun.write(UDP_CSUM + udp4(THEIRS, 9, OURS, 7, b"x")) == "EBADFD", "writing says EBADFD", "its loss is seen by netlink alone")
    poll = select.poll()
    poll.register(tun.fds[0], select.POLLIN)
    events = dict(poll.poll(0)).get(tun.fds[0], 0)
    fact(t, bool(events & select.POLLERR), "poll says ERR (%d)" % events, "its loss is seen by netlink alone")
    tun.make(tun.fds[0])
    fact(t, bool(tun.namespace.ip_json("link", "show", tun.name)), "the same descriptor makes it anew",
         "culvert ends when its device is deleted")
