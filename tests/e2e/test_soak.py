"""Everything at once for as long as one likes: churn, loss, resets, half-closes, stalls; nothing may leak, and every byte is compared.

    tests/e2e/run --long -k soak                a minute
    tests/e2e/run --long -k soak --minutes 30   the campaign of docs/testing.md
"""
import collections
import hashlib
import random
import socket
import threading
import time

from harness import check, check_equal, client, servers, test
from harness import lab as at
from harness.core import check_table, errno_name
from harness.servers import Services
from harness.services import StreamChecker, block

KIB, MIB = 1 << 10, 1 << 20
WORKERS, CHURNERS, LOSS_PERCENT = 2, 12, 0.5
PACE = 256 * KIB                # bytes a second of each stream that lives from the beginning to the end
WAIT_S = 60                     # how long a connection may stand still under loss
FLAT = 1.05                     # the last quarter may need so much more memory than the second one,
ROOM_KIB, ROOM = 2048, 64       # and so much, or so many objects, by chance
SAMPLE_S = 1
WARM_S = 75                     # until what ends after a minute ends as fast as it begins
AT_REST_S = 100                 # TIME-WAIT and a datagram whose pieces were lost take a minute
COUNTERS = ("tcp.opened", "tcp.rexmit_fast", "tcp.rexmit_rack", "tcp.rexmit_tlp", "tcp.rexmit_rto", "tcp.rst_in", "tcp.rst_sent",
            "tcp.zero_window_probe", "tcp.ooo", "tcp.timeout", "tcp.no_memory", "tcp.pressure_refused", "tcp.pressure_aborted",
            "flow.tcp_reset_by_upstream")
NO_POOL = ("RSS KiB", "threads", "descriptors")


class Soak:
    """Clients until `ending` is set; what went wrong is collected, what was done is counted."""

    def __init__(self, lab, seed):
        self.lab, self.seed, self.ending = lab, seed, threading.Event()
        self.wrong, self.done, self.lock = [], collections.Counter(), threading.Lock()
        lives = (self.long_down, self.long_up, self.long_echo)
        self.threads = [threading.Thread(target=self.guard, args=(f.__name__, f, target), daemon=True)
                        for f in lives for target in at.TARGET]
        self.threads += [threading.Thread(target=self.guard, args=("churn %d" % i, self.churn, i), daemon=True) for i in range(CHURNERS)]

    def guard(self, name, function, argument):
        try:
            function(argument)
        except (OSError, AssertionError) as e:
            with self.lock:
                self.wrong.append("%s: %s" % (name, errno_name(e) if isinstance(e, OSError) else e))

    def count(self, what, n=1):
        with self.lock:
            self.done[what] += n

    def open(self, target, port=Services.LINE):
        return client.tcp(self.lab.cli, target, port, WAIT_S)

    # ---- streams that live as long as the test ----

    def long_down(self, target):
        checker = StreamChecker()
        with self.open(target) as s:
            s.sendall(b"down 0 %d\n" % PACE)
            while not self.ending.is_set():
                feed(checker, s)
        self.count("MiB down in the long streams", checker.count // MIB)

    def long_up(self, target):
        h, n, start = hashlib.sha256(), 0, time.monotonic()
        with self.open(target) as s:
            s.sendall(b"up\n")
            while not self.ending.is_set():
                b = block(n // 65536)
                s.sendall(b)
                h.update(b)
                n += len(b)
                self.ending.wait(max(0, n / PACE - (time.monotonic() - start)))
            s.shutdown(socket.SHUT_WR)
            check_equal(client.receive_end(s)[0].decode(), "%s %d\n" % (h.hexdigest(), n), "hash of the long upload")
        self.count("MiB up in the long streams", n // MIB)

    def long_echo(self, target):
        dice = random.Random("%s %s" % (self.seed, target))
        with self.open(target, Services.ECHO) as s:
            while not self.ending.is_set():
                data = dice.randbytes(dice.choice((1, 100, 1460, 20000)))
                s.sendall(data)
                check(client.receive(s, len(data)) == data, "another echo than what was sent")
                self.count("echoes of the long streams")
                self.ending.wait(0.02)

    # ---- one connection after the other ----

    def churn(self, i):
        dice, kinds = random.Random(self.seed * 1000 + i), [getattr(self, k) for k in sorted(dir(self)) if k.startswith("do_")]
        while not self.ending.is_set():
            kind, target = dice.choice(kinds), dice.choice(at.TARGET)
            try:
                kind(dice, target)
            except (OSError, AssertionError) as e:
                why = errno_name(e) if isinstance(e, OSError) else e
                raise AssertionError("%s at %s: %s" % (kind.__name__[3:], time.strftime("%X"), why)) from e
            self.count(kind.__name__[3:])
            self.ending.wait(dice.random() * 0.2)

    def do_download(self, dice, target):
        client.download(self.lab.cli, target, size(dice), WAIT_S)

    def do_upload(self, dice, target):
        client.upload(self.lab.cli, target, size(dice), WAIT_S)

    def do_half_close(self, dice, target):
        """The answer comes after our end."""
        with self.open(target) as s:
            s.sendall(b"late\n" + b"h" * dice.randrange(50000))
            s.shutdown(socket.SHUT_WR)
            checker = StreamChecker()
            while feed(checker, s, may_end=True):
                continue
            check_equal(checker.count, 100 * KIB, "bytes after our end")

    def do_reset_by_us(self, dice, target):
        s = self.open(target)
        s.sendall(b"down 0\n")
        checker, enough = StreamChecker(), size(dice)
        while checker.count < enough:
            feed(checker, s)
        client.reset(s)

    def do_reset_by_target(self, dice, target):
        """What comes before the reset is right as far as it goes. The reset may be lost: then the next that we send is answered by one."""
        with self.open(target) as s:
            s.sendall(b"rst %d\n" % size(dice))
            checker = StreamChecker()
            s.settimeout(4)
            while True:
                try:
                    check(feed(checker, s, may_end=True), "a FIN where the target sent RST")
                except ConnectionResetError:
                    return
                except TimeoutError:
                    self.count("resets that were lost")
                    s.send(b"?")
                    s.settimeout(WAIT_S)

    def do_stall(self, dice, target):
        """We do not read for a while, then all of it."""
        length = 2 * MIB + size(dice)
        with self.open(target) as s:
            s.sendall(b"down %d\n" % length)
            self.ending.wait(dice.random() * 4)
            checker = StreamChecker()
            while feed(checker, s, may_end=True):
                continue
            check_equal(checker.count, length, "bytes after a stall")

    def do_stalled_target(self, dice, target):
        """The target never reads; we give up after a while."""
        s = self.open(target)
        s.sendall(b"stall\n")
        s.settimeout(0.5 + dice.random())
        try:
            while True:
                s.sendall(bytes(MIB))
        except TimeoutError:
            pass
        client.reset(s)

    def do_burst(self, dice, target):
        """Many at once that say little."""
        sockets = [self.open(target, Services.ECHO) for _ in range(20)]
        for s in sockets:
            s.sendall(b"burst")
        check(all([client.receive(s, 5) == b"burst" for s in sockets]), "another echo than what was sent")
        for i, s in enumerate(sockets):
            (client.reset if i % 3 == 0 else socket.socket.close)(s)

    def do_refused(self, dice, target):
        check_equal(client.outcome(self.lab.cli, target, 4, WAIT_S)[0], "ECONNREFUSED", "a closed port")

    def do_given_up(self, dice, target):
        """Our end goes while the target is still being dialled."""
        with self.lab.cli.socket(client.net.family_of(target), socket.SOCK_STREAM) as s:
            s.setblocking(False)
            s.connect_ex((at.SILENT[":" in target], 80))
            self.ending.wait(dice.random() * 0.1)

    def do_datagrams(self, dice, target):
        with client.udp(self.lab.cli, target, Services.ECHO, timeout=1) as s:
            for _ in range(20):
                data = dice.randbytes(dice.randrange(1, 3000))
                s.send(data)
                try:
                    check(s.recv(65536) == data, "another datagram than what was sent")
                except TimeoutError:
                    return              # lost, as datagrams may be; a late one would be compared with the next


def size(dice):
    """Most are small."""
    return int(1024 * 2 ** (dice.random() * 11))


def feed(checker, s, may_end=False):
    """Read once and compare; False at the end of the stream."""
    data = s.recv(1 << 17)
    check(data or may_end, "ended after %d bytes" % checker.count)
    wrong = checker.feed(data)
    check(wrong is None, "byte %s is wrong" % wrong)
    return bool(data)


def pools(status):
    """Objects in use of every pool, summed over the workers."""
    used = collections.Counter()
    for w in status["workers"]:
        for name, p in w["pools"].items():
            used[name] += p["in-use"]
    return used


def measured(gw):
    """One sample: everything that could grow."""
    status, r = gw.status(seconds=5), gw.resources()
    return dict(pools(status), **{"RSS KiB": r.rss_kib, "descriptors": r.fds, "threads": r.threads, "flows": status["flows"]["tcp"]})


def check_flat(samples):
    """Against the second quarter, the last one needed no more memory at most, and no more objects at least: a load has its low tides,
    a leak has none."""
    n, wrong = len(samples) // 4, []
    if n * SAMPLE_S < WARM_S:
        return                          # too short to say
    for what in samples[-1]:
        most, room = (max, ROOM_KIB) if what == "RSS KiB" else (min, ROOM)
        before, after = (most(x.get(what, 0) for x in part) for part in (samples[n:2 * n], samples[3 * n:]))
        if after > before * FLAT + room:
            wrong.append("%s: %d in the second quarter, %d in the last" % (what, before, after))
    check_table(wrong)


def still_there(now, before):
    """What has not come back to where it was; each worker keeps the block that the next bytes of an upstream will land in."""
    landing = {"chunk16": WORKERS, "chunk64": WORKERS}
    return {k: n for k, n in now.items() if k not in NO_POOL and n > before.get(k, 0) + landing.get(k, 0)}


@test("a soak of churn, loss, resets, half-closes and stalls: streams exact, nothing leaks", rows=["TST-8", "G4", "G1"],
      limit=330, long=True, minutes=True)
def _(t):
    lab = t.lab()
    lab.services()
    lab.cli.sysctl("net/ipv4/ip_local_port_range", "10000 65535")
    gw = lab.gateway(proxies=[servers.culvert_serve(lab)], workers=WORKERS, log={"level": "warning"},
                     limits={"memory": "64MiB", "per-source": 20000},
                     # A client's reset that is lost, or the answer to our challenge, is found out by keep-alive.
                     stack={"udp": {"idle-timeout": "30s"}, "tcp": {"keepalive": "10s"}})
    client.download(lab.cli, at.TARGET[0], MIB)
    gw.wait_no_flows()
    before, samples = measured(gw), []
    lab.lose(LOSS_PERCENT)
    soak = Soak(lab, t.options.seed)
    for thread in soak.threads:
        thread.start()
    end = time.monotonic() + t.options.minutes * 60
    while time.monotonic() < end and not soak.wrong:
        soak.ending.wait(SAMPLE_S)
        samples.append(measured(gw))
    soak.ending.set()
    for thread in soak.threads:
        thread.join(2 * WAIT_S)
    t.note(", ".join("%s %d" % x for x in sorted(soak.done.items())))
    c = gw.status()["counters"]
    t.note(", ".join("%s %d" % (k, c[k]) for k in COUNTERS))
    check_table(soak.wrong)
    check(not any(thread.is_alive() for thread in soak.threads), "a client is stuck")
    gw.wait_no_flows(60)
    end = time.monotonic() + AT_REST_S
    while still_there(measured(gw), before) and time.monotonic() < end:
        time.sleep(1)                   # a state that gives no event
    after = measured(gw)
    most = {k: max(x.get(k, 0) for x in samples) for k in after}
    t.note("before / most / after: " + ", ".join("%s %d/%d/%d" % (k, before.get(k, 0), most[k], after[k]) for k in sorted(after)))
    check_flat(samples)
    check(not still_there(after, before), "left when everything had ended: %s" % still_there(after, before))
    check(after["descriptors"] <= before["descriptors"], "%(descriptors)d descriptors afterwards" % after)
