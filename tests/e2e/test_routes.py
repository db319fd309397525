"""auto-route: the whole machine through the gateway, our own sockets exempt, all of it undone at the end."""
import threading

from harness import check, check_equal, client, gateway, servers, test, within
from harness import lab as at


@test("--proxy URL alone takes everything of the machine, both families, and gives it back", rows=["G5", "X1"], quick=True)
def _(t):
    lab = t.lab()
    lab.services()
    servers.unbound(lab)
    lab.direct_route()
    dante = servers.dante(lab)
    before = gateway.network_state(lab.gw)
    gw = gateway.Gateway(lab, ["run", "--proxy", dante.url, "--tun", "tun7"], None)
    gw.wait_ready()
    only = lab.only("host %s" % dante.address)
    for target in at.TARGET:
        client.download(lab.gw, target, 1 << 20)
        client.upload(lab.gw, target, 1 << 20)
        check_equal(client.ask(lab.gw, target, 7, b"whole"), b"whole", target)
    check_equal(client.dig(lab.gw, at.TARGET[0], "example.test"), [at.TARGET[0]])
    check_equal(client.ping(lab.gw, at.TARGET[0], 2)[0], 2, "ping")
    only.check_nothing()
    check(lab.gw.ip_json("link", "show", "tun7"), "no tun7")
    check_equal(gw.terminate(), 0)
    gateway.check_network(lab.gw, before)


@test("the minimal file: auto-route, one proxy, MATCH", rows=["E1"])
def _(t):
    lab = t.lab()
    lab.services()
    lab.direct_route()
    dante = servers.dante(lab)
    sections = {"tun": {"auto-route": True}, "proxies": [dante.proxy()], "rules": ["MATCH,up"],
                "api": {"unix": t.path("culvert.sock")}}
    gw = lab.gateway(sections=sections, route=False)
    for target in at.TARGET:
        client.download(lab.gw, target, 100000)
        client.download(lab.cli, target, 100000)         # forwarded clients as well
    gw.check_alive()


@test("DIRECT under auto-route leaves by the uplink and does not come back", rows=["E1"])
def _(t):
    lab = t.lab()
    lab.services()
    lab.direct_route()
    gw = lab.gateway(rules=["MATCH,DIRECT"], tun={"auto-route": True}, route=False)
    for target in at.TARGET:
        client.download(lab.gw, target, 1 << 20)
        check_equal(client.ask(lab.gw, target, 7, b"direct"), b"direct")
    check_equal(gw.counter("flow.loop"), 0, "loops seen")


@test("our own packets come back through the TUN: noticed, dropped, said once, no spinning", rows=["E1", "G3"], limit=40)
def _(t):
    import time
    lab = t.lab()
    lab.services()
    lab.direct_route()
    dante = servers.dante(lab)
    gw = lab.gateway(proxies=[dante], stack={"tcp": {"connect-timeout": "2s"}})
    # Forced: even marked packets to the proxy go into the device.
    lab.gw.ip("rule add to %s lookup %d pref 10" % (dante.address, at.TABLE))
    start, cpu = time.monotonic(), gw.resources().cpu_s
    seen = [client.outcome(lab.cli, at.TARGET[0], 80 + i, timeout=4)[0] for i in range(2)]
    busy = (gw.resources().cpu_s - cpu) / (time.monotonic() - start)
    check("open" not in seen, "a connection in a loop: %s" % seen)
    lines = [x for x in gw.process.lines if "loop" in x.lower() and not x.startswith("ready")]
    t.note("%d lines, %.1f %% of a core, flow.loop %d" % (len(lines), busy * 100, gw.counter("flow.loop")))
    check(lines, "no line about the loop")
    check(len(lines) < 10, "%d lines about the loop" % len(lines))
    check(busy < (0.5 if t.sanitized else 0.1), "%.0f %% of a core" % (busy * 100))
    check(gw.counter("flow.loop") > 0, "not counted")
    lab.gw.ip("rule del to %s lookup %d pref 10" % (dante.address, at.TABLE))
    within(15, lambda: client.outcome(lab.cli, at.TARGET[0], 7, timeout=2)[0] == "open", "it works again", every=0.2)


@test("a loop that begins while the proxy answers is noticed as well", rows=["E1"], limit=40)
def _(t):
    """Dials of a server that has just answered are not in the guard's list; at most 64 a worker come back before one is."""
    lab = t.lab()
    lab.services()
    lab.direct_route()
    dante = servers.dante(lab)
    gw = lab.gateway(proxies=[dante], stack={"tcp": {"connect-timeout": "2s"}})
    with client.tcp(lab.cli, at.TARGET[0], 7):
        pass
    before = gw.counter("tcp.requests")

    def connect():
        while client.outcome(lab.cli, at.TARGET[0], 7, timeout=4)[0] == "open":
            pass
    clients = [threading.Thread(target=connect) for _ in range(4)]
    for x in clients:
        x.start()
    within(5, lambda: gw.counter("tcp.requests") > before + 100, "connections, one after the other", every=0.02)
    lab.gw.ip("rule add to %s lookup %d pref 10" % (dante.address, at.TABLE))
    within(2, lambda: gw.counter("flow.loop") > 0, "the loop was counted", every=0.02)
    flows = gw.flows()
    t.note("%d flows when the first of them was noticed" % flows)
    check(flows < 2 * 64 + 20, "%d flows: a SYN of ours made one after the other" % flows)
    for x in clients:                       # each ends with its first failure
        x.join(10)
    lab.gw.ip("rule del to %s lookup %d pref 10" % (dante.address, at.TABLE))
    within(15, lambda: client.outcome(lab.cli, at.TARGET[0], 7, timeout=2)[0] == "open", "it works again", every=0.2)


@test("nothing leaks when the upstream is gone: TCP, UDP, DNS and ping, both families", rows=["G5", "S1"])
def _(t):
    lab = t.lab()
    lab.services()
    servers.unbound(lab)
    lab.direct_route()
    gw = lab.gateway(proxies=[{"name": "up", "type": "socks5", "server": at.PROXY[0], "port": 9999, "udp": True}],
                     stack={"tcp": {"connect-timeout": "1s"}})
    only = lab.only("host %s and tcp port 9999" % at.PROXY[0])
    for target in at.TARGET:
        check(client.outcome(lab.cli, target, 8080, timeout=3)[0] != "open", "a connection without an upstream")
        with client.udp(lab.cli, target, 7, timeout=0.3) as s:
            for _ in range(3):
                try:
                    s.send(b"leak?")
                    check(not s.recv(100), "an answer without an upstream")
                except OSError:
                    continue
        r = lab.cli.result(["dig", "+tries=1", "+time=1", "@" + target, "example.test"])
        check(r.returncode != 0 or "ANSWER: 0" in r.stdout, "DNS was answered without an upstream:\n" + r.stdout)
        client.ping(lab.cli, target, 1)
    only.check_nothing()
    gw.check_alive()
