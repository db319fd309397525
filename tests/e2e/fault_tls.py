"""fault_tls.py - a TLS server that goes wrong at a record of its choice (faults.md L6): hangs, ends, or says something else.

OpenSSL speaks TLS 1.2 into memory; its records are counted and leave through the plain socket, up to the one where the fault is.
"""
import os
import ssl

from faultd import FaultServer

HTTP_ANSWER = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
RECORDS = 6     # ServerHello, Certificate, ServerKeyExchange, ServerHelloDone, ChangeCipherSpec, Finished: without a ticket


def server_context(pki, version=ssl.TLSVersion.TLSv1_2, alpn=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.path("server.crt"), pki.path("server.key"))
    context.maximum_version = version
    context.options |= ssl.OP_NO_TICKET
    if alpn:
        context.set_alpn_protocols(alpn)
    return context


def records(data):
    """Whole records of a server's output."""
    while data:
        length = 5 + int.from_bytes(data[3:5], "big")
        yield data[:length]
        data = data[length:]


class RecordServer(FaultServer):
    """@at: the number of the record, 0 the first, instead of which @action happens: a plan, or bytes -> plan of the good record."""

    def __init__(self, context, namespace, address, port, tls, at, action):
        self.context, self.at, self.action = tls, at, action
        super().__init__(context, namespace, address, port, self._plan)

    def _plan(self, connection):
        """Never returns a plan before the fault's record is due; then the connection follows the action."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        session, sent = self.context.wrap_bio(incoming, outgoing, server_side=True), 0
        while True:
            try:
                session.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                done = False
            for record in records(outgoing.read()):
                if sent == self.at:
                    return self.action(record) if callable(self.action) else self.action
                connection.socket.sendall(record)
                sent += 1
            if done:
                raise AssertionError("the handshake had only %d records" % sent)
            data = connection.socket.recv(65536)
            if not data:
                raise EOFError
            incoming.write(data)


def garbage(record):
    return [("send", os.urandom(len(record) - 1) + b"\0"), ("hang",)]


def bent(record):
    """A good head, and a body of which the last byte is another."""
    return [("send", record[:-1] + bytes([record[-1] ^ 0x5a])), ("hang",)]
