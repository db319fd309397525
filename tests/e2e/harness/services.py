"""services.py - the targets of the tests, one program for all: python3 services.py ADDRESS...

On every address:
    8080  HTTP: GET /bytes/N answers N bytes of the stream; PUT or POST anything answers its SHA-256 and length;
          GET /peer answers the client's address; one request a connection
    7     echo, TCP and UDP
    7001  UDP: answers with the sender's "address port"
    7000  a line with a command, then:
            down N [PACE]    N bytes of the stream (0: until closed), at most PACE a second; then FIN
            up               reads to the end, then answers "SHA256 LENGTH\\n"
            echo             echoes, and ends when the client did
            rst N            N bytes, then RST
            stall            never reads again
            drip N           N bytes, one a second
            late             reads to the end, then 100 KiB of the stream
            first N          N bytes, then FIN; then reads to the end
            rest             answers what the oldest such reading has found, as `up` would
The stream is 64 KiB blocks that begin with their own number, so that a block out of place is seen.
"""
import hashlib
import os
import queue
import random
import socket
import struct
import sys
import threading
import time

BLOCK = 65536
_BASE = random.Random(7).randbytes(BLOCK)
_BASE_TAIL = _BASE[8:]
_RESTS = queue.Queue()     # of `first`


def block(i):
    return struct.pack(">Q", i) + _BASE_TAIL


def stream_blocks(length):
    """The first `length` bytes of the stream, in blocks; 0: for ever."""
    i, left = 0, length or 1 << 62
    while left > 0:
        b = block(i)
        yield b if left >= BLOCK else b[:left]
        left -= BLOCK
        i += 1


def stream_sha256(length):
    h = hashlib.sha256()
    for b in stream_blocks(length):
        h.update(b)
    return h.hexdigest()


class StreamChecker:
    """Compares received bytes with the stream, wherever the pieces are cut."""

    def __init__(self):
        self.count = 0

    def feed(self, data):
        """None, or the position of the first wrong byte."""
        at, view = 0, memoryview(data)
        while at < len(view):
            i, offset = divmod(self.count, BLOCK)
            n = min(BLOCK - offset, len(view) - at)
            if view[at:at + n] != block(i)[offset:offset + n]:
                return self.count
            at += n
            self.count += n
        return None


def reset(s):
    """End a connection with RST."""
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()


class Reader:
    """Lines and the bytes after them, from one connection."""

    def __init__(self, s):
        self.s, self.left = s, b""

    def line(self, limit=8192):
        while b"\n" not in self.left:
            data = self.s.recv(4096)
            if not data or len(self.left) > limit:
                raise ConnectionError("no line")
            self.left += data
        line, self.left = self.left.split(b"\n", 1)
        return line.rstrip(b"\r").decode("latin-1")

    def some(self, n=1 << 18):
        if self.left:
            data, self.left = self.left[:n], self.left[n:]
            return data
        return self.s.recv(n)


def send_stream(s, length, pace=0):
    start, sent = time.monotonic(), 0
    for b in stream_blocks(length):
        s.sendall(b)
        sent += len(b)
        if pace:
            ahead = sent / pace - (time.monotonic() - start)
            if ahead > 0:
                time.sleep(ahead)       # the pace is the point here


def hash_rest(reader, length=None):
    h, n = hashlib.sha256(), 0
    while length is None or n < length:
        data = reader.some(1 << 18 if length is None else min(1 << 18, length - n))
        if not data:
            break
        h.update(data)
        n += len(data)
    return "%s %d\n" % (h.hexdigest(), n)


def serve_http(s, peer):
    reader = Reader(s)
    method, path, _ = reader.line().split(" ", 2)
    headers = {}
    while True:
        line = reader.line()
        if not line:
            break
        key, _, value = line.partition(":")
        headers[key.lower()] = value.strip()
    if headers.get("expect"):
        s.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    if method in ("PUT", "POST"):
        body = hash_rest(reader, int(headers.get("content-length", 0))).encode()
        s.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    elif path.startswith("/bytes/"):
        length = int(path[7:])
        s.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % length)
        if length:
            send_stream(s, length)
    elif path == "/peer":
        body = peer[0].encode()
        s.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    else:
        s.sendall(b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")


def serve_line(s, peer):
    reader = Reader(s)
    command, *words = reader.line().split()
    n = int(words[0]) if words else 0
    if command == "down":
        send_stream(s, n, int(words[1]) if len(words) > 1 else 0)
    elif command == "up":
        s.sendall(hash_rest(reader).encode())
    elif command == "echo":
        while True:
            data = reader.some()
            if not data:
                break
            s.sendall(data)
    elif command == "late":
        hash_rest(reader)
        send_stream(s, 100 * 1024)
    elif command == "first":
        send_stream(s, n)
        s.shutdown(socket.SHUT_WR)
        _RESTS.put(hash_rest(reader))
    elif command == "rest":
        s.sendall(_RESTS.get(timeout=20).encode())
    elif command == "rst":
        send_stream(s, n)
        reset(s)
    elif command == "drip":
        for b in next(stream_blocks(n)):
            s.sendall(bytes([b]))
            time.sleep(1)               # one byte a second is the point here
    elif command == "stall":
        threading.Event().wait(600)


def serve_echo(s, peer):
    while True:
        data = s.recv(1 << 18)
        if not data:
            return
        s.sendall(data)


def serve_one(serve, s, peer):
    try:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        serve(s, peer)
        s.shutdown(socket.SHUT_WR)
        while s.recv(65536):
            pass
    except (OSError, ValueError, IndexError, queue.Empty):
        pass
    finally:
        s.close()


def accept_loop(listener, serve):
    while True:
        s, peer = listener.accept()
        threading.Thread(target=serve_one, args=(serve, s, peer), daemon=True).start()


def udp_loop(s, answer):
    while True:
        try:
            data, peer = s.recvfrom(65536)
            s.sendto(answer(data, peer), peer)
        except OSError:
            pass


def main(addresses):
    loops = []
    for address in addresses:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        for port, serve in ((8080, serve_http), (7000, serve_line), (7, serve_echo)):
            listener = socket.create_server((address, port), family=family, backlog=1024)
            loops.append((accept_loop, (listener, serve)))
        for port, answer in ((7, lambda d, p: d), (7001, lambda d, p: ("%s %d" % (p[0], p[1])).encode())):
            s = socket.socket(family, socket.SOCK_DGRAM)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            s.bind((address, port))
            loops.append((udp_loop, (s, answer)))
    threading.stack_size(256 * 1024)
    for function, arguments in loops:
        threading.Thread(target=function, args=arguments, daemon=True).start()
    print("listening", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    main(sys.argv[1:])
