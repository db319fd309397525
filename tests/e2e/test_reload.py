"""A new configuration while flows live (faults.md C9 to C11): what is wrong changes nothing, what is right cuts nothing."""
import json
import os
import signal
import threading
import time

from harness import check, check_equal, client, gateway, servers, test, within
from harness import lab as at
from harness.reloading import reload, reloads, sections_of, write


class Talk:
    """A connection on which a byte goes there and back whenever it is asked."""

    def __init__(self, lab, t):
        self.s = t.own(client.tcp(lab.cli, at.TARGET[0], 7000), "close")
        self.s.sendall(b"echo\n")
        self.n = 0

    def check(self):
        self.n += 1
        data = b"%08d" % self.n
        self.s.sendall(data)
        check_equal(client.receive(self.s, 8), data, "what came back")


@test("a right file changes what new flows get, and no flow that lives", rows=["C10", "C11"], quick=True)
def _(t):
    lab = t.lab()
    lab.services()
    server = servers.culvert_serve(lab)
    gw = lab.gateway(proxies=[server], rules=["DST-PORT,7000,up", "MATCH,REJECT"])
    old = Talk(lab, t)
    old.check()
    check_equal(client.outcome(lab.cli, at.TARGET[0], 8080)[0], "ECONNREFUSED", "before: port 8080")
    reload(gw, sections_of(gw, [server.proxy("other")], ["DST-PORT,8080,other", "MATCH,REJECT"]))
    old.check()
    check_equal(client.outcome(lab.cli, at.TARGET[0], 8080)[0], "open", "after: port 8080")
    check_equal(client.outcome(lab.cli, at.TARGET[0], 7000)[0], "ECONNREFUSED", "after: port 7000")
    flows = [f for f in gw.status("--flows")["connections"] if f["destination"].endswith(":7000")]
    check_equal([(f["upstream"], f["rule-text"], f["left"]) for f in flows], [("up", "DST-PORT,7000,up", True)],
                "the old flow in status")


@test("a wrong file changes nothing, and every mistake is told", rows=["C9"], quick=True)
def _(t):
    lab = t.lab()
    lab.services()
    server = servers.culvert_serve(lab)
    gw = lab.gateway(proxies=[server])
    old = Talk(lab, t)
    reload(gw, "version: 1\ntun: {mtu: 12}\nrules: [\"MATCH,nobody\"]\n")
    check("tun.mtu" in gw.log and "nobody" in gw.log, "not every mistake was told:\n" + gw.log[-2000:])
    gw.says("reload failed")
    old.check()
    check_equal(client.outcome(lab.cli, at.TARGET[0], 7000)[0], "open", "a new flow, by the old file")
    os.remove(gw.config_path)
    reload(gw)
    old.check()


@test("what only a restart changes is named, and stays", rows=["C11"])
def _(t):
    lab = t.lab()
    gw = lab.gateway(rules=["MATCH,REJECT"])
    reload(gw, sections_of(gw, [], ["MATCH,REJECT"], workers=1, tun={"mtu": 1400},
                           stack={"tcp": {"congestion": "newreno", "connect-timeout": "5s"}}))
    for key in ("runtime.workers", "tun.mtu", "stack.tcp.congestion"):
        gw.says("%s stays as it was until a restart" % key)
    check("connect-timeout stays" not in gw.log, "a time-out can be changed")
    check_equal(gw.status()["mtu"], 1500, "mtu")
    reload(gw, sections_of(gw, [], ["MATCH,REJECT"]))
    check_equal(gw.log.count("tun.mtu stays"), 1, "warnings about what is as it was at the start")


@test("reloads beside iperf3 and 500 idle connections cut nothing", rows=["C10"], limit=90)
def _(t):
    lab = t.lab()
    lab.services()
    servers.iperf3(lab)
    server = servers.culvert_serve(lab)
    gw = lab.gateway(proxies=[server])
    idle = client.open_many(lab.cli, (at.TARGET[0], 7), 500)
    for s in idle:
        t.own(s, "close")
    results = []

    def iperf3():
        results.append(lab.cli.result(["iperf3", "-c", at.TARGET[0], "-t", "3", "-P", "4", "--json"], timeout=60))

    worker = threading.Thread(target=iperf3)
    worker.start()
    n = 0
    while worker.is_alive():
        n += 1
        reload(gw, sections_of(gw, [server.proxy("n%d" % (n % 2))], ["MATCH,n%d" % (n % 2)]), seconds=10)
    worker.join()
    check_equal(results[0].returncode, 0, "iperf3: " + results[0].stderr)
    lost = []
    for i, s in enumerate(idle):
        try:
            s.sendall(b"still here")
            if client.receive(s, 10) != b"still here":
                lost.append("%d: other bytes" % i)
        except OSError as e:
            lost.append("%d: %s" % (i, e))
    check_equal(lost, [], "idle connections that were cut")
    check(n >= 3, "only %d reloads" % n)
    t.note("%d reloads; iperf3 %.1f Gbit/s meanwhile" % (n, json.loads(results[0].stdout)["end"]["sum_received"]["bits_per_second"] / 1e9))


@test("a hundred reloads under load lose no flow and no memory", rows=["C10", "G4"], limit=120,
      cases={"100": 100})
def _(t, n):
    storm(t, n)


@test("a thousand reloads under load lose no flow and no memory", rows=["C10"], limit=600, long=True)
def _(t):
    storm(t, 1000)


def storm(t, n):
    lab = t.lab()
    lab.services()
    server = servers.culvert_serve(lab)
    gw = lab.gateway(proxies=[server])
    idle = [Talk(lab, t) for _ in range(50)]
    wrong, stop = [], threading.Event()

    def load():
        while not stop.is_set():
            try:
                client.download(lab.cli, at.TARGET[0], 1 << 20)
            except Exception as e:                          # whatever it is, it is the finding
                wrong.append(repr(e))
                return

    workers = [threading.Thread(target=load) for _ in range(3)]
    for w in workers:
        w.start()
    both = [sections_of(gw, [server.proxy("a" if i else "b")], ["DST-PORT,1-%d,%s" % (60000 + i, "a" if i else "b"), "MATCH,DIRECT"])
            for i in (0, 1)]
    for i in range(n // 10):
        reload(gw, both[i % 2], seconds=20)
    early = gw.status()["rss-bytes"]
    for i in range(n - n // 10):
        write(gw, both[i % 2])                              # while the signal of the round before may still be at work
        gw.process.signal(signal.SIGHUP)
        time.sleep(0.01)                                    # 100 in a second: bursts of signals become one
    reload(gw, both[0], seconds=20)
    stop.set()
    for w in workers:
        w.join(60)
    check_equal(wrong, [], "downloads that failed")
    for x in idle:
        x.check()
    late = gw.status()["rss-bytes"]
    t.note("resident memory %.1f MB early, %.1f MB at the end" % (early / 1e6, late / 1e6))
    if not t.sanitized:
        check(late < early * 1.1 + (2 << 20), "memory grew from %d to %d bytes" % (early, late))
