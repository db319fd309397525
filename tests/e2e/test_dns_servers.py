"""Name servers over TLS and HTTPS, through the configured way out and no other (issue: DNS; faults.md D13, G5)."""
import socket

from faultd import UdpRelay
from harness import check, check_equal, client, fronts, servers, test
from harness import lab as at
from harness.names import dig, dns, only_a, question, status_of


def secure_unbound(t, lab):
    """unbound with its own TLS: DoT on 853, DoH on 443; returns it and the file of its authority."""
    pki = fronts.Pki(t)
    pem = pki.make("dns", "DNS:dns.test,IP:%s" % at.TARGET[0])
    return servers.unbound(lab, pem=pem, more=["a%d.test. 60 IN A 10.55.0.%d" % (i, i) for i in range(1, 60)]), pki, pem


@test("DNS over TLS and HTTPS with unbound: one connection for many questions, long answers, and a new one after its restart",
      rows=["D13"], quick=True, limit=60)
def _(t):
    lab = t.lab()
    lab.direct_route()
    for url in ("tls://" + at.TARGET[0], "https://%s/dns-query" % at.TARGET[0]):
        unbound, pki, pem = secure_unbound(t, lab)
        gw = lab.gateway(rules=["MATCH,DIRECT"], route=url.startswith("tls"),
                         **dns(t, "real", nameserver=[url], ca=pki.ca, **{"cache-size": 64}))
        if not url.startswith("tls"):
            lab.gw.ip("route replace default dev tun0 metric 10 table 20")
        for i in range(1, 20):
            check_equal(dig(lab.cli, at.TARGET2[0], "a%d.test" % i), ["10.55.0.%d" % i], url)
        check_equal(dig(lab.cli, at.TARGET2[0], "example.test", "AAAA"), [at.TARGET[1]])
        check_equal(len(dig(lab.cli, at.TARGET2[0], "big.test", "TXT")), 6, "a long answer")
        check_equal(status_of(lab.cli, at.TARGET2[0], "nobody.test"), "NXDOMAIN")
        check(gw.counter("dns.connections") <= 2, "%d connections of 2 workers" % gw.counter("dns.connections"))
        unbound.stop()
        unbound = servers.unbound(lab, pem=pem)
        check_equal(dig(lab.cli, at.TARGET2[0], "example.test"), [at.TARGET[0]], "after its restart")
        check_equal((gw.counter("dns.failed"), gw.counter("dns.bad_answers")), (0, 0))
        check_equal(gw.terminate(seconds=4), 0)
        unbound.stop()


@test("DNS over HTTPS: a certificate for somebody else, a page that is no DNS, and a server without HTTP/2 are failures within 5 s",
      rows=["D13", "D7"], limit=60)
def _(t):
    lab = t.lab()
    lab.direct_route()
    pki = fronts.Pki(t)
    good, other = pki.make("dns", "IP:" + at.TARGET[0]), pki.make("other", "DNS:other.test")
    conf = ["daemon off; pid %s; error_log stderr warn; worker_processes 1; user root; events {}" % t.path("nginx.pid"),
            "http { access_log off;",
            " ".join("%s_temp_path %s/%s;" % (k, t.dir, k) for k in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))]
    for port, pem, http2, what in ((443, good, "http2", "return 404;"), (444, other, "http2", "return 404;"),
                                   (445, good, "", "return 404;"),
                                   (446, good, "http2", "default_type application/dns-message; return 200 'abc';"),
                                   (447, good, "http2", "default_type text/html; return 200 '<html>';")):
        conf.append("server { listen %s:%d ssl %s; ssl_certificate %s; ssl_certificate_key %s; location / { %s } }"
                    % (at.TARGET[0], port, http2, pem, pem, what))
    nginx = servers.Process(t, lab.srv, [servers.need("nginx"), "-p", t.dir, "-c", t.write("n.conf", "\n".join(conf) + "\n}\n")], "nginx")
    servers.wait_port(lab.srv, at.TARGET[0], 447, process=nginx)
    policy = {"p%d.test" % p: "https://%s:%d/dns-query" % (at.TARGET[0], p) for p in range(443, 449)}
    gw = lab.gateway(rules=["MATCH,DIRECT"], **dns(t, "real", nameserver=[at.TARGET2[0]], ca=pki.ca, **{"nameserver-policy": policy}))
    for p in range(443, 449):
        check_equal(status_of(lab.cli, at.TARGET2[0], "p%d.test" % p), "SERVFAIL", "port %d" % p)
    check_equal(gw.counter("dns.failed"), 6)
    check_equal((gw.counter("dns.refused"), gw.counter("dns.ignored")), (2, 1), "404 and HTML; three bytes")


@test("no question leaves but by the configured way: plain, TCP, TLS and HTTPS, each directly and through a proxy", rows=["G5"],
      limit=120)
def _(t):
    lab = t.lab()
    lab.direct_route()
    _, pki, _ = secure_unbound(t, lab)
    proxy = servers.culvert_serve(lab)
    host, to_proxy = "host %s and " % at.TARGET[0], "host %s and (tcp port %d or udp)" % (at.PROXY[0], proxy.port)
    cases = [(at.TARGET[0], host + "udp port 53"), ("tcp://" + at.TARGET[0], host + "tcp port 53"),
             ("tls://" + at.TARGET[0], host + "tcp port 853"), ("https://%s/dns-query" % at.TARGET[0], host + "tcp port 443")]
    cases += [(url + "#up", to_proxy) for url, _ in cases]
    for i, (url, allowed) in enumerate(cases):
        only = lab.only(allowed)
        gw = lab.gateway(proxies=[proxy.proxy("up")], rules=["MATCH,up"], route=i == 0,
                         **dns(t, "real", nameserver=[url], ca=pki.ca))
        if i > 0:
            lab.gw.ip("route replace default dev tun0 metric 10 table 20")
        for how in ((), ("+tcp",)):
            for name in ("a1.test", "a2.test"):
                check_equal(dig(lab.cli, at.TARGET2[0], name, "A", *how), ["10.55.0." + name[1]], url)
        check_equal(status_of(lab.cli, at.TARGET2[0], "nobody.test"), "NXDOMAIN", url)
        check_equal(gw.counter("dns.failed"), 0, url)
        only.check_nothing()
        only.stop()
        check_equal(gw.terminate(seconds=4), 0)


@test("DNS over UDP, TLS and HTTPS through a MASQUE tunnel: HTTP/2 in HTTP/2, and nothing beside the tunnel", rows=["G5"], limit=60)
def _(t):
    lab = t.lab()
    pki = fronts.Pki(t)
    servers.unbound(lab, pem=pki.make("dns", "IP:" + at.TARGET[0]),
                    more=["a%d.test. 60 IN A 10.55.0.%d" % (i, i) for i in range(1, 20)])
    pki.server()
    far = fronts.masque(lab, pki, allow=[at.TARGET[0]])
    only = lab.only("host %s and tcp port %d" % (at.PROXY[0], far.port))
    for i, url in enumerate(("udp://%s#up", "tls://%s#up", "https://%s/dns-query#up")):
        gw = lab.gateway(proxies=[far.proxy("up")], rules=["MATCH,up"], route=i == 0,
                         **dns(t, "real", nameserver=[url % at.TARGET[0]], ca=pki.ca))
        if i > 0:
            lab.gw.ip("route replace default dev tun0 metric 10 table 20")
        for n in range(1, 20):
            check_equal(dig(lab.cli, at.TARGET2[0], "a%d.test" % n), ["10.55.0.%d" % n], url)
        check_equal(len(dig(lab.cli, at.TARGET2[0], "big.test", "TXT")), 6, "a long answer")
        check_equal(gw.counter("dns.failed"), 0)
        check_equal(gw.terminate(seconds=4), 0)
    only.check_nothing()


@test("questions through SOCKS5 share one association, which is made anew when it breaks; a question that waited is asked again", rows=["D13"])
def _(t):
    lab = t.lab()
    waiting = []

    def reply(relay, header, query, sender):
        if b"\x04wait" in query and not waiting:
            waiting.append(query)            # no answer, and the association goes
            relay.connections[-1].socket.shutdown(socket.SHUT_RDWR)
        else:
            relay.relay_socket.sendto(header + only_a(query, ["192.0.2.7"], ttl=0), sender)

    relay = UdpRelay(t, lab.srv, at.PROXY[0], 2000, answer=reply)
    gw = lab.gateway(proxies=[relay.proxy()], dns={"mode": "real", "nameserver": ["udp://%s#up" % at.TARGET[0]]},
                     runtime={"workers": 1, "state-dir": t.path("state")})

    def ask(names):
        with client.udp(lab.cli, at.TARGET2[0], 53) as s:
            for i, name in enumerate(names):
                s.send(question(name, number=i))
            return sorted(s.recv(512)[:2] for _ in names)

    names = ["n%d.test" % i for i in range(50)]
    check_equal(ask(names), [i.to_bytes(2, "big") for i in range(50)], "answers to 50 questions at once")
    check_equal(relay.associates, 1, "associations")
    ids = {query[:2] for _, query, _ in relay.datagrams}
    check_equal(len(ids), len(relay.datagrams), "their ids differ")
    check_equal(len(ask(["wait.test"])), 1, "an answer after the association broke")
    check_equal((relay.associates, len(waiting), gw.counter("dns.repeated")), (2, 1, 1))
    check_equal(len(ask(names)), 50, "and more")
    check_equal(relay.associates, 2, "associations in the end")


@test("the names of proxies are asked over TCP, TLS and HTTPS, and of nobody else; a plain address finds the name of such a server",
      rows=["G5"], limit=90)
def _(t):
    lab = t.lab()
    lab.direct_route()
    pki = fronts.Pki(t)
    servers.unbound(lab, pem=pki.make("dns", "DNS:boot.test,IP:%s" % at.TARGET[0]),
                    more=["exit.test. 60 IN A " + at.PROXY[0], "boot.test. 60 IN A " + at.TARGET[0]])
    lab.services()
    proxy = servers.culvert_serve(lab)
    host = "host %s and " % at.TARGET[0]
    to_proxy = "host %s and tcp port %d" % (at.PROXY[0], proxy.port)
    cases = [(["tcp://" + at.TARGET[0]], "tcp port 53", "off"), (["tls://" + at.TARGET[0]], "tcp port 853", "off"),
             (["https://%s/dns-query" % at.TARGET[0]], "tcp port 443", "fake-ip"),
             ([at.TARGET[0], "tls://boot.test"], "(tcp port 853 or udp port 53)", "off")]
    for i, (asked, allowed, mode) in enumerate(cases):
        only = lab.only("(%s%s) or (%s)" % (host, allowed, to_proxy))
        gw = lab.gateway(proxies=[proxy.proxy("up", server="exit.test")], rules=["MATCH,up"], route=i == 0,
                         **dns(t, mode, ca=pki.ca, **{"proxy-server-nameserver": asked}))
        if i > 0:
            lab.gw.ip("route replace default dev tun0 metric 10 table 20")
        with client.tcp(lab.cli, at.TARGET[0], 7000) as s:
            s.sendall(b"echo\nhello")
            check_equal(client.receive(s, 5), b"hello", asked)
        check(gw.counter("dns.asked") >= 2, "A and AAAA of exit.test")
        # the resolver asks for boot.test alone
        check_equal(gw.counter("resolver.sent"), 2 if "boot" in asked[-1] else 0, asked)
        only.check_nothing()
        only.stop()
        check_equal(gw.terminate(seconds=4), 0)
