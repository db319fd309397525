"""More than a gateway is meant for, at full rate and full length: floods of SYNs, a bully beside the small, a way out that goes dark.
What ./check has of these rows runs in virtual time."""
import os
import threading
import time

from harness import check, check_equal, client, servers, test, within
from harness import lab as at
from harness.core import check_table
from harness.proc import Process
from harness.wire import built, slow_wire

HERE = os.path.dirname(os.path.abspath(__file__))
SPOOFED = "10.99.0.0/16"
HALF_OPEN = 2 * 4096          # of two shards: more than that, and cookies take over
FIRST_RETRY, SECOND_RETRY = 1.0, 2.9      # seconds; Linux sends a SYN again after 1 and 3


class Flood:
    """SYNs for some seconds, from cli or straight into the gateway's device; ask_until_the_end() connects honestly meanwhile."""

    def __init__(self, t, lab, source, ports, per_second, seconds, device=None):
        self.lab = lab
        self.process = Process(t, lab.gw if device else lab.cli,
                               [built(t, "flood", os.path.join(HERE, "harness", "flood.c")), source, at.TARGET[0], ports,
                                str(per_second), str(seconds)] + ([device] if device else []), "flood")

    def ask_until_the_end(self, address, port, source):
        """How each honest connect ended and after how many seconds, one every 50 ms at most."""
        how = []
        while self.process.alive():
            begin = time.monotonic()
            how.append(client.outcome(self.lab.cli, address, port, 10, source))
            time.sleep(max(0, 0.05 - (time.monotonic() - begin)))     # the pace of the honest is part of the test
        check_equal(self.process.wait(1), 0, "exit status of the flood")
        sent, refused, cpu_ms = map(int, self.process.lines[-1].split())
        self.sent, self.refused, self.cpu_s = sent, refused, cpu_ms / 1e3
        return how


def flooded(t, source, ports, per_second, seconds, device=None, **more):
    """A gateway under a flood: (the flood, what honest connects saw, counters that grew, RSS before and at most)."""
    lab = t.lab()
    lab.services()
    lab.gw.ip("route add blackhole " + SPOOFED)
    gw = lab.gateway(proxies=[servers.culvert_serve(lab)], log={"level": "warning"}, **more)
    client.download(lab.cli, at.TARGET[0], 1 << 20)
    gw.wait_no_flows()
    before, rss, cpu = gw.status()["counters"], [gw.resources().rss_kib], gw.resources().cpu_s
    flood = Flood(t, lab, source, ports, per_second, seconds, device)
    ended = threading.Event()

    def watch():
        while not ended.wait(0.5):
            rss.append(gw.resources().rss_kib)
    watcher = threading.Thread(target=watch)
    watcher.start()
    how = flood.ask_until_the_end(at.TARGET2[0], 7, at.CLI2[0])
    flood.gateway_cpu_s = gw.resources().cpu_s - cpu
    ended.set()
    watcher.join()
    after = gw.settled_counters(30)
    n = {k: after[k] - before[k] for k in after}
    t.note("%.0f SYNs a second offered, %.0f taken by the device, %.0f read, %.0f cookies; CPU for a SYN: %.2f us the sender, %.2f the gateway"
           % (flood.sent / seconds, (flood.sent - flood.refused) / seconds, n["tcp.in"] / seconds, n["tcp.syn_cookie"] / seconds,
              flood.cpu_s / flood.sent * 1e6, flood.gateway_cpu_s / n["tcp.in"] * 1e6))
    t.note("honest connects: %d of %d open, %d of them with one SYN sent again; upstream dials %d; RSS %d KiB before, %d at most"
           % (sum(x == "open" and s < SECOND_RETRY for x, s in how), len(how),
              sum(x == "open" and FIRST_RETRY <= s < SECOND_RETRY for x, s in how),
              n["upstream.streams_opened"] + n["upstream.streams_failed"], rss[0], max(rss)))
    gw.check_alive()
    return flood, how, n, rss


def check_honest(how):
    """SYN-3: with one SYN sent again at most."""
    good = sum(x == "open" and seconds < SECOND_RETRY for x, seconds in how)
    check(good >= 0.99 * len(how), "%d of %d honest connects; %s" % (good, len(how), sorted(x for x in how if x[1] >= FIRST_RETRY)))


@test("100,000 SYNs a second from nowhere for a minute: honest clients connect, nothing grows, nobody is dialled", rows=["T3", "SYN-3"],
      limit=180, long=True)
def _(t):
    """Where the machine has other work, the device's queue fills and the flood pauses: the rate that was met is in the note."""
    flood, how, n, rss = flooded(t, SPOOFED, "7-7", 100000, 60, "tun0")
    check(n["tcp.in"] > 10 * HALF_OPEN, "only %d SYNs came: the test tests nothing" % n["tcp.in"])
    dials = n["upstream.streams_opened"] + n["upstream.streams_failed"]
    check(dials < 3 * HALF_OPEN + len(how), "%d upstream dials" % dials)
    check(n["tcp.syn_cookie"] > 0, "no cookie was sent")
    check_honest(how)
    check(max(rss[len(rss) // 2:]) <= max(rss[:len(rss) // 2]) * 1.05 + 2048, "RSS %d KiB in the second half" % max(rss))


@test("10,000 SYNs a second from one honest address: it meets its limit, others do not", rows=["T4"], limit=120, long=True)
def _(t):
    flood, how, n, rss = flooded(t, at.CLI[0] + "/32", "5-8", 10000, 30)
    check(n["tcp.in"] > 50000, "only %d SYNs came: the test tests nothing" % n["tcp.in"])
    check(n["tcp.half_open_limit"] > 0, "it never met its limit")
    check_honest(how)


@test("one flow at line rate beside 1,000 small ones", rows=["R10"], limit=120, long=True)
def _(t):
    """The bound of 20 ms is reported, beside what the kernel's own forwarding does in the same place: with more that wants to run than
    there are cores, a round trip is mostly waiting for one. The client is a program in C, since Python's threads wait for each other."""
    lab, small, rounds = t.lab(), 1000, 3
    load = built(t, "load", os.path.join(HERE, "..", "bench", "load.c"))
    Process(t, lab.srv, [load, "serve", at.TARGET[0], "9000"], "load").wait_line("^ready", 5)

    def times(where):
        out = lab.cli.run([load, "beside", at.TARGET[0], "9000", str(rounds), str(small)], timeout=50)
        alone, beside = ([float(x) for x in line.split()] for line in out.split("\n")[:2])
        t.note("%s: alone p50 %.2f ms, p99 %.2f ms, worst %.1f ms" % (where, *alone[1:]))
        t.note("%s: beside %.0f MB/s p50 %.2f ms, p99 %.2f ms, worst %.1f ms" % (where, *beside))
        check(beside[0] > 10, "the large flow had %.0f MB/s: the test tests nothing" % beside[0])
        return beside[3]
    lab.route_plainly()
    times("the kernel alone")
    gw = lab.gateway(proxies=[servers.culvert_serve(lab)], log={"level": "warning"})
    worst = times("culvert")
    check(worst < 1000, "a small flow waited %.0f ms" % worst)
    check_equal(gw.counter("flow.tcp_reset_by_upstream"), 0, "resets")


@test("the way out hesitates for 300 ms and is dark for 5 s: flows survive", rows=["E12"], limit=90, long=True)
def _(t):
    lab = t.lab()
    lab.services()
    far, near = "10.77.6.2", "10.77.6.1"
    wire = slow_wire(t, lab.gw, near, lab.srv, far, 5000)
    gw = lab.gateway(proxies=[servers.culvert_serve(lab, far)], log={"level": "warning"})
    wrong, done, before_dark = [], [], threading.Event()

    def guard(function, target):
        try:
            function(target)
            done.append(1)
        except (OSError, AssertionError) as e:
            wrong.append("%s: %s" % (function.__name__, e))

    def echo(target):
        with client.tcp(lab.cli, target, 7, 60) as s:
            while not before_dark.is_set():
                s.sendall(b"e" * 1000)
                check(client.receive(s, 1000) == b"e" * 1000, "another echo")
            s.sendall(b"e" * 100000)        # on its way when it gets dark
            check(client.receive(s, 100000) == b"e" * 100000, "the echo after the dark")

    def down(target):
        client.download(lab.cli, target, 256 << 20, 60)

    def up(target):
        client.upload(lab.cli, target, 256 << 20, 60)
    threads = [threading.Thread(target=guard, args=(f, target)) for f in (echo, down, up) for target in at.TARGET]
    for x in threads:
        x.start()
    within(20, lambda: gw.counter("upstream.bytes_down") > 1 << 20 and gw.counter("upstream.bytes_up") > 1 << 20, "load", every=0.1)
    wire.hesitate(0.3)
    before_dark.set()
    lab.gw.nft("table netdev dark {\nchain i { type filter hook ingress device %s priority 0; drop;\n}\n}\n" % wire.names[0])
    lab.srv.nft("table netdev dark {\nchain i { type filter hook ingress device %s priority 0; drop;\n}\n}\n" % wire.names[1])
    end = time.monotonic() + 5
    within(6, lambda: time.monotonic() > end, "five dark seconds", every=0.1)
    check(not wrong and len(done) < len(threads), "before the dark was over: %d had ended; %s" % (len(done), wrong))
    for namespace in (lab.gw, lab.srv):
        namespace.nft("delete table netdev dark\n")
    for x in threads:
        x.join(60)
    check_table(wrong)
    check_equal(len(done), len(threads), "flows that came to their end")
    gw.wait_no_flows()
