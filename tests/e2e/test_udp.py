"""Datagrams: DNS, one association for a client port, servers without UDP, relays that lie."""
import socket
import struct
import time

from faultd import METHOD_NONE, FaultServer, UdpRelay, cut_after, greet, half, handshake, hang, reply, request, send, wait
from harness import Failure, check, check_equal, client, servers, test, within
from harness import lab as at
from harness.bystander import bystanders, rules as bystander_rules
from harness.core import check_table, errno_name

WITH_UDP = {"dante": servers.dante, "culvert serve": servers.culvert_serve}


@test("dig over UDP and TCP, both families", rows=["F8"], cases=WITH_UDP, quick=True)
def _(t, start_server):
    lab = t.lab()
    servers.unbound(lab)
    lab.gateway(proxies=[start_server(lab)])
    for server in at.TARGET:
        check_equal(client.dig(lab.cli, server, "example.test"), [at.TARGET[0]], "A from " + server)
        check_equal(client.dig(lab.cli, server, "example.test", "AAAA", "+tcp"), [at.TARGET[1]], "AAAA by TCP")
        check_equal(len(client.dig(lab.cli, server, "big.test", "TXT")), 6, "an answer that needs TCP")
        check_equal(len(client.dig(lab.cli, server, "big.test", "TXT", "+bufsize=4096")), 6, "a fragmented answer")


@test("datagrams of every size come back as they went, empty ones too", rows=["U3", "U4", "F8"],
      cases=WITH_UDP, limit=40)
def _(t, start_server):
    lab = t.lab()
    lab.services()
    server = start_server(lab)
    gw = lab.gateway(proxies=[server])
    sizes = [0, 1, 1399, 1472, 1473, 8000, 40000, 60000]
    for target in at.TARGET:
        with client.udp(lab.cli, target, 7) as s:
            for size in sizes:
                data = bytes(i * 31 % 256 for i in range(size))
                s.send(data)
                try:
                    back = s.recv(65536)
                except TimeoutError as e:
                    raise Failure("%d bytes to %s got no answer" % (size, target)) from e
                check_equal(back == data, True, "%d bytes to %s" % (size, target))
    with client.udp(lab.cli, at.TARGET[0], 7, timeout=1) as s:
        s.send(b"z" * 65507)        # with a SOCKS header it is too long for a datagram: dropped, never a crash
        try:
            s.recv(65536)
        except OSError:
            pass
    gw.check_alive()


@test("one socket that sends to many targets is one association, with 1 and 4 workers", rows=["UDP-1"],
      cases={"1 worker": 1, "4 workers": 4}, limit=40)
def _(t, workers):
    lab = t.lab()
    relay = UdpRelay(t, lab.srv, at.PROXY[0], 2000)
    lab.gateway(proxies=[relay.proxy()], workers=workers)
    with client.udp(lab.cli, family=socket.AF_INET, source=at.CLI[0]) as s:
        s.sendto(b"first", ("10.77.9.1", 999))
        relay.wait_datagrams(1)                  # while an association opens, 16 datagrams are held
        for i in range(1000):
            s.sendto(b"%d" % i, ("10.77.9.%d" % (1 + i % 250), 1000 + i))
            if i % 50 == 49:
                relay.wait_datagrams(i - 20)
        relay.wait_datagrams(900)
        check_equal(relay.associates, 1, "associations for one client port")
        senders = {sender for _, _, sender in relay.datagrams}
        check_equal(len(senders), 1, "ports of ours at the relay")
    t.note("%d of 1,000 datagrams reached the relay" % len(relay.datagrams))


@test("a mapping does not depend on the target: the far side sees one port", rows=["UDP-1"])
def _(t):
    lab = t.lab()
    lab.services()
    lab.direct_route()
    lab.gateway(rules=["MATCH,DIRECT"])
    with client.udp(lab.cli, family=socket.AF_INET, source=at.CLI[0]) as s:
        seen = set()
        for target in (at.TARGET[0], at.TARGET2[0], at.TARGET[0]):
            s.sendto(b"who", (target, 7001))
            seen.add(s.recv(100))
    check_equal(len(seen), 1, "addresses and ports seen by the targets: %s" % seen)


@test("two client ports are two associations, and an idle one ends", rows=["UDP-1", "G4"])
def _(t):
    lab = t.lab()
    relay = UdpRelay(t, lab.srv, at.PROXY[0], 2000)
    gw = lab.gateway(proxies=[relay.proxy()], stack={"udp": {"idle-timeout": "1s", "dns-idle-timeout": "1s"}})
    for i in range(2):
        with client.udp(lab.cli, at.TARGET[0], 9) as s:
            s.send(b"x%d" % i)
            check_equal(s.recv(10), b"x%d" % i)
    check_equal(relay.associates, 2, "associations")
    within(6, lambda: all(c.ended.is_set() for c in relay.connections), "idle associations closed")
    gw.wait_no_flows(kind="udp")


@test("a client port that changes in mid-flow is a new mapping; the old one lives on and then idles out",
      rows=["U14", "UDP-1", "G4"])
def _(t):
    lab = t.lab()
    relay = UdpRelay(t, lab.srv, at.PROXY[0], 2000)
    gw = lab.gateway(proxies=[relay.proxy()], stack={"udp": {"idle-timeout": "1s", "dns-idle-timeout": "1s"}})
    with client.udp(lab.cli, at.TARGET[0], 443) as before, client.udp(lab.cli, at.TARGET[0], 443) as after:
        before.send(b"connection 1, packet 1")
        check_equal(before.recv(100), b"connection 1, packet 1", "before the move")
        after.send(b"connection 1, packet 2")
        check_equal(after.recv(100), b"connection 1, packet 2", "after the move")
        check_equal(relay.associates, 2, "associations: a moved client looks like a new one to the server, too")
        senders = [sender for _, _, sender in relay.datagrams]
        check(senders[0] != senders[1], "both came from one port of ours: %s" % senders)
        before.send(b"late")                 # what was on its way still has its mapping
        check_equal(before.recv(100), b"late", "by the old port")
        check_equal(gw.flows("udp"), 2, "mappings while both are in use")
    first = relay.connections[0].ended
    within(6, lambda: first.is_set(), "the old mapping idled out")
    gw.wait_no_flows(kind="udp")


def refused_at_once(lab, address, port=4443):
    """Send until port unreachable comes back: seconds, or None within 2 s."""
    with client.udp(lab.cli, address, port, timeout=0.3) as s:
        start = time.monotonic()
        while time.monotonic() - start < 2:
            try:
                s.send(b"quic?")
                s.recv(100)
            except ConnectionRefusedError:
                return time.monotonic() - start
            except TimeoutError:
                continue
    return None


NO_UDP = {
    "microsocks says 05 07": lambda t, lab: servers.microsocks(lab).proxy(udp="auto"),
    "the server hangs up": lambda t, lab: FaultServer(t, lab.srv, at.PROXY[0], 2000, no_udp([half(), hang()])).proxy(udp="auto"),
    "udp: false": lambda t, lab: servers.dante(lab).proxy(udp=False),
}


def no_udp(steps):
    """A server that relays TCP and answers ASSOCIATE with `steps`."""
    def plan(connection):
        def decide():
            yield greet()
            yield send(METHOD_NONE)
            yield request()
            if is_associate(connection):
                yield from steps
            else:
                yield send(reply())
                yield ("relay",)
        return decide()
    return plan


def is_associate(connection):
    """The request follows the greeting in what was read."""
    return connection.received[2 + connection.received[1] + 1] == 3


@test("an upstream without UDP: port unreachable at once, DNS over TCP", rows=["U6", "G5"], cases=NO_UDP)
def _(t, proxy):
    lab = t.lab()
    servers.unbound(lab)
    lab.direct_route()
    entry = proxy(t, lab)
    gw = lab.gateway(proxies=[entry])
    only = lab.only("tcp port %d" % entry["port"])
    check_equal(client.dig(lab.cli, at.TARGET[0], "example.test"), [at.TARGET[0]], "DNS by UDP from the client")
    check_equal(client.dig(lab.cli, at.TARGET[1], "example.test", "AAAA"), [at.TARGET[1]])
    first = refused_at_once(lab, at.TARGET[0])
    check(first is not None, "no port unreachable within 2 s")
    again = refused_at_once(lab, at.TARGET[1], 443)
    check(again is not None and again < t.slow(1), "the second was refused after %s s" % again)
    only.check_nothing()
    t.note("refused after %.0f ms, later %.0f ms" % (first * 1e3, again * 1e3))
    gw.check_alive()


@test("a name server that is silent over TCP holds no question longer than an idle DNS flow", rows=["U6", "G3"])
def _(t):
    lab = t.lab()
    server = FaultServer(t, lab.srv, at.PROXY[0], 2000, handshake([hang()]))
    gw = lab.gateway(proxies=[server.proxy(udp=False)], stack={"udp": {"dns-idle-timeout": "1s"}})
    with client.udp(lab.cli, at.TARGET[0], 53) as s:
        def first_is_over():
            s.send(b"\0\1\1\0\0\1\0\0\0\0\0\0\1a\0\0\1\0\1")
            return server.connections and server.connections[0].ended.is_set()
        within(t.slow(3), first_is_over, "the end of the first question", every=0.3)
        check(not server.connections[-1].ended.wait(0.1), "the latest question has ended, too")
    gw.wait_no_flows(kind="udp")


@test("what was learned of an upstream without UDP is asked once, not per datagram", rows=["U6"])
def _(t):
    lab = t.lab()
    server = FaultServer(t, lab.srv, at.PROXY[0], 2000, [greet(), send(METHOD_NONE), request(), send(reply(7)), half(), hang()])
    lab.gateway(proxies=[server.proxy(udp="auto")], workers=1)
    for i in range(20):
        check(refused_at_once(lab, at.TARGET[0], 5000 + i) is not None, "datagram %d was not refused" % i)
    t.note("%d dials for 20 refused flows" % len(server.connections))
    check(len(server.connections) <= 3, "%d dials" % len(server.connections))


@test("the control connection dies while datagrams flow: a new associate, nothing direct", rows=["U7", "G5", "G2"], limit=40)
def _(t):
    lab = t.lab()
    lab.services()
    lab.direct_route()
    relay = UdpRelay(t, lab.srv, at.PROXY[0], 2000)
    good = servers.culvert_serve(lab, at.PROXY2[0])
    gw = lab.gateway(proxies=[relay.proxy(), good.proxy("good")], rules=bystander_rules() + ["MATCH,up"])
    only = lab.only("host %s or host %s" % (at.PROXY[0], at.PROXY2[0]))
    with bystanders(lab), client.udp(lab.cli, at.TARGET[0], 9, timeout=0.2) as s:
        for round_ in range(3):
            within(5, lambda: echoed(s), "an answer in round %d" % round_)
            relay.connections[-1].socket.shutdown(socket.SHUT_RDWR)
        within(5, lambda: echoed(s), "an answer after the third loss")
    check(relay.associates >= 3, "%d associates" % relay.associates)
    only.check_nothing()
    gw.check_alive()


def echoed(s):
    """One datagram there and back."""
    try:
        s.send(b"ping")
        return s.recv(100) == b"ping"
    except (TimeoutError, ConnectionRefusedError):
        return False


@test("datagrams before the associate is ready: up to 16, in order, oldest dropped", rows=["U13", "U7"])
def _(t):
    lab = t.lab()
    relay = UdpRelay(t, lab.srv, at.PROXY[0], 2000, before=[wait(0.5)], answer=lambda *a: None)
    gw = lab.gateway(proxies=[relay.proxy()])
    with client.udp(lab.cli, at.TARGET[0], 9) as s:
        for i in range(40):
            s.send(b"%02d" % i)
        relay.wait_datagrams(16, seconds=t.slow(4))
        s.send(b"last")
        within(3, lambda: relay.datagrams[-1][1] == b"last", "the last datagram")
    got = [p for _, p, _ in relay.datagrams]
    check_equal(got, [b"%02d" % i for i in range(24, 40)] + [b"last"], "what reached the relay")
    gw.check_alive()


LIES = {                # what the relay does with a datagram; the client must never see it
    "from another port": lambda r, h, p, sender: r.stranger.sendto(h + b"LIE", sender),
    "two bytes": lambda r, h, p, sender: r.relay_socket.sendto(b"\0\0", sender),
    "header cut": lambda r, h, p, sender: r.relay_socket.sendto(h[:-1], sender),
    "reserved bytes set": lambda r, h, p, sender: r.relay_socket.sendto(b"\1\0" + h[2:] + b"LIE", sender),
    "a fragment": lambda r, h, p, sender: r.relay_socket.sendto(b"\0\0\1" + h[3:] + b"LIE", sender),
    "address type 0": lambda r, h, p, sender: r.relay_socket.sendto(h[:3] + b"\0" + h[4:] + b"LIE", sender),
    "address type 2": lambda r, h, p, sender: r.relay_socket.sendto(h[:3] + b"\2" + h[4:] + b"LIE", sender),
    "address type 5": lambda r, h, p, sender: r.relay_socket.sendto(h[:3] + b"\5" + h[4:] + b"LIE", sender),
    "address type 255": lambda r, h, p, sender: r.relay_socket.sendto(h[:3] + b"\xff" + h[4:] + b"LIE", sender),
    "name past the end": lambda r, h, p, sender: r.relay_socket.sendto(h[:3] + b"\3\xff" + b"LIE", sender),
}


@test("a reply that is not what the relay may send is dropped and counted", rows=["U8", "U9", "G1", "G6"])
def _(t):
    lab = t.lab()
    current = {}
    relay = UdpRelay(t, lab.srv, at.PROXY[0], 2000, answer=lambda *a: current["lie"](*a))
    gw = lab.gateway(proxies=[relay.proxy()])
    wrong = []
    with client.udp(lab.cli, at.TARGET[0], 9, timeout=3) as s:
        for name, lie in LIES.items():
            current["lie"] = lambda r, h, p, sender: (lie(r, h, p, sender), r.relay_socket.sendto(h + p, sender))
            s.send(name.encode())
            got = s.recv(1000)          # the truth follows each lie on the same path
            if got != name.encode():
                wrong.append("%s: the client got %r" % (name, got))
    check_table(wrong)
    dropped = gw.counter("socks.udp_malformed")     # a wrong sender is filtered by the kernel: the socket is connected
    t.note("%d lies, %d counted" % (len(LIES), dropped))
    check(dropped >= len(LIES) - 1, "%d lies counted of %d" % (dropped, len(LIES)))


@test("a relay that answers with a name is believed: the flow's own target is the source", rows=["U9"])
def _(t):
    lab = t.lab()
    relay = UdpRelay(t, lab.srv, at.PROXY[0], 2000, answer=lambda r, h, p, sender: r.relay_socket.sendto(
        b"\0\0\0\3\x09some.name" + h[-2:] + p, sender))
    lab.gateway(proxies=[relay.proxy()])
    check_equal(client.ask(lab.cli, at.TARGET[0], 9, b"hello"), b"hello")


@test("a relay that announces 0.0.0.0 means the server's own address", rows=["U8"])
def _(t):
    lab = t.lab()
    relay = UdpRelay(t, lab.srv, at.PROXY[0], 2000, announce="0.0.0.0")
    lab.gateway(proxies=[relay.proxy()])
    check_equal(client.ask(lab.cli, at.TARGET[0], 9, b"hello"), b"hello")


@test("a relay cuts replies: they are passed on as they came", rows=["U10"])
def _(t):
    lab = t.lab()
    relay = UdpRelay(t, lab.srv, at.PROXY[0], 2000,
                     answer=lambda r, h, p, sender: r.relay_socket.sendto(h + p[:2038], sender))
    lab.gateway(proxies=[relay.proxy()])
    check_equal(client.ask(lab.cli, at.TARGET[0], 9, b"c" * 5000), b"c" * 2038)


@test("a stranger that knows our port is not heard", rows=["U11"])
def _(t):
    lab = t.lab()
    relay = UdpRelay(t, lab.srv, at.PROXY[0], 2000)
    lab.gateway(proxies=[relay.proxy()])
    with client.udp(lab.cli, at.TARGET[0], 9) as s:
        s.send(b"open")
        check_equal(s.recv(10), b"open")
        header, _, ours = relay.datagrams[0]
        stranger = lab.srv.socket(socket.AF_INET, socket.SOCK_DGRAM)
        stranger.bind((at.PROXY2[0], relay.relay_port))
        stranger.sendto(header + b"LIE", ours)
        s.send(b"again")
        check_equal(s.recv(10), b"again")
        stranger.close()


@test("a target whose port is closed: the client gets port unreachable, and the mapping lives", rows=["U12", "G8"])
def _(t):
    lab = t.lab()
    lab.services()
    lab.direct_route()
    lab.gateway(rules=["MATCH,DIRECT"])
    for target in at.TARGET:
        with client.udp(lab.cli, target, 5, timeout=2) as s:
            s.send(b"anyone?")
            try:
                s.recv(100)
                how = "answered"
            except OSError as e:
                how = errno_name(e)
        check_equal(how, "ECONNREFUSED", target)
    with client.udp(lab.cli, family=socket.AF_INET, source=at.CLI[0], timeout=3) as s:
        s.sendto(b"x", (at.TARGET[0], 5))
        within(3, lambda: sent_and_back(s), "an answer after a refused datagram")


def sent_and_back(s):
    s.settimeout(0.3)
    try:
        s.sendto(b"still", (at.TARGET[0], 7))
        return s.recv(100) == b"still"
    except (TimeoutError, ConnectionRefusedError):
        return False


@test("the path beyond us is narrower: too big is told, or the datagram arrives in pieces", rows=["U12"])
def _(t):
    lab = t.lab()
    lab.services()
    lab.direct_route()
    lab.gw.ip("link set wan0 mtu 1400")
    lab.srv.ip("link set eth0 mtu 1400")
    gw = lab.gateway(rules=["MATCH,DIRECT"])
    with client.udp(lab.cli, at.TARGET[0], 7, timeout=0.5) as s:
        def there_and_back():
            try:
                s.send(b"m" * 1450)
                return len(s.recv(2000)) == 1450
            except OSError as e:
                return errno_name(e) == "EMSGSIZE"
        within(5, there_and_back, "an answer, or EMSGSIZE")
    gw.check_alive()


@test("a flood of new flows from one client meets its limit; others' DNS is unharmed", rows=["U5", "G2", "G3"], limit=40)
def _(t):
    lab = t.lab()
    lab.services()
    servers.unbound(lab, at.TARGET2)
    good = servers.culvert_serve(lab, at.PROXY2[0])
    gw = lab.gateway(proxies=[servers.culvert_serve(lab).proxy("up"), good.proxy("good")],
                     rules=bystander_rules() + ["MATCH,up"], limits={"per-source": 200, "udp": 1000})
    before = gw.resources()
    asked = answered = 0
    with bystanders(lab):
        end = time.monotonic() + 2
        port = 10000
        while time.monotonic() < end:
            for _ in range(50):
                port = 10000 + (port - 9999) % 50000
                with client.udp(lab.cli, family=socket.AF_INET, source=at.CLI[0], source_port=port) as s:
                    s.sendto(b"scan", (at.TARGET[0], 9))
            asked += 1
            with lab.cli.entered():
                answered += query(at.CLI2[0])
    after = gw.resources()
    t.note("%d of %d queries of another client answered; descriptors %d -> %d, RSS %d -> %d KiB, limit_source %d"
           % (answered, asked, before.fds, after.fds, before.rss_kib, after.rss_kib, gw.counter("flow.limit_source")))
    check(answered >= asked * 0.9, "%d of %d queries answered" % (answered, asked))
    check(after.fds - before.fds < 900, "descriptors grew from %d to %d" % (before.fds, after.fds))


def query(source):
    """1 if example.test was answered within a second."""
    message = struct.pack(">6H", 7, 0x100, 1, 0, 0, 0) + b"\7example\4test\0\0\1\0\1"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(1)
        s.bind((source, 0))
        s.sendto(message, (at.TARGET2[0], 53))
        try:
            return int(s.recv(512)[:2] == b"\0\7")
        except OSError:
            return 0


@test("the handshake of an associate is cut at each byte: silence or unreachable, then it works again", rows=["U13", "S3"])
def _(t):
    lab = t.lab()
    broken = FaultServer(t, lab.srv, at.PROXY[0], 2000, cut_after(5, [half(), hang()]))
    gw = lab.gateway(proxies=[broken.proxy(udp=True)])
    with client.udp(lab.cli, at.TARGET[0], 9, timeout=0.3) as s:
        for _ in range(5):
            echoed(s)
    gw.wait_no_flows()
    gw.check_alive()
