"""One large flow beside many small ones (faults.md R10): who says little waits for nobody."""
import json
import threading
import time

from harness import check, check_equal, client, servers, test, within
from harness import lab as at

SMALL = 1000


def flood(lab, result):
    """Three seconds of download by a program of its own, as fast as it goes."""
    result.append(json.loads(lab.cli.result(["iperf3", "-c", at.TARGET[0], "-R", "-t", "3", "--json"], timeout=60).stdout))


def round_trips(sockets, number):
    """One question and answer on each connection; seconds."""
    took = []
    for i, s in enumerate(sockets):
        data = b"%08d%08d" % (number, i)
        began, back = time.monotonic(), b""
        s.sendall(data)
        while len(back) < len(data):
            piece = s.recv(64)
            check(piece, "connection %d ended" % i)
            back += piece
        took.append(time.monotonic() - began)
        check_equal(back, data, "the answer on connection %d" % i)
    return took


@test("a flow at full rate beside 1,000 small ones, which are answered at once", rows=["R10"], limit=120)
def _(t):
    lab = t.lab()
    lab.services()
    servers.iperf3(lab)
    gw = lab.gateway(proxies=[servers.culvert_serve(lab)])
    sockets = client.open_many(lab.cli, (at.TARGET[0], 7), SMALL)
    for s in sockets:
        t.own(s, "close")
    alone = sorted(round_trips(sockets, 0))
    result, beside, number = [], [], 0
    large = threading.Thread(target=flood, args=(lab, result))
    before = gw.counter("upstream.bytes_down")
    large.start()
    within(10, lambda: gw.counter("upstream.bytes_down") > before + (1 << 20), "the large flow", every=0.02)
    while large.is_alive():
        number += 1
        beside += round_trips(sockets, number)
    large.join()
    beside.sort()
    slowest = beside[len(beside) * 99 // 100]
    rate = result[0]["end"]["sum_received"]["bits_per_second"] / 8e6
    t.note("99 %% of %d answers within %.1f ms, alone %.1f ms; the large flow had %.0f MB/s meanwhile"
           % (len(beside), slowest * 1e3, alone[len(alone) * 99 // 100] * 1e3, rate))
    check(rate > 1, "the large flow stood still: %.1f MB/s" % rate)
    check(slowest < t.slow(1), "99 %% of the small ones waited up to %.2f s" % slowest)
    gw.check_alive()
