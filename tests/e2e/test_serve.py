"""culvert serve: the far end, against curl and raw messages (RFC 1928, RFC 1929)."""
import socket
import struct
import subprocess

from harness import Failure, check, check_equal, client, gateway, servers, test, within
from harness import lab as at
from harness.core import check_table
from harness.gateway import SECRET


def talk(lab, port, data, wait=3):
    """Send all at once and read to the end, or what came in time."""
    with client.tcp(lab.gw, at.PROXY[0], port, timeout=wait) as s:
        s.sendall(data)
        got = b""
        try:
            while True:
                piece = s.recv(65536)
                if not piece:
                    return got, "FIN"
                got += piece
        except TimeoutError:
            return got, "open"
        except OSError:
            return got, "RST"


@test("curl through culvert serve: addresses and names, both families, up and down", quick=True)
def _(t):
    lab = t.lab()
    lab.services()
    server = servers.culvert_serve(lab)
    for target in at.TARGET:
        body = client.curl(lab.gw, servers.Services.url(target, "bytes/1000000"), "-x", "socks5h://%s:1082" % server.address)
        check_equal(len(body), 1000000)
    body = client.curl(lab.gw, "http://localhost:1/", "-x", "socks5h://%s:1082" % server.address, expect=97)
    check_equal(body, b"")


@test("a login: right, wrong and none", rows=["S6", "S7", "G7"])
def _(t):
    lab = t.lab()
    lab.services()
    server = servers.culvert_serve(lab, username="alice", password=SECRET)
    url = servers.Services.url(at.TARGET[0], "bytes/1000")
    check_equal(len(client.curl(lab.gw, url, "-x", server.url.replace("socks5", "socks5h"))), 1000)
    client.curl(lab.gw, url, "-x", "socks5h://alice:wrong@%s:1082" % server.address, expect=97)
    client.curl(lab.gw, url, "-x", "socks5h://%s:1082" % server.address, expect=97)
    check(SECRET not in server.process.text, "the password is in the log")
    body = lab.gateway(proxies=[server])
    client.curl_bytes(lab.cli, at.TARGET[0], 100000)
    check(SECRET not in body.log, "the password is in the gateway's log")


@test("SIGHUP: users, allow and limits of serve.socks5 are taken as the file says now, and what runs is not cut", limit=60)
def _(t):
    lab = t.lab()
    lab.services()
    server = servers.culvert_serve(lab, username="alice", password="sesame")
    url = servers.Services.url(at.TARGET[0], "bytes/10")

    def change(**keys):
        entry = {"listen": "%s:%d" % (server.address, server.port), "udp": True, "users": {"alice": "sesame"}, **keys}
        t.write("serve-%d.yaml" % server.port, gateway.config_text({"serve": {"socks5": entry}}), 0o600)
        server.process.signal(1)

    def fetch(who):
        """curl's exit status: 0, or 97 for what the proxy refuses."""
        argv = [servers.need("curl"), "-sS", "--max-time", "5", "-o", "/dev/null", "-x", "socks5h://%s@%s:%d" % (who, server.address, server.port)]
        return lab.gw.result(argv + [url], timeout=10).returncode

    def opened():
        s = client.tcp(lab.gw, server.address, server.port, timeout=10)
        s.sendall(b"\5\1\2\1\5alice\6sesame\5\1\0\1" + socket.inet_aton(at.TARGET[0]) + struct.pack("!H", 7))
        return s, client.receive(s, 14)
    running, answer = opened()
    check_equal(answer[:6], b"\5\2\1\0\5\0")
    halfway = client.tcp(lab.gw, server.address, server.port, timeout=10)
    halfway.sendall(b"\5\1\2")                              # it began with the users of before
    check_equal(client.receive(halfway, 2), b"\5\2")
    check_equal((fetch("alice:sesame"), fetch("bob:other")), (0, 97))
    change(users={"bob": "other"})
    within(t.slow(5), lambda: (fetch("alice:sesame"), fetch("bob:other")) == (97, 0), "bob is the user now")
    halfway.sendall(b"\1\5alice\6sesame")
    check_equal(client.receive(halfway, 2), b"\1\0")
    running.sendall(b"one")
    check_equal(client.receive(running, 3), b"one")
    change(allow=[at.TARGET[1]])
    within(t.slow(5), lambda: fetch("alice:sesame") == 97, "the target is not allowed any more")
    change(**{"per-user": {"flows": 1}})
    within(t.slow(5), lambda: fetch("alice:sesame") == 0, "and is again")
    second, answer = opened()
    check_equal((answer[5], fetch("alice:sesame")), (0, 97), "one flow at a time")
    change(users={})
    server.process.wait_line("is not taken: it has no serve.socks5.users any more", t.slow(5))
    running.sendall(b"two")
    check_equal(client.receive(running, 3), b"two")
    server.process.signal(15)
    check_equal(server.process.wait(t.slow(5)), 0)


@test("SIGHUP is obeyed as often as it comes, with limits of users and without", limit=60)
def _(t):
    lab = t.lab()
    server = servers.culvert_serve(lab, username="alice", password="sesame")

    def taken():
        return len([x for x in server.process.lines if "users, allow and limits are now as" in x])
    for i in range(70):
        entry = {"listen": "%s:%d" % (server.address, server.port), "users": {"alice": "sesame"}, "per-user": {"flows": i + 1 if i % 2 else "none"}}
        t.write("serve-%d.yaml" % server.port, gateway.config_text({"serve": {"socks5": entry}}), 0o600)
        server.process.signal(1)
        within(t.slow(5), lambda: taken() == i + 1, "the file is taken for the %dth time" % (i + 1))
    server.process.signal(15)
    check_equal(server.process.wait(t.slow(5)), 0)
    check(not gateway.SANITIZER_NOISE.search(server.process.text), server.process.text)


@test("a wrong login through the gateway: the client sees unreachable, the log names the proxy", rows=["S6", "S7"])
def _(t):
    lab = t.lab()
    server = servers.microsocks(lab, username="alice", password="right")
    server.password = SECRET
    gw = lab.gateway(proxies=[server])
    check_equal(client.outcome(lab.cli, at.TARGET[0], 80)[0], "EHOSTUNREACH")
    gw.says("login|password")


REPLIES = {"refused": (at.TARGET[0], 4, 5), "host unreachable": (at.UNREACHABLE[0], 4, 4), "no route": (at.NO_ROUTE[0], 4, 3),
           "prohibited": (at.PROHIBITED[0], 4, 2)}


@test("what it cannot reach is told by the right code", rows=["S8"])
def _(t):
    lab = t.lab()
    servers.culvert_serve(lab)
    wrong = []
    for what, (address, port, code) in REPLIES.items():
        got, _ = talk(lab, 1082, b"\5\1\0\5\1\0\1" + socket.inet_aton(address) + struct.pack(">H", port))
        if len(got) < 4 or got[3] != code:
            wrong.append("%s: %s" % (what, got.hex()))
    check_table(wrong)


BAD = {
    "nothing": b"", "version 4": b"\4\1\0\x50\1\2\3\4\0", "no methods": b"\5\0", "only GSSAPI": b"\5\1\1", "HTTP": b"GET / HTTP/1.0\r\n\r\n",
    "version 4 in the request": b"\5\1\0\4\1\0\1\1\2\3\4\0\7", "BIND": b"\5\1\0\5\2\0\1\1\2\3\4\0\7",
    "command 9": b"\5\1\0\5\x09\0\1\1\2\3\4\0\7", "address type 2": b"\5\1\0\5\1\0\2\1\2\3\4\0\7",
    "name of 0": b"\5\1\0\5\1\0\3\0\0\7", "name with NUL": b"\5\1\0\5\1\0\3\4a\0b\0\0\7", "port 0": b"\5\1\0\5\1\0\1\1\2\3\4\0\0",
    "a megabyte": b"\5" + b"\xff" * (1 << 20), "cut request": b"\5\1\0\5\1\0\1\1\2",
}


@test("bad requests get a code or an end, and the server lives", rows=["G1"])
def _(t):
    lab = t.lab()
    lab.services()
    server = servers.culvert_serve(lab)
    for data in BAD.values():
        try:
            talk(lab, 1082, data, wait=0.3)
        except OSError:
            continue
    check(server.process.alive(), server.process.text[-2000:])
    check_equal(len(client.curl(lab.gw, servers.Services.url(at.TARGET[0], "bytes/10"), "-x", server.url)), 10)


@test("its associate ends with its control connection", rows=["U7"])
def _(t):
    lab = t.lab()
    lab.services()
    servers.culvert_serve(lab)
    control = client.tcp(lab.gw, at.PROXY[0], 1082)
    control.sendall(b"\5\1\0\5\3\0\1\0\0\0\0\0\0")
    answer = client.receive(control, 12)
    check_equal(answer[2:4], b"\5\0", "reply")
    port = struct.unpack(">H", answer[-2:])[0]
    message = b"\0\0\0\1" + socket.inet_aton(at.TARGET[0]) + b"\0\7data"
    with client.udp(lab.gw, at.PROXY[0], port, timeout=3) as s:
        s.send(message)
        check_equal(s.recv(100)[-4:], b"data")
        s.send(b"\0\0\1" + message[3:])
        s.send(b"\0")
        control.close()
        s.settimeout(0.1)

        def dead():
            try:
                s.send(message)
                s.recv(100)
                return False
            except TimeoutError:
                return True
            except ConnectionRefusedError:
                return True
        within(3, dead, "the associate ended")


@test("a port in use, or a bad address: exit 2, one sentence", rows=["C8"])
def _(t):
    lab = t.lab()
    servers.culvert_serve(lab)
    for listen in ("%s:1082" % at.PROXY[0], "192.0.2.1:1080"):
        try:
            r = lab.srv.result([gateway.program(t), "serve", "--listen", listen], timeout=5)
        except subprocess.TimeoutExpired as e:
            raise Failure("%s is taken, and it started all the same" % listen) from e
        check(r.returncode in (1, 2) and len(r.stderr.splitlines()) <= 2 and r.stderr, "exit %d: %s" % (r.returncode, r.stderr))


@test("SIGTERM ends it within 2 s, with connections open", rows=["X1"])
def _(t):
    lab = t.lab()
    lab.services()
    server = servers.culvert_serve(lab)
    held = [client.tcp(lab.gw, server.address, server.port) for _ in range(20)]
    server.process.signal(15)
    check_equal(server.process.wait(t.slow(2)), 0)
    for s in held:
        s.close()
    check(not gateway.SANITIZER_NOISE.search(server.process.text), server.process.text)


@test("demo: the tour works and exits 0", limit=60, quick=True)
def _(t):
    lab = t.lab()
    before = gateway.network_state(lab.gw)
    r = subprocess.run(lab.gw.argv([gateway.program(t), "demo"]), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                       timeout=55, stdin=subprocess.DEVNULL)
    check_equal(r.returncode, 0, r.stdout[-3000:] + r.stderr[-3000:])
    for word in ("TCP", "UDP", "DNS", "ping", "IPv6"):
        check(word.lower() in r.stdout.lower(), "no %s in the table:\n%s" % (word, r.stdout))
    gateway.check_network(lab.gw, before)
    check_equal(lab.gw.pids(), [], "processes left")


@test("per-user: what one user may have at a time; the others are told that it is not allowed")
def _(t):
    lab = t.lab()
    lab.services()
    conf = gateway.config_text({"serve": {"socks5": {"listen": "%s:1082" % at.PROXY[0], "users": {"alice": "a", "bob": "b"},
                                                     "per-user": {"flows": 2, "rate": "50Mbit"}}}})
    servers.Process(t, lab.srv, [gateway.program(t), "serve", "-c", t.write("serve.yaml", conf, 0o600)], "serve")
    servers.wait_port(lab.srv, at.PROXY[0], 1082, seconds=t.slow(10))

    def ask(user, password):
        s = client.tcp(lab.gw, at.PROXY[0], 1082, timeout=5)
        s.sendall(b"\5\1\2\1" + bytes([len(user)]) + user + bytes([len(password)]) + password +
                  b"\5\1\0\1" + socket.inet_aton(at.TARGET[0]) + struct.pack(">H", 7))
        return s, client.receive(s, 14)[5]
    held = [ask(b"alice", b"a") for _ in range(3)]
    check_equal([code for _, code in held], [0, 0, 2])
    other = ask(b"bob", b"b")
    check_equal(other[1], 0)
    held[0][0].close()
    within(t.slow(5), lambda: ask(b"alice", b"a")[1] == 0, "a place is free again")
