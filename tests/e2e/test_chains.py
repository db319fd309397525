"""A way out of type masque as the hop before others (config.md dialer-proxy): what real servers behind it carry, and what happens
when one of the two goes."""
import threading

from harness import check, check_equal, client, fronts, servers, test
from harness import lab as at
from harness.fronts import Pki

MEGABYTE = 1000000


def behind(front, name="up", **more):
    """The entry of a proxy that is reached through "outer"."""
    return front.proxy(name, **{"dialer-proxy": "outer", **more})


def socks5(lab, pki):
    return behind(servers.dante(lab), udp="auto")


def socks5_tls(lab, pki):
    fronts.haproxy(lab, servers.dante(lab), 2443, pki.path("server.pem"))
    return behind(fronts.Front(servers.Socks("dante", fronts.ADDRESS, 1080, "auto"), 2443, {"ca": pki.ca}))


def http_tls(lab, pki):
    return behind(fronts.squid(lab, pki)[1])


def masque(lab, pki):
    return behind(fronts.masque(lab, pki, port=8444))


KINDS = {"socks5": (socks5,), "socks5 inside TLS": (socks5_tls,), "http inside TLS": (http_tls,), "masque": (masque,)}


def start(t):
    lab = t.lab()
    lab.services()
    pki = Pki(t)
    pki.server()
    return lab, pki, fronts.masque(lab, pki)


def gateway(lab, outer, *entries, **more):
    return lab.gateway(proxies=[outer.proxy("outer"), *entries], rules=["MATCH,up"], **more)


@test("behind masque: exact bytes both ways, both families, 100 at once", cases=KINDS, rows=["S22", "G5"], quick=True, limit=90)
def _(t, inner):
    lab, pki, outer = start(t)
    gw = gateway(lab, outer, inner(lab, pki))
    for target in at.TARGET:
        client.curl_bytes(lab.cli, target, 3 * MEGABYTE)
    client.curl_upload(t, lab.cli, at.TARGET[0], 2 * MEGABYTE)
    if inner is not http_tls:                       # squid ends both ways at the client's FIN
        client.upload(lab.cli, at.TARGET[0], MEGABYTE)
    wrong = []

    def one(i):
        try:
            client.download(lab.cli, at.TARGET[i % 2], 50000, 60)
        except Exception as e:          # pylint: disable=broad-except
            wrong.append("%d: %s" % (i, e))
    clients = [threading.Thread(target=one, args=(i,)) for i in range(100)]
    for c in clients:
        c.start()
    for c in clients:
        c.join()
    check_equal(wrong, [])
    gw.wait_no_flows()


@test("behind masque: 100 MB each way", cases=KINDS, long=True, limit=120)
def _(t, inner):
    lab, pki, outer = start(t)
    gateway(lab, outer, inner(lab, pki))
    down = client.curl_bytes(lab.cli, at.TARGET[0], 100 * MEGABYTE)
    client.curl_upload(t, lab.cli, at.TARGET[0], 100 * MEGABYTE)
    t.note("down %.0f MB/s" % (down / 1e6))


@test("masque behind masque behind masque: TCP, datagrams and pings", rows=["S22"], limit=90)
def _(t):
    lab, pki, outer = start(t)
    middle = fronts.masque(lab, pki, port=8444).proxy("middle", **{"dialer-proxy": "outer"})
    inner = fronts.masque(lab, pki, port=8445).proxy("up", **{"dialer-proxy": "middle"})
    gateway(lab, outer, middle, inner)
    for target in at.TARGET:
        client.curl_bytes(lab.cli, target, 3 * MEGABYTE)
        client.upload(lab.cli, target, MEGABYTE)
        check_equal(client.ask(lab.cli, target, servers.Services.ECHO, b"q" * 1200), b"q" * 1200)
        check_equal(client.ping(lab.cli, target, 3)[0], 3)


@test("UDP over TCP behind masque", rows=["S22"], limit=60)
def _(t):
    lab, _, outer = start(t)
    gateway(lab, outer, behind(servers.culvert_serve(lab), udp="over-tcp"))
    for target in at.TARGET:
        for size in (0, 1, 1200, 9000):
            check_equal(client.ask(lab.cli, target, servers.Services.ECHO, b"q" * size), b"q" * size)


@test("behind masque: a hop that goes is named, and the next flow finds a new way", rows=["S22", "S17", "S3"], limit=90)
def _(t):
    lab, pki, outer = start(t)
    inner = servers.microsocks(lab)
    gw = gateway(lab, outer, behind(inner), stack={"tcp": {"connect-timeout": "3s"}})
    client.curl_bytes(lab.cli, at.TARGET[0], MEGABYTE)
    inner.process.stop()
    check_equal(client.outcome(lab.cli, at.TARGET[0], 8080)[0], "EHOSTUNREACH")
    gw.says("up, reached through outer: outer .* refused")
    inner = servers.microsocks(lab)
    client.curl_bytes(lab.cli, at.TARGET[0], MEGABYTE)
    outer.process.stop()
    check(client.outcome(lab.cli, at.TARGET[0], 8080)[0] in ("EHOSTUNREACH", "ETIMEDOUT"), "the outer server has gone")
    gw.says("up, reached through outer: outer .* refuses connections")
    fronts.masque(lab, pki)
    client.curl_bytes(lab.cli, at.TARGET[0], MEGABYTE, "--retry", "5", "--retry-all-errors", "--retry-delay", "1")
    gw.wait_no_flows()
