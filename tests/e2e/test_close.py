"""How a connection ends for one side is how it ends for the other."""
import socket
import time

from faultd import (FaultServer, close, cut_after, drip, echo, half, handshake, hang, read, reset, send, server_bytes, stall,
                    trickle)
from harness import check, check_equal, client, servers, test, within
from harness import lab as at
from harness.bystander import bystanders, rules as bystander_rules
from harness.core import errno_name
from harness.services import stream_blocks


HANDSHAKE_IN = 3 + 10       # what a client without login sends in a handshake to an IPv4 target


def send_all(s, length):
    for b in stream_blocks(length):
        s.sendall(b)


@test("half close: the client ends, the server answers afterwards", rows=["T13", "S21", "CLS-1"],
      cases={"IPv4": at.TARGET[0], "IPv6": at.TARGET[1]})
def _(t, target):
    lab = t.lab()
    lab.services()
    lab.gateway(proxies=[servers.dante(lab)])
    with client.tcp(lab.cli, target, 7000) as s:
        s.sendall(b"late\n" + b"q" * 100000)
        s.shutdown(socket.SHUT_WR)
        data, how = client.receive_end(s)
    check_equal((len(data), how), (100 * 1024, "FIN"), "the answer after our end")


@test("half close the other way: the server ends, the client goes on sending", rows=["T13"])
def _(t):
    lab = t.lab()
    got = FaultServer(t, lab.srv, at.PROXY[0], 2000, handshake([send(b"bye"), half(), read(300000)]))
    lab.gateway(proxies=[got.proxy()])
    with client.tcp(lab.cli, at.TARGET[0], 80) as s:
        check_equal(client.receive_end(s), (b"bye", "FIN"))
        send_all(s, 300000)
        got.wait_connections(1)[0].ended.wait(10)
    check(len(got.connections[0].received) >= 300000, "the server got %d bytes" % len(got.connections[0].received))


@test("the client resets in the middle: the server sees a reset", rows=["T14", "CLS-2"])
def _(t):
    lab = t.lab()
    server = FaultServer(t, lab.srv, at.PROXY[0], 2000, handshake([send(b"hello"), echo()]))
    gw = lab.gateway(proxies=[server.proxy()])
    s = client.tcp(lab.cli, at.TARGET[0], 80)
    client.receive(s, 5)
    client.reset(s)
    c = server.wait_connections(1)[0]
    check(c.ended.wait(5), "the server's connection is still open")
    check_equal(c.how, "RST", "how it ended at the server")
    gw.wait_no_flows()


@test("the server resets in the middle: what it sent arrives, then a reset", rows=["S17", "G8"],
      cases={"IPv4": at.TARGET[0], "IPv6": at.TARGET[1]})
def _(t, target):
    lab = t.lab()
    payload = b"".join(stream_blocks(200000))
    server = FaultServer(t, lab.srv, at.PROXY[0], 2000,
                         handshake([send(payload), read(3), reset()]))
    gw = lab.gateway(proxies=[server.proxy()])
    with client.tcp(lab.cli, target, 80) as s:
        check_equal(client.receive(s, len(payload)), payload, "bytes before the reset")
        s.sendall(b"now")
        check_equal(client.receive_end(s), (b"", "ECONNRESET"), "how it ended")
    gw.wait_no_flows()


@test("a client that sends on and reads nothing does not keep a broken connection", rows=["S17", "CLS-2"], limit=40)
def _(t):
    lab = t.lab()
    payload = b"".join(stream_blocks(100000))
    server = FaultServer(t, lab.srv, at.PROXY[0], 2000, handshake([send(payload), read(3), reset()]))
    gw = lab.gateway(proxies=[server.proxy()])
    with lab.cli.socket(socket.AF_INET, socket.SOCK_STREAM) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.settimeout(10)
        s.connect((at.TARGET[0], 80))
        s.sendall(b"now")
        check(server.wait_connections(1)[0].ended.wait(5), "the server has not reset")
        start = time.monotonic()
        within(t.slow(8), lambda: knocks_in_vain(s), "the end", every=0.5)
        t.note("ended %.1f s after the server was gone" % (time.monotonic() - start))
    gw.wait_no_flows()


def knocks_in_vain(s):
    """One more byte; True once the connection is gone."""
    try:
        return s.send(b".") == 0
    except (BrokenPipeError, ConnectionResetError):
        return True


@test("the server ends in the middle of a reply: the client sees an end", rows=["S16"])
def _(t):
    lab = t.lab()
    server = FaultServer(t, lab.srv, at.PROXY[0], 2000, handshake([send(b"half a rep"), close()]))
    lab.gateway(proxies=[server.proxy()])
    with client.tcp(lab.cli, at.TARGET[0], 80) as s:
        check_equal(client.receive_end(s), (b"half a rep", "FIN"))


@test("an upstream that never reads closes the client's window, and nobody else's", rows=["S14", "G2", "G3"], limit=40)
def _(t):
    lab = t.lab()
    lab.services()
    bad = FaultServer(t, lab.srv, at.PROXY[0], 2000, handshake([stall()]), receive_buffer=8192)
    good = servers.culvert_serve(lab, at.PROXY2[0])
    gw = lab.gateway(proxies=[bad.proxy("up"), good.proxy("good")], rules=bystander_rules() + ["MATCH,up"])
    before = gw.resources()
    stuck = []
    with bystanders(lab):
        for _ in range(20):
            s = t.own(client.tcp(lab.cli, at.TARGET[0], 80), "close")
            s.setblocking(False)
            stuck.append(s)
        sent = [fill(s) for s in stuck]
        cpu0, time0 = gw.resources().cpu_s, time.monotonic()
        more = within(2, lambda: time.monotonic() - time0 > 1 and [fill(s) for s in stuck], "a second of standstill")
    after = gw.resources()
    check(max(sent) < 64 << 20, "a client could send %d bytes to a server that does not read" % max(sent))
    t.note("20 stalled uploads: at most %d KiB each, %d KiB more a second later; RSS %d -> %d KiB; %.2f s CPU with bystanders"
           % (max(sent) // 1024, max(more) // 1024, before.rss_kib, after.rss_kib, after.cpu_s - cpu0))
    for s in stuck:
        client.reset(s)
    gw.wait_no_flows()


def fill(s):
    """Send until the window is closed for a tenth of a second; bytes sent."""
    import select
    n = 0
    while select.select([], [s], [], 0.1)[1]:
        try:
            n += s.send(b"z" * 65536)
        except BlockingIOError:
            continue
        if n > 64 << 20:
            break
    return n


@test("one byte a second is no time-out", rows=["S15"],
      cases={"reading": "reads", "sending": "sends"})
def _(t, way):
    lab = t.lab()
    lab.services()
    plan = handshake([trickle(1)]) if way == "reads" else handshake([drip(b"abc", 1), hang()])
    server = FaultServer(t, lab.srv, at.PROXY[0], 2000, plan)
    lab.gateway(proxies=[server.proxy()], stack={"tcp": {"connect-timeout": "1s"}})
    with client.tcp(lab.cli, at.TARGET[0], 80) as s:
        if way == "sends":
            check_equal(client.receive(s, 3), b"abc")
            return
        s.sendall(b"xyz")
        server.wait_connections(1)
        within(6, lambda: len(server.connections[0].received) >= HANDSHAKE_IN + 3, "three bytes read")
        s.settimeout(0.1)
        try:
            check(s.recv(1) != b"", "ended while there was progress")
        except TimeoutError:
            pass


@test("an idle connection ends at idle-timeout, a half-closed one at half-close-timeout")
def _(t):
    lab = t.lab()
    lab.services()
    gw = lab.gateway(proxies=[servers.dante(lab)], stack={"tcp": {"idle-timeout": "1s", "half-close-timeout": "1s"}})
    idle = t.own(client.tcp(lab.cli, at.TARGET[0], 7), "close")
    halved = t.own(client.tcp(lab.cli, at.TARGET[0], 7000), "close")
    halved.sendall(b"stall\n")
    halved.shutdown(socket.SHUT_WR)
    for s, what in ((idle, "idle"), (halved, "half-closed")):
        s.settimeout(8)
        _, how = client.receive_end(s)
        check(how in ("FIN", "ECONNRESET"), "the %s connection: %s" % (what, how))
    gw.wait_no_flows()


@test("a client that gives up while we dial cancels the dial", rows=["T11"])
def _(t):
    lab = t.lab()
    server = FaultServer(t, lab.srv, at.PROXY[0], 2000, cut_after(server_bytes() - 1, [hang()]))
    gw = lab.gateway(proxies=[server.proxy()], stack={"tcp": {"connect-timeout": "8s"}})
    try:
        client.tcp(lab.cli, at.TARGET[0], 80, timeout=0.5)
        how = "open"
    except OSError as e:
        how = errno_name(e)
    check_equal(how, "timed out", "late accept: no answer before the upstream's")
    check_equal(len(server.connections), 1, "dials for one client")
    check(server.connections[0].ended.wait(12), "the dial was never ended")
    gw.wait_no_flows(4)
