"""Ping, and packets that no socket would send: fragments, low TTL, junk."""
import socket
import struct
import threading

from harness import check, check_equal, client, servers, test, within
from harness import lab as at
from harness.bystander import bystanders, rules as bystander_rules
from harness.client import icmp_checksum

ETH_P_IP, ETH_P_IPV6 = 0x0800, 0x86dd


class Wire:
    """Whole IP packets from cli towards gw, and what comes back."""

    def __init__(self, t, lab):
        self.socket = t.own(lab.cli.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3)), "close")
        self.socket.settimeout(0.5)
        self.index = [x["ifindex"] for x in lab.cli.ip_json("link") if x["ifname"] == "eth0"][0]
        self.gw = bytes(int(x, 16) for x in [n for n in lab.gw.ip_json("link") if n["ifname"] == "lan0"][0]["address"].split(":"))

    def send(self, packet):
        protocol = ETH_P_IP if packet[0] >> 4 == 4 else ETH_P_IPV6
        self.socket.sendto(packet, ("eth0", protocol, 0, 0, self.gw))


def ip4(payload, protocol, target=at.TARGET[0], source=at.CLI[0], ident=1, offset=0, more=False, ttl=64):
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), ident, (0x2000 if more else 0) | offset // 8, ttl,
                       protocol, 0, socket.inet_aton(source), socket.inet_aton(target))
    return head[:10] + struct.pack("!H", icmp_checksum(head)) + head[12:] + payload


def ip6(payload, next_header, target=at.TARGET[1], source=at.CLI[1], hops=64):
    return struct.pack("!IHBB", 0x60000000, len(payload), next_header, hops) + \
        socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, target) + payload


def fragment6(payload, ident, offset, more, upper=17):
    return ip6(struct.pack("!BBHI", upper, 0, offset | int(more), ident) + payload, 44)


def udp4(data, source_port, target_port, source=at.CLI[0], target=at.TARGET[0]):
    head = struct.pack("!HHHH", source_port, target_port, 8 + len(data), 0)
    pseudo = socket.inet_aton(source) + socket.inet_aton(target) + struct.pack("!BBH", 0, 17, 8 + len(data))
    return head[:6] + struct.pack("!H", icmp_checksum(pseudo + head + data) or 0xffff) + data


def udp6(data, source_port, target_port, source=at.CLI[1], target=at.TARGET[1]):
    head = struct.pack("!HHHH", source_port, target_port, 8 + len(data), 0)
    pseudo = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, target) + \
        struct.pack("!IHBB", 8 + len(data), 0, 0, 17)
    return head[:6] + struct.pack("!H", icmp_checksum(pseudo + head + data) or 0xffff) + data


@test("ping of every size, both families", rows=["F8", "P12"], limit=40, quick=True)
def _(t):
    lab = t.lab()
    lab.services()
    gw = lab.gateway(proxies=[servers.dante(lab)])
    for target in at.TARGET:
        for size in (0, 56, 1400, 1472, 1473, 20000, 60000):
            check_equal(client.ping(lab.cli, target, 2, size)[0], 2, "%d bytes to %s" % (size, target))
    check_equal(client.ping(lab.cli, at.TARGET[0], 2, 56, "-p", "a5f00f")[0], 2, "with a pattern")
    check(gw.counter("flow.echo_replied") >= 2, "no counter of answered echoes")


@test("a flood of pings is answered, and does not disturb anybody", rows=["G2"], limit=40)
def _(t):
    lab = t.lab()
    lab.services()
    lab.gateway(proxies=[servers.culvert_serve(lab).proxy("up"), servers.culvert_serve(lab, at.PROXY2[0]).proxy("good")],
                rules=bystander_rules() + ["MATCH,up"])
    with bystanders(lab):
        got, _ = client.ping(lab.cli, at.TARGET[0], 1000, 56, interval=0.002)
    t.note("%d of 1,000 pings answered" % got)
    check(got >= 900, "%d answers of 1,000" % got)


@test("ping of a dead upstream gets no reply", rows=["G8"])
def _(t):
    lab = t.lab()
    lab.gateway(proxies=[{"name": "up", "type": "socks5", "server": at.PROXY[0], "port": 9999}],
                stack={"icmp": {"echo": "reply-if-healthy"}})
    check_equal(client.ping(lab.cli, at.TARGET[0], 2, timeout=10)[0], 0, "answers without an upstream")


@test("stack.icmp.echo: reply answers without an upstream, drop never does",
      cases={"reply": ("reply", 2), "drop": ("drop", 0)})
def _(t, mode, wanted):
    lab = t.lab()
    lab.gateway(proxies=[{"name": "up", "type": "socks5", "server": at.PROXY[0], "port": 9999}],
                stack={"icmp": {"echo": mode, "delay": "none"}})
    check_equal(client.ping(lab.cli, at.TARGET[0], 2)[0], wanted)


@test("TTL 1 towards us: TCP and UDP are answered as by the end host", rows=["P12"])
def _(t):
    lab = t.lab()
    lab.services()
    lab.gateway(proxies=[servers.dante(lab)])
    for family, level, option in ((0, socket.IPPROTO_IP, socket.IP_TTL), (1, socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS)):
        s = lab.gw.socket([socket.AF_INET, socket.AF_INET6][family], socket.SOCK_STREAM)
        with s:
            s.settimeout(5)
            s.setsockopt(level, option, 1)
            s.connect((at.TARGET[family], 7))
            s.sendall(b"low")
            check_equal(client.receive(s, 3), b"low")
        s = lab.gw.socket([socket.AF_INET, socket.AF_INET6][family], socket.SOCK_DGRAM)
        with s:
            s.settimeout(5)
            s.setsockopt(level, option, 1)
            s.sendto(b"low", (at.TARGET[family], 7))
            check_equal(s.recv(10), b"low")


def listening(t, lab, port, family=0):
    s = t.own(client.udp(lab.cli, family=[socket.AF_INET, socket.AF_INET6][family], source=at.CLI[family], source_port=port,
                         timeout=1.5), "close")
    return s


@test("fragments in order, in reverse and twice make one datagram; overlaps make none", rows=["F1", "F7", "F8"], limit=40,
      cases={"IPv4": 0, "IPv6": 1})
def _(t, family):
    lab = t.lab()
    lab.services()
    gw = lab.gateway(proxies=[servers.dante(lab)], workers=4)
    wire = Wire(t, lab)
    s = listening(t, lab, 5555, family)
    data = bytes(i % 251 for i in range(3000))
    whole = (udp6 if family else udp4)(data, 5555, 7)
    ident = iter(range(100, 1000))

    def pieces(cuts, this):
        out = []
        for a, b in cuts:
            part, more = whole[a:b], b < len(whole)
            out.append(fragment6(part, this, a, more) if family else
                       ip4(part, 17, ident=this, offset=a, more=more))
        return out

    def answered(packets):
        for p in packets:
            wire.send(p)
        try:
            return s.recv(65536) == data
        except TimeoutError:
            return False
    end = len(whole)
    client.ask(lab.cli, at.TARGET[family], 7, b"warm")
    normal = [(0, 1000), (1000, 2000), (2000, end)]
    check(answered(pieces(normal, next(ident))), "in order")
    check(answered(pieces(normal[::-1], next(ident))), "in reverse")
    check(answered(pieces([normal[0], normal[0], normal[1], normal[2]], next(ident))), "an exact duplicate")
    s.settimeout(0.7)
    check(not answered(pieces([(0, 1000), (504, 1504), (1504, 2504), (2504, end)], next(ident))), "a teardrop was delivered")
    check(not answered(pieces([(0, 1000), (800, 2000), (2000, end), (0, 1000), (1000, 2000)], next(ident))), "after an overlap")
    check(not answered(pieces([(0, 1000), (2000, end)], next(ident))), "a hole was delivered")
    s.settimeout(2)
    check(answered(pieces(normal, next(ident))), "a good one afterwards")
    gw.check_alive()


@test("a flood of lone fragments keeps memory at its cap and honest ones alive", rows=["F3", "G2", "G3"], limit=40)
def _(t):
    lab = t.lab()
    lab.services()
    good = servers.culvert_serve(lab, at.PROXY2[0])
    gw = lab.gateway(proxies=[servers.culvert_serve(lab).proxy("up"), good.proxy("good")],
                     rules=bystander_rules() + ["MATCH,up"])
    wire = Wire(t, lab)
    before, stop, sent = gw.resources(), threading.Event(), [0]

    def flood():
        n = 0
        while not stop.is_set() and n < 60000:
            n += 1
            wire.send(ip4(b"f" * 1480, 17, ident=n & 0xffff, offset=1480 if n % 2 else 0, more=True))
        sent[0] = n
    thread = threading.Thread(target=flood)
    ok = 0
    with bystanders(lab):
        thread.start()
        for _ in range(20):
            with client.udp(lab.cli, at.TARGET[0], 7, timeout=0.5, source=at.CLI2[0]) as s:
                s.send(b"h" * 4000)
                try:
                    ok += s.recv(65536) == b"h" * 4000
                except TimeoutError:
                    continue
        stop.set()
        thread.join()
    after = gw.resources()
    t.note("%d lone fragments; %d of 20 honest fragmented datagrams; RSS %d -> %d KiB" % (sent[0], ok, before.rss_kib, after.rss_kib))
    check(ok >= 18, "%d of 20 honest fragmented datagrams came back" % ok)
    check(after.rss_kib - before.rss_kib < 8192 * (6 if t.sanitized else 1), "RSS grew to %d KiB" % after.rss_kib)


@test("a fragmented SYN opens a connection", rows=["F8"])
def _(t):
    lab = t.lab()
    lab.services()
    gw = lab.gateway(proxies=[servers.dante(lab)])
    wire = Wire(t, lab)
    # Without this cli's own kernel would answer the SYN-ACK with RST before we have seen it.
    lab.cli.nft("table ip quiet {\nchain o { type filter hook output priority 0; policy accept;\ntcp flags rst drop\n}\n}\n")
    options = b"\2\4\5\xb4" + b"\1" * 12
    head = struct.pack("!HHIIBBHHH", 6666, 7, 1000, 0, (20 + len(options)) // 4 << 4, 2, 64000, 0, 0) + options
    pseudo = socket.inet_aton(at.CLI[0]) + socket.inet_aton(at.TARGET[0]) + struct.pack("!BBH", 0, 6, len(head))
    syn = head[:16] + struct.pack("!H", icmp_checksum(pseudo + head)) + head[18:]
    wire.send(ip4(syn[:24], 6, ident=9, more=True))
    wire.send(ip4(syn[24:], 6, ident=9, offset=24))
    wire.socket.settimeout(3)

    def syn_ack():
        p = wire.socket.recv(65536)
        return p[:1] == b"\x45" and p[9] == 6 and p[33] & 0x12 == 0x12 and struct.unpack("!H", p[22:24])[0] == 6666
    within(4, syn_ack, "a SYN-ACK")
    gw.check_alive()


@test("100,000 packets of junk: no crash, and the bystanders do not notice", rows=["P13", "P1", "P2", "P3", "P8", "P11", "G1", "G2"],
      limit=60)
def _(t):
    import random
    lab = t.lab()
    lab.services()
    good = servers.culvert_serve(lab, at.PROXY2[0])
    gw = lab.gateway(proxies=[servers.culvert_serve(lab).proxy("up"), good.proxy("good")],
                     rules=bystander_rules() + ["MATCH,up"])
    # Straight into the device, past the kernel's own checks of forwarded packets.
    raw = t.own(lab.gw.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0), "close")
    rng, sent = random.Random(20), 0
    samples = [ip4(udp4(b"x" * 40, 1, 9), 17), ip4(b"\x08\0" + b"e" * 40, 1), ip6(udp6(b"y" * 40, 1, 9), 17),
               ip4(struct.pack("!HHIIBBHHH", 7, 9, 1, 2, 0x50, 0x18, 500, 0, 0) + b"data", 6), fragment6(b"z" * 64, 1, 0, True)]
    with bystanders(lab):
        for _ in range(100000):
            kind = rng.random()
            if kind < 0.3:
                packet = rng.randbytes(rng.randrange(1, 200))
            else:
                packet = bytearray(rng.choice(samples))
                for _ in range(rng.randrange(1, 4)):
                    packet[rng.randrange(len(packet))] ^= 1 << rng.randrange(8)
                packet = bytes(packet[:rng.randrange(1, len(packet) + 1)] if kind < 0.5 else packet)
            try:
                raw.sendto(packet, ("tun0", ETH_P_IPV6 if packet[0] >> 4 == 6 else ETH_P_IP))
                sent += 1
            except OSError:
                continue
    t.note("%d packets" % sent)
    gw.check_alive()
