"""HTTP and SOCKS4 proxies, plain and inside TLS, against real servers and against plans."""
from faultd import FaultServer, half, hang, read, reset, send
from harness import check, check_equal, client, fronts, servers, test
from harness import lab as at
from harness.core import check_table
from harness.fronts import Pki
from harness.gateway import SECRET

REQUEST = len("CONNECT %s:3000 HTTP/1.1\r\nHost: %s:3000\r\n\r\n" % (at.TARGET[0], at.TARGET[0]))
FAILED = {"EHOSTUNREACH", "ECONNREFUSED"}


@test("squid, plain and inside TLS: curl both ways, exact bytes", rows=["S12"], quick=True, limit=60,
      cases={"plain": 0, "TLS": 1})
def _(t, which):
    lab = t.lab()
    lab.services()
    pki = Pki(t)
    pki.server()
    proxy = fronts.squid(lab, pki)[which]
    gw = lab.gateway(proxies=[proxy])
    for target in at.TARGET:
        client.curl_bytes(lab.cli, target, 2000000)
    client.download(lab.cli, at.TARGET[0], 1000000)
    gw.wait_no_flows()


@test("squid with a login: right, wrong and none; the log names the keys and no password", rows=["S12", "S6", "G7"], limit=60)
def _(t):
    lab = t.lab()
    lab.services()
    pki = Pki(t)
    pki.server()
    plain, tls = fronts.squid(lab, pki, "alice", SECRET)
    wrong = plain.proxy("wrong", password="not-" + SECRET)
    none = {k: v for k, v in plain.proxy("none").items() if k not in ("username", "password")}
    gw = lab.gateway(proxies=[plain.proxy("right"), tls.proxy("sealed"), wrong, none],
                     rules=["DST-PORT,8080,right", "DST-PORT,7000,sealed", "DST-PORT,81,wrong", "DST-PORT,82,none", "MATCH,REJECT"])
    client.curl_bytes(lab.cli, at.TARGET[0], 100000)
    client.download(lab.cli, at.TARGET[0], 100000)
    for port, name in ((81, "wrong"), (82, "none")):
        check_equal(client.outcome(lab.cli, at.TARGET[0], port)[0], "EHOSTUNREACH")
        gw.says("%s .*407.*username" % name)
    check(SECRET not in gw.log, "the password is in the log")


@test("a target that refuses, behind squid: the client sees a refusal", rows=["S12", "G8"], limit=60)
def _(t):
    lab = t.lab()
    lab.services()
    pki = Pki(t)
    pki.server()
    gw = lab.gateway(proxies=[fronts.squid(lab, pki)[0]])
    check_equal(client.outcome(lab.cli, at.TARGET[0], 4)[0], "ECONNREFUSED")
    gw.says("503")


@test("SOCKS4 and SOCKS4A by danted: exact bytes, IPv6 refused, a refusal is one", rows=["S8"],
      cases={"socks4": "socks4", "socks4a": "socks4a"})
def _(t, kind):
    lab = t.lab()
    lab.services()
    lab.gateway(proxies=[servers.dante(lab).proxy(type=kind, udp="auto")])
    client.curl_bytes(lab.cli, at.TARGET[0], 1000000)
    check_equal(client.outcome(lab.cli, at.TARGET[0], 4)[0], "ECONNREFUSED")
    check(client.outcome(lab.cli, at.TARGET[1], 7)[0] in ("ENETUNREACH", "EHOSTUNREACH"), "IPv6 through SOCKS4")


@test("SOCKS5 by ssh -D: exact bytes both ways, 50 at once, a refusal is a failure at once", rows=["S8"], limit=60)
def _(t):
    lab = t.lab()
    lab.services()
    gw = lab.gateway(proxies=[servers.ssh_dynamic(lab)])
    for target in at.TARGET:
        client.curl_bytes(lab.cli, target, 2000000)
    client.upload(lab.cli, at.TARGET[0], 1000000)
    for i, s in enumerate(client.open_many(lab.cli, (at.TARGET[0], 7), 50)):
        s.sendall(b"%05d" % i)
        check_equal(client.receive(s, 5), b"%05d" % i)
        s.close()
    # OpenSSH answers only after the far side has dialled, and ends the connection without a SOCKS reply when that failed.
    check(client.outcome(lab.cli, at.TARGET[0], 4)[0] in FAILED, "a refused target")
    gw.wait_no_flows()


OK = b"HTTP/1.1 200 Connection established\r\n\r\n"
ANSWERS = {             # what a proxy says, what the client sees, a word of the log
    "200": (OK, {"open"}, None),
    "200 with lengths": (b"HTTP/1.1 200 x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", {"open"}, None),
    "204": (b"HTTP/1.0 204 x\r\n\r\n", {"open"}, None),
    "bare LF": (b"HTTP/1.1 200 x\nA: b\n\n", {"open"}, None),
    "100 first": (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 x\r\nA: b\r\n\r\n" + OK, {"open"}, None),
    "301": (b"HTTP/1.1 301 x\r\nLocation: /\r\n\r\n", FAILED, "301"),
    "401": (b"HTTP/1.1 401 x\r\n\r\n", FAILED, "401"),
    "403": (b"HTTP/1.1 403 x\r\n\r\n", {"EHOSTUNREACH", "EACCES"}, "does not allow"),
    "407": (b"HTTP/1.1 407 x\r\nProxy-Authenticate: Basic realm=x\r\n\r\n", {"EHOSTUNREACH"}, "set username"),
    "407 Digest": (b"HTTP/1.1 407 x\r\nProxy-Authenticate: Digest x\r\n\r\n", {"EHOSTUNREACH"}, "Basic would work"),
    "502": (b"HTTP/1.1 502 x\r\n\r\n", FAILED, "502"),
    "503": (b"HTTP/1.1 503 x\r\n\r\n", FAILED, "503"),
    "504": (b"HTTP/1.1 504 x\r\n\r\n", {"timed out"}, "in time"),
    "502, refused": (b"HTTP/1.1 502 x\r\nProxy-Status: p; error=connection_refused\r\n\r\n", {"ECONNREFUSED"}, "refused"),
    "HTTP/0.9": (b"<html>hello</html>", {"EHOSTUNREACH"}, "HTTP/0.9"),
    "a header without end": (b"HTTP/1.1 200 x\r\nA: " + b"a" * 9000, {"EHOSTUNREACH"}, "8192"),
    "1000 headers": (b"HTTP/1.1 200 x\r\n" + b"a:b\r\n" * 1000 + b"\r\n", {"EHOSTUNREACH"}, "headers"),
    "SOCKS5": (b"\5\0", {"EHOSTUNREACH"}, "speaks SOCKS5"),
    "wants TLS": (b"\x15\3\1\0\2\2\x46", {"EHOSTUNREACH"}, "wants TLS"),
}


# In two halves: a worker writes ten lines a second of one cause, and here every line is looked for (faults.md G3).
@test("every answer to CONNECT is what it is for the client", rows=["S12", "S5", "G8"], limit=40,
      cases={"first half": 0, "second half": 1})
def _(t, half_of):
    lab = t.lab()
    ports = {n: 3000 + i for i, n in enumerate(ANSWERS) if i % 2 == half_of}
    plans = {n: FaultServer(t, lab.srv, at.PROXY[0], p, [read(REQUEST), send(ANSWERS[n][0]), hang()]) for n, p in ports.items()}
    proxies = [dict(s.proxy("p%d" % s.port, udp="auto"), type="http") for s in plans.values()]
    gw = lab.gateway(proxies=proxies, rules=["DST-PORT,%d,p%d" % (p, p) for p in ports.values()] + ["MATCH,REJECT"],
                     stack={"tcp": {"connect-timeout": "3s"}})
    seen = client.outcomes(lab.cli, {n: (at.TARGET[0], p) for n, p in ports.items()}, 6)
    check_table(["%s: the client saw %s" % (n, how) for n, (how, _) in seen.items() if how not in ANSWERS[n][1]])
    for name, port in ports.items():
        if ANSWERS[name][2]:
            gw.says("p%d .*%s" % (port, ANSWERS[name][2]))


@test("the answer and the first data in one segment, byte by byte, cut and reset", rows=["S2", "S3", "S4", "S11"], limit=40)
def _(t):
    lab = t.lab()
    read_request = read(REQUEST)
    plans = {
        "glued": ([read_request, send(OK + b"data"), half(), hang()], (b"data", "FIN")),
        "glued, 3000": ([read_request, send(OK + b"d" * 3000), half(), hang()], (b"d" * 3000, "FIN")),
        "drip": ([read_request] + [("drip", OK)] + [send(b"data"), half(), hang()], (b"data", "FIN")),
    }
    for name, (plan, wanted) in plans.items():
        port = 3000 + list(plans).index(name)
        FaultServer(t, lab.srv, at.PROXY[0], port, plan)
    proxies = [{"name": "p%d" % (3000 + i), "type": "http", "server": at.PROXY[0], "port": 3000 + i} for i in range(3)]
    for port, action in ((3010, half()), (3011, reset())):
        FaultServer(t, lab.srv, at.PROXY[0], port, [read_request, send(OK[:20]), action, hang()] if action[0] != "reset"
                    else [read_request, send(OK[:20]), action])
        proxies.append({"name": "p%d" % port, "type": "http", "server": at.PROXY[0], "port": port})
    lab.gateway(proxies=proxies, rules=["DST-PORT,%d,%s" % (p["port"], p["name"]) for p in proxies] + ["MATCH,REJECT"])
    for i, (_, wanted) in enumerate(plans.values()):
        with client.tcp(lab.cli, at.TARGET[0], 3000 + i) as s:
            check_equal(client.receive_end(s), wanted)
    for port in (3010, 3011):
        check_equal(client.outcome(lab.cli, at.TARGET[0], port)[0], "EHOSTUNREACH")
