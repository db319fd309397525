"""The far end: curl through `culvert serve` as an HTTPS proxy, and what a stranger gets."""
import re
import ssl
import threading
import time

from harness import check, check_equal, client, fronts, servers, test, within
from harness import gateway
from harness import lab as at
from harness.core import Skip, check_table
from harness.fronts import Pki
from harness.gateway import SECRET
from harness.proc import Process, wait_port


def start(t, **keys):
    lab = t.lab()
    pki = Pki(t)
    pki.server()
    return lab, pki, fronts.masque(lab, pki, **keys)


def refused(lab, far, url, login=True):
    """The status that the proxy answers curl's CONNECT with."""
    answer = client.curl(lab.gw, url, *far.curl(login), "-o", "/dev/null", "-w", "%{http_connect}", expect=56)
    return int(answer)


@test("curl through culvert serve by CONNECT over TLS: both families, names, up and down, exact bytes", quick=True, limit=60)
def _(t):
    lab, _, far = start(t)
    lab.services()
    for target in at.TARGET:
        client.curl_bytes(lab.gw, target, 2000000, *far.curl())
    path = t.path("up")
    with open(path, "wb") as f:
        for block in client.stream_blocks(1000000):
            f.write(block)
    answer = client.curl(lab.gw, servers.Services.url(at.TARGET[0], "hash"), *far.curl(), "-T", path).decode()
    check_equal(answer, "%s %d\n" % (client.stream_sha256(1000000), 1000000))
    far.process.signal(15)
    check_equal(far.process.wait(t.slow(5)), 0)
    check(not gateway.SANITIZER_NOISE.search(far.process.text), far.process.text)


@test("curl --proxy-http2 through culvert serve: CONNECT over HTTP/2, exact bytes; a wrong login is refused", limit=60)
def _(t):
    lab, _, far = start(t)
    lab.services()
    if b"--proxy-http2" not in client.curl(lab.gw, "all", "--help"):
        raise Skip("this curl cannot speak HTTP/2 to a proxy; that of Debian 13 can (tests/debian13)")
    for target in at.TARGET:
        client.curl_bytes(lab.gw, target, 2000000, *far.curl(), "--proxy-http2")
    url = servers.Services.url(at.TARGET[0], "bytes/10")
    client.curl(lab.gw, url, *far.curl("alice:wrong@"), "--proxy-http2", "-o", "/dev/null", expect=56)   # it does not tell the status
    log = t.path("curl.log")
    client.curl(lab.gw, url, *far.curl(), "--proxy-http2", "-v", "--stderr", log)
    with open(log) as f:
        check("server accepted h2" in f.read(), "curl did not agree on HTTP/2 with its proxy")


@test("it is no open proxy: no login, a wrong one, own and private addresses; a refusal is told as one", rows=["G7"], limit=60)
def _(t):
    lab, _, far = start(t, allow=[at.TARGET[0], at.UNREACHABLE[0]], password=SECRET)
    lab.services()
    url = servers.Services.url(at.TARGET[0], "bytes/10")
    check_equal(len(client.curl(lab.gw, url, *far.curl())), 10)
    rows = {"no login": (url, None, 407), "a wrong password": (url, "alice:wrong@", 407), "an unknown user": (url, "bob:%s@" % SECRET, 407),
            "an address of its own": (servers.Services.url(at.TARGET[1], "bytes/10"), True, 403),
            "its loopback": ("http://127.0.0.1:%d/" % far.port, True, 403), "a name for it": ("http://localhost:1/", True, 403),
            "IPv6 loopback": ("http://[::1]:1/", True, 403), "its network": ("http://%s:1/" % at.GW_SRV[0], True, 403),
            "a closed port": ("http://%s:4/" % at.TARGET[0], True, 502),
            "unreachable": ("http://%s:1/" % at.UNREACHABLE[0], True, 502)}
    wrong = []
    for what, (where, login, status) in rows.items():
        got = refused(lab, far, where, login)
        if got != status:
            wrong.append("%s: %d, not %d" % (what, got, status))
    check_table(wrong)
    check(SECRET not in far.process.text, "the password is in the log")


BAD = {"nothing": b"", "SOCKS": b"\5\1\0", "a bare LF": b"CONNECT a:1 HTTP/1.1\nHost: a\n\n", "a megabyte": b"a" * (1 << 20),
       "two Hosts": b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "GET": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
       "a body": b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", "HTTP/2 without saying so": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"}


@test("bad requests, inside TLS and without it, get a status or an end, and the server lives", rows=["G1"], limit=60)
def _(t):
    lab, pki, far = start(t)
    lab.services()
    context = ssl.create_default_context(cafile=pki.ca)
    context.check_hostname = False
    for inside in (False, True):
        for data in BAD.values():
            s = client.tcp(lab.gw, far.address, far.port, timeout=t.slow(2))
            try:
                if inside:
                    s = context.wrap_socket(s)
                s.sendall(data)
                s.settimeout(0.3)
                while s.recv(65536):
                    pass
            except (OSError, TimeoutError):
                pass
            s.close()
    check(far.process.alive(), far.process.text[-2000:])
    check_equal(len(client.curl(lab.gw, servers.Services.url(at.TARGET[0], "bytes/10"), *far.curl())), 10)


@test("SIGHUP: new connections get the new certificate, a transfer that runs is not cut, a bad file changes nothing", limit=60)
def _(t):
    lab, pki, far = start(t)
    lab.services()
    context = ssl.create_default_context(cafile=pki.ca)
    context.check_hostname = False

    def serial():
        with client.tcp(lab.gw, far.address, far.port) as raw, context.wrap_socket(raw) as s:
            return s.getpeercert()["serialNumber"]
    old = serial()
    raw = client.tcp(lab.gw, far.address, far.port, timeout=10)
    running = context.wrap_socket(raw)
    running.sendall(b"CONNECT %s:7 HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Bearer sesame\r\n\r\n" % at.TARGET[0].encode())
    check(running.recv(1000).startswith(b"HTTP/1.1 200 "), "CONNECT")
    running.sendall(b"one")
    check_equal(running.recv(10), b"one")
    pki.server()
    far.process.signal(1)
    within(t.slow(5), lambda: serial() != old, "the new certificate is shown")
    running.sendall(b"two")
    check_equal(running.recv(10), b"two")
    with open(pki.path("server.crt"), "w") as f:
        f.write("no certificate")
    new = serial()
    far.process.signal(1)
    far.process.wait_line("the old certificate stays", t.slow(5))
    check_equal(serial(), new)
    running.sendall(b"three")
    check_equal(running.recv(10), b"three")
    running.close()


@test("SIGHUP: users, allow and limits are taken as the file says now, and what runs is not cut", limit=60)
def _(t):
    lab, pki, far = start(t)
    lab.services()
    url = servers.Services.url(at.TARGET[0], "bytes/10")
    context = ssl.create_default_context(cafile=pki.ca)
    context.check_hostname = False
    running = context.wrap_socket(client.tcp(lab.gw, far.address, far.port, timeout=10))
    running.sendall(b"CONNECT %s:7 HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Bearer sesame\r\n\r\n" % at.TARGET[0].encode())
    check(running.recv(1000).startswith(b"HTTP/1.1 200 "), "CONNECT")

    def change(**keys):
        entry = {"listen": "%s:%d" % (far.address, far.port), "certificate": pki.path("server.crt"), "private-key": pki.path("server.key"),
                 "users": {"alice": "sesame"}, "allow": ["10.77.0.0/16", "fd77::/16"], **keys}
        text = gateway.config_text({"log": {"level": "debug"}, "runtime": {"workers": 2}, "serve": {"masque": entry}})
        t.write("masque-%d.yaml" % far.port, text, 0o600)
        far.process.signal(1)
    check_equal(len(client.curl(lab.gw, url, *far.curl())), 10)
    change(users={"bob": "other"})
    within(t.slow(5), lambda: refused(lab, far, url) == 407, "alice is no user any more")
    check_equal(len(client.curl(lab.gw, url, *far.curl("bob:other@"))), 10)
    running.sendall(b"one")
    check_equal(running.recv(10), b"one")
    change(allow=[at.TARGET[1]])
    within(t.slow(5), lambda: refused(lab, far, url) == 403, "the target is not allowed any more")
    change(**{"per-user": {"flows": 1}})
    within(t.slow(5), lambda: len(client.curl(lab.gw, url, *far.curl())) == 10, "and is again")
    second = context.wrap_socket(client.tcp(lab.gw, far.address, far.port, timeout=10))
    second.sendall(b"CONNECT %s:7 HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Bearer sesame\r\n\r\n" % at.TARGET[0].encode())
    check(second.recv(1000).startswith(b"HTTP/1.1 200 "), "CONNECT")
    check_equal(refused(lab, far, url), 429)
    change(users={})
    far.process.wait_line("is not taken", t.slow(5))
    running.sendall(b"two")
    check_equal(running.recv(10), b"two")


@test("users keep to their limits: flows at a time", limit=60)
def _(t):
    lab, pki, far = start(t, **{"per-user": {"flows": 2}})
    lab.services()
    context = ssl.create_default_context(cafile=pki.ca)
    context.check_hostname = False
    ask = b"CONNECT %s:7 HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Bearer sesame\r\n\r\n" % at.TARGET[0].encode()

    def opened():
        s = context.wrap_socket(client.tcp(lab.gw, far.address, far.port))
        s.sendall(ask)
        return s, s.recv(1000).split(b" ")[1]
    first, second, third = opened(), opened(), opened()
    check_equal([first[1], second[1], third[1]], [b"200", b"200", b"429"])
    first[0].close()
    within(t.slow(5), lambda: opened()[1] == b"200", "a place is free again")


# ---- with our own client at the near end ----

@test("through type masque: TCP both ways with hashes, 200 flows, datagrams of DNS and QUIC sizes", quick=True, limit=120)
def _(t):
    lab, _, far = start(t)
    lab.services()
    servers.unbound(lab)
    gw = lab.gateway(proxies=[far])
    for target in at.TARGET:
        client.curl_bytes(lab.cli, target, 4000000)
        client.upload(lab.cli, target, 1000000)
    flows = client.open_many(lab.cli, (at.TARGET[0], servers.Services.ECHO), 200)
    for i, s in enumerate(flows):
        s.sendall(b"%4d" % i)
    for i, s in enumerate(flows):
        check_equal(client.receive(s, 4), b"%4d" % i)
        s.close()
    check_equal(client.dig(lab.cli, at.TARGET[0], "example.test"), [at.TARGET[0]])
    for target in at.TARGET:
        for size in (1, 512, 1200, 1350, 1452):
            check_equal(client.ask(lab.cli, target, servers.Services.ECHO, b"q" * size), b"q" * size, "%d bytes" % size)
    gw.wait_no_flows()


@test("through type masque: a refusal is one, and a denied target is unreachable", limit=60)
def _(t):
    lab, _, far = start(t, allow=[at.TARGET[0], at.TARGET[1]])
    lab.gateway(proxies=[far])
    check_equal(client.outcome(lab.cli, at.TARGET[0], 4)[0], "ECONNREFUSED")
    check_equal(client.outcome(lab.cli, at.TARGET2[0], 80)[0], "EHOSTUNREACH")


@test("1 GB each way through type masque", long=True, limit=600)
def _(t):
    lab, _, far = start(t)
    lab.services()
    lab.gateway(proxies=[far])
    down = client.curl_bytes(lab.cli, at.TARGET[0], 1000000000, timeout=240)
    begin = time.monotonic()
    client.upload(lab.cli, at.TARGET[0], 1000000000, timeout=240)
    t.note("down %.0f MB/s, up %.0f MB/s" % (down / 1e6, 1000 / (time.monotonic() - begin)))


@test("the far end dies in the middle and comes back: flows end, new ones go through", limit=90)
def _(t):
    lab, pki, far = start(t)
    lab.services()
    lab.gateway(proxies=[far])
    held = client.tcp(lab.cli, at.TARGET[0], servers.Services.ECHO)
    held.sendall(b"a")
    check_equal(client.receive(held, 1), b"a")
    far.process.signal(9)
    far.process.wait(10)
    held.settimeout(t.slow(10))
    try:
        check_equal(held.recv(1), b"", "a flow whose far end died")
    except ConnectionResetError:
        pass
    held.close()
    fronts.masque(lab, pki)

    def again():
        return client.outcome(lab.cli, at.TARGET[0], servers.Services.ECHO)[0] == "open"
    within(t.slow(20), again, "new flows go through")
    client.curl_bytes(lab.cli, at.TARGET[0], 1000000)


@test("nghttpx in front of it, speaking HTTP/2: curl both ways, exact bytes; a login passes, a wrong one does not", limit=60)
def _(t):
    lab, pki, far = start(t)
    lab.services()
    front = Process(t, lab.gw, [servers.need("nghttpx"), "--conf=/dev/null", "--http2-proxy", "-f%s,3000;no-tls" % at.GW_SRV[0],
                                "-b%s,%d;;tls;proto=h2;sni=proxy.test" % (far.address, far.port), "--cacert=" + pki.ca,
                                "--accesslog-file=/dev/null", "--errorlog-file=/dev/stderr", "--workers=1"], "nghttpx")
    wait_port(lab.gw, at.GW_SRV[0], 3000, process=front)

    def by(login):
        return ["-x", "http://%s@%s:3000" % (login, at.GW_SRV[0]), "-p"]
    for target in at.TARGET:
        client.curl_bytes(lab.gw, target, 3000000, *by("alice:sesame"))
    url = servers.Services.url(at.TARGET[0], "bytes/10")
    answer = client.curl(lab.gw, url, *by("alice:wrong"), "-o", "/dev/null", "-w", "%{http_connect}", expect=56)
    check_equal(answer, b"407")


@test("type masque through nghttpx as an HTTP/2 CONNECT proxy: exact bytes both ways", limit=90)
def _(t):
    lab, pki, far = start(t)
    lab.services()
    lab.gateway(proxies=[fronts.nghttpx(lab, pki, far).proxy()])
    path = t.path("up")
    with open(path, "wb") as f:
        for block in client.stream_blocks(1000000):
            f.write(block)
    for target in at.TARGET:    # it never passes on a half close of a tunnel, so the length goes with the upload
        client.curl_bytes(lab.cli, target, 3000000)
        answer = client.curl(lab.cli, servers.Services.url(target, "hash"), "-T", path).decode()
        check_equal(answer, "%s %d\n" % (client.stream_sha256(1000000), 1000000))


def answered(result):
    return int(re.search(r"(\d+) received", result.stdout).group(1))


@test("ping and ping -6 through type masque; traceroute -I shows us, the far end, the routers and the target", rows=["icmp T3"],
      limit=90)
def _(t):
    lab = t.lab()
    lab.far()
    pki = Pki(t)
    pki.make("server", "DNS:proxy.test,IP:%s" % at.GW_CLI[0])
    far = fronts.masque(lab, pki, namespace=lab.gw, address=at.GW_CLI[0])
    conf = t.write("exec.yaml", gateway.config_text({"log": {"level": "debug"}, "proxies": [far.proxy()], "rules": ["MATCH,up"]}), 0o600)

    def inside(*argv):
        return lab.cli.result([gateway.program(t), "exec", "-c", conf, "--", *argv], timeout=40)
    for target in at.FAR:
        r = inside(servers.need("ping"), "-n", "-c", "5", "-i", "0.2", "-W", "3", target)
        check_equal(answered(r), 5, r.stdout + r.stderr)
        r = inside(servers.need("ping"), "-n", "-c", "2", "-s", "3000", "-W", "3", target)     # in pieces, on both sides
        check_equal(answered(r), 2, r.stdout + r.stderr)
    for family, target in enumerate(at.FAR):
        r = inside(servers.need("traceroute"), "-I", "-n", "-q", "3", "-z", "0.1", "-w", "5", "-m", "6", target)
        hops = re.findall(r"^ *\d+ +(\S+)", r.stdout, re.M)
        check_equal(hops[1:], [at.GW_CLI[family], at.R1[family], at.R2[family], target], r.stdout + r.stderr)
        # the first one of the far end's hop is what opens the tunnel: it waits for it, and is not lost
        check("*" not in r.stdout, r.stdout)


@test("ping beside a transfer through one far end: nothing is lost, and the 99th of 100 is reported", limit=90)
def _(t):
    lab, _, far = start(t)
    lab.services()
    lab.gateway(proxies=[far])
    check_equal(client.ping(lab.cli, at.TARGET[0], 3)[0], 3)
    stop = threading.Event()

    def load():
        while not stop.is_set():
            client.curl_bytes(lab.cli, at.TARGET[0], 20000000)
    thread = threading.Thread(target=load)
    thread.start()
    try:
        r = lab.cli.result([servers.need("ping"), "-n", "-c", "100", "-i", "0.02", "-W", "3", at.TARGET[0]], timeout=40)
    finally:
        stop.set()
        thread.join()
    times = sorted(float(x) for x in re.findall(r"time=([\d.]+)", r.stdout))
    check_equal(len(times), 100, r.stdout[-1000:])
    t.note("ping under load: p50 %.1f ms, p99 %.1f ms" % (times[50], times[98]))


@test("type masque through another proxy, plain and inside TLS (TLS in TLS): TCP, datagrams and pings", limit=90,
      cases={"SOCKS5": ({},), "SOCKS5 inside TLS": ({"tls": True},)})
def _(t, more):
    lab, pki, far = start(t)
    lab.services()
    outer = servers.microsocks(lab)
    entry = outer.proxy("outer")
    if more:
        fronts.stunnel(lab, outer, {4443: ["cert = " + pki.path("server.pem")]})
        entry = dict(outer.proxy("outer"), port=4443, tls={"ca": pki.ca, "sni": "proxy.test"})
    lab.gateway(proxies=[entry, far.proxy(**{"dialer-proxy": "outer"})], rules=["MATCH,up"])
    for target in at.TARGET:
        client.curl_bytes(lab.cli, target, 2000000)
        client.upload(lab.cli, target, 500000)
        check_equal(client.ask(lab.cli, target, servers.Services.ECHO, b"q" * 1200), b"q" * 1200)
        check_equal(client.ping(lab.cli, target, 3)[0], 3)


@test("url-test fetches its url through members of type masque: the one that reaches it is taken", limit=60)
def _(t):
    lab, pki, far = start(t, allow=[at.TARGET2[0] + "/32"])     # it cannot reach the url's host
    lab.services()
    far2 = fronts.masque(lab, pki, port=8444)
    url = servers.Services.url(at.TARGET[0], "bytes/1")
    gw = lab.gateway(proxies=[far.proxy("a"), far2.proxy("b")], rules=["MATCH,g"],
                     **{"proxy-groups": [{"name": "g", "type": "url-test", "proxies": ["a", "b"], "url": url, "interval": "1s"}]})
    client.outcome(lab.cli, at.TARGET2[0], 80)

    def settled():
        client.outcome(lab.cli, at.TARGET2[0], 80)          # a round starts only if the group is used
        g = gw.status()["groups"]["g"]
        return g["now"] == "b" and g["members"]["a"]["down"] and g["members"]["b"]["delay-ms"] > 0
    within(t.slow(15), settled, "the member that reaches it")
    client.curl_bytes(lab.cli, at.TARGET[0], 1000)
