#!/usr/bin/python3
"""faultd.py - what no real server does (test-servers.md section 9): a TCP server that follows a plan.

A plan is a list of steps, carried out once for every connection:
    greet()          read the client's SOCKS5 greeting (its length is in it)
    login()          read the user/password message
    request()        read the CONNECT or UDP ASSOCIATE request
    read(n)          read n bytes
    until(bytes)     read up to and with these bytes
    frames(type)     read HTTP/2 frames up to and with one of this type (RFC 9113 section 4.1)
    send(bytes)      send these at once
    drip(bytes, s)   one byte every s seconds
    wait(s)          do nothing for so long
    hang()           keep the connection open and do nothing until the test ends
    stall()          the same, with a receive buffer that fills: never read again
    close()          end with FIN
    half()           end our direction with FIN, and go on
    reset()          end with RST
    relay()          be a good proxy from here on: connect to what was asked for, and carry bytes
    crumble(port)    be a relay to another port of this address that hands on single bytes
    echo()           send back what comes
    trickle(n)       read n bytes a second
Each connection keeps what it read and what happened to it, for the test to look at; the plan is printed when a test fails.
"""
import os
import select
import socket
import struct
import sys
import threading

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from harness import net  # noqa: E402
from harness.services import reset as reset_socket  # noqa: E402

METHOD_NONE, METHOD_LOGIN, METHOD_REFUSED = b"\5\0", b"\5\2", b"\5\xff"
LOGIN_OK = b"\1\0"


def step(name):
    return lambda *arguments: (name,) + arguments


greet, login, request, send = (step(n) for n in ("greet", "login", "request", "send"))
read, until, frames = (step(n) for n in ("read", "until", "frames"))
drip, wait, hang, stall, close = (step(n) for n in ("drip", "wait", "hang", "stall", "close"))
reset, relay, crumble, echo, trickle, half = (step(n) for n in ("reset", "relay", "crumble", "echo", "trickle", "half"))


def reply(code=0, kind=1, address=b"\0\0\0\0", port=0):
    """A SOCKS5 reply (RFC 1928 section 6); kind 3 takes a name and writes its length."""
    body = bytes([len(address)]) + address if kind == 3 else address
    return b"\5" + bytes([code, 0, kind]) + body + struct.pack(">H", port)


def handshake(then, method=METHOD_NONE, answer=None):
    """A faultless handshake, then `then`."""
    steps = [greet(), send(method)]
    if method == METHOD_LOGIN:
        steps += [login(), send(LOGIN_OK)]
    return steps + [request(), send(reply() if answer is None else answer)] + then


def cut_after(k, action, method=METHOD_NONE, answer=None):
    """A faultless handshake of which the server sends only its first k bytes, then `action` steps."""
    steps, left = [], k
    for s in handshake([], method, answer):
        if s[0] == "send" and left < len(s[1]):
            return steps + ([send(s[1][:left])] if left else []) + action
        if s[0] == "send":
            left -= len(s[1])
        steps.append(s)
    return steps + action


def server_bytes(method=METHOD_NONE):
    """How many bytes the server sends in a faultless handshake."""
    return sum(len(s[1]) for s in handshake([], method) if s[0] == "send")


class Connection:
    """One client, its plan, what it sent."""

    def __init__(self, server, s, peer):
        self.server, self.socket, self.peer = server, s, peer
        self.received, self.trace, self.ended = bytearray(), [], threading.Event()
        self.target = None          # (host, port) of the request
        self.how = None             # how the client ended: "FIN", "RST" or None

    def _read(self, n):
        data = bytearray()
        while len(data) < n:
            piece = self.socket.recv(n - len(data))
            if not piece:
                self.how = "FIN"
                raise EOFError
            data += piece
        self.received += data
        return bytes(data)

    def do_greet(self):
        self._read(self._read(2)[1])

    def do_login(self):
        self._read(self._read(2)[1])
        self._read(self._read(1)[0])

    def do_request(self):
        kind = self._read(4)[3]
        if kind == 3:
            host = self._read(self._read(1)[0]).decode("latin-1")
        else:
            host = socket.inet_ntop(socket.AF_INET6 if kind == 4 else socket.AF_INET, self._read(16 if kind == 4 else 4))
        self.target = (host, struct.unpack(">H", self._read(2))[0])

    def do_read(self, n):
        self._read(n)

    def do_until(self, end):
        start = len(self.received)
        while end not in self.received[start:]:
            self._read(1)

    def do_frames(self, wanted):
        kind = None
        while kind != wanted:
            head = self._read(9)
            kind = head[3]
            self._read(int.from_bytes(head[:3], "big"))

    def do_send(self, data):
        self.socket.sendall(data)

    def do_drip(self, data, every=0.02):
        for b in data:
            self.socket.sendall(bytes([b]))
            self.server.ending.wait(every)

    def do_wait(self, seconds):
        self.server.ending.wait(seconds)

    def do_hang(self):
        """Also notices how the client leaves."""
        self.socket.settimeout(None)
        poll = select.poll()
        poll.register(self.socket, select.POLLIN | select.POLLRDHUP)
        poll.register(self.server.wake, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == self.server.wake:
                    return
                if not self.socket.recv(65536):
                    self.how = "FIN"
                    return

    def do_stall(self):
        self.server.ending.wait(600)

    def do_trickle(self, n):
        while True:
            self._read(n)
            if self.server.ending.wait(1):
                return

    def do_close(self):
        self.socket.shutdown(socket.SHUT_WR)
        self.do_hang()
        raise EOFError

    def do_half(self):
        if self.server.tls:
            self.socket = self.socket.unwrap()  # close_notify, and waits for the client's
        self.socket.shutdown(socket.SHUT_WR)

    def do_reset(self):
        reset_socket(self.socket)
        raise EOFError

    def do_echo(self):
        while True:
            data = self.socket.recv(65536)
            if not data:
                self.how = "FIN"
                return
            self.socket.sendall(data)

    def do_relay(self):
        far = self.server.namespace.socket(net.family_of(self.target[0]), socket.SOCK_STREAM)
        far.connect(self.target)
        with far:
            carry(self.socket, far, self.server.wake)

    def do_crumble(self, port):
        far = self.server.namespace.socket(net.family_of(self.server.address), socket.SOCK_STREAM)
        far.connect((self.server.address, port))
        far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with far:
            carry(self.socket, far, self.server.wake, 1)

    def run(self):
        try:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.server.tls:
                self.socket = self.server.tls.wrap_socket(self.socket, server_side=True)
            for s in self.server.plan_for(self):
                self.trace.append(s[0])
                getattr(self, "do_" + s[0])(*s[1:])
        except EOFError:
            self.trace.append("the client ended")
        except OSError as e:
            if isinstance(e, ConnectionResetError):
                self.how = "RST"
            self.trace.append(str(e))
        finally:
            self.socket.close()
            self.ended.set()


def carry(a, b, wake, piece=65536):
    """Bytes both ways, at most `piece` at a time, until both sides ended."""
    other, open_sides = {a: b, b: a}, {a, b}
    while open_sides:
        for s in select.select(list(open_sides) + [wake], [], [])[0]:
            if s == wake:
                return
            data = s.recv(piece)
            if data:
                other[s].sendall(data)
            else:
                open_sides.discard(s)
                other[s].shutdown(socket.SHUT_WR)


class FaultServer:
    """Listens in a namespace and gives every connection the plan (a list, or a function of the Connection).

    tls    an ssl.SSLContext: the plan is followed inside TLS
    """

    def __init__(self, context, namespace, address, port, plan, receive_buffer=None, tls=None):
        self.tls = tls
        self.namespace, self.address, self.port, self.plan = namespace, address, port, plan
        self.udp = False
        self.connections, self.ending = [], threading.Event()
        self.came = threading.Condition()
        self.wake, self._wake_write = os.pipe()
        self.listener = namespace.socket(net.family_of(address), socket.SOCK_STREAM)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if receive_buffer:
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.listener.bind((address, port))
        self.listener.listen(1024)
        self._record(context)
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()
        context.own(self)

    def _record(self, context):
        """For the failure report; long pieces of data are cut."""
        plan = "by function"
        if isinstance(self.plan, list):
            plan = " ".join("%s(%s)" % (s[0], ", ".join(repr(a)[:60] for a in s[1:])) for s in self.plan)
        with open(context.path("faultd.plan"), "a") as f:
            f.write("%s port %d: %s\n" % (self.address, self.port, plan))

    def plan_for(self, connection):
        return self.plan(connection) if callable(self.plan) else self.plan

    def _accept(self):
        while True:
            ready = select.select([self.listener, self.wake], [], [])[0]
            if self.wake in ready:
                return
            s, peer = self.listener.accept()
            c = Connection(self, s, peer)
            with self.came:
                self.connections.append(c)
                self.came.notify_all()
            threading.Thread(target=c.run, daemon=True).start()

    def wait_connections(self, n, seconds=5):
        """Until n clients have come."""
        with self.came:
            if not self.came.wait_for(lambda: len(self.connections) >= n, seconds):
                from harness import Failure
                raise Failure("%d of %d connections came to port %d" % (len(self.connections), n, self.port))
            return self.connections[:n]

    def proxy(self, name="up", **more):
        entry = {"name": name, "type": "socks5", "server": self.address, "port": self.port, "udp": self.udp}
        entry.update(more)
        return entry

    def stop(self):
        if not self.ending.is_set():
            self.ending.set()
            os.write(self._wake_write, b"x")
            self.thread.join(5)
            self.listener.close()
            for c in self.connections:
                c.ended.wait(1)


class UdpRelay(FaultServer):
    """A SOCKS5 server whose UDP relay lies as it is told.

    announce   the address in the reply to ASSOCIATE: None is the relay's own
    answer     function (relay, header, payload, sender) called for each datagram; None relays echoes truthfully
    before     steps between request and reply
    """

    def __init__(self, context, namespace, address, port, announce=None, answer=None, before=(), after=None):
        self.answer, self.datagrams, self.associates = answer, [], 0
        self.announce = announce
        self.relay_socket = namespace.socket(net.family_of(address), socket.SOCK_DGRAM)
        self.relay_socket.bind((address, 0))
        self.relay_port = self.relay_socket.getsockname()[1]
        self.stranger = namespace.socket(net.family_of(address), socket.SOCK_DGRAM)
        self.stranger.bind((address, 0))
        self.before, self.after = list(before), after or [hang()]
        super().__init__(context, namespace, address, port, self._plan)
        self.udp = True
        self.udp_thread = threading.Thread(target=self._relay, daemon=True)
        self.udp_thread.start()

    def _plan(self, connection):
        self.associates += 1
        host = self.announce or self.address
        kind = 4 if ":" in host else 1
        packed = socket.inet_pton(net.family_of(host), host)
        return [greet(), send(METHOD_NONE), request()] + self.before + \
            [send(reply(0, kind, packed, self.relay_port))] + self.after

    def _relay(self):
        while True:
            if self.wake in select.select([self.relay_socket, self.wake], [], [])[0]:
                return
            data, sender = self.relay_socket.recvfrom(65536)
            header, payload = split_udp(data)
            self.datagrams.append((header, payload, sender))
            with self.came:
                self.came.notify_all()
            (self.answer or echo_back)(self, header, payload, sender)

    def wait_datagrams(self, n, seconds=5):
        with self.came:
            if not self.came.wait_for(lambda: len(self.datagrams) >= n, seconds):
                from harness import Failure
                raise Failure("%d of %d datagrams came to the relay" % (len(self.datagrams), n))
            return self.datagrams[:n]


def echo_back(relay_server, header, payload, sender):
    """The truthful answer of an echo server behind the relay."""
    relay_server.relay_socket.sendto(header + payload, sender)


def split_udp(data):
    """A SOCKS5 datagram's header and payload (RFC 1928 section 7)."""
    length = {1: 10, 4: 22}.get(data[3]) or 7 + data[4]
    return data[:length], data[length:]
