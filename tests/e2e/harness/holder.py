"""holder.py ADDRESS PORT - a SOCKS5 server that answers every CONNECT itself and echoes: one descriptor a connection.

For tests with more connections than a relaying server could hold under the usual limit of descriptors.
"""
import resource
import selectors
import socket
import sys

GREETING, REQUEST, OPEN = range(3)


class Client:
    def __init__(self, s):
        self.socket, self.state, self.data = s, GREETING, b""

    def step(self, data):
        """The answer to what came."""
        if self.state == OPEN:
            return data
        self.data += data
        answer = b""
        if self.state == GREETING and len(self.data) >= 2 and len(self.data) >= 2 + self.data[1]:
            self.data, self.state = self.data[2 + self.data[1]:], REQUEST
            answer = b"\5\0"
        if self.state == REQUEST and len(self.data) >= 10:
            self.state = OPEN
            answer += b"\5\0\0\1\0\0\0\0\0\0" + self.data[10:]
        return answer


def main(address, port):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    listener = socket.create_server((address, port), backlog=4096)
    listener.setblocking(False)
    selector = selectors.EpollSelector()
    selector.register(listener, selectors.EVENT_READ, None)
    print("listening", flush=True)
    while True:
        for key, _ in selector.select():
            if key.data is None:
                s, _ = listener.accept()
                s.setblocking(False)
                selector.register(s, selectors.EVENT_READ, Client(s))
                continue
            try:
                data = key.data.socket.recv(65536)
                answer = key.data.step(data) if data else b""
                if answer:
                    key.data.socket.send(answer)
            except OSError:
                data = b""
            if not data:
                selector.unregister(key.fileobj)
                key.fileobj.close()


main(sys.argv[1], int(sys.argv[2]))
