"""client.py - what a client does and sees: connections with exact bytes, errors by name, programs such as curl and dig."""
import collections
import errno
import hashlib
import os
import select
import socket
import struct
import subprocess
import time

from . import net
from .core import Failure, check, check_equal, errno_name
from .servers import Services, need
from .services import StreamChecker, reset, stream_blocks, stream_sha256  # noqa: F401 - for the tests, too


def tcp(namespace, address, port, timeout=10, source=None, mark=None):
    """A connected TCP socket of the namespace; OSError as the client sees it."""
    s = namespace.socket(net.family_of(address), socket.SOCK_STREAM)
    try:
        s.settimeout(timeout)
        if mark:
            s.setsockopt(socket.SOL_SOCKET, net.SO_MARK, mark)
        if source:
            s.bind((source, 0))
        s.connect((address, port))
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return s
    except OSError:
        s.close()
        raise


def udp(namespace, address=None, port=None, timeout=5, source=None, source_port=0, family=None):
    """A UDP socket of the namespace, connected if an address is given; ICMP errors are reported on it."""
    family = family or net.family_of(address)
    s = namespace.socket(family, socket.SOCK_DGRAM)
    s.settimeout(timeout)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    if source or source_port:
        s.bind((source or ("::" if family == socket.AF_INET6 else "0.0.0.0"), source_port))
    if address:
        s.connect((address, port))
    return s


def outcome(namespace, address, port, timeout=10, source=None):
    """How a connect ends, and after how many seconds: ("open" or the errno's name, seconds)."""
    start = time.monotonic()
    try:
        tcp(namespace, address, port, timeout, source).close()
        how = "open"
    except OSError as e:
        how = errno_name(e)
    return how, time.monotonic() - start


def outcomes(namespace, targets, timeout=10):
    """outcome() of many at once: {key: (address, port)} to {key: (how, seconds)}."""
    pending, done, start = {}, {}, time.monotonic()
    poll = select.poll()
    for key, (address, port) in targets.items():
        s = namespace.socket(net.family_of(address), socket.SOCK_STREAM)
        s.setblocking(False)
        s.connect_ex((address, port))
        pending[s.fileno()] = (key, s)
        poll.register(s, select.POLLOUT)
    while pending and time.monotonic() - start < timeout:
        for fd, _ in poll.poll(max(0, (timeout - (time.monotonic() - start)) * 1000)):
            key, s = pending.pop(fd)
            poll.unregister(fd)
            number = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            done[key] = (errno_name(OSError(number, "")) if number else "open", time.monotonic() - start)
            s.close()
    for key, s in pending.values():
        done[key] = ("timed out", timeout)
        s.close()
    return done


def open_many(namespace, target, n, at_once=200, timeout=60):
    """n connections to one target, at most `at_once` of them in their handshake, blocking again. Fails with what kept the others."""
    poll, pending, opened, left, why = select.poll(), {}, [], n, collections.Counter()
    end = time.monotonic() + timeout
    with namespace.entered():
        while (left or pending) and time.monotonic() < end:
            while left and len(pending) < at_once:
                s = socket.socket(net.family_of(target[0]), socket.SOCK_STREAM)
                s.setblocking(False)
                left -= 1
                error = s.connect_ex(target)
                if error not in (0, errno.EINPROGRESS):      # such as EADDRNOTAVAIL: no local port is left
                    why[errno_name(OSError(error, ""))] += 1
                    s.close()
                    continue
                pending[s.fileno()] = s
                poll.register(s, select.POLLOUT)
            for fd, _ in poll.poll(1000):
                s = pending.pop(fd)
                poll.unregister(fd)
                error = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if error:
                    why[errno_name(OSError(error, ""))] += 1
                    s.close()
                else:
                    s.settimeout(30)
                    opened.append(s)
    why["not open within %g s" % timeout] += left + len(pending)
    for s in pending.values():
        s.close()
    check_equal(len(opened), n, "connections open at once (%s)" % ", ".join("%s: %d" % x for x in why.items() if x[1]))
    return opened


def receive(s, n):
    """Exactly n bytes, or fewer if the other side ended."""
    data = bytearray()
    while len(data) < n:
        piece = s.recv(min(1 << 18, n - len(data)))
        if not piece:
            break
        data += piece
    return bytes(data)


def receive_end(s, limit=1 << 30):
    """Everything up to the end of the stream: (bytes, "FIN" or the errno's name)."""
    data = bytearray()
    try:
        while len(data) < limit:
            piece = s.recv(1 << 18)
            if not piece:
                return bytes(data), "FIN"
            data += piece
        return bytes(data), "limit"
    except OSError as e:
        return bytes(data), errno_name(e)


def download(namespace, address, length, timeout=30, source=None):
    """Read `length` bytes of the stream and compare every one."""
    with tcp(namespace, address, Services.LINE, timeout, source) as s:
        s.sendall(b"down %d\n" % length)
        checker = StreamChecker()
        while True:
            data = s.recv(1 << 18)
            if not data:
                break
            wrong = checker.feed(data)
            check(wrong is None, "byte %s of the stream is wrong" % wrong)
        check_equal(checker.count, length, "bytes received")


def upload(namespace, address, length, timeout=30, source=None):
    """Send `length` bytes of the stream, end our direction, and compare the hash that the server answers."""
    h = hashlib.sha256()
    with tcp(namespace, address, Services.LINE, timeout, source) as s:
        s.sendall(b"up\n")
        for b in stream_blocks(length):
            h.update(b)
            s.sendall(b)
        s.shutdown(socket.SHUT_WR)
        answer, how = receive_end(s)
    check_equal(how, "FIN", "end of the answer")
    check_equal(answer.decode(), "%s %d\n" % (h.hexdigest(), length), "hash at the far end")


def ask(namespace, address, port, data, timeout=5):
    """One datagram and its answer."""
    with udp(namespace, address, port, timeout) as s:
        s.send(data)
        return s.recv(65536)


def no_proxy_env():
    return {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}


def curl(namespace, url, *more, timeout=60, expect=0):
    """curl's standard output as bytes; fails unless its exit status is `expect`."""
    argv = [need("curl"), "-sS", "-g", "--max-time", str(timeout)] + list(more) + [url]
    r = subprocess.run(namespace.argv(argv), stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout + 10,
                       stdin=subprocess.DEVNULL, env=no_proxy_env())
    check_equal(r.returncode, expect, "curl's exit status (%s)" % r.stderr.decode().strip())
    return r.stdout


def curl_bytes(namespace, address, length, *more, timeout=60):
    """curl of `length` bytes of the stream through a pipe into SHA-256, compared; returns bytes a second."""
    argv = [need("curl"), "-sS", "-g", "--max-time", str(timeout), *more,
            Services.url(address, "bytes/%d" % length)]
    start, h, n = time.monotonic(), hashlib.sha256(), 0
    with subprocess.Popen(namespace.argv(argv), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          env=no_proxy_env()) as p:
        while True:
            data = p.stdout.read1(1 << 20)
            if not data:
                break
            h.update(data)
            n += len(data)
        errors = p.stderr.read().decode().strip()
        check_equal(p.wait(), 0, "curl's exit status (%s)" % errors)
    seconds = time.monotonic() - start
    check_equal(n, length, "bytes from curl")
    check_equal(h.hexdigest(), stream_sha256(length), "SHA-256")
    return n / seconds


def curl_upload(context, namespace, address, length, timeout=60):
    """curl -T of `length` bytes of the stream; the server's hash is compared."""
    path = context.path("upload-%d" % length)
    with open(path, "wb") as f:
        for b in stream_blocks(length):
            f.write(b)
    answer = curl(namespace, Services.url(address, "hash"), "-T", path, timeout=timeout).decode()
    os.unlink(path)
    check_equal(answer, "%s %d\n" % (stream_sha256(length), length), "hash at the far end")


def dig(namespace, server, name, kind="A", *more, timeout=5):
    """The answers of dig +short, sorted."""
    r = namespace.result([need("dig"), "+short", "+tries=1", "+time=%d" % timeout, *more, "@" + server, name, kind],
                         timeout=timeout + 5)
    check_equal(r.returncode, 0, "dig's exit status (%s)" % (r.stdout + r.stderr).strip())
    return sorted(x for x in r.stdout.splitlines() if x and not x.startswith(";"))


def ping(namespace, address, count=3, size=56, *more, interval=0.2, timeout=20):
    """How many of `count` echo requests were answered, and the summary line."""
    r = namespace.result([need("ping"), "-n", "-c", str(count), "-s", str(size), "-i", str(interval), "-W", "3",
                          *more, address], timeout=timeout)
    for line in r.stdout.splitlines():
        if " received" in line:
            return int(line.split(" received")[0].split()[-1]), r.stdout
    raise Failure("ping said: " + (r.stdout + r.stderr).strip())


def icmp_checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff
