"""DNS answered by the gateway: fake addresses, real ones with their names, name servers that misbehave (faults.md section 8)."""
import os
import socket
import ssl
import struct
import time

from faultd import FaultServer, echo, handshake
from harness import check, check_equal, client, fronts, servers, test, within
from harness import lab as at
from harness.names import Liar, answer, dig, dns, only_a, question, status_of


# ---- fake addresses ----

@test("fake-ip: a name gets an address of each family, TTL 1, and the way out gets the name", rows=["D8"], quick=True)
def _(t):
    lab = t.lab()
    proxy = FaultServer(t, lab.srv, at.PROXY[0], 2000, handshake([echo()]))
    gw = lab.gateway(proxies=[proxy.proxy("up")], **dns(t, "fake-ip"))
    v4 = dig(lab.cli, at.TARGET[0], "www.example.test")
    v6 = dig(lab.cli, at.TARGET[0], "WWW.example.test", "AAAA", "+tcp")
    check(v4[0].startswith("198.19.") and v6[0].startswith("fdfe:dcba:9877:"), "%s %s" % (v4, v6))
    check_equal(dig(lab.cli, at.TARGET2[0], "www.example.test", "A", "+tcp"), v4, "again, from another server, over TCP")
    r = lab.cli.result(["dig", "+noall", "+answer", "@" + at.TARGET[0], "www.example.test"])
    check_equal(r.stdout.split()[1], "1", "TTL")
    for address in v4 + v6:
        with client.tcp(lab.cli, address, 80) as s:
            s.sendall(b"hello")
            check_equal(client.receive(s, 5), b"hello")
    check_equal([c.target for c in proxy.connections], [("www.example.test", 80)] * 2)
    r = lab.cli.result(["dig", "+short", "@" + at.TARGET[0], "-x", v4[0]])
    check_equal(r.stdout.strip(), "www.example.test.", "PTR")
    # D8: an address of the range that is nobody's is refused, and never dialled
    how, _ = client.outcome(lab.cli, "198.19.77.77", 80)
    check_equal(how, "ECONNREFUSED")
    check_equal(gw.counter("fakeip.unknown"), 1)
    check_equal(len(proxy.connections), 2)
    gw.says("fakeip.unknown")


@test("fake-ip: addresses are the same after a restart; a broken or missing file costs only that", rows=["D8", "D9"],
      limit=60)
def _(t):
    lab = t.lab()
    proxy = FaultServer(t, lab.srv, at.PROXY[0], 2000, handshake([echo()]))
    path = os.path.join(t.path("state"), "fake-ip")

    def run():
        gw = lab.gateway(proxies=[proxy.proxy("up")], route=not ran, **dns(t, "fake-ip"))
        if ran:
            lab.gw.ip("route replace default dev tun0 metric 10 table 20")
        ran.append(gw)
        return gw

    ran = []
    gw = run()
    names = ["host%d.example.test" % i for i in range(30)]
    before = {n: dig(lab.cli, at.TARGET[0], n) for n in names}
    check_equal(len({a[0] for a in before.values()}), 30, "different addresses")
    check_equal(gw.terminate(seconds=4), 0)
    gw = run()
    with client.tcp(lab.cli, before[names[7]][0], 80) as s:    # without asking again
        s.sendall(b"x")
        client.receive(s, 1)
    check_equal(proxy.connections[-1].target, (names[7], 80))
    check_equal({n: dig(lab.cli, at.TARGET[0], n) for n in names}, before, "after the restart")
    check_equal(gw.terminate(seconds=4), 0)
    whole = open(path, "rb").read()
    for broken, says in ((whole[:-9], "broken"), (b"", None), (os.urandom(500), "broken"),
                         (whole[:8] + b"\0\0\0\7" + whole[12:], "broken")):
        with open(path, "wb") as f:
            f.write(broken)
        gw = run()
        if says:
            gw.says(says)
        check(dig(lab.cli, at.TARGET[0], "new.example.test")[0].startswith("198.19."), "an answer")
        check_equal(gw.terminate(seconds=4), 0)
        check_equal(open(path, "rb").read()[:8], b"culvfake", "the file is whole again")
    # A folder that takes no file: one line, and all else works. (Root may write anywhere, so a file stands in its place.)
    os.unlink(path)
    os.rmdir(t.path("state"))
    open(t.path("state"), "w").close()
    gw = run()
    check(dig(lab.cli, at.TARGET[0], "new.example.test")[0].startswith("198.19."), "an answer")
    check_equal(gw.terminate(seconds=4), 0)
    check_equal(len([x for x in gw.process.lines if "fake addresses cannot be kept" in x]), 1, "lines about it")


@test("fake-ip: DIRECT finds the real address by the configured name server; names of one family only work, and filtered ones")
def _(t):
    lab = t.lab()
    lab.direct_route()
    servers.unbound(lab, more=["four.test. 60 IN A " + at.TARGET[0], "six.test. 60 IN AAAA " + at.TARGET[1],
                               "host.real.test. 60 IN A " + at.TARGET2[0]])
    services = lab.services()
    gw = lab.gateway(rules=["MATCH,DIRECT"],
                     **dns(t, "fake-ip", nameserver=[at.TARGET[0]], **{"fake-ip-filter": ["+.real.test"]}))
    for name, kind in (("four.test", "A"), ("six.test", "A"), ("six.test", "AAAA"), ("example.test", "AAAA")):
        address = dig(lab.cli, at.TARGET[0], name, kind)[0]
        check(address.startswith("198.19.") or address.startswith("fdfe:dcba:9877:"), address)
        client.download(lab.cli, address, 10000)
    check_equal(dig(lab.cli, at.TARGET[0], "host.real.test"), [at.TARGET2[0]], "a filtered name")
    address = dig(lab.cli, at.TARGET[0], "none.test")[0]
    check_equal(client.outcome(lab.cli, address, 80)[0], "EHOSTUNREACH", "a name that does not exist")
    # UDP by name: the answer comes from the fake address
    address = dig(lab.cli, at.TARGET[0], "four.test")[0]
    check_equal(client.ask(lab.cli, address, services.ECHO, b"hello"), b"hello")
    check_equal(gw.counter("dns.failed"), 0)


@test("fake-ip: a client port that talks to 300 names has 64 associations, and every one of the names is answered")
def _(t):
    lab = t.lab()
    lab.direct_route()
    names = ["n%d.test" % i for i in range(300)]
    servers.unbound(lab, more=["%s. 60 IN A %s" % (name, at.TARGET[0]) for name in names])
    services = lab.services()
    gw = lab.gateway(rules=["MATCH,DIRECT"], **dns(t, "fake-ip", nameserver=[at.TARGET[0]]))
    fakes = {}
    with client.udp(lab.cli, at.TARGET[0], 53) as s:
        for i, name in enumerate(names):
            s.send(question(name, number=i))
            fakes[name] = socket.inet_ntoa(s.recv(512)[-4:])
    with client.udp(lab.cli, family=socket.AF_INET) as s:
        for name in names + names[:1]:                       # the first one had to go meanwhile, and is opened anew
            s.sendto(name.encode(), (fakes[name], services.ECHO))
            check_equal(s.recvfrom(512), (name.encode(), (fakes[name], services.ECHO)))
        used = sum(w["pools"]["flow-association"]["in-use"] for w in gw.status()["workers"])
        check_equal(used, 64, "associations")
        check_equal(gw.counter("flow.udp_way_evicted"), 301 - 64)


# ---- real addresses ----

@test("real: every type passes, and long answers come over TCP; types are blocked, refused or passed by table",
      rows=["D1", "D5", "D12"], quick=True)
def _(t):
    lab = t.lab()
    lab.direct_route()
    servers.unbound(lab)
    gw = lab.gateway(rules=["MATCH,DIRECT"], hosts={"router.lan": ["192.168.1.1", "fd00::1"]},
                     **dns(t, "real", nameserver=[at.TARGET[0]]))
    check_equal(dig(lab.cli, at.TARGET2[0], "example.test"), [at.TARGET[0]])
    check_equal(dig(lab.cli, at.TARGET2[0], "example.test", "AAAA", "+tcp"), [at.TARGET[1]])
    check_equal(len(dig(lab.cli, at.TARGET2[0], "big.test", "TXT", "+bufsize=512")), 6, "an answer cut short, then TCP")
    check_equal(dig(lab.cli, at.TARGET2[0], "router.lan"), ["192.168.1.1"])
    check_equal(dig(lab.cli, at.TARGET2[0], "router.lan", "AAAA"), ["fd00::1"])
    table = {("example.test", "ANY"): "NOTIMP", ("example.test", "-c", "CH", "TXT"): "NOTIMP",
             ("example.test", "TYPE65"): "NOERROR", ("nobody.test", "A"): "NXDOMAIN",
             ("example.test", "TYPE250"): "NOTIMP", ("example.test", "MX"): "NOERROR",
             ("example.test", "A", "+ednsopt=65001:c0ffee"): "NOERROR", ("example.test", "A", "+edns=7", "+noednsneg"): "BADVERS",
             ("example.test", "A", "+opcode=notify"): "NOTIMP", ("example.test", "A", "+noedns"): "NOERROR"}
    check_equal({k: status_of(lab.cli, at.TARGET2[0], *k) for k in table}, table)
    with client.tcp(lab.cli, at.TARGET[0], 53) as s:      # D5, the client's side: a length of 0
        s.sendall(b"\0\0")
        check_equal(client.receive_end(s)[1], "ECONNRESET")
    with client.udp(lab.cli, at.TARGET[0], 53, timeout=1) as s:     # D1
        s.send(b"\x12\x34\x01\x00" + struct.pack(">HHHH", 2, 0, 0, 0))
        check_equal(s.recv(512)[:4], b"\x12\x34\x81\x81", "FORMERR")
        s.send(b"\x12\x34")
        s.send(question("example.test"))
        check_equal(s.recv(512)[:2], b"\x12\x34")
    check(gw.counter("dns.cache_hits") > 0, "some came from the cache")


@test("queries leave by the configured way only: nothing else goes to port 53", rows=["G5"])
def _(t):
    lab = t.lab()
    servers.unbound(lab)
    proxy = servers.culvert_serve(lab)
    only = lab.only("host %s and tcp port %d" % (at.PROXY[0], proxy.port))
    gw = lab.gateway(proxies=[proxy.proxy("up")], rules=["MATCH,up"],
                     **dns(t, "real", nameserver=["tcp://%s#up" % at.TARGET[0]]))
    for i in range(3):
        check_equal(dig(lab.cli, at.TARGET2[0], "example.test"), [at.TARGET[0]])
        check_equal(status_of(lab.cli, at.TARGET2[0], "nobody%d.test" % i), "NXDOMAIN")
    check_equal(gw.counter("dns.failed"), 0)
    only.check_nothing()


@test("DNS over TLS: the certificate is checked, a connection that was closed is made anew and the query repeated", rows=["D13"],
      limit=60)
def _(t):
    lab = t.lab()
    lab.direct_route()
    pki = fronts.Pki(t)
    pki.make("dot", "IP:" + at.TARGET[0])
    pki.make("other", "DNS:other.test")
    plain = servers.unbound(lab)
    fronts_ = []
    for port, name in ((853, "dot"), (8853, "other")):
        conf = t.write("stunnel-%d.conf" % port,
                       "foreground = yes\npid =\nTIMEOUTidle = 1\n[dns]\naccept = %s:%d\nconnect = %s:53\ncert = %s\n"
                       % (at.TARGET[0], port, at.TARGET[0], pki.path(name + ".pem")))
        fronts_.append(servers.Process(t, lab.srv, [servers.need("stunnel4"), conf], "stunnel-%d" % port))
        servers.wait_port(lab.srv, at.TARGET[0], port, process=fronts_[-1])
    gw = lab.gateway(rules=["MATCH,DIRECT"],
                     **dns(t, "real", nameserver=["tls://" + at.TARGET[0]], ca=pki.ca,
                           **{"nameserver-policy": {"nobody.test": "tls://%s:8853" % at.TARGET[0]}}))
    check_equal(dig(lab.cli, at.TARGET2[0], "example.test"), [at.TARGET[0]])
    check_equal(len(dig(lab.cli, at.TARGET2[0], "big.test", "TXT")), 6)
    check_equal(status_of(lab.cli, at.TARGET2[0], "nobody.test"), "SERVFAIL", "a certificate for somebody else")
    fronts_[0].stop()
    fronts_[0] = servers.Process(t, lab.srv, [servers.need("stunnel4"), t.path("stunnel-853.conf")], "stunnel-853b")
    servers.wait_port(lab.srv, at.TARGET[0], 853, process=fronts_[0])
    check_equal(dig(lab.cli, at.TARGET2[0], "example.test", "AAAA"), [at.TARGET[1]], "on a new connection")
    check(plain.alive() and gw.counter("dns.failed") == 1, "only the one failed")


@test("a name server that lies: other id, other question, other source, case; ids and ports are random", rows=["D3", "D4"])
def _(t):
    lab = t.lab()
    lab.direct_route()
    stranger = lab.srv.socket(socket.AF_INET, socket.SOCK_DGRAM)
    stranger.bind((at.TARGET2[0], 53))

    def lies(query, peer):
        good = only_a(query, [at.TARGET[0]])
        stranger.sendto(only_a(query, ["10.66.6.6"]), peer)
        upper = bytearray(only_a(query, ["10.66.6.5"]))
        upper[13] ^= 0x20
        forged = [struct.pack(">H", i) + only_a(query, ["10.66.6.7"])[2:] for i in range(400)
                  if struct.pack(">H", i) != query[:2]]      # 100 at once fit in a socket's buffer, before the good one
        return forged[:100] + [bytes(upper), answer(query[:12] + question("other.test")[12:], ["10.66.6.8"]), good] + forged[100:]

    liar = Liar(t, lab.srv, at.TARGET[0], lies)
    gw = lab.gateway(rules=["MATCH,DIRECT"], **dns(t, "real", nameserver=[at.TARGET[0]]))
    for i in range(8):
        check_equal(dig(lab.cli, at.TARGET2[0], "n%d.example.test" % i), [at.TARGET[0]])
    check(len(liar.ports) >= 6 and len(liar.ids) >= 6, "%d ports, %d ids of 8" % (len(liar.ports), len(liar.ids)))
    check(gw.counter("dns.ignored") > 100, "forged answers were counted")
    stranger.close()


@test("name servers that refuse, break or are silent: the next one answers; none at all is SERVFAIL within 5 s, or an old answer",
      rows=["D2", "D6", "D7"], limit=60)
def _(t):
    lab = t.lab()
    lab.direct_route()
    faults = {"refused": lambda q: [answer(q, rcode=5)], "failed": lambda q: [answer(q, rcode=2)], "silent": lambda q: [],
              "broken": lambda q: [answer(q, ["10.0.0.1"])[:-3]], "counts": lambda q: [q[:2] + b"\x81\x80\0\1\xff\xff\0\0\0\0" + q[12:]],
              "formerr": lambda q: [answer(q, rcode=1)]}
    dead = []

    def bad(query, peer):
        word = query[13:13 + query[12]].decode().lower()
        return faults[word](query) if word in faults else []

    def good(query, peer):
        return [] if dead else [only_a(query, [at.TARGET[0]], ttl=1)]

    Liar(t, lab.srv, at.TARGET[0], bad)
    Liar(t, lab.srv, at.TARGET2[0], good)
    gw = lab.gateway(rules=["MATCH,DIRECT"],
                     **dns(t, "real", nameserver=list((at.TARGET[0], at.TARGET2[0])), **{"nameserver-order": "in-order"}))
    seen = {w: client.dig(lab.cli, at.PROXY[0], w + ".example.test", timeout=8) for w in faults}
    check_equal(seen, {w: [at.TARGET[0]] for w in faults})
    dead.append(True)
    check_equal(status_of(lab.cli, at.PROXY[0], "new.example.test"), "SERVFAIL")
    within(5, lambda: client.dig(lab.cli, at.PROXY[0], "refused.example.test", timeout=8) == [at.TARGET[0]], "an old answer")
    check(gw.counter("dns.stale") >= 1, "served stale")


@test("a public name with an address of ours is filtered, unless it is allowed", rows=["D11"])
def _(t):
    lab = t.lab()
    lab.direct_route()
    ours = ["127.0.0.1", "198.18.0.1", "198.18.0.2", "198.19.3.3", "0.0.0.0"]
    Liar(t, lab.srv, at.TARGET[0], lambda q, p: [only_a(q, [ours[int(chr(q[14]))] if chr(q[14]).isdigit() else at.TARGET[0]])])
    gw = lab.gateway(rules=["MATCH,DIRECT"],
                     **dns(t, "fake-ip", nameserver=[at.TARGET[0]],
                           **{"fake-ip-filter": ["+.test"], "rebind-allow": ["+.ok.test"]}))
    for i in range(len(ours)):
        check_equal(dig(lab.cli, at.TARGET2[0], "x%d.example.test" % i), [], ours[i])
        check_equal(dig(lab.cli, at.TARGET2[0], "x%d.ok.test" % i), [ours[i]], ours[i])
    check_equal(dig(lab.cli, at.TARGET2[0], "xx.example.test"), [at.TARGET[0]])
    check_equal(gw.counter("dns.rebind"), len(ours))


@test("a client that floods with random names is held to its limit; another one is served", rows=["D10"])
def _(t):
    lab = t.lab()
    gw = lab.gateway(rules=["MATCH,DIRECT"], **dns(t, "fake-ip", **{"queries-per-source": 50}))
    flood = client.udp(lab.cli, at.TARGET[0], 53, source=at.CLI2[0])
    good = 0
    for i in range(40):
        for k in range(50):
            flood.send(question("r%d-%d.example.test" % (i, k)))
        with client.udp(lab.cli, at.TARGET[0], 53, timeout=5, source=at.CLI[0]) as s:
            s.send(question("good%d.example.test" % i, number=i))
            good += s.recv(512)[:2] == struct.pack(">H", i)
    check_equal(good, 40, "answers for the other client")
    limited, fakes = gw.counter("dns.limit_source"), gw.counter("dns.fake")
    check(limited > 500 and limited + fakes >= 1500, "%d limited, %d answered" % (limited, fakes))
    flood.close()


# ---- names decide ----

def client_hello(name):
    """What a browser says first, for this name."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname=name)
    try:
        session.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


def ways(t, lab):
    """Two proxies that echo, and rules by name: one.test goes by "one", all else by "rest"."""
    one = FaultServer(t, lab.srv, at.PROXY[0], 2001, handshake([echo()]))
    rest = FaultServer(t, lab.srv, at.PROXY[0], 2002, handshake([echo()]))
    return one, rest, dict(proxies=[one.proxy("one"), rest.proxy("rest")],
                           rules=["DOMAIN-SUFFIX,one.test,one", "DOMAIN-KEYWORD,blocked,REJECT", "MATCH,rest"])


def say(lab, address, port, pieces):
    """Send the pieces in segments of their own, and return what was echoed."""
    with client.tcp(lab.cli, address, port) as s:
        for p in pieces:
            s.sendall(p)
            time.sleep(0.02)      # only to part the segments
        return client.receive(s, sum(map(len, pieces)))


@test("domain rules take flows by their fake address, and by a real one that was an answer", quick=True)
def _(t):
    lab = t.lab()
    one, rest, how = ways(t, lab)
    servers.dnsmasq(lab, {"www.one.test": at.TARGET[0], "other.test": at.TARGET2[0]})
    lab.direct_route()
    for mode, more in (("fake-ip", {}), ("real", {"nameserver": [at.TARGET[0]]})):
        gw = lab.gateway(**how, **dns(t, mode, **more), route=mode == "fake-ip")
        if mode == "real":
            lab.gw.ip("route replace default dev tun0 metric 10 table 20")
        for name in ("www.one.test", "other.test"):
            address = dig(lab.cli, at.PROXY2[0], name)[0]
            check_equal(address.startswith("198.19."), mode == "fake-ip", address)
            check_equal(say(lab, address, 80, [b"x"]), b"x")
        check_equal(gw.terminate(seconds=4), 0)
    check_equal([c.target for c in one.connections], [("www.one.test", 80), (at.TARGET[0], 80)])
    check_equal([c.target for c in rest.connections], [("other.test", 80), (at.TARGET2[0], 80)])


@test("sniffing: TLS and HTTP tell the name, split over segments; silence and other protocols are decided without it", quick=True)
def _(t):
    lab = t.lab()
    one, rest, how = ways(t, lab)
    gw = lab.gateway(**how, stack={"tcp": {"accept": "auto"}}, sniffer={"timeout": "200ms"})
    hello = client_hello("www.one.test")
    http = b"GET / HTTP/1.1\r\nHost: a.one.test\r\n\r\n"
    for pieces, port in (([hello], 443), ([hello[:5], hello[5:90], hello[90:]], 443), ([http[:9], http[9:]], 80)):
        check_equal(say(lab, at.TARGET[0], port, pieces), b"".join(pieces))
    check_equal(len(one.connections), 3)
    check_equal([c.target[0] for c in one.connections], [at.TARGET[0]] * 3, "dialled by address")
    hello = client_hello("other.test")
    for pieces, port in (([hello], 443), ([b"SSH-2.0-x\r\n"], 443), ([hello], 22)):
        check_equal(say(lab, at.TARGET[0], port, pieces), b"".join(pieces))
    with client.tcp(lab.cli, at.TARGET[0], 443) as s:      # says nothing: the time-out decides
        within(5, lambda: len(rest.connections) == 4, "dialled without a word")
        s.sendall(b"late")
        check_equal(client.receive(s, 4), b"late")
    with client.tcp(lab.cli, at.TARGET[0], 443) as s:      # a rule rejects the name: it was accepted, so RST
        s.sendall(client_hello("blocked.test"))
        check_equal(client.receive_end(s)[1], "ECONNRESET")
    check_equal((len(one.connections), len(rest.connections)), (3, 4))
    check_equal(gw.counter("flow.sniffed"), 5)
    gw.wait_no_flows()
