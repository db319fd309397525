"""Pings through type masque to our own far end (icmp.md 5): answered by the target itself, or not at all."""
import subprocess

from harness import check, check_equal, client, fronts, servers, test
from harness import lab as at
from harness.fronts import Pki


def start(t, **keys):
    lab = t.lab()
    pki = Pki(t)
    pki.server()
    return lab, pki, fronts.masque(lab, pki, **keys)


@test("ping and ping -6 through the tunnel: every size whole, hops in the TTL, and the log says why",
      rows=["icmp T1", "icmp T2", "icmp T4", "icmp M13", "icmp M16"], quick=True, limit=60)
def _(t):
    lab, _, far = start(t)
    gw = lab.gateway(proxies=[far])
    for target in at.TARGET:
        check_equal(client.ping(lab.cli, target, 3, 56)[0], 3, "answers from " + target)
        for size in (0, 1400, 8000):
            check_equal(client.ping(lab.cli, target, 2, size)[0], 2, "%d bytes to %s" % (size, target))
    check("tunnel (auto: its way out carries pings)" in gw.log, gw.log)


@test("a hop limit that ends here is told by us, one that ends at the far end by the far end", rows=["icmp T3"], limit=60)
def _(t):
    lab, _, far = start(t)
    lab.gateway(proxies=[far])
    check_equal(client.ping(lab.cli, at.TARGET[0], 1, 56)[0], 1)
    for ttl in (1, 2):
        out = lab.cli.result(["ping", "-n", "-c", "1", "-W", "3", "-t", str(ttl), at.TARGET[0]], timeout=20)
        text = out.stdout if isinstance(out.stdout, str) else out.stdout.decode()
        check("Time to live exceeded" in text, "TTL %d: %s" % (ttl, text))


@test("a far end without echo: on-unsupported decides, and nothing leaves another way",
      rows=["icmp T10", "icmp T14"], limit=60)
def _(t):
    lab, _, far = start(t, echo=False)
    gw = lab.gateway(proxies=[far], stack={"icmp": {"on-unsupported": "drop"}})
    check_equal(client.ping(lab.cli, at.TARGET[0], 2, 56)[0], 0)
    check("its far end carries no pings" in gw.log, gw.log)


@test("the far end is gone: pings follow on-down, never a reply of ours", rows=["icmp T11", "icmp M17"], limit=60)
def _(t):
    lab, _, far = start(t)
    lab.gateway(proxies=[far])
    check_equal(client.ping(lab.cli, at.TARGET[0], 1, 56)[0], 1)
    far.process.signal(9)
    far.process.wait(10)
    check_equal(client.ping(lab.cli, at.TARGET[0], 2, 56)[0], 0)


@test("pings beside a bulk transfer through the same connection are all answered", rows=["icmp T6"], limit=90)
def _(t):
    lab, _, far = start(t)
    lab.services()
    lab.gateway(proxies=[far])
    url = servers.Services.url(at.TARGET[0], "bytes/4000000000")
    bulk = subprocess.Popen(lab.cli.argv(["curl", "-s", "-o", "/dev/null", url]))
    try:
        answered, text = client.ping(lab.cli, at.TARGET[0], 20, 56)
        check(bulk.poll() is None, "the transfer was over before the pings")
        check_equal(answered, 20)
        t.note(text.splitlines()[-1])
    finally:
        bulk.kill()
        bulk.wait()
