"""The device asks a program of ours for the queue of each packet, and without it nothing is wrong but dearer (tcp-stack.md STR-4)."""
import os
import socket
import threading

from harness import check, check_equal, client, servers, test, within
from harness import lab as at
from harness.core import Skip, check_table

FORBID = os.path.join(os.path.dirname(os.path.abspath(__file__)), "harness", "forbid.py")
WORKERS, TARGETS, MIB = 4, 1000, 1 << 20
REFUSED = "off: this process may not load eBPF programs (CAP_BPF)"


def started(t, lab, steered, **more):
    """A gateway with the program, or one to whom bpf() is refused."""
    if not steered and os.uname().machine != "x86_64":
        raise Skip("the filter that refuses bpf() knows x86-64's numbers")
    gw = lab.gateway(workers=WORKERS, prefix=[] if steered else ["/usr/bin/python3", FORBID, "bpf"], **more)
    check_equal(gw.status()["steering"], "on" if steered else REFUSED, "what the status says")
    return gw


def crossed(gw, since=None):
    """Packets of living flows that were handed over: what nobody knows any more is asked for in every shard."""
    c = gw.settled_counters()
    n = c["ip.handoff_out"] - (WORKERS - 1) * c["tcp.unknown"]
    return n - (since or 0)


def at_once(count, one):
    wrong = []

    def guarded(i):
        try:
            one(i)
        except (OSError, AssertionError) as e:
            wrong.append("client %d: %s" % (i, e))
    threads = [threading.Thread(target=guarded, args=(i,)) for i in range(count)]
    for x in threads:
        x.start()
    for x in threads:
        x.join()
    check_table(wrong)


def spread_datagrams(lab, first_port):
    """One socket, a datagram to each of many targets."""
    with client.udp(lab.cli, family=socket.AF_INET, source=at.CLI[0]) as s:
        for i in range(TARGETS):
            s.sendto(b"%d" % i, ("10.77.9.%d" % (1 + i % 250), first_port + i))


def streams(lab):
    def one(i):
        client.download(lab.cli, at.TARGET[i % 2], 2 * MIB)
        client.upload(lab.cli, at.TARGET[i % 2], 2 * MIB)
    at_once(12, one)


@test("TCP and UDP come to their owners: no hand-offs with the program, the same bytes without", rows=["STR-4", "UDP-1"], limit=60,
      cases={"steered": True, "bpf() refused": False})
def _(t, steered):
    lab = t.lab()
    lab.services()
    gw = started(t, lab, steered, proxies=[servers.culvert_serve(lab)])
    streams(lab)
    tcp = crossed(gw)
    before = gw.counter("udp.in")
    spread_datagrams(lab, 1000)
    within(t.slow(5), lambda: gw.counter("udp.in") - before >= TARGETS, "all datagrams were read")
    udp = crossed(gw, tcp)
    workers = [w["counters"]["udp.in"] for w in gw.status()["workers"]]
    t.note("handed over: TCP %d, UDP %d of %d datagrams; read by the workers: %s" % (tcp, udp, TARGETS, workers))
    check(tcp <= 0, "%d packets of TCP crossed" % tcp)
    if steered:
        check_equal(udp, 0, "datagrams that crossed")
    else:
        check(udp > TARGETS / 4, "%d datagrams crossed: steering would save nothing, so this tests nothing" % udp)


@test("ICMP errors come to the connection that they are about", rows=["STR-4", "ICM-3"], limit=60,
      cases={"steered": True, "bpf() refused": False})
def _(t, steered):
    lab = t.lab()
    lab.services()
    gw = started(t, lab, steered, proxies=[servers.culvert_serve(lab)])
    lab.gw.ip("link set lan0 mtu 1400")
    for gateway, more in zip(at.GW_CLI, (1460, 1440)):       # the client offers more than comes through, and does not know
        lab.cli.ip("route replace default via %s mtu lock 1400 advmss %d" % (gateway, more))
    at_once(8, lambda i: client.download(lab.cli, at.TARGET[i % 2], MIB))
    told, n = gw.counter("icmp.in"), crossed(gw)
    t.note("%d ICMP messages were read, %d packets handed over" % (told, n))
    check(told > 0, "no ICMP message came: the test tests nothing")
    if steered:
        check(n <= 0, "%d packets crossed" % n)


@test("pings and datagrams in pieces work with the program as without", rows=["STR-4", "F7", "F10"], limit=60,
      cases={"steered": True, "bpf() refused": False})
def _(t, steered):
    lab = t.lab()
    lab.services()
    gw = started(t, lab, steered, proxies=[servers.culvert_serve(lab)])
    for family in (0, 1):
        for size in (5000, 30000):
            for _ in range(4):
                check_equal(client.ask(lab.cli, at.TARGET[family], 7, b"p" * size), b"p" * size, "echo of %d bytes" % size)
        for size in (56, 4000):
            lab.cli.run(["ping", "-c", "3", "-i", "0.2", "-W", "2", "-s", str(size), at.TARGET[family]])
    c = gw.settled_counters()
    check(c["ip.handoff_full"] == 0 and c["frag.done"] > 0, "a ring was full, or nothing came in pieces: %s" % c)


@test("the program outlives a reload and a device that is deleted", rows=["STR-4", "V4"], limit=60)
def _(t):
    lab = t.lab()
    lab.services()
    gw = started(t, lab, True, proxies=[servers.culvert_serve(lab)])
    gw.process.signal(1)
    within(t.slow(5), lambda: "reload" in gw.log, "it has read its file again")
    check_equal(gw.status()["steering"], "on", "after a reload")
    old = lab.gw.ip_json("link", "show", "tun0")[0]["ifindex"]
    lab.gw.ip("link del tun0")
    within(t.slow(5), lambda: [x for x in lab.gw.ip_json("link") if x["ifname"] == "tun0" and x["ifindex"] != old
                               and "UP" in x["flags"]], "tun0 is back")
    at.restore_table(lab)
    within(t.slow(5), lambda: gw.status()["steering"] == "on", "steering is on again")
    before, n = gw.counter("udp.in"), crossed(gw)
    spread_datagrams(lab, 3000)
    within(t.slow(5), lambda: gw.counter("udp.in") - before >= TARGETS, "all datagrams were read")
    check_equal(crossed(gw, n), 0, "datagrams that crossed")
    streams(lab)
    check(crossed(gw, n) <= 0, "%d packets crossed" % crossed(gw, n))


@test("one worker needs no program, and says so", rows=["STR-4"], limit=20)
def _(t):
    lab = t.lab()
    gw = lab.gateway(rules=["MATCH,REJECT"], workers=1)
    check_equal(gw.status()["steering"], "off: one queue needs none", "what the status says")
