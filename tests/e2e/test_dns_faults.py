"""Name servers, answers and disks that misbehave, and clients that do (faults.md section 8)."""
import os
import struct
import subprocess
import threading
import time

from harness import check, check_equal, client, servers, test, within
from harness import lab as at
from harness.names import Liar, answer, dig, dns, end_of_question, kind_of, only_a, question, status_of


def name_bytes(name):
    return b"".join(bytes([len(x)]) + x.encode() for x in name.split(".")) + b"\0"


def asked(query):
    """The first label of the question."""
    return query[13:13 + query[12]].decode().lower()


def chain(query, length, last):
    """CNAMEs from the question's name over c1.test, c2.test ... and then `last` records."""
    q = query[12:end_of_question(query)]
    owner, records = b"\xc0\x0c", b""
    for i in range(1, length + 1):
        target = name_bytes("c%d.test" % i)
        records += owner + struct.pack(">HHIH", 5, 1, 60, len(target)) + target
        owner = target
    for rdata in last:
        records += owner + struct.pack(">HHIH", 1, 1, 60, 4) + bytes(map(int, rdata.split(".")))
    return query[:2] + struct.pack(">HHHHH", 0x8180, 1, length + len(last), 0, 0) + q + records


def loop(query):
    target = name_bytes("loop.test")
    q = query[12:end_of_question(query)]
    records = b"\xc0\x0c" + struct.pack(">HHIH", 5, 1, 60, len(target)) + target
    records += target + struct.pack(">HHIH", 5, 1, 60, len(target)) + target
    return query[:2] + struct.pack(">HHHHH", 0x8180, 1, 2, 0, 0) + q + records


@test("answers at their limits: CNAMEs of 16 and 100 steps and in a circle, TTL 0 and 2^31, names of one family", rows=["D6"])
def _(t):
    lab = t.lab()
    lab.direct_route()
    what = {"ok": lambda q: chain(q, 16, ["10.55.0.1"]), "long": lambda q: chain(q, 100, ["10.55.0.1"]), "circle": loop,
            "zero": lambda q: only_a(q, ["10.55.0.1"], ttl=0), "huge": lambda q: only_a(q, ["10.55.0.1"], ttl=1 << 31),
            "week": lambda q: only_a(q, ["10.55.0.1"], ttl=604800),
            "four": lambda q: only_a(q, ["10.55.0.1"]), "empty": lambda q: answer(q), "gone": lambda q: answer(q, rcode=3)}
    liar = Liar(t, lab.srv, at.TARGET[0], lambda q, p: [what[asked(q)](q)])
    gw = lab.gateway(rules=["MATCH,DIRECT"], **dns(t, "real", nameserver=[at.TARGET[0]]))

    def ttl(name):
        r = lab.cli.result(["dig", "+noall", "+answer", "@" + at.TARGET2[0], name + ".test"])
        return int(r.stdout.split()[1])

    check("10.55.0.1" in dig(lab.cli, at.TARGET2[0], "ok.test"), "16 steps")
    table = {"long": "SERVFAIL", "circle": "SERVFAIL", "empty": "NOERROR", "gone": "NXDOMAIN"}
    check_equal({n: status_of(lab.cli, at.TARGET2[0], n + ".test") for n in table}, table)
    check_equal([ttl("zero"), ttl("huge")], [1, 1], "TTL of 0 and of 2^31")
    check_equal(ttl("week"), 86400, "a week is cut to a day")
    before = liar.asked
    check_equal(dig(lab.cli, at.TARGET2[0], "four.test"), ["10.55.0.1"])
    check_equal(dig(lab.cli, at.TARGET2[0], "four.test", "AAAA"), [])
    check_equal(dig(lab.cli, at.TARGET2[0], "four.test", "AAAA"), [])
    check_equal(liar.asked - before, 2, "nothing is remembered as well")
    check_equal(gw.counter("dns.bad_answers"), 2)


@test("name servers that are slow or answer every other question: an answer or SERVFAIL within 5 s, never the system's resolver",
      rows=["D7", "G5"], limit=90)
def _(t):
    lab = t.lab()
    lab.direct_route()
    turn = [0]

    def slow(query, peer):
        if asked(query).startswith("slow"):
            time.sleep(1.3)
            return [only_a(query, ["10.55.0.1"])]
        if asked(query).startswith("flap"):
            turn[0] += 1
            return [only_a(query, ["10.55.0.2"])] if turn[0] % 2 == 0 else []
        return []

    Liar(t, lab.srv, at.TARGET[0], slow)
    only = lab.only("host %s and udp port 53" % at.TARGET[0])
    gw = lab.gateway(rules=["MATCH,DIRECT"], **dns(t, "real", nameserver=[at.TARGET[0]]))
    check_equal(client.dig(lab.cli, at.TARGET2[0], "slow1.test", timeout=6), ["10.55.0.1"], "a second later")
    for i in range(4):
        check_equal(client.dig(lab.cli, at.TARGET2[0], "flap%d.test" % i, timeout=6), ["10.55.0.2"], "asked again")
    start = time.monotonic()
    check_equal(status_of(lab.cli, at.TARGET2[0], "dead.test"), "SERVFAIL")
    took = time.monotonic() - start
    check(took < t.slow(5.5), "%.1f s" % took)
    only.check_nothing()
    check_equal(gw.counter("dns.failed"), 1)


@test("10,000 forged answers to one question, and the right one after them: it counts", rows=["D4"], limit=60)
def _(t):
    lab = t.lab()
    lab.direct_route()
    liar = None

    def forge(query, peer):
        for i in range(10000):
            number = struct.pack(">H", i * 6 & 0xffff)
            if number != query[:2]:
                liar.socket.sendto(number + only_a(query, ["10.66.6.6"])[2:], peer)
            if i % 50 == 49:
                time.sleep(0.002)       # all of them shall be heard
        return [only_a(query, ["10.55.0.1"])]

    liar = Liar(t, lab.srv, at.TARGET[0], forge)
    gw = lab.gateway(rules=["MATCH,DIRECT"], **dns(t, "real", nameserver=[at.TARGET[0]]))
    check_equal(client.dig(lab.cli, at.TARGET2[0], "www.example.test", timeout=6), ["10.55.0.1"])
    within(5, lambda: gw.counter("dns.ignored") > 5000, "they were read, counted and not believed")


class Tmpfs:
    """A small file system of the test's own at its state folder."""

    def __init__(self, t, options):
        self.path = t.path("state")
        os.mkdir(self.path)
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", self.path], check=True)
        t.own(self)

    def read_only(self):
        subprocess.run(["mount", "-o", "remount,ro", self.path], check=True)

    def stop(self):
        subprocess.run(["umount", "-l", self.path], check=False)


@test("the file of fake addresses: a full disk and a read-only one cost a line and the memory of addresses, never a half record",
      rows=["D9"], limit=60)
def _(t):
    lab = t.lab()
    disk = Tmpfs(t, "size=8k")
    gw = lab.gateway(rules=["MATCH,DIRECT"], **dns(t, "fake-ip"))
    first = {n: dig(lab.cli, at.TARGET[0], n) for n in ("a.test", "b.test")}
    path = os.path.join(disk.path, "fake-ip")
    within(15, lambda: os.path.exists(path), "a file that fits")
    whole = open(path, "rb").read()
    for i in range(150):
        with client.udp(lab.cli, at.TARGET[0], 53) as s:
            s.send(question("%s-%d.example.test" % ("x" * 40, i)))
            s.recv(512)
    gw.says("fake addresses cannot be kept", seconds=15)
    check_equal(open(path, "rb").read(), whole, "the old file, as it was")
    check_equal(os.listdir(disk.path), ["fake-ip"], "nothing half beside it")
    check_equal(gw.terminate(seconds=4), 0)
    disk.read_only()
    gw = lab.gateway(rules=["MATCH,DIRECT"], route=False, **dns(t, "fake-ip"))
    lab.gw.ip("route replace default dev tun0 metric 10 table 20")
    check_equal({n: dig(lab.cli, at.TARGET[0], n) for n in first}, first, "what was there is read")
    check(dig(lab.cli, at.TARGET[0], "new.test")[0].startswith("198.19."), "an answer")
    check_equal(gw.terminate(seconds=4), 0)
    check_equal(len([x for x in gw.process.lines if "fake addresses cannot be kept" in x]), 1, "lines about it")


@test("50,000 questions a second of random names by one client: it is held to its limit, 90 of 100 of another's are answered",
      rows=["D10"], long=True, limit=120)
def _(t):
    lab = t.lab()
    lab.direct_route()
    servers.unbound(lab)
    gw = lab.gateway(rules=["MATCH,DIRECT"], **dns(t, "real", nameserver=[at.TARGET[0]]))
    names = t.write("names", "".join("r%d.example.test A\n" % i for i in range(100000)))
    flood = servers.Process(t, lab.cli, [servers.need("dnsperf"), "-s", at.TARGET2[0], "-a", at.CLI2[0], "-d", names, "-Q", "50000",
                                         "-l", "8", "-q", "5000", "-t", "0.2", "-c", "16"], "dnsperf")
    good, ended = [], threading.Event()
    before = gw.process.resources().rss_kib
    while flood.alive() and len(good) < 400:
        with client.udp(lab.cli, at.TARGET2[0], 53, timeout=2, source=at.CLI[0]) as s:
            s.send(question("good%d.test" % len(good), number=len(good)))
            try:
                good.append(s.recv(512)[:2] == struct.pack(">H", len(good)))
            except OSError:
                good.append(False)
    ended.set()
    flood.wait(30)
    after = gw.process.resources().rss_kib
    limited = gw.counter("dns.limit_source")
    t.note("%d of %d of the other client's answered; %d limited; RSS %d -> %d KiB" % (sum(good), len(good), limited, before, after))
    check(len(good) >= 100 and sum(good) >= 0.9 * len(good), "%d of %d" % (sum(good), len(good)))
    check(limited > 10000, "%d limited" % limited)
    check(after - before < (65536 if t.sanitized else 16384), "%d KiB, then %d" % (before, after))
