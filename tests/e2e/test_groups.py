"""Groups and chains (config.md proxy-groups, dialer-proxy) through a gateway, with real servers that die and come back."""
import time

from faultd import FaultServer, close, greet, handshake, hang, relay, reply, request, reset, send, wait
from harness import check, check_equal, client, fronts, servers, test, within
from harness import lab as at
from harness.fronts import Pki

METHOD = send(b"\5\0")
GOOD = [greet(), METHOD, request(), send(reply()), relay()]


def group(name="g", kind="fallback", members=("a", "b"), **more):
    return dict({"name": name, "type": kind, "proxies": list(members)}, **more)


def gateway(lab, proxies, groups, rules=("MATCH,g",), workers=1, **more):
    return lab.gateway(proxies=proxies, rules=list(rules), workers=workers, **{"proxy-groups": groups}, **more)


@test("fallback: the first member dies in the middle of everything, and no client sees it", rows=["S1", "S13"], quick=True, limit=60)
def _(t):
    lab = t.lab()
    lab.services()
    a, b = servers.dante(lab), servers.microsocks(lab)
    gw = gateway(lab, [a.proxy("a"), b.proxy("b")], [group(**{"max-failures": 2})])
    client.curl_bytes(lab.cli, at.TARGET[0], 100000)
    check_equal(gw.counter("group.retries"), 0)
    a.process.stop()
    for _ in range(5):
        client.curl_bytes(lab.cli, at.TARGET[0], 100000)
    check_equal(gw.counter("group.retries"), 2, "flows that tried the dead member")
    check_equal(gw.counter("group.switches"), 1)
    gw.says("group g: b instead of a")
    shown = gw.status()["groups"]["g"]
    check_equal((shown["type"], shown["now"], shown["members"]["a"]["down"]), ("fallback", "b", True))
    gw.wait_no_flows()


WRONG = {
    "closes at once": [close()],
    "closes after the greeting": [greet(), close()],
    "is an HTTP server": [greet(), send(b"HTTP/1.1 400 Bad Request\r\n\r\n"), close()],
    "asks for a login": [greet(), send(b"\5\2"), hang()],
    "says nothing": [hang()],
}


@test("what the first member gets wrong, the next one does before the client has seen anything", rows=["S1", "E9"], limit=60,
      cases={k: (v,) for k, v in WRONG.items()})
def _(t, plan):
    lab = t.lab()
    lab.services()
    bad = FaultServer(t, lab.srv, at.PROXY[0], 2000, plan)
    b = servers.microsocks(lab)
    gw = gateway(lab, [bad.proxy("a"), b.proxy("b")], [group()], stack={"tcp": {"connect-timeout": "2s"}})
    client.curl_bytes(lab.cli, at.TARGET[0], 100000)
    check_equal(gw.counter("group.retries"), 1)
    check_equal(gw.counter("flow.tcp_failed"), 0)


@test("a target that refuses is not asked for again through the next member", rows=["S8"], limit=60)
def _(t):
    lab = t.lab()
    lab.services()
    a = FaultServer(t, lab.srv, at.PROXY[0], 2000, handshake([close()], answer=reply(5)))
    b = FaultServer(t, lab.srv, at.PROXY[0], 2001, GOOD)
    gw = gateway(lab, [a.proxy("a"), b.proxy("b")], [group()])
    check_equal(client.outcome(lab.cli, at.TARGET[0], 8080)[0], "ECONNREFUSED")
    check_equal(len(b.connections), 0, "connections of the second member")
    check_equal(gw.counter("group.retries"), 0)


@test("a running flow keeps its member when the group switches", rows=["S13"], limit=60)
def _(t):
    lab = t.lab()
    lab.services()
    a, b = servers.dante(lab), servers.microsocks(lab)
    gone = FaultServer(t, lab.srv, at.PROXY[0], 2000, [close()])
    gw = gateway(lab, [gone.proxy("a"), a.proxy("c"), b.proxy("b")],
                 [group(members=["b", "c"]), group("h", "fallback", ["a", "g"], **{"max-failures": 1})],
                 rules=["DST-PORT,7,g", "MATCH,h"])
    with client.tcp(lab.cli, at.TARGET[0], 7) as s:
        s.sendall(b"one")
        check_equal(client.receive(s, 3), b"one")
        client.curl_bytes(lab.cli, at.TARGET[0], 10000)
        gw.says("group h: g instead of a")
        s.sendall(b"two")
        check_equal(client.receive(s, 3), b"two")


@test("the circuit: dials to a dead member stop after max-failures, a test brings it back", rows=["S20"], limit=90)
def _(t):
    lab = t.lab()
    lab.services()
    dead = FaultServer(t, lab.srv, at.PROXY[0], 2000, [close()])
    gw = gateway(lab, [dead.proxy("a")], [group(members=["a"], **{"max-failures": 3, "retry-after": "2s"})])
    outcomes = client.outcomes(lab.cli, {i: (at.TARGET[0], 8080) for i in range(100)})
    check_equal({o[0] for o in outcomes.values()}, {"EHOSTUNREACH"})
    before = len(dead.connections)
    check_equal(client.outcome(lab.cli, at.TARGET[0], 8080)[0], "EHOSTUNREACH")
    check(gw.counter("group.refused") >= 1, "no flow was refused at once") # the line about it may be one too many a second
    check(len(dead.connections) - before <= gw.counter("group.tests"), "dialled while the circuit was open")
    dead.plan = GOOD
    within(t.slow(20), lambda: client.outcome(lab.cli, at.TARGET[0], 8080)[0] == "open", "the member is well again", every=0.5)
    client.curl_bytes(lab.cli, at.TARGET[0], 10000)


@test("url-test takes the faster member", rows=[], limit=60)
def _(t):
    lab = t.lab()
    lab.services()
    slow = FaultServer(t, lab.srv, at.PROXY[0], 2000, [greet(), wait(0.5), METHOD, request(), send(reply()), relay()])
    b = servers.microsocks(lab)
    gw = gateway(lab, [slow.proxy("a"), b.proxy("b")],
                 [group(kind="url-test", url="http://%s:8080/bytes/1" % at.TARGET[0], interval="60s")], workers=2)
    within(t.slow(10), lambda: gw.counter("group.switches") >= 2, "both workers take the faster one")
    check_equal(gw.counter("group.tests"), 2, "tests, one a member for the process")
    before = len(slow.connections)
    for _ in range(4):
        client.curl_bytes(lab.cli, at.TARGET[0], 10000)
    check_equal(len(slow.connections), before, "connections of the slower member")


@test("url-test over HTTPS: the address is fetched through the member, and believed if the system's authorities say so", rows=[], limit=60,
      cases={"trusted": True, "strange": False})
def _(t, trusted):
    lab = t.lab()
    lab.services()
    pki = Pki(t)
    web = servers.Lists(lab, pem=pki.server())
    web.write("generate_204", "")
    b = servers.microsocks(lab)
    bind = ["unshare", "-m", "sh", "-c", 'mount --bind "$0" /etc/ssl/certs/ca-certificates.crt && exec "$@"', pki.ca]
    gw = gateway(lab, [{"name": "a", "type": "socks5", "server": at.PROXY[0], "port": 9}, b.proxy("b")],
                 [group(kind="url-test", url=web.url("generate_204"), interval="60s")], prefix=bind if trusted else ())
    within(t.slow(10), lambda: gw.counter("group.tests") >= 2, "both members are tested")
    if trusted:
        within(t.slow(10), lambda: gw.counter("group.switches") >= 1, "the one through which the address can be fetched")
        client.curl_bytes(lab.cli, at.TARGET[0], 10000)
    else:
        b.process.wait_line("connected to .*:8443", t.slow(10))
        within(t.slow(10), lambda: all(m["failures"] > 0 for m in gw.status()["groups"]["g"]["members"].values()), "both have failed")
        check_equal([m["delay-ms"] for m in gw.status()["groups"]["g"]["members"].values()], [0, 0], "what was measured")
    check_equal(web.asked(), ["/generate_204 200"] if trusted else [])


class Flapping(FaultServer):
    """A good server for a second, then one that resets whoever comes, and so on; who is there stays."""

    def __init__(self, t, lab, port=2000):
        self.start, self.turned_away = time.monotonic(), 0
        super().__init__(t, lab.srv, at.PROXY[0], port, self._answer)

    def _answer(self, _):
        if int(time.monotonic() - self.start) % 2 == 0:
            return GOOD
        self.turned_away += 1
        return [reset()]


@test("a member is up for a second and down for a second, for a minute: no flow sees it, one switch in 30 s, no storm of dials",
      rows=["S13"], limit=180, long=True, cases={"before a good one": ("a", "b"), "behind it": ("b", "a")})
def _(t, *members):
    lab = t.lab()
    lab.services()
    a, b = Flapping(t, lab), servers.microsocks(lab)
    gw = gateway(lab, [a.proxy("a"), b.proxy("b")], [group(members=members, **{"max-failures": 2, "retry-after": "1s"})])
    end, fetched, living = time.monotonic() + 60, 0, []
    while time.monotonic() < end:
        client.download(lab.cli, at.TARGET[fetched % 2], 10000)
        fetched += 1
        if fetched % 20 == 1:
            living.append(client.tcp(lab.cli, at.TARGET[0], 7, timeout=10))
        for s in living[-20:]:
            s.sendall(b"x")
            check_equal(client.receive(s, 1), b"x", "a flow that runs")
        time.sleep(0.05)                # a pace, not a wait
    for s in living:
        s.sendall(b"end")
        check_equal(client.receive(s, 3), b"end", "a flow that has run all the time")
    switches, tests = gw.counter("group.switches"), gw.counter("group.tests")
    t.note("%d flows, %d that lived on; %d switches; %d tests; %d connections to the member, %d turned away" % (
        fetched, len(living), switches, tests, len(a.connections), a.turned_away))
    check(fetched >= 200, "%d flows in a minute" % fetched)
    check(switches <= 3, "%d switches in a minute" % switches)
    # max-failures, and then tests, which come less and less often.
    check(a.turned_away <= 2 + 30, "the member was dialled %d times while it was down" % a.turned_away)
    check_equal(gw.counter("flow.tcp_failed"), 0)


@test("load-balance: round-robin spreads, a hash stays", rows=[], limit=60, cases={x: x for x in ("round-robin", "consistent-hash", "sticky")})
def _(t, strategy):
    lab = t.lab()
    lab.services()
    s = [FaultServer(t, lab.srv, at.PROXY[0], 2000 + i, GOOD) for i in range(2)]
    gateway(lab, [s[0].proxy("a"), s[1].proxy("b")], [group(kind="load-balance", strategy=strategy)])
    for _ in range(10):
        client.curl_bytes(lab.cli, at.TARGET[0], 1000)
    counts = sorted(len(x.connections) for x in s)
    check_equal(counts, [5, 5] if strategy == "round-robin" else [0, 10])


@test("UDP: the next member relays it when the first one is dead", rows=["S1"], limit=60)
def _(t):
    lab = t.lab()
    lab.services()
    dead = FaultServer(t, lab.srv, at.PROXY[0], 2000, [close()])
    gw = gateway(lab, [dead.proxy("a", udp=True), servers.dante(lab).proxy("b")], [group()])
    check_equal(client.ask(lab.cli, at.TARGET[0], 7, b"hello"), b"hello")
    check_equal(gw.counter("group.retries"), 1)


def http_2_proxy(lab):
    """An HTTP/2 proxy that knows no CONNECT-UDP."""
    pki = Pki(lab.context)
    pki.server()
    far = fronts.masque(lab, pki)
    return fronts.nghttpx(lab, pki, far).proxy("a")


NO_UDP = {"SOCKS5 that refuses it": lambda lab: servers.microsocks(lab).proxy("a"), "HTTP/2 that has no CONNECT-UDP": http_2_proxy}


@test("UDP passes over a member that carries none, which TCP goes on to use", rows=["U6"], limit=60, cases=NO_UDP)
def _(t, start):
    lab = t.lab()
    lab.services()
    b = servers.dante(lab)
    gw = gateway(lab, [start(lab), b.proxy("b")], [group()])
    client.curl_bytes(lab.cli, at.TARGET[0], 100000)
    for target in at.TARGET:
        check_equal(client.ask(lab.cli, target, 7, b"hello"), b"hello")
    client.curl_bytes(lab.cli, at.TARGET[0], 100000)
    gw.says("group g: a carries no UDP, so datagrams pass it over")
    check_equal((gw.counter("group.switches"), gw.status()["groups"]["g"]["now"]), (0, "a"))
    b.process.stop()
    client.curl_bytes(lab.cli, at.TARGET[0], 100000)


@test("a chain: SOCKS5 through HTTP through TLS, exact bytes both ways", rows=["S22"], quick=True, limit=90)
def _(t):
    lab = t.lab()
    lab.services()
    pki = Pki(t)
    pki.server()
    squid = fronts.squid(lab, pki)[1]
    inner = servers.microsocks(lab)
    gw = lab.gateway(proxies=[squid.proxy("outer"), inner.proxy("inner", **{"dialer-proxy": "outer"})], rules=["MATCH,inner"])
    for target in at.TARGET:
        client.curl_bytes(lab.cli, target, 1000000)
    client.curl_upload(t, lab.cli, at.TARGET[0], 300000)
    inner.process.stop()
    check_equal(client.outcome(lab.cli, at.TARGET[0], 8080)[0], "EHOSTUNREACH")
    gw.says("inner, reached through outer: outer ")
    gw.wait_no_flows()


@test("TLS inside TLS: both hops are sealed", rows=["S22"], limit=90)
def _(t):
    lab = t.lab()
    lab.services()
    pki = Pki(t)
    pki.server()
    squid = fronts.squid(lab, pki)[1]
    fronts.haproxy(lab, servers.microsocks(lab), 2443, pki.server())
    inner = fronts.Front(servers.Socks("microsocks", fronts.ADDRESS, 1081, "auto"), 2443, {"ca": pki.ca})
    gw = lab.gateway(proxies=[squid.proxy("outer"), inner.proxy("inner", **{"dialer-proxy": "outer"})], rules=["MATCH,inner"])
    for target in at.TARGET:
        client.curl_bytes(lab.cli, target, 1000000)
    client.curl_upload(t, lab.cli, at.TARGET[0], 300000)
    gw.wait_no_flows()


def over_tcp(server, **more):
    return server.proxy("up", udp="over-tcp", **more)


def udp_round_trips(lab, sizes=(0, 1, 1200, 9000)):
    for target in at.TARGET:
        with client.udp(lab.cli, target, 7) as s:
            for size in sizes:
                data = bytes((i * 7) & 255 for i in range(size))
                s.send(data)
                check_equal(s.recv(65536), data, "%d bytes to %s and back" % (size, target))


@test("UDP over TCP: our client and our server, plain and inside TLS", rows=["U3"], quick=True, limit=60,
      cases={"plain": False, "TLS": True})
def _(t, tls):
    lab = t.lab()
    lab.services()
    far = servers.culvert_serve(lab)
    if tls:
        pki = Pki(t)
        fronts.haproxy(lab, far, 2443, pki.server())
        far = fronts.Front(far, 2443, {"ca": pki.ca})
    gw = lab.gateway(proxies=[over_tcp(far)], rules=["MATCH,up"])
    udp_round_trips(lab)
    client.curl_bytes(lab.cli, at.TARGET[0], 100000)
    check_equal(gw.counter("socks.udp_malformed"), 0)


@test("UDP over TCP at the end of a chain, and by a member of a group", rows=["S22"], limit=60)
def _(t):
    lab = t.lab()
    lab.services()
    dead = FaultServer(t, lab.srv, at.PROXY[0], 2000, [close()])
    far = servers.culvert_serve(lab)
    outer = servers.microsocks(lab)
    lab.gateway(proxies=[outer.proxy("outer"), over_tcp(far, **{"dialer-proxy": "outer"}), dead.proxy("a", udp="over-tcp")],
                rules=["MATCH,g"], **{"proxy-groups": [group(members=["a", "up"])]})
    udp_round_trips(lab)


@test("UDP over TCP: many at once arrive in order, both ways", rows=[], limit=60)
def _(t):
    lab = t.lab()
    lab.services()
    gw = lab.gateway(proxies=[over_tcp(servers.culvert_serve(lab))], rules=["MATCH,up"])
    with client.udp(lab.cli, at.TARGET[0], 7) as s:
        for burst in range(20):
            sent = [b"%d.%d" % (burst, i) for i in range(10)]
            for d in sent:
                s.send(d)
            check_equal([s.recv(100) for _ in sent], sent)
    check_equal(gw.counter("upstream.datagrams_unsent"), 0)


@test("a server without command 5: DNS goes over TCP, other UDP is refused at once", rows=["U6"], limit=60)
def _(t):
    lab = t.lab()
    lab.services()
    servers.unbound(lab)
    lab.gateway(proxies=[over_tcp(servers.microsocks(lab))], rules=["MATCH,up"])
    check(at.TARGET[0] in client.dig(lab.cli, at.TARGET[0], "example.test"), "DNS over TCP")
    with client.udp(lab.cli, at.TARGET[0], 7, timeout=3) as s:
        s.send(b"x")
        try:
            s.recv(100)
            raise AssertionError("an answer came")
        except ConnectionRefusedError:
            pass


# The other implementation of command 5. No Debian package has it: put hev's programs into /usr/local/bin to run these.

@test("UDP over TCP: our client through hev-socks5-server", rows=[], limit=60)
def _(t):
    lab = t.lab()
    lab.services()
    gw = lab.gateway(proxies=[over_tcp(servers.hev_socks5_server(lab))], rules=["MATCH,up"])
    udp_round_trips(lab, (1, 1200, 1400))           # it holds 1500 bytes with the address, and none without data
    client.curl_bytes(lab.cli, at.TARGET[0], 100000)
    check_equal(gw.counter("socks.udp_malformed"), 0)


@test("UDP over TCP: hev-socks5-tunnel through our server", rows=[], limit=60)
def _(t):
    lab = t.lab()
    lab.services()
    servers.hev_socks5_tunnel(lab, servers.culvert_serve(lab))
    lab.route_into("tun0")
    udp_round_trips(lab, (1, 1200, 1400))
    client.curl_bytes(lab.cli, at.TARGET[0], 100000)
