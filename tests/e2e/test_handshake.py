"""Every step of a SOCKS5 handshake and everything a server can do there instead (faults.md section 6).

A table becomes one gateway with one proxy for each row, chosen by the target's port; all rows run at once. What the client
must see: design.md section 6 (a proxy that is silent or broken in the handshake is "host unreachable").
"""
import os
import time

from faultd import (METHOD_LOGIN, METHOD_REFUSED, FaultServer, cut_after, drip, greet, half, handshake, hang, read, relay, reply,
                    request, reset, send, server_bytes)
from harness import check, check_equal, client, gateway, servers, test, within
from harness import lab as at
from harness.bystander import bystanders, rules as bystander_rules
from harness.core import check_table
from harness.gateway import SECRET

FIRST_PORT = 3000
UNREACHABLE = {"EHOSTUNREACH"}
FAILED = {"EHOSTUNREACH", "ECONNREFUSED"}
LOGIN = {"username": "alice", "password": SECRET}
METHODS = {"no login": b"\5\0", "login": METHOD_LOGIN}


class Table:
    """Rows {name: (plan, what the client may see)} behind one gateway."""

    def __init__(self, t, rows, login=False, timeout="2s", good=None, target=at.TARGET[0], **more):
        self.rows, self.lab = rows, t.lab()
        self.services = self.lab.services()
        self.target = target
        self.ports = {name: FIRST_PORT + i for i, name in enumerate(rows)}
        self.servers = {name: FaultServer(t, self.lab.srv, at.PROXY[0], self.ports[name], plan)
                        for name, (plan, _) in rows.items()}
        proxies = [s.proxy("p%d" % s.port, udp=False, **(LOGIN if login else {})) for s in self.servers.values()]
        rules = ["DST-PORT,%d,p%d" % (p, p) for p in self.ports.values()]
        if good:
            proxies.append(good(self.lab).proxy("good"))
            rules = bystander_rules() + rules
        self.gw = self.lab.gateway(proxies=proxies, rules=rules + ["MATCH,REJECT"],
                                   stack={"tcp": {"connect-timeout": timeout}}, **more)

    def run(self, seconds=10):
        """Connect to every row at once; {name: (how, seconds)}."""
        self.seen = client.outcomes(self.lab.cli, {n: (self.target, p) for n, p in self.ports.items()}, seconds)
        return self.seen

    def check(self, slowest=None, earliest=None):
        wrong = ["%s: the client saw %s after %.2f s, not %s" % (name, how, seconds, " or ".join(sorted(self.rows[name][1])))
                 for name, (how, seconds) in self.seen.items() if how not in self.rows[name][1]]
        if slowest is not None:
            wrong += ["%s: took %.2f s" % (n, s) for n, (_, s) in self.seen.items() if s > slowest]
        if earliest is not None:
            wrong += ["%s: took only %.2f s" % (n, s) for n, (_, s) in self.seen.items() if s < earliest]
        check_table(wrong)
        self.gw.check_alive()


def at_each_byte(action, method, wanted):
    return {"byte %d" % k: (cut_after(k, action, method), wanted) for k in range(server_bytes(method))}


@test("hang at each byte of the handshake: connect-timeout bounds the whole", rows=["S2", "G1", "G2", "G4"], limit=40,
      cases=METHODS)
def _(t, method):
    table = Table(t, at_each_byte([hang()], method, UNREACHABLE), method == METHOD_LOGIN, good=servers.culvert_serve)
    with bystanders(table.lab):
        table.run()
    table.check(slowest=t.slow(3), earliest=1.5)
    table.gw.wait_no_flows()
    check(all(s.connections[0].ended.wait(5) for s in table.servers.values()), "a dial to a hanging server was never ended")


@test("close or reset at each byte of the handshake: the client knows at once", rows=["S3", "G2"], limit=40,
      cases={"%s, %s" % (a, m): (action, METHODS[m]) for a, action in (("close", [half(), hang()]), ("reset", [reset()]))
             for m in METHODS})
def _(t, action, method):
    table = Table(t, at_each_byte(action, method, UNREACHABLE), method == METHOD_LOGIN, timeout="10s",
                  good=servers.culvert_serve)
    with bystanders(table.lab):
        table.run()
    table.check(slowest=t.slow(1))
    table.gw.wait_no_flows()
    worst = max(s for _, s in table.seen.values())
    t.note("%d rows, the slowest known after %.0f ms (promise: 100 ms)" % (len(table.seen), worst * 1000))


@test("one byte every 20 ms works", rows=["S4"], cases=METHODS)
def _(t, method):
    steps = [drip(*s[1:]) if s[0] == "send" else s for s in handshake([relay()], method)]
    table = Table(t, {"drip": (steps, {"open"})}, method == METHOD_LOGIN, target=at.TARGET[0])
    lab = table.lab
    FaultServer(t, lab.srv, at.TARGET[0], FIRST_PORT, [send(b"served"), half(), hang()])
    with client.tcp(lab.cli, at.TARGET[0], FIRST_PORT) as s:
        check_equal(client.receive_end(s), (b"served", "FIN"))


@test("the reply and the first data in one segment: none is lost, none goes to the wrong layer", rows=["S4"],
      cases=METHODS)
def _(t, method):
    data = os.urandom(3000)
    steps = handshake([], method)[:-1]
    rows = {"%d bytes glued" % n: (steps + [send(reply() + data[:n]), half(), hang()], {"open"}) for n in (1, 10, 512, 3000)}
    rows["reply of a name glued"] = (steps + [send(reply(0, 3, b"n" * 255) + data[:77]), half(), hang()], {"open"})
    table = Table(t, rows, method == METHOD_LOGIN)
    wrong = []
    for name, port in table.ports.items():
        wanted = data[:77] if "name" in name else data[:int(name.split()[0])]
        with client.tcp(table.lab.cli, at.TARGET[0], port) as s:
            got = client.receive_end(s)
        if got != (wanted, "FIN"):
            wrong.append("%s: %d bytes, %s" % (name, len(got[0]), got[1]))
    check_table(wrong)


@test("everything before its time in one segment: method, login and reply at once", rows=["S4", "S11"])
def _(t):
    # A server may not answer what it was not asked; the extra bytes must never be taken for the target's.
    table = Table(t, {"all at once": ([greet(), send(b"\5\0" + reply() + b"xx"), request(), hang()], FAILED | {"open"})})
    table.run()
    table.check()


GARBAGE = {             # byte of the server's answers (method 2, reply 10): what a wrong value there means
    0: FAILED, 1: FAILED, 2: FAILED, 3: FAILED, 5: FAILED}


@test("garbage in each byte that means something", rows=["S5", "S6", "S8", "S9"])
def _(t):
    rows = {}
    for k, wanted in GARBAGE.items():
        whole = bytearray(b"\5\0" + reply())
        whole[k] ^= 0xa5
        rows["byte %d" % k] = ([greet(), send(bytes(whole[:2])), request(), send(bytes(whole[2:])), hang()], wanted)
    table = Table(t, rows)
    table.run()
    table.check(slowest=t.slow(4))


LOOKS = {               # first bytes of an answer, and the word that the log must say of them
    "version 4": (b"\4\0\0\0\0\0\0\0", "SOCKS4|version 4|not a SOCKS5"),
    "version 0": (b"\0\x5b\0\0\0\0\0\0", "SOCKS4|version 0|not a SOCKS5"),
    "an HTTP server": (b"HTTP/1.1 400 Bad Request\r\n\r\n", "HTTP"),
    "TLS wanted": (b"\x15\3\1\0\2\2\x46", "TLS"),
}


@test("a server that is none: the log names what it looks like", rows=["S5", "E9"])
def _(t):
    table = Table(t, {name: ([read(3), send(answer), hang()], UNREACHABLE) for name, (answer, _) in LOOKS.items()})
    table.run()
    table.check(slowest=t.slow(1))
    for name, (_, word) in LOOKS.items():
        table.gw.says("p%d .*(%s)" % (table.ports[name], word))


@test("a login that is demanded or refused: one clear line that names the key", rows=["S6", "S7", "G7"])
def _(t):
    rows = {"no method accepted": ([greet(), send(METHOD_REFUSED), hang()], UNREACHABLE),
            "login demanded": ([greet(), send(METHOD_LOGIN), hang()], UNREACHABLE),
            "a method not offered": ([greet(), send(b"\5\1"), hang()], UNREACHABLE)}
    table = Table(t, rows)
    table.run()
    table.check(slowest=t.slow(1))
    table.gw.says("username")


@test("any status but zero of a login is a refusal", rows=["S7", "G7"])
def _(t):
    answers = {"status 1": b"\1\1", "status 255": b"\1\xff", "version 5": b"\5\0", "version 0": b"\0\0"}
    rows = {n: ([greet(), send(METHOD_LOGIN), ("login",), send(a), hang()], UNREACHABLE) for n, a in answers.items()}
    table = Table(t, rows, login=True)
    table.run()
    table.check(slowest=t.slow(1))
    check(SECRET not in table.gw.log and "alice" in table.servers["status 1"].connections[0].received.decode("latin-1"),
          "the login was not sent, or the log has the password")


@test("an upstream that refuses our login is left alone for a while, not hammered", rows=["S6"])
def _(t):
    table = Table(t, {"refused": ([greet(), send(METHOD_REFUSED), half(), hang()], FAILED)})
    for _ in range(20):
        client.outcome(table.lab.cli, at.TARGET[0], FIRST_PORT, timeout=3)
    dials = len(table.servers["refused"].connections)
    lines = [x for x in table.gw.process.lines if "login" in x or "username" in x]
    t.note("20 connects in a row: %d dials, %d lines" % (dials, len(lines)))
    check(dials <= 3, "%d dials of 20 connects within 10 s" % dials)


REPLIES = {2: {"EHOSTUNREACH"}, 3: {"ENETUNREACH"}, 4: {"EHOSTUNREACH"}, 5: {"ECONNREFUSED"}, 6: {"timed out", "ETIMEDOUT"},
           8: FAILED | {"ENETUNREACH"}}


@test("the reply's code reaches the client as what it is", rows=["S8", "G8"], limit=30,
      cases={"IPv4": 0, "IPv6": 1})
def _(t, family):
    rows = {}
    for code in list(range(1, 20)) + [100, 128, 254, 255]:
        wanted = REPLIES.get(code, FAILED)
        if code == 2 and family:
            wanted = {"EACCES"}         # ICMPv6 "administratively prohibited", as Linux shows it
        rows["reply %d" % code] = (handshake([hang()], answer=reply(code)), wanted)
    table = Table(t, rows, target=at.TARGET[family])
    table.lab.cli.sysctl("net/ipv4/tcp_syn_retries", 1)
    table.run(4)
    table.check()


@test("real servers' refusals: refused, unreachable, no route, prohibited", rows=["S8", "G8"], limit=40,
      cases={"dante": servers.dante, "culvert serve": servers.culvert_serve})
def _(t, start_server):
    lab = t.lab()
    server = start_server(lab)
    lab.gateway(proxies=[server])
    targets = {(name, v): (addresses[v], 4) for v in (0, 1) for name, addresses in
               (("refused", at.TARGET), ("unreachable", at.UNREACHABLE), ("no route", at.NO_ROUTE),
                ("prohibited", at.PROHIBITED))}
    seen = client.outcomes(lab.cli, targets, 10)
    wanted = {"refused": {"ECONNREFUSED"}, "unreachable": {"EHOSTUNREACH"}, "no route": {"ENETUNREACH"},
              "prohibited": {"EACCES", "EHOSTUNREACH"}}
    if server.name == "dante":          # it says "general failure" or "network unreachable" of what it cannot reach
        wanted = {k: v | {"ENETUNREACH", "EHOSTUNREACH", "EACCES"} if k != "refused" else v for k, v in wanted.items()}
        wanted = {k: v | {"ECONNREFUSED"} for k, v in wanted.items()}
    check_table(["%s, IPv%d: %s" % (name, 6 if v else 4, how) for (name, v), (how, _) in seen.items() if how not in wanted[name]])


@test("a silent target looks silent", rows=["S8", "G8"], limit=40)
def _(t):
    lab = t.lab()
    lab.cli.sysctl("net/ipv4/tcp_syn_retries", 1)
    gw = lab.gateway(proxies=[servers.culvert_serve(lab)], stack={"tcp": {"connect-timeout": "20s"}})
    how, _ = client.outcome(lab.cli, at.SILENT[0], 4, timeout=10)
    check(how in ("ETIMEDOUT", "timed out"), "the client saw %s" % how)
    gw.check_alive()


@test("the reply's address of each kind is skipped, whatever it is", rows=["S9"])
def _(t):
    good = {"type 1": reply(0, 1), "type 4": reply(0, 4, b"\0" * 16), "name of 0": reply(0, 3, b""),
            "name of 1": reply(0, 3, b"a"), "name of 255": reply(0, 3, b"\xff" * 255)}
    bad = {"type 0": reply(0, 0), "type 2": reply(0, 2), "type 5": reply(0, 5), "type 255": reply(0, 255)}
    rows = {n: (handshake([hang()], answer=a), {"open"}) for n, a in good.items()}
    rows.update({n: (handshake([hang()], answer=a), FAILED) for n, a in bad.items()})
    rows["name past the end"] = (handshake([half(), hang()], answer=b"\5\0\0\3\xffshort"), FAILED)
    table = Table(t, rows)
    table.run()
    table.check()


@test("a server that talks too much before or in the reply is a failure, and costs nothing", rows=["S11", "G3"])
def _(t):
    mega = b"\5\0" + b"\0" * (1 << 20)
    rows = {"a megabyte before our request": ([greet(), send(mega), hang()], FAILED | {"open"}),
            "a megabyte at once": ([send(mega), hang()], FAILED | {"open"}),
            "a reply that never ends": ([greet(), send(b"\5\0"), request(), drip(b"\5\0\0\3\xff" + b"n" * 100, 0.05), hang()],
                                        UNREACHABLE)}
    table = Table(t, rows)
    before = table.gw.resources()
    for _ in range(5):
        table.run()
        table.check(slowest=t.slow(3))
    after = table.gw.resources()
    check(after.rss_kib - before.rss_kib < 4096 * (8 if t.sanitized else 1),
          "RSS grew from %d to %d KiB" % (before.rss_kib, after.rss_kib))


@test("an upstream that is absent: refused, unreachable, silent", rows=["S1", "G8", "G2"], limit=40)
def _(t):
    lab = t.lab()
    lab.services()
    good = servers.culvert_serve(lab, at.PROXY2[0])
    lab.direct_route()
    hosts = {81: at.PROXY[0], 82: at.UNREACHABLE[0], 83: at.SILENT[0], 84: "192.0.2.1"}
    proxies = [{"name": "p%d" % p, "type": "socks5", "server": h, "port": 9999} for p, h in hosts.items()]
    gw = lab.gateway(proxies=proxies + [good.proxy("good")], stack={"tcp": {"connect-timeout": "2s"}},
                     rules=bystander_rules() + ["DST-PORT,%d,p%d" % (p, p) for p in hosts] + ["MATCH,REJECT"])
    with bystanders(lab):
        seen = client.outcomes(lab.cli, {p: (at.TARGET[0], p) for p in hosts}, 8)
    check_table(["port %d: %s" % (p, how) for p, (how, _) in seen.items() if how != "EHOSTUNREACH"])
    check(seen[81][1] < t.slow(1) and seen[84][1] < t.slow(1), "refused or no route took %.1f, %.1f s" % (seen[81][1], seen[84][1]))
    check(1.5 < seen[83][1] < t.slow(3), "a silent proxy took %.1f s of connect-timeout 2 s" % seen[83][1])
    gw.wait_no_flows()


@test("100 connects to a dead upstream fail, others live, and nothing stays", rows=["S1", "S23", "G2", "G4"], limit=40)
def _(t):
    lab = t.lab()
    lab.services()
    good = servers.culvert_serve(lab, at.PROXY2[0])
    dead = {"name": "up", "type": "socks5", "server": at.PROXY[0], "port": 9999}
    gw = lab.gateway(proxies=[dead, good.proxy("good")], rules=bystander_rules() + ["MATCH,up"],
                     stack={"udp": {"idle-timeout": "1s"}})
    before = gw.resources()
    with bystanders(lab):
        seen = client.outcomes(lab.cli, {i: (at.TARGET[i % 2], 1000 + i) for i in range(100)}, 10)
    check_equal({how for how, _ in seen.values()}, {"EHOSTUNREACH"})
    gw.wait_no_flows()
    within(10, lambda: gw.resources().fds <= before.fds + 2, "descriptors back at %d" % before.fds, every=0.1)
    per_second = len([x for x in gw.process.lines if "9999" in x])
    t.note("100 failures made %d lines" % per_second)


@test("local ports exhausted towards one upstream address: the client is refused, others work", rows=["S23", "G2"], limit=40)
def _(t):
    lab = t.lab()
    lab.services()
    first = FaultServer(t, lab.srv, at.PROXY[0], 2000, handshake([hang()]))
    good = FaultServer(t, lab.srv, at.PROXY2[0], 2000, handshake([relay()]))
    lab.gw.sysctl("net/ipv4/ip_local_port_range", "40000 40019")
    gw = lab.gateway(proxies=[first.proxy("up"), good.proxy("good")], rules=bystander_rules() + ["MATCH,up"])
    held = [t.own(client.tcp(lab.cli, at.TARGET[0], 80), "close") for _ in range(20)]
    how, _ = client.outcome(lab.cli, at.TARGET[0], 80, timeout=5)
    check(how in FAILED, "the 21st connect: %s" % how)
    gw.says("local port")
    client.download(lab.cli, at.TARGET2[0], 100000)
    for s in held:
        client.reset(s)                     # and not FIN, which would keep our ports in TIME-WAIT for a minute
    start = time.monotonic()
    within(10, lambda: client.outcome(lab.cli, at.TARGET[0], 80, timeout=5)[0] == "open", "ports free again", every=0.2)
    t.note("a port was free again after %.1f s" % (time.monotonic() - start))


def resolv_prefix(t):
    """Runs a gateway whose machine asks the name server at PROXY."""
    resolv = t.write("resolv.conf", "nameserver %s\n" % at.PROXY[0])
    return ["unshare", "-m", "--propagation", "private", "sh", "-c", 'mount --bind %s /etc/resolv.conf && exec "$@"' % resolv, "sh"]


@test("the proxy is named: several addresses, the first ones dead", rows=["S18"], limit=40)
def _(t):
    lab = t.lab()
    lab.services()
    live = servers.culvert_serve(lab)
    names = ["many.test. 60 IN A 192.0.2.%d" % i for i in range(1, 8)] + ["many.test. 60 IN A " + live.address,
                                                                          "both.test. 60 IN A " + live.address,
                                                                          "both.test. 60 IN AAAA 2001:db8::1"]
    servers.unbound(lab, at.PROXY, names)
    lab.gw.ip("route add blackhole 2001:db8::/64")
    gw = lab.gateway(proxies=[live.proxy("many", server="many.test"), live.proxy("both", server="both.test")],
                     rules=["IP-CIDR,%s/32,both" % at.TARGET[0], "MATCH,many"], prefix=resolv_prefix(t))
    for target in (at.TARGET[0], at.TARGET2[0]):
        start = time.monotonic()
        client.download(lab.cli, target, 1000)
        t.note("first connect %.2f s" % (time.monotonic() - start))
        start = time.monotonic()
        client.download(lab.cli, target, 1000)
        check(time.monotonic() - start < t.slow(1), "the winner was not remembered")
    gw.check_alive()


@test("the proxy's name does not exist, or nobody answers for it", rows=["S18", "G8"])
def _(t):
    lab = t.lab()
    servers.unbound(lab, at.PROXY)
    proxies = [{"name": "none", "type": "socks5", "server": "absent.test", "port": 1080}]
    gw = lab.gateway(proxies=proxies, stack={"tcp": {"connect-timeout": "2s"}}, prefix=resolv_prefix(t))
    how, _ = client.outcome(lab.cli, at.TARGET[0], 80, timeout=5)
    check_equal(how, "EHOSTUNREACH")
    gw.says("absent.test")


@test("a proxy's address inside the TUN is refused at load, and at dial when a name hides it", rows=["S19"])
def _(t):
    lab = t.lab()
    literal = gateway.config([{"name": "p", "type": "socks5", "server": "198.18.0.2", "port": 1080}])
    status, lines = gateway.check_file(t, gateway.config_text(literal))
    check(status == 2 and "server" in lines[0], "exit %d: %s" % (status, lines))
    hosts = {81: "in.test", 82: "zero.test", 83: "own.test"}
    servers.unbound(lab, at.PROXY, ["in.test. 60 IN A 198.18.0.2", "zero.test. 60 IN A 0.0.0.0", "own.test. 60 IN A 198.18.0.1"])
    gw = lab.gateway(proxies=[{"name": "p%d" % p, "type": "socks5", "server": h, "port": 1080} for p, h in hosts.items()],
                     rules=["DST-PORT,%d,p%d" % (p, p) for p in hosts] + ["MATCH,REJECT"], prefix=resolv_prefix(t))
    seen = client.outcomes(lab.cli, {p: (at.TARGET[0], p) for p in hosts}, 4)
    check_table(["%s: %s" % (hosts[p], how) for p, (how, _) in seen.items() if how not in FAILED])
    check(gw.counter("upstream.loop_refused") >= len(hosts), "refused as a loop: %d" % gw.counter("upstream.loop_refused"))
    gw.wait_no_flows()
