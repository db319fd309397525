"""names.py - for tests of DNS: the gateway's section, questions, and a name server of the test's own."""
import socket
import struct
import threading

from . import client
from .servers import need


def dns(context, mode, **more):
    """The gateway's `dns` section, with a state folder of the test's own."""
    return {"dns": dict({"mode": mode}, **more),
            "runtime": {"workers": 2, "state-dir": context.path("state")}}


def dig(namespace, server, name, kind="A", *more):
    return client.dig(namespace, server, name, kind, *more)


def status_of(namespace, server, *arguments):
    """The rcode's name of dig's answer, or None."""
    r = namespace.result([need("dig"), "+tries=1", "+time=6", "@" + server, *arguments], timeout=15)
    for line in r.stdout.splitlines():
        if "status: " in line:
            return line.split("status: ")[1].split(",")[0]
    return None


def question(name, kind=1, number=0x1234, flags=0x0100, klass=1):
    labels = b"".join(bytes([len(x)]) + x.encode() for x in name.split(".") if x)
    return struct.pack(">HHHHHH", number, flags, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", kind, klass)


class Liar:
    """A name server of the test's own, by UDP: answers(query, address) gives the datagrams to send back."""

    def __init__(self, context, namespace, address, answers, port=53):
        self.socket = namespace.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((address, port))
        self.answers, self.asked, self.ports, self.ids = answers, 0, set(), set()
        self.ending = False
        context.own(self)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while not self.ending:
            try:
                query, peer = self.socket.recvfrom(4096)
            except OSError:
                return
            if len(query) < 12:
                continue
            self.asked += 1
            self.ports.add(peer[1])
            self.ids.add(query[:2])
            for datagram in self.answers(query, peer) or ():
                try:
                    self.socket.sendto(datagram, peer)
                except OSError:
                    pass

    def stop(self):
        self.ending = True
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.socket.close()


def end_of_question(query):
    i = 12
    while query[i]:
        i += query[i] + 1
    return i + 5


def answer(query, addresses=(), rcode=0, ttl=60, flags=0x8180):
    """An answer with A records for the question of `query`."""
    q = query[12:end_of_question(query)]
    records = b"".join(b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, ttl, 4) + socket.inet_aton(a) for a in addresses)
    return query[:2] + struct.pack(">HHHHH", flags | rcode, 1, len(addresses), 0, 0) + q + records


def kind_of(query):
    end = end_of_question(query)
    return struct.unpack(">H", query[end - 4:end - 2])[0]


def only_a(query, addresses, **more):
    return answer(query, addresses if kind_of(query) == 1 else (), **more)
