"""Pings of DIRECT are real ones: replies, errors and hops come from the network, and no failure becomes an answer."""
import os
import re
import select
import shutil
import socket
import struct
import threading
import time

from harness import check, check_equal, client, servers, test, within
from harness import lab as at
from harness.client import icmp_checksum
from harness.core import Skip, check_table

GATEWAY = ("198.18.0.2", "fdfe:dcba:9876::2")        # the stack's own address: the hop that we are


def direct(t, far=True, mtu=1500, **kw):
    """A lab with the two routers, and culvert sending everything direct."""
    lab = t.lab()
    if far:
        lab.far(mtu)
    return lab, lab.gateway(rules=kw.pop("rules", ["MATCH,DIRECT"]), **kw)


def need(program):
    if not shutil.which(program):
        raise Skip("needs %s" % program)
    return program


def ping_text(namespace, *argv, timeout=30):
    r = namespace.result([need("ping"), "-n", *argv], timeout=timeout)
    return r.stdout + r.stderr


class Pinger:
    """Echo requests from a raw socket of cli, with ids and sources as one likes, and what comes back."""

    def __init__(self, t, lab, v6=False, ttl=None, source=None):
        family = socket.AF_INET6 if v6 else socket.AF_INET
        self.v6 = v6
        self.socket = t.own(lab.cli.socket(family, socket.SOCK_RAW, socket.IPPROTO_ICMPV6 if v6 else socket.IPPROTO_ICMP),
                            "close")
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        if source:
            self.socket.bind((source, 0))
        if ttl:
            self.socket.setsockopt(socket.IPPROTO_IPV6 if v6 else socket.IPPROTO_IP,
                                   socket.IPV6_UNICAST_HOPS if v6 else socket.IP_TTL, ttl)

    def request(self, ident, seq, payload=b"", code=0):
        body = struct.pack("!BBHHH", 128 if self.v6 else 8, code, 0, ident, seq) + payload
        return body if self.v6 else body[:2] + struct.pack("!H", icmp_checksum(body)) + body[4:]

    def send(self, target, ident, seq, payload=b"", code=0):
        self.socket.sendto(self.request(ident, seq, payload, code), (target, 0))

    def messages(self, seconds):
        """(source, ttl, ICMP message) of what comes in, until it is quiet for so long; echo requests left out."""
        while select.select([self.socket], [], [], seconds)[0]:
            data, (source, *_) = self.socket.recvfrom(65536)
            ttl = 0
            if not self.v6:
                ttl, data = data[8], data[(data[0] & 15) * 4:]
            if data[0] not in ((128, 133, 134, 135, 136, 143) if self.v6 else (8,)):
                yield source, ttl, data


# ---- replies ----

@test("a ping through DIRECT is answered by the target itself: its hops are in the TTL",
      rows=["icmp X7", "icmp X18", "icmp X21", "icmp M12", "icmp M16"], quick=True)
def _(t):
    lab, gw = direct(t)
    for v6, target in enumerate(at.FAR):
        out = ping_text(lab.cli, "-c", "3", "-i", "0.2", target)
        check(" 3 received" in out, out)
        # 64 at the target, less r2, r1, us, and the kernel of gw on the way to cli
        check_equal(set(re.findall(r"(?:ttl|hlim)=(\d+)", out)), {"60"}, "TTL at the client of IPv%d" % (6 if v6 else 4))
    check_equal(client.ping(lab.cli, at.FAR[0], 2, 56, "-p", "a5f00f")[0], 2, "with a pattern")
    check_equal(gw.counter("icmp_proxy.requests_v6"), 3)
    check_equal(gw.counter("icmp_proxy.replies"), 8)
    check_equal(len(re.findall(r"icmp: IPv4 pings that MATCH,DIRECT takes \(via DIRECT\): proxy", gw.log)), 1,
                "lines about how IPv4 pings are answered")


@test("pings of every size reach the target and come back whole, both families",
      rows=["icmp X18", "icmp X23", "icmp X28", "icmp F1"], limit=60)
def _(t):
    lab, _gw = direct(t)
    for target in at.FAR:
        for size in (0, 56, 1472, 1473, 3000, 20000, 60000):
            check_equal(client.ping(lab.cli, target, 2, size)[0], 2, "%d bytes to %s" % (size, target))


@test("a thousand pings as fast as they go: every one is answered, none twice", rows=["icmp X19", "icmp X20", "icmp X26"])
def _(t):
    lab, gw = direct(t)
    for target in at.FAR:
        out = ping_text(lab.cli, "-f", "-c", "1000", "-q", target)
        check(" 1000 received" in out and "duplicates" not in out, out)
    check_equal(gw.counter("icmp_proxy.drops_seq"), 0)
    check_equal(gw.counter("icmp_proxy.outstanding"), 0)


@test("two clients with one id to one target never mix, and each hears its own bytes", rows=["icmp X6"])
def _(t):
    lab, gw = direct(t)
    clients = [Pinger(t, lab, source=at.CLI[0]), Pinger(t, lab, source=at.CLI2[0]),
               Pinger(t, lab, True, source=at.CLI[1]), Pinger(t, lab, True, source=at.CLI2[1])]
    for seq in range(20):
        for i, c in enumerate(clients):
            c.send(at.FAR[c.v6], 77, seq, b"client %d, request %d" % (i, seq))
    for i, c in enumerate(clients):
        got = {}
        for source, _, m in c.messages(1):
            check_equal((source, struct.unpack("!H", m[4:6])[0]), (at.FAR[c.v6], 77), "source and id")
            got[struct.unpack("!H", m[6:8])[0]] = m[8:]
        check_equal(got, {seq: b"client %d, request %d" % (i, seq) for seq in range(20)}, "replies of client %d" % i)
    check_equal(gw.counter("icmp_proxy.flows_created"), 4)


@test("TOS goes out and comes back; a code that is not 0 never leaves", rows=["icmp X9", "icmp X18", "icmp X21"])
def _(t):
    lab, gw = direct(t)
    sniffer = t.own(lab.host.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP), "close")
    sniffer.settimeout(5)
    out = ping_text(lab.cli, "-c", "1", "-Q", "0x48", at.FAR[0])
    check(" 1 received" in out, out)
    check_equal(sniffer.recv(65536)[1], 0x48, "TOS at the target")
    Pinger(t, lab).send(at.FAR[0], 5, 1, code=3)
    within(3, lambda: gw.counter("icmp_proxy.drops_code") == 1, "the request with code 3 is counted")
    check(not select.select([sniffer], [], [], 0.2)[0], "a request with code 3 reached the target")


@test("multicast, broadcast and our own addresses are never sent to", rows=["icmp X8", "icmp X10"])
def _(t):
    lab, gw = direct(t)
    lab.gw.ip("route add 240.0.0.0/8 dev wan1", "route add 10.77.3.1/32 dev lan0 table 20")
    for target in ("240.1.2.3", at.GW_SRV[0]):
        p = Pinger(t, lab)
        p.send(target, 9, 1)
        if target == at.GW_SRV[0]:          # the kernel of gw answers before it could reach the TUN
            continue
        check_equal(list(p.messages(0.3)), [], "answers of " + target)
    check_equal(gw.counter("icmp_proxy.flows_created"), 0)


# ---- who may answer ----

def forge(lab, namespace, interface, answer, stop):
    """In `namespace`, see echo requests pass and send what answer(request) says: [(source, message)]."""
    sniffer = namespace.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
    out = namespace.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    sniffer.bind((interface, 0x0800))

    def run():
        while not stop.is_set():
            if not select.select([sniffer], [], [], 0.1)[0]:
                continue
            packet, address = sniffer.recvfrom(65536)
            icmp = packet[20:]
            if address[2] == socket.PACKET_OUTGOING or packet[9] != 1 or icmp[0] != 8:
                continue
            for source, message in answer(icmp):
                head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(message), 1, 0, 64, 1, 0, socket.inet_aton(source),
                                   packet[12:16])
                out.sendto(head + message, (socket.inet_ntoa(packet[12:16]), 0))
        sniffer.close()
        out.close()
    thread = threading.Thread(target=run)
    thread.start()
    return thread


def reply_to(icmp, seq=None):
    body = b"\0\0\0\0" + icmp[4:6] + (icmp[6:8] if seq is None else struct.pack("!H", seq)) + icmp[8:]
    return body[:2] + struct.pack("!H", icmp_checksum(body)) + body[4:]


@test("a third host that knows the id cannot answer for the target, and nobody answers what was not asked",
      rows=["icmp X20"])
def _(t):
    lab, gw = direct(t)
    stop = threading.Event()
    thread = forge(lab, lab.r1, "in", lambda icmp: [(at.R2[0], reply_to(icmp)), (at.FAR[0], reply_to(icmp, 9999))], stop)
    try:
        out = ping_text(lab.cli, "-c", "3", "-i", "0.2", at.FAR[0])
    finally:
        stop.set()
        thread.join()
    check(" 3 received" in out and "DUP" not in out and at.R2[0] not in out, out)
    check_equal((gw.counter("icmp_proxy.drops_source"), gw.counter("icmp_proxy.drops_seq")), (3, 3), "dropped forgeries")


@test("duplicates are shown as duplicates, at most four replies to a request", rows=["icmp X22"])
def _(t):
    lab, gw = direct(t)
    stop = threading.Event()
    thread = forge(lab, lab.r1, "in", lambda icmp: [(at.FAR[0], reply_to(icmp))] * 6, stop)
    try:
        p = Pinger(t, lab)
        p.send(at.FAR[0], 300, 1, b"again")
        got = list(p.messages(1))
    finally:
        stop.set()
        thread.join()
    check_equal(len(got), 4, "replies to one request")
    check_equal(gw.counter("icmp_proxy.drops_duplicate"), 3)


# ---- errors, hops and sizes ----

@test("TTL 1 to 4 from behind the TUN: us, router 1, router 2, the target; each quotes the client's own request",
      rows=["icmp X30", "icmp X31", "icmp E1", "icmp E11", "icmp X34"])
def _(t):
    lab, gw = direct(t)
    # cli's first hop is the kernel of gw, which leads it into the TUN: its TTL 2 reaches us as 1
    hops = {2: GATEWAY, 3: at.R1, 4: ("10.77.4.2", "fd77:4::2"), 5: at.FAR}
    wrong = []
    for v6 in (False, True):
        for ttl, wanted in hops.items():
            p = Pinger(t, lab, v6, ttl)
            p.send(at.FAR[v6], 4000 + ttl, ttl, b"where am I")
            got = [(source, m) for source, _, m in p.messages(1)]
            final = ttl == 5
            if len(got) != 1 or got[0][0] != wanted[v6] or got[0][1][0] != ((129 if v6 else 0) if final else (3 if v6 else 11)):
                wrong.append("IPv%d, TTL %d: %r instead of %s" % (6 if v6 else 4, ttl, got, wanted[v6]))
                continue
            quote = got[0][1][8:]
            echo = quote[40:] if v6 else quote[20:]
            if not final and (echo[4:8] != struct.pack("!HH", 4000 + ttl, ttl) or
                              (ttl > 2 and quote[7 if v6 else 8] != 1) or
                              (not v6 and echo[:len(p.request(4000 + ttl, ttl, b"where am I"))] !=
                               p.request(4000 + ttl, ttl, b"where am I"))):
                wrong.append("IPv%d, TTL %d: quotes %s" % (6 if v6 else 4, ttl, quote.hex()))
    check_table(wrong)
    check_equal(gw.counter("icmp_proxy.ttl_expired"), 2)
    check_equal([gw.counter("icmp_proxy.errors_relayed_" + x) for x in ("v4_11_0", "v6_3_0", "v4_3_1", "other")], [2, 2, 0, 0],
                "errors that were relayed, by type and code (icmp.md 4.10)")


@test("an ICMP error that runs out of hops is not answered, and is never proxied", rows=["icmp X32", "icmp X8"])
def _(t):
    lab, gw = direct(t)
    for ttl in (2, 64):
        p = Pinger(t, lab, ttl=ttl)
        body = struct.pack("!BBHI", 3, 1, 0, 0) + p.request(1, 1)
        p.socket.sendto(body[:2] + struct.pack("!H", icmp_checksum(body)) + body[4:], (at.FAR[0], 0))
        body = struct.pack("!BBHHH", 0, 0, 0, 1, 1)         # nor is a reply that nobody asked for
        p.socket.sendto(body[:2] + struct.pack("!H", icmp_checksum(body)) + body[4:], (at.FAR[0], 0))
        check_equal(list(p.messages(0.4)), [], "answers at TTL %d" % ttl)
    check_equal(gw.counter("icmp_proxy.flows_created"), 0)


PATH = {False: ["10.77.1.1", GATEWAY[0], at.R1[0], at.R2[0], at.FAR[0]],
        True: ["fd77:1::1", GATEWAY[1], at.R1[1], at.R2[1], at.FAR[1]]}


@test("traceroute -I shows every hop", rows=["icmp X31", "icmp E1"], cases={"IPv4": False, "IPv6": True}, limit=40)
def _(t, v6):
    lab, _gw = direct(t)
    out = lab.cli.run([need("traceroute"), "-I", "-n", "-q", "1", "-w", "3", "-m", "8"] + (["-6"] if v6 else []) + [at.FAR[v6]])
    check_equal(re.findall(r"^ *\d+  (\S+)", out, re.M), PATH[v6], out)


@test("mtr shows every hop", rows=["icmp X31", "icmp E1"], cases={"IPv4": False, "IPv6": True}, limit=40)
def _(t, v6):
    lab, _gw = direct(t)
    out = lab.cli.run([need("mtr"), "-6" if v6 else "-4", "-n", "-r", "-c", "2", "-i", "0.5", at.FAR[v6]])
    check_equal(re.findall(r"^ *\d+\.\|-- (\S+)", out, re.M), PATH[v6], out)


@test("tracepath shows every hop", rows=["icmp X31", "icmp E1"], cases={"IPv4": False, "IPv6": True}, limit=60)
def _(t, v6):
    lab, _gw = direct(t)
    out = lab.cli.run([need("tracepath"), "-n", "-m", "8"] + (["-6"] if v6 else []) + [at.FAR[v6]], timeout=50)
    seen = []
    for hop in re.findall(r"^ *\d+: +(\S+)", out, re.M):
        if hop not in seen and hop != "no":
            seen.append(hop)
    check_equal([x for x in seen if not x.startswith("[")], PATH[v6], out)


@test("ttl: transparent: we are no hop; relay-errors: false: nobody else is one",
      rows=["icmp X33", "icmp E14"], limit=40)
def _(t):
    lab, gw = direct(t, stack={"icmp": {"ttl": "transparent"}})
    p = Pinger(t, lab, ttl=2)
    p.send(at.FAR[0], 1, 1)
    check_equal([s for s, _, _ in p.messages(1)], [at.R1[0]], "who says time exceeded")
    gw.terminate()
    lab.gateway(rules=["MATCH,DIRECT"], stack={"icmp": {"relay-errors": False}}, name="quiet", route=False)
    lab.gw.ip("route add default dev tun0 metric 10 table %d" % at.TABLE)      # it went with the old device
    p = Pinger(t, lab, ttl=3)
    p.send(at.FAR[0], 2, 2)
    check_equal(list(p.messages(1)), [], "relayed errors")


@test("ping -M do above the path's MTU: the client hears the MTU and then sends what fits",
      rows=["icmp E4", "icmp X27", "icmp E11"], cases={"IPv4": False, "IPv6": True}, limit=40)
def _(t, v6):
    lab, _gw = direct(t, mtu=1400)
    out = ping_text(lab.cli, "-c", "2", "-i", "0.3", "-W", "1", "-M", "do", "-s", "1440", at.FAR[v6])
    check(("Packet too big: mtu=1400" if v6 else "Frag needed and DF set (mtu = 1400)") in out, out)
    check(" 0 received" in out, out)
    out = ping_text(lab.cli, "-c", "2", "-i", "0.3", "-W", "1", "-M", "do", "-s", "1340", at.FAR[v6])
    check(" 2 received" in out, out)
    out = ping_text(lab.cli, "-c", "3", "-i", "0.3", "-W", "1", "-M", "dont", "-s", "3000", at.FAR[v6])
    check(int(re.search(r" (\d) received", out).group(1)) >= 2, out)


@test("above the MTU of our own uplink our kernel says so, and the client hears the gateway", rows=["icmp E7", "icmp E9"])
def _(t):
    lab, _gw = direct(t)
    lab.gw.ip("link set wan1 mtu 1300")
    out = ping_text(lab.cli, "-c", "1", "-W", "1", "-M", "do", "-s", "1400", at.FAR[0])
    check("From %s" % GATEWAY[0] in out and "mtu = 1300" in out, out)


UNREACHABLE = {
    "nobody": (at.FAR_NOBODY, "Destination Host Unreachable", "Destination unreachable: Address unreachable"),
    "unreachable": (at.FAR_UNREACHABLE, "Destination Host Unreachable", "Destination unreachable: No route"),
    "prohibited": (at.FAR_PROHIBITED, "Packet filtered", "Destination unreachable: Administratively prohibited"),
}


@test("a target that does not exist is unreachable, and never \"<1 ms\"", rows=["icmp E3", "icmp E10", "icmp M17"], limit=60)
def _(t):
    lab, gw = direct(t)
    wrong = []
    for name, (addresses, says4, says6) in UNREACHABLE.items():
        for target, says in zip(addresses, (says4, says6)):
            out = ping_text(lab.cli, "-c", "3", "-i", "0.7", "-W", "3", target)    # a router says it once a second or so
            router = at.R2[":" in target]
            if says not in out or "From %s" % router not in out or " 0 received" not in out:
                wrong.append("%s: %s" % (name, out.strip().replace("\n", " / ")))
    check_table(wrong)
    check_equal(gw.counter("flow.echo_replied"), 0)


@test("what our own kernel says of a target reaches the client: no route, prohibited, nobody on our wire",
      rows=["icmp E8", "icmp E9"], limit=40)
def _(t):
    lab, _gw = direct(t)
    lab.gw.ip("route add unreachable 10.78.1.1", "route add prohibit 10.78.1.2", "route add unreachable fd78::1",
              "route add 10.78.2.0/24 dev wan1")
    lab.gw.sysctl("net/ipv4/neigh/wan1/retrans_time_ms", 200)
    wrong = []
    for target, says in (("10.78.1.1", "Destination Host Unreachable"), ("10.78.1.2", "Packet filtered"),
                         ("10.79.0.1", "Destination Net Unreachable"), ("10.78.2.1", "Destination Host Unreachable")):
        out = ping_text(lab.cli, "-c", "1", "-W", "5", target)
        if says not in out or "From %s" % GATEWAY[0] not in out:
            wrong.append("%s: %s" % (target, out.strip().replace("\n", " / ")))
    check_table(wrong)


# ---- policy ----

MODES = {
    "reject": ({"echo": "reject"}, "Packet filtered"),
    "reject with a code of one's own": ({"echo": "reject", "reject-with": "port-unreachable"}, "Destination Port Unreachable"),
    "drop": ({"echo": "drop"}, "100% packet loss"),
    "auto, unsupported reject": ({"on-unsupported": "reject"}, "Packet filtered"),
    "auto, unsupported drop": ({"on-unsupported": "drop"}, "100% packet loss"),
    "down, drop": ({}, "100% packet loss"),
    "down, reject": ({"on-down": "reject"}, "Destination Host Unreachable"),
    "proxy is for DIRECT only": ({"echo": "proxy", "on-down": "reject"}, "Destination Host Unreachable"),
}


@test("with a dead upstream nothing is faked and nothing leaves directly",
      rows=["icmp M11", "icmp M14", "icmp M15", "icmp M16", "icmp M17", "icmp T11", "icmp J4"], cases=MODES)
def _(t, icmp, says):
    lab = t.lab()
    lab.direct_route()
    guard = lab.only("host %s or host %s" % at.PROXY)
    gw = lab.gateway(proxies=[{"name": "up", "type": "socks5", "server": at.PROXY[0], "port": 9999}], stack={"icmp": icmp})
    out = ping_text(lab.cli, "-c", "1", "-W", "4", at.TARGET[0])
    check(says in out and " 0 received" in out, out)
    guard.check_nothing()
    check_equal(gw.counter("flow.echo_replied"), 0)


@test("a rule's own echo decides: one target is proxied, one dropped, one answered, one rejected",
      rows=["icmp M10", "icmp M12", "icmp M14", "icmp M15"])
def _(t):
    rules = [{"dst-cidr": at.FAR[0], "via": "DIRECT", "echo": "proxy"},
             {"dst-cidr": "10.79.0.1", "via": "DIRECT", "echo": "drop"},
             {"dst-cidr": "10.79.0.2", "via": "DIRECT", "echo": "reply"},
             {"dst-cidr": "10.79.0.3", "via": "DIRECT", "echo": "reject"}, "NETWORK,icmp,REJECT-DROP", "MATCH,DIRECT"]
    lab, gw = direct(t, rules=rules)
    for target, wanted in ((at.FAR[0], " 1 received"), ("10.79.0.1", " 0 received"), ("10.79.0.2", " 1 received"),
                           ("10.79.0.3", "Packet filtered"), ("10.79.0.4", " 0 received")):
        out = ping_text(lab.cli, "-c", "1", "-W", "1", target)
        check(wanted in out, "%s: %s" % (target, out))
    gw.says(r"icmp: IPv4 pings that rules\[1\] takes \(via DIRECT\): drop \(as configured\)")


# ---- rights ----

OWN_TUN = 'mount -t tmpfs tmpfs /dev/net && mknod -m 666 /dev/net/tun c 10 200 && chown 65534 "$0" && exec "$@"'
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=+net_admin",
          "--ambient-caps=+net_admin", "--"]


@test("nobody may ping: one message that says what to do, pings are dropped, the rest works",
      rows=["icmp X1", "icmp X2", "icmp X3", "icmp X4", "icmp X5", "icmp M17"],
      cases={"no group": ("1 0", "1-0, i.e. no group", "drop"), "another group": ("100 200", "100-200", "reject")})
def _(t, group_range, shown, down):
    need("setpriv")
    lab = t.lab()
    lab.far()
    lab.services()
    lab.direct_route()
    lab.gw.sysctl("net/ipv4/ping_group_range", group_range)
    os.chown(t.dir, 65534, 65534)
    conf = t.path("culvert.yaml")
    gw = lab.gateway(rules=["MATCH,DIRECT"], stack={"icmp": {"on-down": down, "echo": "proxy"}}, ready=False,
                     prefix=["unshare", "-m", "--propagation", "private", "sh", "-c", OWN_TUN, conf] + NOBODY)
    gw.wait_ready()
    lab.route_into("tun0")
    gw.says(r"icmp proxy off for IPv4 and IPv6: cannot open a ping socket \(EACCES\). Process groups: effective 65534, "
            r"supplementary none. Allowed here: %s \(/proc/sys/net/ipv4/ping_group_range of this network namespace; it also "
            r"governs IPv6 and applies to root\). Fix one: set net.ipv4.ping_group_range=\"65534 65534\" .*; or grant "
            r"CAP_NET_RAW. Until then pings with policy proxy are %s"
            % (re.escape(shown), "dropped" if down == "drop" else "rejected"))
    out = ping_text(lab.cli, "-c", "2", "-i", "0.2", "-W", "1", at.FAR[0])
    check(" 0 received" in out and ("Host Unreachable" in out) == (down == "reject"), out)
    check_equal(client.ask(lab.cli, at.TARGET[0], 7, b"the rest works"), b"the rest works")
    check_equal(len(re.findall("icmp proxy off", gw.log)), 1, "messages")
    check_equal(gw.counter("icmp_proxy.families_off"), 2 * 2, "families of the workers")


@test("nobody may ping but we hold CAP_NET_RAW: raw sockets do the same", rows=["icmp X1", "icmp E1", "icmp X6"], limit=40)
def _(t):
    lab = t.lab()
    lab.far(mtu=1400)
    lab.gw.sysctl("net/ipv4/ping_group_range", "1 0")
    gw = lab.gateway(rules=["MATCH,DIRECT"])
    check_equal(gw.counter("icmp_proxy.families_raw"), 2 * 2)
    for v6, target in enumerate(at.FAR):
        client.ping(lab.cli, target, 2, 3000)       # until both ends know the path's MTU
        check_equal(client.ping(lab.cli, target, 3, 3000)[0], 3, target)
        out = lab.cli.run([need("traceroute"), "-I", "-n", "-q", "1", "-w", "3", "-m", "8"] + (["-6"] if v6 else []) + [target])
        check_equal(re.findall(r"^ *\d+  (\S+)", out, re.M), PATH[bool(v6)], out)
        out = ping_text(lab.cli, "-c", "1", "-W", "1", "-M", "do", "-s", "1440", target)
        check(re.search("mtu(=| = |: )1400", out), out)
    out = ping_text(lab.cli, "-f", "-c", "1000", "-q", at.FAR[0])
    check(" 1000 received" in out and "duplicates" not in out, out)


# ---- loops and limits ----

@test("a request of ours that comes back through the TUN is known, said once, and not proxied for a while", rows=["icmp X37"])
def _(t):
    lab, gw = direct(t, workers=2)
    lab.gw.ip("rule del fwmark 438 lookup main pref 50", "rule add to 10.77.10.0/24 lookup 20 pref 40")
    out = ping_text(lab.cli, "-c", "5", "-i", "0.2", "-W", "1", at.FAR[0])
    check(" 0 received" in out, out)
    check_equal(gw.counter("icmp_proxy.loop_detected"), 1)
    check(gw.counter("icmp_proxy.drops_loop") >= 3, "the target was still proxied")
    gw.says("loop: our own echo request to 10.77.10.1 came back")


def sweep(t, lab, count, per_second):
    """Requests with as many different (source, destination, id), from a packet socket; how many seconds it took."""
    wire = t.own(lab.cli.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800)), "close")
    mac = bytes(int(x, 16) for x in [n for n in lab.gw.ip_json("link") if n["ifname"] == "lan0"][0]["address"].split(":"))
    start = time.monotonic()
    for i in range(count):
        body = struct.pack("!BBHHH", 8, 0, 0, i & 0xffff, 1)
        body = body[:2] + struct.pack("!H", icmp_checksum(body)) + body[4:]
        head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28, i & 0xffff, 0, 64, 1, 0,
                           socket.inet_aton("10.77.1.%d" % (10 + i % 200)), socket.inet_aton(at.FAR[0]))
        head = head[:10] + struct.pack("!H", icmp_checksum(head)) + head[12:]
        wire.sendto(head + body, ("eth0", 0x0800, 0, 0, mac))
        ahead = i / per_second - (time.monotonic() - start)
        if ahead > 0.01:
            select.select([], [], [], ahead)
    return time.monotonic() - start


def sweep_test(t, count):
    lab, gw = direct(t)
    with open("/proc/%d/limits" % gw.pid) as f:
        limits = f.read()
    before = gw.resources()
    result = {}
    steady = threading.Thread(target=lambda: result.update(out=ping_text(
        lab.cli, "-c", str(max(10, count // 1700 * 4)), "-i", "0.25", at.FAR[0], timeout=120)))
    steady.start()
    seconds = sweep(t, lab, count, 1700)
    status = gw.status()["counters"]
    during = gw.resources()
    steady.join()
    t.note("%d keys in %.0f s: %d flows made, %d evicted, %d + %d + %d refused"
           % (count, seconds, status["icmp_proxy.flows_created"], status["icmp_proxy.flows_evicted"],
              status["icmp_proxy.drops_flow_cap"], status["icmp_proxy.drops_source_cap"], status["icmp_proxy.drops_rate"]))
    check(status["icmp_proxy.flows"] <= 1024, "%d flows" % status["icmp_proxy.flows"])
    check_equal(status["icmp_proxy.drops_socket"], 0, "sockets that could not be had (%s)" % limits)
    check(during.fds - before.fds <= 256 + 2 * 8 + 16, "%r descriptors, %r before" % (during.fds, before.fds))
    check(" 0% packet loss" in result["out"], result["out"])
    check(gw.counter("icmp_proxy.flows_evicted") + gw.counter("icmp_proxy.drops_flow_cap") > 0, "no cap was met")


@test("thousands of distinct keys: caps hold, descriptors too, and a ping that runs goes on running",
      rows=["icmp X12", "icmp X13", "icmp X17"], limit=60)
def _(t):
    sweep_test(t, 8000)


@test("100,000 distinct keys in a minute: caps hold, descriptors too, and a ping that runs goes on running",
      rows=["icmp X12", "icmp X13", "icmp X17"], limit=150, long=True)
def _(t):
    sweep_test(t, 100000)


@test("a flow ends ten seconds after its last packet, and its descriptor with it", rows=["icmp X11"], limit=40)
def _(t):
    lab, gw = direct(t)
    check_equal(client.ping(lab.cli, at.FAR[0], 1)[0], 1)
    last = time.monotonic()
    check_equal(gw.counter("icmp_proxy.flows"), 1)
    within(14, lambda: gw.counter("icmp_proxy.flows") == 0, "the flow ended", every=0.1)
    seconds = time.monotonic() - last
    check(9.5 <= seconds <= t.slow(8), "%.1f s" % seconds)
