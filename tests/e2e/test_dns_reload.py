"""A reload changes how names are found: for new questions, without a flow cut or a fake address forgotten."""
from faultd import FaultServer, echo, handshake
from harness import check, check_equal, client, test
from harness import lab as at
from harness.names import Liar, dig, dns, only_a, status_of
from harness.reloading import reload, sections_of


def hello(lab, address):
    s = client.tcp(lab.cli, address, 80)
    s.sendall(b"hello")
    check_equal(client.receive(s, 5), b"hello")
    return s


@test("a reload changes mode, name servers, hosts and filters; fake addresses outlive it, ranges stay and it says so",
      rows=["C10", "C11"], quick=True, limit=60)
def _(t):
    lab = t.lab()
    lab.direct_route()
    Liar(t, lab.srv, at.TARGET[0], lambda q, p: [only_a(q, ["10.55.0.1"])])
    Liar(t, lab.srv, at.TARGET2[0], lambda q, p: [only_a(q, ["10.55.0.2"])])
    proxy = FaultServer(t, lab.srv, at.PROXY[0], 2000, handshake([echo()]))
    rules = ["DST-PORT,53,DIRECT", "MATCH,up"]
    gw = lab.gateway(proxies=[proxy.proxy("up")], rules=rules, **dns(t, "off"))

    def again(mode, hosts=None, **more):
        sections = dns(t, mode, **more)
        if hosts:
            sections["hosts"] = hosts
        reload(gw, sections_of(gw, [proxy.proxy("up")], rules, **sections))
        check("reload failed" not in gw.log, gw.log[-2000:])

    check_equal(dig(lab.cli, at.TARGET[0], "www.example.test"), ["10.55.0.1"], "off: a flow like others")
    check_equal(client.outcome(lab.cli, "198.19.0.1", 80)[0], "open", "off: an address like others")
    again("real", nameserver=[at.TARGET2[0]])
    check_equal(dig(lab.cli, at.TARGET[0], "www.example.test"), ["10.55.0.2"], "real: whoever is asked")
    again("real", {"www.example.test": "10.55.0.9"}, nameserver=[at.TARGET[0]], **{"block-types": ["TXT"]})
    check_equal(dig(lab.cli, at.TARGET2[0], "www.example.test"), ["10.55.0.9"], "hosts")
    check_equal(dig(lab.cli, at.TARGET2[0], "other.example.test"), ["10.55.0.1"], "another name server")
    again("fake-ip", **{"fake-ip-filter": ["+.real.test"], "nameserver": [at.TARGET2[0]], "fake-ip-range": "198.18.128.0/17"})
    check("dns.fake-ip-range stays as it was until a restart" in gw.log, "the range stays:\n" + gw.log[-1500:])
    fake = dig(lab.cli, at.TARGET[0], "www.example.test")[0]
    check(fake.startswith("198.19."), fake)
    check_equal(dig(lab.cli, at.TARGET[0], "a.real.test"), ["10.55.0.2"], "filtered")
    flow = hello(lab, fake)
    check_equal(proxy.connections[-1].target, ("www.example.test", 80))
    check_equal(client.outcome(lab.cli, "198.19.77.77", 80)[0], "ECONNREFUSED", "nobody's")
    again("fake-ip", nameserver=[at.TARGET[0]])
    check_equal(dig(lab.cli, at.TARGET[0], "www.example.test"), [fake], "the same after a reload")
    again("off")
    check_equal(dig(lab.cli, at.TARGET[0], "www.example.test"), ["10.55.0.1"], "off again")
    flow.sendall(b"still here")
    check_equal(client.receive(flow, 10), b"still here", "the flow of before")
    hello(lab, fake).close()
    check_equal(proxy.connections[-1].target, ("www.example.test", 80), "a fake address that was handed out")
    flow.close()
    check_equal(gw.counter("dns.failed"), 0)


@test("a reload that brings fake-ip knows the fake addresses of before, and keeps them on disk", rows=["D9", "C11"], limit=60)
def _(t):
    lab = t.lab()
    proxy = FaultServer(t, lab.srv, at.PROXY[0], 2000, handshake([echo()]))
    names = ["host%d.example.test" % i for i in range(20)]
    gw = lab.gateway(proxies=[proxy.proxy("up")], **dns(t, "fake-ip"))
    before = {n: dig(lab.cli, at.TARGET[0], n) for n in names}
    check_equal(gw.terminate(seconds=4), 0)
    gw = lab.gateway(proxies=[proxy.proxy("up")], route=False, **dns(t, "off"))
    lab.gw.ip("route replace default dev tun0 metric 10 table 20")
    reload(gw, sections_of(gw, [proxy.proxy("up")], ["MATCH,up"], **dns(t, "fake-ip")))
    gw.says("20 fake addresses of before are known")
    hello(lab, before[names[7]][0]).close()      # without asking again
    check_equal(proxy.connections[-1].target, (names[7], 80))
    new = dig(lab.cli, at.TARGET[0], "new.example.test")
    check(new not in before.values(), new)
    check_equal({n: dig(lab.cli, at.TARGET[0], n) for n in names}, before, "after the reload")
    check_equal(gw.terminate(seconds=4), 0)
    gw = lab.gateway(proxies=[proxy.proxy("up")], route=False, **dns(t, "fake-ip"))
    gw.says("21 fake addresses of before are known")
    check_equal(gw.terminate(seconds=4), 0)


@test("a hundred reloads while questions are asked: each is answered, and no memory grows", limit=120)
def _(t):
    lab = t.lab()
    lab.direct_route()
    Liar(t, lab.srv, at.TARGET[0], lambda q, p: [only_a(q, ["10.55.0.1"])])
    gw = lab.gateway(rules=["MATCH,DIRECT"], **dns(t, "real", nameserver=[at.TARGET[0]]))

    def round(n):
        for i in range(n):
            name = "n%d.example.test" % (i % 7)
            reload(gw, sections_of(gw, (), ["MATCH,DIRECT"],
                                   **dns(t, "real", nameserver=[at.TARGET[0]],
                                         **{"nameserver-policy": {"+.p%d.test" % i: "tcp://" + at.TARGET[0]}})))
            check_equal(status_of(lab.cli, at.TARGET[0], name), "NOERROR", name)

    round(20)
    before = gw.process.resources().rss_kib
    round(80)
    after = gw.process.resources().rss_kib
    check_equal(gw.counter("dns.failed"), 0)
    # an address sanitizer keeps what was freed for a while
    check(after - before < (65536 if t.sanitized else 2048), "%d KiB, then %d" % (before, after))
