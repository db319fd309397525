"""Pings through type masque to our own far end (icmp.md 5): answered by the target itself, or not at all."""
import re
import socket
import struct
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from harness import check, check_equal, client, fronts, servers, test, within
from harness import lab as at
from harness.fronts import Pki


def start(t, **keys):
    lab = t.lab()
    pki = Pki(t)
    pki.server()
    return lab, pki, fronts.masque(lab, pki, **keys)


@test("ping and ping -6 through the tunnel: every size whole, hops in the TTL, and the log says why",
      rows=["icmp T1", "icmp T2", "icmp T4", "icmp M13", "icmp M16"], quick=True, limit=60)
def _(t):
    lab, _, far = start(t)
    gw = lab.gateway(proxies=[far])
    for target in at.TARGET:
        check_equal(client.ping(lab.cli, target, 3, 56)[0], 3, "answers from " + target)
        for size in (0, 1400, 8000):
            check_equal(client.ping(lab.cli, target, 2, size)[0], 2, "%d bytes to %s" % (size, target))
    check("tunnel (auto: its way out carries pings)" in gw.log, gw.log)


@test("a hop limit that ends here is told by us, one that ends at the far end by the far end", rows=["icmp T3"], limit=60)
def _(t):
    lab, _, far = start(t)
    lab.gateway(proxies=[far])
    check_equal(client.ping(lab.cli, at.TARGET[0], 1, 56)[0], 1)
    for ttl in (1, 2):
        out = lab.cli.result(["ping", "-n", "-c", "1", "-W", "3", "-t", str(ttl), at.TARGET[0]], timeout=20)
        text = out.stdout if isinstance(out.stdout, str) else out.stdout.decode()
        check("Time to live exceeded" in text, "TTL %d: %s" % (ttl, text))


@test("a far end without echo: on-unsupported decides, and nothing leaves another way",
      rows=["icmp T10", "icmp T14"], limit=60)
def _(t):
    lab, _, far = start(t, echo=False)
    gw = lab.gateway(proxies=[far], stack={"icmp": {"on-unsupported": "drop"}})
    check_equal(client.ping(lab.cli, at.TARGET[0], 2, 56)[0], 0)
    check("its far end carries no pings" in gw.log, gw.log)


@test("the far end is gone: pings follow on-down, never a reply of ours", rows=["icmp T11", "icmp M17"], limit=60)
def _(t):
    lab, _, far = start(t)
    lab.gateway(proxies=[far])
    check_equal(client.ping(lab.cli, at.TARGET[0], 1, 56)[0], 1)
    far.process.signal(9)
    far.process.wait(10)
    check_equal(client.ping(lab.cli, at.TARGET[0], 2, 56)[0], 0)


@test("pings beside a bulk transfer through the same connection are all answered", rows=["icmp T6"], limit=90)
def _(t):
    lab, _, far = start(t)
    lab.services()
    lab.gateway(proxies=[far])
    url = servers.Services.url(at.TARGET[0], "bytes/4000000000")
    bulk = subprocess.Popen(lab.cli.argv(["curl", "-s", "-o", "/dev/null", url]))
    try:
        answered, text = client.ping(lab.cli, at.TARGET[0], 20, 56)
        check(bulk.poll() is None, "the transfer was over before the pings")
        check_equal(answered, 20)
        t.note(text.splitlines()[-1])
    finally:
        bulk.kill()
        bulk.wait()


@test("the round trip of pings, and of the connection itself, is counted", rows=["icmp T8"], limit=60)
def _(t):
    lab, _, far = start(t)
    gw = lab.gateway(proxies=[far])
    check_equal(client.ping(lab.cli, at.TARGET[0], 5, 56)[0], 5)
    counters = gw.status()["counters"]
    for name in ("icmp_tunnel.rtt", "masque.rtt"):
        steps = [counters[name + step] for step in ("_le_1ms", "_le_3ms", "_le_10ms", "_le_30ms", "_le_100ms", "_le_300ms", "_le_1s", "_more")]
        check(counters[name + "_sum_us"] > 0, "%s has no sum" % name)
        check(sum(steps) == 5 if name == "icmp_tunnel.rtt" else sum(steps) > 0, "%s: %s" % (name, steps))


@test("a ping's flow keeps to one member of a group, and moves when that one dies", rows=["icmp T12", "icmp T16"], limit=90)
def _(t):
    lab, pki, first = start(t)
    second = fronts.masque(lab, pki, port=8444)
    gw = lab.gateway(proxies=[first.proxy("a"), second.proxy("b")], rules=["MATCH,g"],
                     **{"proxy-groups": [{"name": "g", "type": "load-balance", "strategy": "round-robin", "proxies": ["a", "b"]}]})
    run = subprocess.Popen(lab.cli.argv([servers.need("ping"), "-n", "-i", "0.2", "-c", "60", at.TARGET[0]]), stdout=subprocess.PIPE, text=True)
    try:
        within(t.slow(10), lambda: gw.counter("flow.echo_tunnelled") >= 5, "pings go through")
        used, other = (first, second) if established(lab, first) else (second, first)
        client.outcome(lab.cli, at.TARGET[0], 4)     # the group's turn moves on; the flow does not
        before = gw.counter("flow.echo_tunnelled")
        within(t.slow(10), lambda: gw.counter("flow.echo_tunnelled") >= before + 5, "they go on")
        check_equal(gw.counter("flow.echo_moved"), 0)
        used.process.signal(9)
        used.process.wait(10)
        within(t.slow(15), lambda: gw.counter("flow.echo_moved") == 1, "the flow has moved")
        before = gw.counter("icmp_tunnel.rtt_sum_us")
        within(t.slow(10), lambda: gw.counter("icmp_tunnel.rtt_sum_us") > before, "and is answered")
        check(other.process.alive(), "the other far end")
    finally:
        run.kill()
        run.wait()


def established(lab, far):
    """Does anybody have a connection to this far end?"""
    out = lab.srv.result(["ss", "-Htn", "state", "established", "( sport = :%d )" % far.port]).stdout
    return bool(out.strip())


def fake_of(lab, name, kind):
    return client.dig(lab.cli, at.TARGET2[0], name, kind)[0]


WAYS = {"through the tunnel": ("MATCH,up",), "DIRECT": ("MATCH,DIRECT",)}


@test("a fake address is pinged at the real one of its name, and the client sees only the fake one", rows=["icmp M18"], limit=60,
      cases=WAYS)
def _(t, rule):
    lab, _, far = start(t)
    servers.unbound(lab)
    lab.direct_route()
    lab.gw.sysctl("net/ipv4/ping_group_range", "0 2147483647")
    # a rule about addresses: it holds for the name's real one
    gw = lab.gateway(proxies=[far], rules=["DOMAIN,nowhere.test,up", "IP-CIDR,%s/32,REJECT" % at.TARGET2[0], rule],
                     dns={"mode": "fake-ip", "nameserver": ["%s#DIRECT" % at.TARGET[0]]},
                     runtime={"workers": 1, "state-dir": t.path("state")})
    for family, kind in enumerate(("A", "AAAA")):
        fake = fake_of(lab, "example.test", kind)
        answered, text = client.ping(lab.cli, fake, 3, 56)
        check_equal(answered, 3, text)                     # the first one has waited for the name
        check("from %s" % fake in text and at.TARGET[family] not in text, text)
        r = lab.cli.result([servers.need("ping"), "-n", "-c", "1", "-W", "3", "-t", "2", fake], timeout=20)
        check("exceeded" in r.stdout and at.TARGET[family] not in r.stdout, r.stdout)
        r = lab.cli.result([servers.need("ping"), "-n", "-c", "1", "-W", "3", fake_of(lab, "missing.test", kind)], timeout=20)
        check("unreachable" in r.stdout.lower() and ", 0 received" in r.stdout, r.stdout)
    check_equal(gw.counter("flow.echo_rejected"), 4)


@test("the longest pings of all: 65,507 bytes by IPv4, 65,527 by IPv6, back byte for byte", rows=["icmp T1"], limit=60)
def _(t):
    lab, _, far = start(t)
    lab.cli.sysctl("net/ipv4/ping_group_range", "0 2147483647")
    lab.gateway(proxies=[far])
    for v6, size in ((False, 65507), (True, 65527)):
        target = at.TARGET[1 if v6 else 0]
        check_equal(client.ping(lab.cli, target, 1, 56)[0], 1)
        payload = bytes((i * 7 + i // 256) & 255 for i in range(size))
        with lab.cli.entered():
            family, proto, kind = (socket.AF_INET6, socket.IPPROTO_ICMPV6, 128) if v6 else (socket.AF_INET, socket.IPPROTO_ICMP, 8)
            s = socket.socket(family, socket.SOCK_DGRAM, proto)
        with s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            s.settimeout(t.slow(5))
            s.sendto(struct.pack(">BBHHH", kind, 0, 0, 0, 7) + payload, (target, 0))
            answer = s.recv(70000)
        check_equal((answer[0], len(answer) - 8, answer[8:] == payload), (129 if v6 else 0, size, True))


def bulk(lab, size, until):
    """TCP both ways, again and again; how many rounds were whole. One that the cut has hit is not counted."""
    whole = 0
    while not until.is_set():
        try:
            client.curl_bytes(lab.cli, at.TARGET[0], size)
            client.upload(lab.cli, at.TARGET[1], size)
            whole += 1
        except Exception:           # the cut, in whatever it was doing
            time.sleep(0.2)
    return whole


@test("reconnect in the middle of all of it: TCP both ways, datagrams and pings at once", rows=["icmp T5", "icmp T12"], limit=400)
def _(t):
    lab, pki, far = start(t)
    lab.services()
    gw = lab.gateway(proxies=[far])
    rounds, seconds = (10, 20) if t.options.long else (2, 3)
    stop = threading.Event()
    said = open(t.path("pings"), "w+")      # a pipe that nobody reads holds two minutes of them
    run = subprocess.Popen(lab.cli.argv([servers.need("ping"), "-n", "-i", "0.1", at.TARGET[0]]), stdout=said, text=True)
    with ThreadPoolExecutor(2) as pool:
        bulks = [pool.submit(bulk, lab, 3000000, stop) for _ in range(2)]
        try:
            with client.udp(lab.cli, at.TARGET[0], servers.Services.ECHO) as s:
                s.settimeout(0.5)
                for turn in range(rounds):
                    ends = time.monotonic() + t.slow(seconds)
                    asked(s, t.slow(20))
                    before = gw.counter("icmp_tunnel.rtt_sum_us")
                    within(t.slow(10), lambda: gw.counter("icmp_tunnel.rtt_sum_us") > before, "pings are answered")
                    while time.monotonic() < ends:
                        asked(s, t.slow(20))
                    if turn % 2 == 0:           # the whole server dies
                        far.process.signal(9)
                        far.process.wait(10)
                        far = fronts.masque(lab, pki)
                    else:                       # only the connections do
                        lab.srv.result(["ss", "-K", "sport", "=", str(far.port)])
                asked(s, t.slow(20))
                before = gw.counter("icmp_tunnel.rtt_sum_us")
                within(t.slow(20), lambda: gw.counter("icmp_tunnel.rtt_sum_us") > before, "pings go on after the last cut")
        finally:
            stop.set()
            run.terminate()
            run.wait()
    with said:
        said.seek(0)
        seen = [int(x) for x in re.findall(r"icmp_seq=(\d+) ttl", said.read())]
    whole = sum(b.result() for b in bulks)
    check(whole >= 2, "%d rounds of TCP were whole" % whole)
    check_equal(len(seen), len(set(seen)), "pings answered twice")
    client.curl_bytes(lab.cli, at.TARGET[0], 3000000)
    t.note("%d cuts; %d TCP rounds of 6 MB whole, %d pings answered" % (rounds, whole, len(seen)))


def asked(s, seconds):
    """A datagram comes back; those that a cut swallows are asked for again, as anybody who uses UDP does."""
    ends = time.monotonic() + seconds
    while True:
        try:
            s.send(b"datagram")
            check_equal(s.recv(100), b"datagram")
            return
        except (TimeoutError, ConnectionRefusedError, OSError):
            check(time.monotonic() < ends, "no datagram in %d s" % seconds)
