"""TLS to a proxy, against real servers: whom we trust, whom we do not, and how a connection ends."""
import hashlib
import re
import socket
import threading
import time

from harness import check, check_equal, client, fronts, gateway, servers, test
from harness import lab as at
from harness.core import check_table
from harness.fronts import ADDRESS, Front, Pki

TLS_PORT = 1444


def good_front(lab, behind, **tls):
    pki = Pki(lab.context)
    fronts.stunnel(lab, behind, {TLS_PORT: ["cert = " + pki.server(), "sslVersionMin = TLSv1.2"]})
    return pki, Front(behind, TLS_PORT, dict({"ca": pki.ca}, **tls))


@test("SOCKS5 inside TLS by stunnel: curl both ways, exact bytes", rows=["L2", "L13"], quick=True, limit=40)
def _(t):
    lab = t.lab()
    lab.services()
    _, front = good_front(lab, servers.dante(lab))
    gw = lab.gateway(proxies=[front])
    for target in at.TARGET:
        client.curl_bytes(lab.cli, target, 3000000)
    client.upload(lab.cli, at.TARGET[0], 2000000)
    client.download(lab.cli, at.TARGET[0], 2000000)
    gw.wait_no_flows()


@test("TLS by haproxy, with a name, ALPN and a pin", rows=["L2", "L4"])
def _(t):
    lab = t.lab()
    lab.services()
    behind = servers.microsocks(lab)
    pki = Pki(t)
    fronts.haproxy(lab, behind, 1470, pki.server())
    tls = {"ca": pki.ca, "sni": "proxy.test", "alpn": ["http/1.1"], "pin-sha256": [pki.pin("server")]}
    lab.gateway(proxies=[Front(behind, 1470, tls)])
    client.curl_bytes(lab.cli, at.TARGET[0], 1000000)


@test("SOCKS5 inside TLS by nginx: curl both ways, exact bytes", rows=["L2"], limit=40)
def _(t):
    lab = t.lab()
    lab.services()
    behind = servers.dante(lab)
    pki = Pki(t)
    fronts.nginx(lab, behind, TLS_PORT, pki.server())
    lab.gateway(proxies=[Front(behind, TLS_PORT, {"ca": pki.ca})])
    for target in at.TARGET:
        client.curl_bytes(lab.cli, target, 2000000)
    client.download(lab.cli, at.TARGET[0], 2000000)


def half_closing(t, lab, front, **tls):
    """A gateway whose proxy is dante behind a TLS front of that kind."""
    lab.services()
    behind = servers.dante(lab)
    pki = Pki(t)
    front(lab, behind, TLS_PORT, pki.server())
    return lab.gateway(proxies=[Front(behind, TLS_PORT, {"ca": pki.ca, **tls})])


# stunnel 5.68 ends such an answer after 66 KiB with a proper close_notify, so nobody can tell; short ones it passes (upload above).
@test("half close over TLS: the client ends, the answer comes afterwards", rows=["L12", "CLS-1"])
def _(t):
    lab = t.lab()
    half_closing(t, lab, fronts.haproxy, **{"half-close-delay": "200ms"})
    with client.tcp(lab.cli, at.TARGET[0], 7000) as s:
        s.sendall(b"late\n" + b"q" * 100000)
        s.shutdown(socket.SHUT_WR)
        data, how = client.receive_end(s)
    check_equal((len(data), how), (100 * 1024, "FIN"), "the answer after our end")


@test("half close over TLS: a server that closes at once on our close_notify gets it when its answer is over, not before", rows=["L12"], limit=60,
      cases={"hitch": fronts.hitch, "nginx": fronts.nginx, "haproxy": fronts.haproxy})
def _(t, front):
    lab = t.lab()
    gw = half_closing(t, lab, front, **{"half-close-delay": "1s"})
    with client.tcp(lab.cli, at.TARGET[0], 7000, timeout=20) as s:
        s.sendall(b"down 400000 150000\n")
        s.shutdown(socket.SHUT_WR)
        data, how = client.receive_end(s)
    check_equal((hashlib.sha256(data).hexdigest(), len(data), how), (client.stream_sha256(400000), 400000, "FIN"), "after our end")
    gw.wait_no_flows()
    check_equal(gw.counter("tls.truncated"), 0)


@test("half close over TLS the other way: the target ends, and what the client sends after that arrives whole", rows=["L12", "T13"], limit=60)
def _(t):
    lab = t.lab()
    gw = half_closing(t, lab, fronts.haproxy)
    with client.tcp(lab.cli, at.TARGET[0], 7000, timeout=20) as s:
        s.sendall(b"first 70000\n")
        data, how = client.receive_end(s)
        check_equal((len(data), how), (70000, "FIN"), "the target's half")
        for block in client.stream_blocks(1000000):
            s.sendall(block)
        s.shutdown(socket.SHUT_WR)
        gw.wait_no_flows()
    with client.tcp(lab.cli, at.TARGET[0], 7000, timeout=20) as s:
        s.sendall(b"rest\n")
        check_equal(client.receive_end(s)[0].decode(), "%s %d\n" % (client.stream_sha256(1000000), 1000000), "the client's half")


@test("200 connections at once through TLS: all work, most resume", rows=["L13", "G4"], limit=60)
def _(t):
    lab = t.lab()
    lab.services()
    _, front = good_front(lab, servers.dante(lab))
    gw = lab.gateway(proxies=[front], stack={"tcp": {"connect-timeout": "30s"}})
    opened = client.open_many(lab.cli, (at.TARGET[0], 7), 200, at_once=200, timeout=t.slow(20))
    for i, s in enumerate(opened):
        s.sendall(b"%05d" % i)
    wrong = sum(client.receive(s, 5) != b"%05d" % i for i, s in enumerate(opened))
    check_equal(wrong, 0, "wrong echoes")
    for s in opened:
        s.close()
    gw.wait_no_flows()


def talk(lab, s, stop, waits):
    """A byte there and back again and again on a flow that is open; how long each took."""
    while not stop.is_set():
        start = time.monotonic()
        s.sendall(b"x")
        client.receive(s, 1)
        waits.append(time.monotonic() - start)


@test("500 new flows at once to a TLS upstream: four full handshakes, the others resume; what a neighbour waits is reported",
      rows=["L13", "L9"], limit=90)
def _(t):
    lab = t.lab()
    lab.services()
    behind = servers.microsocks(lab)
    pki = Pki(t)
    fronts.haproxy(lab, behind, TLS_PORT, pki.server())
    gw = lab.gateway(proxies=[Front(behind, TLS_PORT, {"ca": pki.ca}), behind.proxy("plain")], workers=1,
                     rules=["IP-CIDR,%s/32,up" % at.TARGET[0], "MATCH,plain"], stack={"tcp": {"connect-timeout": "30s"}})
    neighbour = client.tcp(lab.cli, at.TARGET2[0], 7)
    stop, waits = threading.Event(), []
    thread = threading.Thread(target=talk, args=(lab, neighbour, stop, waits))
    thread.start()
    start = time.monotonic()
    opened = client.open_many(lab.cli, (at.TARGET[0], 7), 500, at_once=500, timeout=t.slow(20))
    took = time.monotonic() - start
    stop.set()
    thread.join()
    for s in opened + [neighbour]:
        s.close()
    gw.wait_no_flows()
    full, resumed = gw.counter("tls.full"), gw.counter("tls.resumed")
    waits.sort()
    t.note("open after %.2f s; %d full, %d resumed; a neighbour's byte: median %.1f ms, 99th of 100 %.1f ms, longest %.1f ms of %d" % (
        took, full, resumed, waits[len(waits) // 2] * 1e3, waits[len(waits) * 99 // 100] * 1e3, waits[-1] * 1e3, len(waits)))
    # One more than flows: microsocks throws away what comes behind a greeting, so the one flow on which that is tried starts over.
    check_equal(full + resumed, 500 + gw.counter("upstream.started_over"), "handshakes for 500 flows, and a start-over each")
    check(gw.counter("upstream.started_over") <= 1, "more than one flow was tried out")
    # At most four run at a time. With TLS 1.3 the session comes after the handshake (L10), so a second four, or a third, begin before it.
    most = 4 if "libmbedtls.so.14" in lab.gw.result(["ldd", gateway.program(t)]).stdout else 12
    check(full <= most, "%d full handshakes of 500, at most %d" % (full, most))


def bad_certificates(pki):
    rsa1024 = ["rsa", "-pkeyopt", "rsa_keygen_bits:1024"]
    return {
        "expired": (pki.make("expired", "DNS:proxy.test,IP:" + ADDRESS, days="-1"), {}, "expired on"),
        "wrong host": (pki.make("wrong", "DNS:other.test"), {}, "for other.test, not for " + ADDRESS),
        "self-signed": (pki.self_signed("self", "DNS:proxy.test,IP:" + ADDRESS), {}, "self-signed"),
        "weak key": (pki.make("weak", "IP:" + ADDRESS, key=rsa1024), {}, "too weak"),
        "SHA-1": (pki.make("sha1", "IP:" + ADDRESS, digest="-sha1"), {}, "too weak"),
        "for clients": (pki.make("eku", "IP:" + ADDRESS, extensions=["extendedKeyUsage=clientAuth"]), {}, "not meant for servers"),
        "another pin": (pki.server(), {"pin-sha256": ["A" * 43 + "="]}, "not among pin-sha256"),
        "another name": (pki.server(), {"sni": "elsewhere.test"}, "not for elsewhere.test"),
        "unknown authority": (pki.server(), {"ca": None}, "no trusted authority"),
    }


@test("certificates that are not to be trusted: refused, the line says why, nothing was sent",
      rows=["L1", "L4", "G7", "G8"], limit=60)
def _(t):
    lab = t.lab()
    lab.services()
    behind = servers.dante(lab)
    pki = Pki(t)
    bad = bad_certificates(pki)
    ports = {name: 1500 + i for i, name in enumerate(bad)}
    level = "ciphers = DEFAULT@SECLEVEL=0"
    fronts.stunnel(lab, behind, {ports[n]: ["cert = " + pem, level] for n, (pem, _, _) in bad.items()})
    proxies, rules = [], []
    for name, (_, more, _) in bad.items():
        tls = {k: v for k, v in {"ca": pki.ca, **more}.items() if v is not None}
        proxies.append(Front(behind, ports[name], tls).proxy("p%d" % ports[name]))
        rules.append("DST-PORT,%d,p%d" % (ports[name], ports[name]))
    gw = lab.gateway(proxies=proxies, rules=rules + ["MATCH,REJECT"])
    seen = client.outcomes(lab.cli, {n: (at.TARGET[0], p) for n, p in ports.items()})
    check_table(["%s: the client saw %s" % (n, how) for n, (how, _) in seen.items() if how != "EHOSTUNREACH"])
    for name, (_, _, says) in bad.items():
        gw.says("p%d .*%s" % (ports[name], says))


@test("skip-cert-verify trusts anyone, and says so at start")
def _(t):
    lab = t.lab()
    lab.services()
    behind = servers.microsocks(lab)
    pki = Pki(t)
    fronts.stunnel(lab, behind, {TLS_PORT: ["cert = " + pki.self_signed("self", "DNS:x")]})
    gw = lab.gateway(proxies=[Front(behind, TLS_PORT, {"skip-cert-verify": "true"})])
    client.curl_bytes(lab.cli, at.TARGET[0], 100000)
    gw.says("skip-cert-verify")


@test("a client certificate: shown, missing, unknown", rows=["L1"])
def _(t):
    lab = t.lab()
    lab.services()
    behind = servers.microsocks(lab)
    pki = Pki(t)
    pki.make("client", "DNS:client")
    pki.self_signed("stranger", "DNS:stranger")
    # With TLS 1.3 the refusal comes behind the handshake, and stunnel's reset may throw away the alert that gives the reason.
    lines = ["cert = " + pki.server(), "CAfile = " + pki.ca, "verifyChain = yes", "requireCert = yes", "sslVersionMax = TLSv1.2"]
    fronts.stunnel(lab, behind, {TLS_PORT: lines})

    def with_certificate(name):
        tls = {"ca": pki.ca}
        if name:
            tls.update({"certificate": pki.path(name + ".crt"), "private-key": pki.path(name + ".key")})
        return Front(behind, TLS_PORT, tls).proxy(name or "none")

    names = ["client", "stranger", None]
    gw = lab.gateway(proxies=[with_certificate(n) for n in names],
                     rules=["DST-PORT,8080,client", "DST-PORT,81,stranger", "DST-PORT,82,none", "MATCH,REJECT"])
    client.curl_bytes(lab.cli, at.TARGET[0], 100000)
    for port, name in ((81, "stranger"), (82, "none")):
        check_equal(client.outcome(lab.cli, at.TARGET[0], port)[0], "EHOSTUNREACH")
        gw.says(name + " .*certificate")


@test("a server without TLS, and one that speaks only TLS 1.3 or 1.1: named", rows=["L5", "L6", "S5"])
def _(t):
    lab = t.lab()
    lab.services()
    behind = servers.dante(lab)
    pki = Pki(t)
    pem = pki.server()
    fronts.stunnel(lab, behind, {1501: ["cert = " + pem, "sslVersionMin = TLSv1.3"],
                                 1502: ["cert = " + pem, "sslVersionMax = TLSv1.1", "ciphers = DEFAULT@SECLEVEL=0"]})
    tls = {"ca": pki.ca}
    proxies = [Front(behind, p, tls).proxy("p%d" % p) for p in (behind.port, 1501, 1502)]
    gw = lab.gateway(proxies=proxies, rules=["DST-PORT,1080,p1080", "DST-PORT,1501,p1501", "DST-PORT,1502,p1502", "MATCH,REJECT"])
    for port, says in ((behind.port, "TLS"), (1501, "TLS 1.3"), (1502, "too old|no version")):
        how = client.outcome(lab.cli, at.TARGET[0], port)[0]
        check(how == "EHOSTUNREACH" or port == 1501 and how in ("open", "ECONNREFUSED"), "port %d: %s" % (port, how))
        if how == "EHOSTUNREACH":
            gw.says("p%d .*(%s)" % (port, says))


@test("ca, certificate or key missing or wrong: exit 2 with the key's place", rows=["L16", "C1"])
def _(t):
    pki = Pki(t)
    pki.server()
    pki.make("other", "DNS:other")
    pki._openssl("pkey", "-in", "server.key", "-aes128", "-passout", "pass:x", "-out", "locked.key")
    with open(pki.path("empty.pem"), "w"):
        pass
    rows = {
        "no such file": ({"ca": "/nowhere/ca.pem"}, "tls.ca.*no such file"),
        "an empty file": ({"ca": pki.path("empty.pem")}, "tls.ca"),
        "a key as ca": ({"ca": pki.path("server.key")}, "tls.ca.*no certificate"),
        "an encrypted key": ({"certificate": pki.path("server.crt"), "private-key": pki.path("locked.key")}, "private-key.*encrypted"),
        "another key": ({"certificate": pki.path("server.crt"), "private-key": pki.path("other.key")}, "does not belong"),
        "half of it": ({"certificate": pki.path("server.crt")}, "belong together"),
    }
    wrong = []
    for name, (tls, says) in rows.items():
        entry = {"name": "a", "type": "socks5", "server": "192.0.2.1", "port": 1, "tls": dict({"ca": pki.ca}, **tls)}
        text = gateway.config_text({"proxies": [entry], "rules": ["MATCH,a"]})
        r = gateway.check_file(t, text)
        status, lines = r[0], "\n".join(map(str, r[1:]))
        if status != 2 or not re.search(r"checked.yaml:2:\d+: .*" + says, lines):
            wrong.append("%s: exit %d: %s" % (name, status, lines))
    check_table(wrong)
