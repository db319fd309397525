"""Streams go through, byte for byte, whatever the server, the family, the workers and the offloads."""
import threading

from harness import check_equal, client, servers, test, within
from harness import lab as at
from harness.bystander import bystanders, rules as bystander_rules
from harness.core import check_table

MEGABYTE, GIGABYTE = 1 << 20, 1 << 30
SERVERS = {"dante": servers.dante, "microsocks": servers.microsocks, "culvert serve": servers.culvert_serve}


@test("curl fetches a megabyte, both families", cases=SERVERS, rows=["G1", "G5"], quick=True)
def _(t, start_server):
    lab = t.lab()
    lab.services()
    server = start_server(lab)
    lab.direct_route()
    lab.gateway(proxies=[server])
    only = lab.only("tcp port %d and host %s" % (server.port, server.address))
    for target in at.TARGET:
        client.curl_bytes(lab.cli, target, MEGABYTE)
    only.check_nothing()


@test("curl uploads a megabyte, both families", cases=SERVERS)
def _(t, start_server):
    lab = t.lab()
    lab.services()
    lab.gateway(proxies=[start_server(lab)])
    for target in at.TARGET:
        client.curl_upload(t, lab.cli, target, MEGABYTE)


@test("a gigabyte down and up", cases={"dante": servers.dante, "culvert serve": servers.culvert_serve}, limit=180, long=True)
def _(t, start_server):
    lab = t.lab()
    lab.services()
    lab.gateway(proxies=[start_server(lab)])
    rate = client.curl_bytes(lab.cli, at.TARGET[0], GIGABYTE, timeout=150)
    t.note("1 GiB down: %.0f MB/s, curl and SHA-256 in Python included" % (rate / 1e6))
    client.upload(lab.cli, at.TARGET[1], GIGABYTE, timeout=150)


@test("64 MB down and up with SHA-256 compared", limit=60)
def _(t):
    lab = t.lab()
    lab.services()
    lab.gateway(proxies=[servers.dante(lab)])
    t.note("down %.0f MB/s" % (client.curl_bytes(lab.cli, at.TARGET[0], 64 * MEGABYTE) / 1e6))
    client.upload(lab.cli, at.TARGET[1], 64 * MEGABYTE)


def many(lab, n, length, namespace=None):
    """n clients at once, half of them uploading, both families; every wrong one is listed."""
    wrong = []

    def one(i):
        try:
            (client.download if i % 2 else client.upload)(namespace or lab.cli, at.TARGET[i // 2 % 2], length, 60)
        except (OSError, AssertionError) as e:
            wrong.append("connection %d: %s" % (i, e))
    threads = [threading.Thread(target=one, args=(i,)) for i in range(n)]
    for x in threads:
        x.start()
    for x in threads:
        x.join()
    check_table(wrong)


@test("200 parallel connections are exact", rows=["G4"], limit=60,
      cases={"1 worker": 1, "2 workers": 2, "4 workers": 4})
def _(t, workers):
    lab = t.lab()
    lab.services()
    gw = lab.gateway(proxies=[servers.culvert_serve(lab)], workers=workers)
    many(lab, 200, 100000)
    gw.wait_no_flows()
    gw.check_alive()


@test("every rung of the offload ladder carries streams and datagrams", rows=["V8"], limit=40,
      cases={"offload true": (True, "router"), "offload false": (False, "router"),
             "offload true, client beside the TUN": (True, "local"), "offload false, client beside the TUN": (False, "local")})
def _(t, offload, topology):
    lab = t.lab()
    lab.services()
    lab.gateway(proxies=[servers.dante(lab)], tun={"offload": offload})
    where = lab.gw if topology == "local" else lab.cli
    for target in at.TARGET:
        client.download(where, target, 8 * MEGABYTE)
        client.upload(where, target, 8 * MEGABYTE)
        for size in (0, 1, 1400, 1500, 9000, 30000):
            check_equal(client.ask(where, target, 7, b"d" * size), b"d" * size, "echo of %d bytes" % size)


@test("1, 2 and 4 workers carry 24 clients that are compared byte by byte", limit=60,
      cases={"%d workers, offload %s" % (w, o): (w, o) for w in (1, 2, 4) for o in ("true", "false")})
def _(t, workers, offload):
    lab = t.lab()
    lab.services()
    gw = lab.gateway(proxies=[servers.dante(lab)], workers=workers, tun={"offload": offload == "true"})
    many(lab, 24, 2 * MEGABYTE)
    check_equal(len(gw.status()["workers"]), workers, "workers in the status")


@test("iperf3 both ways, TCP and UDP", limit=40)
def _(t):
    lab = t.lab()
    servers.iperf3(lab)
    lab.gateway(proxies=[servers.dante(lab)])
    for name, more in (("up", ["-n", "64M"]), ("down", ["-n", "64M", "-R"]), ("both ways", ["-n", "32M", "--bidir"]),
                       ("UDP up", ["-u", "-b", "20M", "-t", "1"]), ("UDP down", ["-u", "-b", "20M", "-t", "1", "-R"])):
        r = lab.cli.result(["iperf3", "-c", at.TARGET[0], "--json"] + more, timeout=30)
        check_equal(r.returncode, 0, "iperf3 %s: %s" % (name, r.stdout[-300:]))
        import json
        end = json.loads(r.stdout)["end"]
        received = (end.get("sum_received") or end["sum"])["bits_per_second"]
        t.note("iperf3 %s: %.0f Mbit/s" % (name, received / 1e6))


@test("1 % loss on the client's link: streams stay exact, both directions", limit=60,
      cases={"IPv4": at.TARGET[0], "IPv6": at.TARGET[1]})
def _(t, target):
    lab = t.lab()
    lab.services()
    lab.gateway(proxies=[servers.dante(lab)])
    lab.lose(1)
    client.download(lab.cli, target, 16 * MEGABYTE, timeout=30)
    client.upload(lab.cli, target, 16 * MEGABYTE, timeout=30)


@test("clients with other congestion control, without timestamps, SACK or scaling", limit=60,
      cases={"reno": ("tcp_congestion_control", "reno"), "bbr": ("tcp_congestion_control", "bbr"),
             "no timestamps": ("tcp_timestamps", 0), "no SACK": ("tcp_sack", 0), "no scaling": ("tcp_window_scaling", 0)})
def _(t, key, value):
    lab = t.lab()
    lab.services()
    lab.gateway(proxies=[servers.dante(lab)])
    from harness import Skip
    if not lab.cli.sysctl("net/ipv4/" + key, value, missing_ok=True):
        raise Skip("this kernel has no %s %s" % (key, value))
    client.download(lab.cli, at.TARGET[0], 8 * MEGABYTE)
    client.upload(lab.cli, at.TARGET[1], 8 * MEGABYTE)


@test("a client on a link of 1280 bytes, and packets without checksum offload", limit=40)
def _(t):
    lab = t.lab(mtu=1280)
    lab.services()
    lab.gateway(proxies=[servers.dante(lab)])
    for namespace, name in ((lab.cli, "eth0"), (lab.gw, "lan0")):
        namespace.run(["ethtool", "-K", name, "tx", "off", "rx", "off", "tso", "off", "gso", "off", "gro", "off"])
    for target in at.TARGET:
        client.download(lab.cli, target, 4 * MEGABYTE)
        client.upload(lab.cli, target, 4 * MEGABYTE)
        # The first IPv6 answer is too big for the link, which the kernel tells us.
        within(5, lambda: back(lab, target) == b"x" * 5000, "a fragmented answer")


def back(lab, target):
    try:
        return client.ask(lab.cli, target, 7, b"x" * 5000, timeout=0.5)
    except TimeoutError:
        return b""


@test("everything direct, without a proxy", rows=["E1"])
def _(t):
    lab = t.lab()
    lab.services()
    lab.direct_route()
    lab.gateway(rules=["MATCH,DIRECT"])
    for target in at.TARGET:
        client.download(lab.cli, target, MEGABYTE)
        client.upload(lab.cli, target, MEGABYTE)
        check_equal(client.ask(lab.cli, target, 7, b"direct"), b"direct")


@test("rules choose: one target by one proxy, a port by another, a client direct, one refused, one silent")
def _(t):
    lab = t.lab()
    lab.services()
    lab.direct_route()
    lab.cli.sysctl("net/ipv4/tcp_syn_retries", 1)
    a, b = servers.dante(lab), servers.microsocks(lab, at.PROXY2[0])
    gw = lab.gateway(proxies=[a.proxy("a"), b.proxy("b")], rules=[
        "IP-CIDR,%s/32,b" % at.TARGET2[0], "DST-PORT,7,REJECT", "DST-PORT,4,REJECT-DROP",
        "SRC-IP-CIDR,%s/32,DIRECT" % at.CLI2[0], "NETWORK,udp,REJECT", "MATCH,a"])
    path = servers.Services.url(at.TARGET[0], "peer")
    check_equal(client.curl(lab.cli, path).decode().startswith("10.77"), True)
    check_equal(client.curl(lab.cli, servers.Services.url(at.TARGET2[0], "bytes/9"))[:8], b"\0" * 8)
    check_equal(client.curl(lab.cli, path, "--interface", at.CLI2[0]).decode(), at.GW_SRV[0], "direct: our own address")
    check_equal(client.outcome(lab.cli, at.TARGET[0], 7)[0], "ECONNREFUSED", "REJECT")
    check_equal(client.outcome(lab.cli, at.TARGET[0], 4, timeout=1)[0], "timed out", "REJECT-DROP")
    try:
        client.ask(lab.cli, at.TARGET[0], 7001, b"x", timeout=2)
        how = "answered"
    except OSError as e:
        how = type(e).__name__
    check_equal(how, "ConnectionRefusedError", "REJECT of a datagram")
    gw.check_alive()


@test("bystanders share the gateway with 100 uploads that are aborted", rows=["G2"], limit=40)
def _(t):
    lab = t.lab()
    lab.services()
    good = servers.culvert_serve(lab, at.PROXY2[0])
    gw = lab.gateway(proxies=[servers.dante(lab).proxy("up"), good.proxy("good")], rules=bystander_rules() + ["MATCH,up"])
    with bystanders(lab):
        for _ in range(100):
            s = client.tcp(lab.cli, at.TARGET[0], 7000)
            s.sendall(b"up\n" + b"x" * 50000)
            client.reset(s)
    gw.wait_no_flows()
