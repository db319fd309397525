"""`rate-limits`: as fast as the limit says, nothing lost of a stream, and nobody else slowed down (issue F, budget)."""
import select
import socket
import threading
import time

from harness import check, check_equal, client, servers, test, within
from harness import lab as at
from harness.names import question
from harness.reloading import reload, sections_of

MBIT = 125000
LIMIT = 40 * MBIT
LENGTH = 12 << 20               # 2.5 seconds at the limit
MOST = 200                      # flows
CLIENT, OTHER = at.CLI[0], at.CLI2[0]


def limited(t, limits, workers=1):
    lab = t.lab()
    lab.services()
    gw = lab.gateway(proxies=[servers.culvert_serve(lab)], workers=workers, **{"rate-limits": limits})
    return lab, gw


def rate(move, lab, length=LENGTH, source=CLIENT):
    """Bytes a second of one transfer, every byte compared."""
    start = time.monotonic()
    move(lab.cli, at.TARGET[0], length, 60, source)
    return length / (time.monotonic() - start)


def together(functions):
    """What each returns, run side by side; the first exception is raised."""
    results, wrong = [None] * len(functions), []

    def run(i, f):
        try:
            results[i] = f()
        except (OSError, AssertionError) as e:
            wrong.append(e)
    threads = [threading.Thread(target=run, args=x) for x in enumerate(functions)]
    for x in threads:
        x.start()
    for x in threads:
        x.join()
    if wrong:
        raise wrong[0]
    return results


def near(t, what, got, limit=LIMIT):
    """Within a tenth of the limit."""
    t.note("%s: %.1f Mbit/s, limit %.0f" % (what, got / MBIT, limit / MBIT))
    check(0.9 * limit <= got <= 1.1 * limit, "%s: %.1f Mbit/s, not near %.0f" % (what, got / MBIT, limit / MBIT))


@test("a client is as fast as its limit says, and its neighbour is not slowed down", limit=60, quick=True,
      cases={"up": ("up", client.upload), "down": ("down", client.download)})
def _(t, way, move):
    lab, gw = limited(t, [{"source": CLIENT, way: "40Mbit"}])
    slow, other = together([lambda: rate(move, lab), lambda: rate(move, lab, 4 * LENGTH, OTHER)])
    near(t, way, slow)
    t.note("the neighbour had %.0f Mbit/s" % (other / MBIT))
    check(other > 3 * LIMIT, "the neighbour had only %.0f Mbit/s" % (other / MBIT))
    free = rate(client.download if way == "up" else client.upload, lab)      # the other direction has no limit
    check(free > 3 * LIMIT, "the other direction: %.0f Mbit/s" % (free / MBIT))
    gw.wait_no_flows()


@test("with several workers a client that is in one of them has all of its rate, and no more when it is in all", limit=90,
      cases={"one connection": 1, "eight": 8})
def _(t, n):
    lab, gw = limited(t, [{"source": CLIENT, "down": "40Mbit"}], workers=4)
    ended, moved = threading.Event(), [0] * n

    def download(i):
        with client.tcp(lab.cli, at.TARGET[0], 7000, 20, CLIENT) as s:
            s.sendall(b"down 0\n")
            while not ended.is_set():
                moved[i] += len(s.recv(1 << 16))
            client.reset(s)
    threads = [threading.Thread(target=download, args=(i,)) for i in range(n)]
    for x in threads:
        x.start()
    within(10, lambda: sum(moved) > LIMIT / 2, "the downloads have begun", every=0.02)
    start, before = time.monotonic(), sum(moved)
    within(30, lambda: sum(moved) > before + LENGTH, "the downloads go on", every=0.02)
    got = (sum(moved) - before) / (time.monotonic() - start)
    ended.set()
    for x in threads:
        x.join()
    near(t, "with 4 workers", got)
    gw.wait_no_flows()


@test("connections of one client share its limit in equal parts", limit=60)
def _(t):
    lab, gw = limited(t, [{"source": ["fd77:1::/64", "10.77.1.0/24"], "down": "40Mbit"}])
    start = time.monotonic()
    rates = together([lambda: rate(client.download, lab, LENGTH // 4) for _ in range(4)])
    near(t, "four together", LENGTH / (time.monotonic() - start))
    check(min(rates) > 0.7 * LIMIT / 4, "one of four had %.1f Mbit/s" % (min(rates) / MBIT))
    gw.wait_no_flows()


@test("all that takes a way out shares its limit, whoever asks", limit=60)
def _(t):
    lab, gw = limited(t, [{"proxy": "up", "up": "40Mbit"}])
    start = time.monotonic()
    together([lambda: rate(client.upload, lab, LENGTH // 2, x) for x in (CLIENT, OTHER)])
    near(t, "two clients", 2 * (LENGTH // 2) / (time.monotonic() - start))
    gw.wait_no_flows()


@test("datagrams beyond the limit are dropped and counted, and streams go on beside them", limit=60)
def _(t):
    lab, gw = limited(t, [{"source": CLIENT, "up": "40Mbit"}])
    ended, data, sent = threading.Event(), b"d" * 1200, [0]

    def flood():
        with client.udp(lab.cli, at.TARGET[0], 7, source=CLIENT) as s:
            while not ended.is_set():
                for _ in range(20):
                    s.send(data)
                sent[0] += 20
                time.sleep(0.001)       # the pace of the flood: far above the limit
    thread = threading.Thread(target=flood)
    thread.start()
    try:
        within(10, lambda: gw.counter("flow.rate_dropped") > 0, "dropped datagrams", every=0.05)
        got = rate(client.upload, lab, LENGTH // 2)
    finally:
        ended.set()
        thread.join()
    n = gw.settled_counters()
    t.note("%d datagrams sent, %d dropped; the stream had %.1f Mbit/s" % (sent[0], n["flow.rate_dropped"], got / MBIT))
    check(0.4 * LIMIT < got < 0.75 * LIMIT, "the stream had %.1f Mbit/s" % (got / MBIT))
    check(n["flow.rate_dropped"] < sent[0], "no datagram passed")


@test("questions that go over TCP, for want of UDP, count as the datagrams that they were", limit=60)
def _(t):
    lab = t.lab()
    lab.services()
    servers.dnsmasq(lab, {"a.test": at.TARGET[0]})
    gw = lab.gateway(proxies=[servers.microsocks(lab)], **{"rate-limits": [{"source": CLIENT, "up": "8kbit"}]})
    sent = 800                          # 24 bytes each: the bucket holds 4,096, and a second brings 1,000
    with client.udp(lab.cli, at.TARGET[0], 53, source=CLIENT) as s:
        s.send(question("a.test", number=1))
        check_equal(s.recv(512)[:2], b"\0\1")
        for i in range(1, sent):
            s.send(question("a.test", number=i))
        within(10, lambda: gw.counter("flow.dns_over_tcp") + gw.counter("flow.rate_dropped") == sent, "all of them", every=0.05)
    check(gw.counter("flow.rate_dropped") > 10, "none was dropped")


@test("a limit of flows is the process's: wherever they come in, all of it can be had and no more", limit=90,
      cases={"tcp": "tcp", "udp": "udp", "per-source": "per-source"})
def _(t, which):
    lab = t.lab()
    lab.services()
    limits = {"tcp": 4000, "udp": 4000, which: MOST}
    gw = lab.gateway(proxies=[servers.culvert_serve(lab)], workers=4, limits=limits, log={"level": "warning"})
    kind = "udp" if which == "udp" else "tcp"
    sockets, most, end = [], 0, time.monotonic() + 20
    while time.monotonic() < end and most < MOST * 0.95:
        sockets += more_flows(t, lab, kind)
        n = len(gw.status("--flows")["connections"])
        most = max(most, n)
        check(n <= MOST, "%d flows, more than the limit" % n)
    t.note("%d flows at once with a limit of %d, %d asked for" % (most, MOST, len(sockets)))
    check(most >= MOST * 0.95, "only %d flows of %d" % (most, MOST))
    gw.check_alive()


def talkers(t, lab, n, source, say):
    """n connections of one client, one after the other; with @say each has had an answer."""
    opened = [t.own(client.tcp(lab.cli, at.TARGET[0], 80, 10, source), "close") for _ in range(n)]
    for s in opened if say else ():
        s.sendall(b"word")
        check_equal(client.receive(s, 4), b"word")
    return opened


def ended(sockets):
    poll = select.poll()
    for s in sockets:
        poll.register(s, select.POLLHUP | select.POLLERR)
    return len(poll.poll(0))


@test("clients that open and never send: each meets its own limit, then the silent ones make room", rows=["T12"], limit=120, long=True)
def _(t):
    lab = t.lab()
    gw = lab.gateway(proxies=[servers.Holder(lab)], workers=1, limits={"tcp": 400, "per-source": 300}, log={"level": "warning"})
    said = talkers(t, lab, 100, at.CLI[0], True)        # the oldest of all
    silent = talkers(t, lab, 300, at.CLI2[0], False)
    start = time.monotonic()
    within(20, lambda: time.monotonic() - start > 11, "idle for longer than ten seconds", every=0.5)
    dropped = gw.counter("flow.limit_source")
    for _ in range(20):
        s = t.own(lab.cli.socket(socket.AF_INET, socket.SOCK_STREAM), "close")
        s.bind((at.CLI2[0], 0))
        s.setblocking(False)
        s.connect_ex((at.TARGET[0], 80))
    within(10, lambda: gw.counter("flow.limit_source") >= dropped + 20, "the limit of one client")
    check_equal((ended(said), ended(silent)), (0, 0), "flows that ended for a client that has had its part")
    more = client.open_many(lab.cli, (at.TARGET[0], 80), 50, at_once=50, timeout=70)
    t.note("%d silent ones made room for 50, %d others" % (ended(silent), ended(said)))
    check(ended(silent) >= 50 and ended(said) == 0, "%d silent ones ended and %d that had said something" % (ended(silent), ended(said)))
    check(gw.flows() <= 400, "%d flows" % gw.flows())
    for s in more:
        s.close()


def more_flows(t, lab, kind):
    """A few more, none of which waits to be open."""
    new = []
    for _ in range(10):
        s = t.own(lab.cli.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM), "close")
        s.setblocking(False)
        if kind == "tcp":
            s.connect_ex((at.TARGET[0], 7))
        else:
            s.sendto(b"x", (at.TARGET[0], 7))
        new.append(s)
    time.sleep(0.1)         # the pace at which they come
    return new


@test("a reload changes the limit of a flow that lives, and takes it away", rows=["C11"], limit=60)
def _(t):
    lab = t.lab()
    lab.services()
    server = servers.culvert_serve(lab)
    gw = lab.gateway(proxies=[server], workers=1, **{"rate-limits": [{"source": CLIENT, "down": "1Mbit"}]})
    result = []
    thread = threading.Thread(target=lambda: result.append(rate(client.download, lab, LENGTH)))
    thread.start()
    within(10, lambda: gw.counter("upstream.bytes_down") > 100000, "the download has begun", every=0.05)
    reload(gw, sections_of(gw, [server], ["MATCH,up"], workers=1, **{"rate-limits": [{"proxy": "up", "down": "1Gbit"}]}))
    thread.join(20)
    check(result, "the download is as slow as before")
    gw.wait_no_flows()
    t.note("%.1f Mbit/s on the whole" % (result[0] / MBIT))


TURNS = [[{"source": CLIENT, "up": "40Mbit", "down": "40Mbit"}],
         [{"proxy": "up", "up": "40Mbit"}, {"source": OTHER, "down": "40Mbit"}],
         [{"source": "10.77.1.0/24", "down": "60Mbit"}, {"proxy": "up", "down": "40Mbit"}],
         []]


def reload_while(gw, server, threads, n=1):
    """Other limits, over and over, as long as one of them runs."""
    while any(x.is_alive() for x in threads):
        reload(gw, sections_of(gw, [server], ["MATCH,up"], workers=4, **{"rate-limits": TURNS[n % len(TURNS)]}))
        n += 1
    return n - 1


@test("limits come and go under streams that wait and datagrams, and no byte of a stream is lost", rows=["C11"], limit=90)
def _(t):
    lab = t.lab()
    lab.services()
    server = servers.culvert_serve(lab)
    gw = lab.gateway(proxies=[server], workers=4, **{"rate-limits": TURNS[0]})
    moves = [lambda m=m, a=a: rate(m, lab, LENGTH // 2, a) for m in (client.upload, client.download)
             for a in (CLIENT, CLIENT, OTHER)]
    wrong, count = [], [0]

    def transfers():
        try:
            together(moves)
        except (OSError, AssertionError) as e:
            wrong.append(e)

    def datagrams(running):
        with client.udp(lab.cli, at.TARGET[0], 7, source=CLIENT) as s:
            while running.is_alive():
                for _ in range(50):
                    s.send(b"d" * 1200)
                count[0] += 50
                time.sleep(0.005)       # the pace at which they come
    running = threading.Thread(target=transfers)
    beside = threading.Thread(target=datagrams, args=(running,))
    running.start()
    beside.start()
    n = reload_while(gw, server, [running])
    running.join()
    beside.join()
    check(not wrong, "a transfer: %s" % wrong)
    check(n >= len(TURNS), "only %d reloads while the streams ran" % n)
    t.note("%d reloads, %d datagrams, %d dropped" % (n, count[0], gw.counter("flow.rate_dropped")))
    gw.wait_no_flows()


@test("an end while streams wait for their turn takes two seconds and leaves nothing", rows=["X1"], limit=30)
def _(t):
    lab, gw = limited(t, [{"source": CLIENT, "up": "8kbit", "down": "8kbit"}, {"proxy": "up", "down": "8kbit"}], workers=4)
    for i in range(12):
        s = t.own(client.tcp(lab.cli, at.TARGET[0], 7000, 10, CLIENT), "close")
        s.sendall(b"down 0\n" if i % 2 else b"up\n" + bytes(16384))
    within(10, lambda: gw.counter("upstream.bytes_down") > 3000, "the first bytes", every=0.05)
    check_equal(gw.terminate(), 0, "exit status")
