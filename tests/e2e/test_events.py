"""GET /v1/events: what a listener hears, and what becomes of one that breaks the rules (faults.md A5)."""
import base64
import hashlib
import json
import os
import socket
import struct

from harness import check, check_equal, client, servers, test, within
from harness import lab as at

HEAD = ("GET /v1/events HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n")
TEXT, CLOSE, PING, PONG = 1, 8, 9, 10


class Listener:
    """A client of the websocket (RFC 6455), as raw as the test wants it."""

    def __init__(self, gw, receive_bytes=None, more=b""):
        self.s = socket.socket(socket.AF_UNIX)
        self.s.settimeout(20)
        if receive_bytes:
            self.s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.s.connect(gw.api)
        key = base64.b64encode(os.urandom(16)).decode()
        self.s.sendall((HEAD % key).encode() + more)
        head = b""
        while b"\r\n\r\n" not in head:
            head += self.exactly(1)
        check(head.startswith(b"HTTP/1.1 101 "), "handshake: %r" % head)
        wanted = base64.b64encode(hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest())
        check(wanted in head, "accept: %r" % head)

    def exactly(self, n):
        data = b""
        while len(data) < n:
            piece = self.s.recv(n - len(data))
            if not piece:
                raise ConnectionResetError
            data += piece
        return data

    def frame(self):
        first, length = self.exactly(2)
        check_equal(length & 0x80, 0, "a server's frame is not masked")
        if length == 126:
            length = struct.unpack("!H", self.exactly(2))[0]
        elif length == 127:
            length = struct.unpack("!Q", self.exactly(8))[0]
        return first & 15, self.exactly(length)

    def event(self, kind):
        while True:
            opcode, data = self.frame()
            if opcode == TEXT:
                event = json.loads(data)
                if event["event"] == kind:
                    return event

    def closed_with(self):
        """The code of their close; None: the connection ended without one."""
        try:
            while True:
                opcode, data = self.frame()
                if opcode == CLOSE:
                    return struct.unpack("!H", data[:2])[0] if len(data) >= 2 else 1005
        except ConnectionResetError:
            return None


def frame(opcode, data=b"", fin=True, mask=True, length=None):
    n = len(data) if length is None else length
    head = bytes([(0x80 if fin else 0) | opcode])
    bit = 0x80 if mask else 0
    head += bytes([bit | n]) if n < 126 else bytes([bit | 126]) + struct.pack("!H", n) if n < 65536 else \
        bytes([bit | 127]) + struct.pack("!Q", n)
    return head + (b"\0\0\0\0" if mask else b"") + data


def start(lab):
    return lab.gateway(proxies=[servers.culvert_serve(lab)], rules=["MATCH,up"])


@test("a listener hears of counters and of each flow that ends, with its reason", quick=True)
def _(t):
    lab = t.lab()
    lab.services()
    gw = start(lab)
    listener = Listener(gw)
    check_equal(listener.event("counters")["lost"], 0)
    s = client.tcp(lab.cli, at.TARGET[0], 7000)
    port = s.getsockname()[1]
    s.sendall(b"echo\n01234567")
    client.receive(s, 8)
    s.close()
    ended = listener.event("ended")
    check_equal((ended["network"], ended["upstream"], ended["rule"], ended["up"] >= 13, ended["down"] >= 8),
                ("tcp", "up", "MATCH,up", True, True), repr(ended))
    check(ended["source"].endswith(":%d" % port) and ended["reason"], repr(ended))
    listener.s.sendall(frame(PING, b"hello"))
    while True:
        opcode, data = listener.frame()
        if opcode == PONG:
            break
    check_equal(data, b"hello", "a pong")
    listener.s.sendall(frame(CLOSE, struct.pack("!H", 1000)))
    check_equal(listener.closed_with(), 1000, "their close")


WRONG = {
    "not masked": (frame(TEXT, b"x", mask=False), 1002),
    "a control frame in pieces": (frame(PING, b"x", fin=False), 1002),
    "a control frame of 126 bytes": (frame(PING, b"x" * 126), 1002),
    "an opcode that is none": (frame(3, b"x"), 1002),
    "a reserved bit": (bytes([0xC1]) + frame(TEXT, b"x")[1:], 1002),
    "2^63 bytes": (frame(TEXT, b"", length=1 << 63), 1002),
    "2^62 bytes": (frame(TEXT, b"x", length=1 << 62), 1009),
    "2,000 bytes": (frame(TEXT, b"x" * 2000), 1009),
    "a piece without a first": (frame(0, b"x"), 1002),
}


@test("a listener that breaks the rules is closed with the reason, others stay", rows=["A5"], cases=WRONG, quick=True)
def _(t, data, code):
    lab = t.lab()
    gw = start(lab)
    other = Listener(gw)
    bad = Listener(gw)
    bad.s.sendall(data)
    got = bad.closed_with()
    check(got == code or (got is None and code == 1002), "closed with %r, not %d" % (got, code))
    early = Listener(gw, more=data)
    got = early.closed_with()
    check(got == code or (got is None and code == 1002), "in one piece with the handshake: %r, not %d" % (got, code))
    check_equal(other.event("counters")["event"], "counters", "the other one")
    gw.status()


@test("a listener that never reads loses updates, and no memory is taken for it", rows=["A5"], limit=120)
def _(t):
    lab = t.lab()
    lab.services()
    gw = start(lab)
    deaf = Listener(gw, receive_bytes=4096)
    hearing = Listener(gw)
    before = gw.status()["rss-bytes"]
    for _ in range(1500):
        client.outcome(lab.cli, at.TARGET[0], 7000)
    seconds = 0
    while seconds < 5:
        hearing.event("counters")
        seconds += 1
    check(gw.status()["rss-bytes"] < before + (24 << 20), "resident memory grew: %d to %d" % (before, gw.status()["rss-bytes"]))
    lost = 0

    def reads_again():
        nonlocal lost
        lost = deaf.event("counters")["lost"]
        return lost > 0
    within(20, reads_again, "what it lost, said to it")
    check(lost > 0, "lost %d" % lost)


@test("what is no handshake gets 426, and a seventeenth listener is turned away", rows=["A5"])
def _(t):
    lab = t.lab()
    gw = start(lab)
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(10)
        s.connect(gw.api)
        s.sendall(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
        check(s.recv(4096).startswith(b"HTTP/1.1 426"), "a plain GET")
    listeners = [Listener(gw) for _ in range(16)]
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(10)
        s.connect(gw.api)
        s.sendall((HEAD % base64.b64encode(b"0" * 16).decode()).encode())
        check_equal(s.recv(4096), b"", "the seventeenth")
    for listener in listeners:
        listener.s.close()

    def place_again():
        try:
            return Listener(gw).event("counters")
        except ConnectionResetError:
            return None
    within(10, place_again, "a place again")
