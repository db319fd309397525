"""Start, end, and everything in between that a process must survive (faults.md sections 11 and 12)."""
import errno
import os
import signal
import socket
import threading
import time

from faultd import FaultServer, cut_after, hang, server_bytes
from harness import Skip, check, check_equal, client, gateway, servers, test, within
from harness import lab as at
from harness.bystander import bystanders, rules as bystander_rules


@test("SIGTERM and SIGINT end it within 2 s and put everything back", rows=["X1"], quick=True,
      cases={"%s, %s" % (n, w): (s, w) for n, s in (("SIGTERM", signal.SIGTERM), ("SIGINT", signal.SIGINT))
             for w in ("idle", "under load", "during a dial")})
def _(t, number, when):
    lab = t.lab()
    lab.services()
    lab.direct_route()
    before = gateway.network_state(lab.gw)
    up = FaultServer(t, lab.srv, at.PROXY[0], 2000, cut_after(server_bytes() - 1, [hang()]))
    server = up if when == "during a dial" else servers.culvert_serve(lab)
    gw = lab.gateway(proxies=[server], tun={"auto-route": True}, route=False)
    check(gateway.network_state(lab.gw) != before, "auto-route changed nothing")
    failed, clients = [], []
    if when == "under load":
        clients = [threading.Thread(target=endless, args=(lab, failed)) for _ in range(8)]
        for c in clients:
            c.start()
        within(5, lambda: gw.counter("upstream.bytes_down") > 1 << 20, "load", every=0.1)
    if when == "during a dial":
        s = t.own(lab.cli.socket(2, 1), "close")
        s.setblocking(False)
        s.connect_ex((at.TARGET[0], 80))
        up.wait_connections(1)
    check_equal(gw.terminate(number), 0, "exit status")
    gateway.check_network(lab.gw, before)
    check(not os.path.exists(gw.api), "the socket of the API is left")
    for c in clients:
        c.join(20)


def endless(lab, failed):
    try:
        with client.tcp(lab.cli, at.TARGET[0], 7000, timeout=3) as s:
            s.sendall(b"down 0\n")
            while s.recv(1 << 18):
                continue
    except OSError as e:
        failed.append(e)


@test("a second signal ends it at once", rows=["X1"])
def _(t):
    lab = t.lab()
    gw = lab.gateway(rules=["MATCH,REJECT"])
    gw.process.signal(signal.SIGTERM)
    gw.process.signal(signal.SIGTERM)
    gw.stopped = True
    gw.process.wait(t.slow(2))
    gw.check_log()


@test("SIGTERM during the start leaves nothing", rows=["X1"], limit=60)
def _(t):
    lab = t.lab()
    before = gateway.network_state(lab.gw)
    for delay in (0, 0.002, 0.005, 0.01, 0.02, 0.05):
        gw = lab.gateway(rules=["MATCH,DIRECT"], tun={"auto-route": True}, ready=False, name="early%d" % (delay * 1e4))
        time.sleep(delay)                # the moment of the signal is what varies
        gw.process.signal(signal.SIGTERM)
        gw.stopped = True
        status = gw.process.wait(t.slow(2))
        check(status in (0, -signal.SIGTERM), "exit status %s after %g s" % (status, delay))
        gw.check_log()
        gateway.check_network(lab.gw, before)


@test("two at once: the second exits 1 and touches nothing", rows=["X4"], quick=True)
def _(t):
    lab = t.lab()
    lab.services()
    gw = lab.gateway(proxies=[servers.dante(lab)])
    before = gateway.network_state(lab.gw)
    second = lab.gateway(rules=["MATCH,REJECT"], ready=False, name="second")
    second.stopped = True
    status = second.process.wait(t.slow(3))
    check(status in (1, 2) and second.log.strip(), "exit status %s: %s" % (status, second.log))     # V6 says 2, X4 says 1
    gateway.check_network(lab.gw, before)
    client.download(lab.cli, at.TARGET[0], 100000)
    gw.check_alive()


@test("two gateways with names and sockets of their own live side by side", rows=["X4", "E2"])
def _(t):
    lab = t.lab()
    lab.services()
    server = servers.dante(lab)
    first = lab.gateway(proxies=[server])
    second = lab.gateway(proxies=[server], name="second", route=False,
                         tun={"name": "tun1", "address": ["198.18.4.1/30", "fdfe:dcba:9878::1/126"]})
    client.download(lab.cli, at.TARGET[0], 100000)
    check_equal(second.terminate(), 0)
    client.download(lab.cli, at.TARGET[0], 100000)
    first.check_alive()


@test("few descriptors: new connections wait or fail, nothing spins, it recovers", rows=["R1", "LIM-2"], limit=60,
      cases={"64": 64, "512": 512})
def _(t, limit):
    lab = t.lab()
    lab.services()
    gw = lab.gateway(proxies=[servers.culvert_serve(lab)], prefix=["prlimit", "--nofile=%d:%d" % (limit, limit)])
    held = [lab.cli.socket(2, 1) for _ in range(limit + 50)]
    for s in held:
        s.setblocking(False)
        s.connect_ex((at.TARGET[0], 7))
    gw.says("descriptor|EMFILE|too many open files|nofile")
    cpu, start = gw.resources().cpu_s, time.monotonic()
    within(3, lambda: time.monotonic() - start > 1.5, "a moment of standstill")
    busy = (gw.resources().cpu_s - cpu) / (time.monotonic() - start)
    t.note("%.0f %% of a core at the limit, %d descriptors of %d, %d flows, %d lines of log"
           % (busy * 100, gw.resources().fds, limit, gw.flows(), len(gw.process.lines)))
    check(gw.resources().fds <= limit and gw.flows() > limit / 6, "%d flows of %d descriptors" % (gw.flows(), limit))
    check(busy < (0.8 if t.sanitized else 0.3), "it spins: %.0f %% of a core" % (busy * 100))
    check(len(gw.process.lines) < 40 + 2 * limit, "%d lines of log" % len(gw.process.lines))
    for s in held:
        client.reset(s)
    within(t.slow(10), lambda: client.outcome(lab.cli, at.TARGET[0], 7, timeout=2)[0] == "open", "a new connection", every=0.2)


@test("at start it raises the soft limit of descriptors", rows=["R1"])
def _(t):
    lab = t.lab()
    gw = lab.gateway(rules=["MATCH,REJECT"], prefix=["prlimit", "--nofile=256:4096"])
    with open("/proc/%d/limits" % gw.pid) as f:
        soft = [line.split()[3] for line in f if line.startswith("Max open files")][0]
    check_equal(soft, "4096", "soft limit")


@test("one CPU in the affinity mask: fewer workers, and it works", rows=["R5"])
def _(t):
    lab = t.lab()
    lab.services()
    gw = lab.gateway(proxies=[servers.dante(lab)], workers="auto", prefix=["taskset", "-c", "0"])
    check_equal(len(gw.status()["workers"]), 1, "workers with one CPU")
    client.download(lab.cli, at.TARGET[0], 1 << 20)


@test("threads cannot be made: fewer workers or a clear end, never half a gateway", rows=["R5"])
def _(t):
    if not os.path.isdir("/sys/fs/cgroup/pids") and not os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
        raise Skip("no pids controller")
    group = "/sys/fs/cgroup/pids/" + t.tag if os.path.isdir("/sys/fs/cgroup/pids") else "/sys/fs/cgroup/" + t.tag
    try:
        os.mkdir(group)
    except OSError as e:
        raise Skip("no cgroup of our own: %s" % e) from e
    t.stack.callback(os.rmdir, group)
    if not os.path.exists(group + "/pids.max"):
        raise Skip("no pids controller")
    with open(group + "/pids.max", "w") as f:
        f.write("3")
    lab = t.lab()
    lab.services()
    dante = servers.dante(lab)
    gw = lab.gateway(proxies=[dante], workers=8, ready=False,
                     prefix=["sh", "-c", 'echo $$ > %s/cgroup.procs && exec "$@"' % group, "sh"])
    try:
        gw.wait_ready()
    except AssertionError:
        gw.stopped = True
        check_equal(gw.process.wait(2), 1, "exit status\n" + gw.log)
        gw.check_log()
        return
    lab.route_into("tun0")
    client.download(lab.cli, at.TARGET[0], 100000)
    t.note("%d workers of 8" % len(gw.status()["workers"]))
    check_equal(gw.terminate(), 0)


@test("stopped for 3 s and continued: everything goes on", rows=["R6"], limit=40)
def _(t):
    stopped(t, 3)


@test("stopped for 10 s and continued: everything goes on", rows=["R6"], limit=60, long=True)
def _(t):
    stopped(t, 10)


def stopped(t, seconds):
    lab = t.lab()
    lab.services()
    gw = lab.gateway(proxies=[servers.dante(lab), servers.culvert_serve(lab, at.PROXY2[0]).proxy("good")],
                     rules=bystander_rules() + ["MATCH,up"])
    with bystanders(lab):
        os.kill(gw.pid, signal.SIGSTOP)
        within(seconds + 1, lambda e=time.monotonic() + seconds: time.monotonic() > e, "the pause", every=0.1)
        os.kill(gw.pid, signal.SIGCONT)
        client.download(lab.cli, at.TARGET[0], 1 << 20)
    gw.check_alive()


@test("10,000 idle connections, then closed: memory back to where it was", rows=["G3", "G4"], limit=120)
def _(t):
    idle_connections(t, 10000)


@test("three rounds of 10,000 connections do not grow", rows=["G4"], limit=300, long=True)
def _(t):
    idle_connections(t, 10000, rounds=3)


@test("SIGTERM with 10,000 connections open: an end within 2 s, and a reset for each", rows=["X1"], limit=120)
def _(t):
    need_descriptors(11000)
    lab = t.lab()
    gw = lab.gateway(proxies=[servers.Holder(lab)], limits={"memory": "256MiB", "per-source": 20000}, log={"level": "warning"})
    held = client.open_many(lab.cli, (at.TARGET[0], 80), 10000)
    start = time.monotonic()
    check_equal(gw.terminate(), 0, "exit status")
    t.note("ended in %.2f s" % (time.monotonic() - start))
    ends = [s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) for s in held]
    for s in held:
        s.close()
    check_equal(ends.count(errno.ECONNRESET), 10000, "connections that were reset")


@test("UDP flows that end by their idle time-out give their memory back, though no packet comes any more", rows=["G4"], limit=60)
def _(t):
    if t.sanitized:
        raise Skip("a sanitizer keeps memory of its own")
    need_descriptors(5000)
    lab = t.lab()
    gw = lab.gateway(proxies=[servers.culvert_serve(lab)], workers=1, limits={"memory": "256MiB", "per-source": 20000},
                     log={"level": "warning"}, stack={"udp": {"idle-timeout": "5s"}})    # longer than it takes to come to rest
    for s in [client.udp(lab.cli, at.TARGET[0], 9) for _ in range(4000)]:
        s.send(b"x" * 1000)
        s.close()
    most = gw.resources().rss_kib
    gw.wait_no_flows(kind="udp")
    packets, end = gw.counter("tun.rx_packets"), time.monotonic() + 5
    within(6, lambda: gw.resources().rss_kib < most or time.monotonic() > end, "memory back", every=0.2)
    now, packets = gw.resources().rss_kib, gw.counter("tun.rx_packets") - packets
    t.note("RSS %d KiB with 4,000 flows, %d without; %d packets meanwhile" % (most, now, packets))
    check(now < most, "RSS %d KiB afterwards, %d with the flows" % (now, most))


def need_descriptors(need):
    import resource
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < need:
        raise Skip("the hard limit of descriptors is %d" % hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (need, hard))


def idle_connections(t, n, rounds=1):
    need_descriptors(n + 1000)
    lab = t.lab()
    for namespace in (lab.cli, lab.gw):
        # Whoever closes first keeps the port for a minute, and all of them go to one address: the usual 28,232 ports are two rounds.
        namespace.sysctl("net/ipv4/ip_local_port_range", "10000 65535")
    holder = servers.Holder(lab)
    gw = lab.gateway(proxies=[holder], limits={"memory": "256MiB", "per-source": 20000}, log={"level": "warning"})
    client.tcp(lab.cli, at.TARGET[0], 80).close()
    gw.wait_no_flows()
    figures = [("before", gw.resources())]
    limit = figures[0][1].rss_kib * 1.01 + (65536 if t.sanitized else 2048)     # a page here and there, nothing that grows with use
    for i in range(rounds):
        held = client.open_many(lab.cli, (at.TARGET[0], 80), n, timeout=t.slow(60))
        figures.append(("with %d" % len(held), gw.resources()))
        held[n // 2].send(b"alive?")
        held[n // 2].settimeout(5)
        check_equal(client.receive(held[n // 2], 6), b"alive?", "one of them")
        for s in held:
            s.close()
        gw.wait_no_flows(30)
        within(20, lambda: gw.resources().fds <= figures[0][1].fds + 2, "descriptors back", every=0.1)
        end = time.monotonic() + 10
        within(11, lambda: gw.resources().rss_kib <= limit or time.monotonic() > end, "memory back", every=0.2)
        figures.append(("closed", gw.resources()))
    for what, r in figures:
        t.note("%-12s RSS %6d KiB, %5d descriptors, %d threads" % (what, r.rss_kib, r.fds, r.threads))
    per = (figures[1][1].rss_kib - figures[0][1].rss_kib) * 1024 / n
    t.note("%.0f bytes of RSS for each connection" % per)
    check(figures[-1][1].rss_kib <= limit, "RSS %d KiB afterwards, %d before" % (figures[-1][1].rss_kib, figures[0][1].rss_kib))
