"""bystander.py - flows of other people while something goes wrong (faults.md G2).

8 TCP flows (4 up, 4 down, every byte compared), 4 UDP flows of 100 echoes a second and one ping a second run from before the
fault until after it, through an upstream of their own: their targets are TARGET2, and the rules send those to `good`.
In ./check only exact bytes and resets are judged; the rest is reported (design.md section 6, Time in tests).
"""
import contextlib
import hashlib
import socket
import struct
import threading
import time

from . import lab as addresses
from .client import icmp_checksum, tcp, udp
from .core import check_table
from .servers import Services
from .services import StreamChecker, block

RATE = 2 << 20          # bytes a second of each TCP flow: enough to notice, little enough to leave the machine to the fault


def rules(good="good"):
    """The rules that send the bystanders to their own upstream; they come first."""
    return ["IP-CIDR,%s/32,%s" % (addresses.TARGET2[0], good), "IP-CIDR,%s/128,%s" % (addresses.TARGET2[1], good)]


class Bystanders:
    """The flows; start(), then the fault, then stop_and_check()."""

    def __init__(self, namespace, source=addresses.CLI2):
        self.namespace, self.source = namespace, source
        self.ending = threading.Event()
        self.running = threading.Semaphore(0)
        self.wrong, self.report, self.lock = [], {"tcp_bytes": 0, "udp_sent": 0, "udp_back": 0, "ping_sent": 0,
                                                  "ping_back": 0, "ping_worst_ms": 0.0}, threading.Lock()
        jobs = [(self._guard, ("tcp %s %d" % (way, i), flow, i % 2)) for i in range(4)
                for way, flow in (("down", self._down), ("up", self._up))]
        jobs += [(self._guard, ("udp %d" % i, self._udp, i % 2)) for i in range(4)]
        jobs += [(self._guard, ("ping", self._ping, 0))]
        self.threads = [threading.Thread(target=f, args=a, daemon=True) for f, a in jobs]

    def start(self):
        """Returns when every flow has moved its first bytes."""
        for t in self.threads:
            t.start()
        for _ in self.threads:
            if not self.running.acquire(timeout=20):
                self._wrong("not every bystander could start")
                break
        check_table(self.wrong)

    def stop_and_check(self):
        self.ending.set()
        for t in self.threads:
            t.join(30)
            if t.is_alive():
                self._wrong("a bystander is stuck")
        check_table(self.wrong)
        return self.report

    def _wrong(self, text):
        with self.lock:
            self.wrong.append(text)

    def _add(self, key, n=1):
        with self.lock:
            self.report[key] += n

    def _guard(self, name, flow, family):
        started = []

        def running():
            if not started:
                started.append(1)
                self.running.release()
        try:
            flow(running, addresses.TARGET2[family], self.source[family])
        except OSError as e:
            self._wrong("%s: %s" % (name, e))
        except AssertionError as e:
            self._wrong("%s: %s" % (name, e))
        finally:
            running()

    def _down(self, running, target, source):
        checker = StreamChecker()
        with tcp(self.namespace, target, Services.LINE, 20, source) as s:
            s.sendall(b"down 0 %d\n" % RATE)
            while not self.ending.is_set():
                data = s.recv(1 << 18)
                assert data, "ended by the far side after %d bytes" % checker.count
                wrong = checker.feed(data)
                assert wrong is None, "byte %s is wrong" % wrong
                self._add("tcp_bytes", len(data))
                running()

    def _up(self, running, target, source):
        h, n, start = hashlib.sha256(), 0, time.monotonic()
        with tcp(self.namespace, target, Services.LINE, 20, source) as s:
            s.sendall(b"up\n")
            while not self.ending.is_set():
                b = block(n // 65536)
                s.sendall(b)
                h.update(b)
                n += len(b)
                self._add("tcp_bytes", len(b))
                running()
                self.ending.wait(max(0, n / RATE - (time.monotonic() - start)))
            s.shutdown(socket.SHUT_WR)
            answer = b""
            while not answer.endswith(b"\n"):
                data = s.recv(4096)
                assert data, "ended before the hash, after %d bytes" % n
                answer += data
        assert answer.decode() == "%s %d\n" % (h.hexdigest(), n), "wrong hash at the far end: %r" % answer

    def _udp(self, running, target, source):
        with udp(self.namespace, target, Services.ECHO, source=source) as s:
            s.setblocking(False)
            n, start, waiting = 0, time.monotonic(), {}
            while not self.ending.is_set():
                data = struct.pack(">Q", n) + hashlib.sha256(b"%d" % n).digest() * (1 + n % 30)
                waiting[n] = data
                waiting.pop(n - 300, None)
                with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
                    s.send(data)
                    self._add("udp_sent")
                n += 1
                self.ending.wait(max(0, n / 100 - (time.monotonic() - start)))
                with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
                    while True:
                        back = s.recv(65536)
                        wanted = waiting.pop(struct.unpack(">Q", back[:8])[0], None)
                        assert wanted is None or wanted == back, "a datagram came back changed"
                        self._add("udp_back")
                        running()

    def _ping(self, running, target, source):
        s = self.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
        with s:
            s.settimeout(1)
            s.bind((source, 0))
            n = 0
            while True:
                body = struct.pack("!BBHHH", 8, 0, 0, 0, n) + b"bystander" * 6
                packet = body[:2] + struct.pack("!H", icmp_checksum(body)) + body[4:]
                sent = time.monotonic()
                s.sendto(packet, (target, 0))
                self._add("ping_sent")
                with contextlib.suppress(TimeoutError):
                    while struct.unpack("!H", s.recv(4096)[6:8])[0] != n:
                        continue
                    self._add("ping_back")
                    with self.lock:
                        self.report["ping_worst_ms"] = max(self.report["ping_worst_ms"], (time.monotonic() - sent) * 1e3)
                running()
                n += 1
                if self.ending.wait(max(0, 1 - (time.monotonic() - sent))):
                    return


@contextlib.contextmanager
def bystanders(lab, namespace=None):
    """Run the flows during the with block. A failure of the block itself is reported first."""
    flows = Bystanders(namespace or lab.cli)
    flows.start()
    try:
        yield flows
    except BaseException:
        flows.ending.set()
        raise
    report = flows.stop_and_check()
    lab.context.note("bystanders: " + ", ".join("%s %s" % (k, round(v, 1)) for k, v in report.items()))
