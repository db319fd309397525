"""Bytes a second on a way with loss and delay, ours against those of the kernel's own TCP as a gateway on the same wire at the same time.

    cli ==10 ms each way, loss== gw --+-- culvert, tun0 ----- SOCKS --- TARGET
                                      +-- redirect, splice ------------ TARGET2

Both carry the same number of flows at once, so that whatever else the machine does hits both. Loss falls by chance on each packet and
the wire is never full, so flows do not know of each other and each is one observation.
"""
import math
import os
import select
import socket
import statistics
import struct
import time

from harness import check, client, servers, test
from harness import lab as at
from harness.core import Skip
from harness.proc import Process
from harness.wire import built, slow_wire

PORT, REDIRECT = 9000, 9001
WAY = ("10.77.6.1", "10.77.6.2")          # gw's and cli's end of the wire
ONE_WAY_US = 10000
FLOWS, SECONDS = 8, 8.0
PROMISED = 0.9
BYTES_ACKED, BYTES_RECEIVED = 120, 128    # in struct tcp_info
HERE = os.path.dirname(os.path.abspath(__file__))


def lossy_wire(t, lab, loss):
    """The wire, `loss` of a hundred thousand packets lost at each end, and its packets led to both gateways."""
    wire = slow_wire(t, lab.gw, WAY[0], lab.cli, WAY[1], ONE_WAY_US)
    lab.cli.ip(*["route add %s dev %s src %s" % (x[0], wire.names[1], WAY[1]) for x in (at.TARGET, at.TARGET2)])
    for namespace, device in zip((lab.gw, lab.cli), wire.names):
        namespace.nft("table netdev loss {\nchain i { type filter hook ingress device %s priority 0;\n"
                      "meta l4proto tcp numgen random mod 100000 < %d drop\n}\n}\n" % (device, loss))
        if not namespace.sysctl("net/ipv4/tcp_congestion_control", "cubic", missing_ok=True):
            raise Skip("the kernel's TCP may not use CUBIC here")
    lab.gw.nft("table ip kernel {\nchain p { type nat hook prerouting priority dstnat;\n"
               "iifname %s ip daddr %s tcp dport %d redirect to :%d\n}\n}\n" % (wire.names[0], at.TARGET2[0], PORT, REDIRECT))
    lab.gw.ip("rule add iif %s lookup %d pref 100" % (wire.names[0], at.TABLE))


def tcp_info(s, offset):
    return struct.unpack_from("Q", s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 136), offset)[0]


def load(lab, way, seconds):
    """FLOWS through each gateway for some seconds: bytes that each carried, ours and the kernel's."""
    poll, sockets, piece = select.epoll(), {}, bytearray(1 << 18)
    for target in (at.TARGET[0], at.TARGET2[0]) * FLOWS:
        s = client.tcp(lab.cli, target, PORT, 30)
        s.setblocking(False)
        sockets[s.fileno()] = s
    for fd, s in sockets.items():
        s.send(b"d" if way == "down" else b"u")
        poll.register(fd, select.EPOLLIN if way == "down" else select.EPOLLOUT)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for fd, _ in poll.poll(0.05):
            if way == "down":
                check(sockets[fd].recv_into(piece, 0, socket.MSG_TRUNC) > 0, "a download ended")
            else:
                sockets[fd].send(piece)
    moved = [tcp_info(s, BYTES_RECEIVED if way == "down" else BYTES_ACKED) for s in sockets.values()]
    for s in sockets.values():
        client.reset(s)
    poll.close()
    return moved[::2], moved[1::2]


def ratio(ours, theirs):
    """Mean of ours / mean of theirs, and how far chance may have moved it (one standard error)."""
    a, b = statistics.mean(ours), statistics.mean(theirs)
    spread = math.hypot(statistics.stdev(ours) / a, statistics.stdev(theirs) / b) / math.sqrt(len(ours))
    return a / b, a / b * spread


@test("with loss and 20 ms, as many bytes a second as the kernel's own TCP, or nearly", rows=["TST-7"], limit=240, long=True,
      cases={"%g %% lost, %s" % (p, w): (p, w) for p in (0.1, 1, 3) for w in ("down", "up")})
def _(t, percent, way):
    lab = t.lab()
    lab.direct_route()
    server = Process(t, lab.srv, [built(t, "load", os.path.join(HERE, "..", "bench", "load.c")), "serve", "0.0.0.0", str(PORT)], "load")
    server.wait_line("^ready", 5)
    relay = Process(t, lab.gw, ["/usr/bin/python3", os.path.join(HERE, "harness", "redirect.py"), str(REDIRECT)], "redirect")
    relay.wait_line("^listening", 10)
    gw = lab.gateway(proxies=[servers.culvert_serve(lab)], log={"level": "warning"})
    lossy_wire(t, lab, round(percent * 1000))
    ours, theirs, start = [], [], time.monotonic()
    while True:
        a, b = load(lab, way, SECONDS)
        ours, theirs = ours + a, theirs + b
        gw.wait_no_flows(30)
        r, error = ratio(ours, theirs)
        if len(ours) >= 3 * FLOWS and (r - 2 * error > PROMISED or error < 0.02 or time.monotonic() - start > 120):
            break
    rates = [statistics.mean(x) * 8 / SECONDS / 1e6 for x in (ours, theirs)]
    t.note("%.2f Mbit/s a flow, the kernel's own %.2f: %.3f +- %.3f times as much (%d flows each)" % (*rates, r, 2 * error, len(ours)))
    check(r + 2 * error >= PROMISED, "%.3f +- %.3f times the kernel's goodput, promised are %g" % (r, 2 * error, PROMISED))
