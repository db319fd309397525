#!/usr/bin/env python3
"""docs/examples/ping_handler.c does what its table says, on a TUN device of its own in a private network namespace: none, pass,
consume and reply, for an address of the stack's and for any other (icmp.md O1 to O3, O8 to O14).

No clock: the kernel hands a packet to the device before sendto() returns, and the program reads all that came before it ends.
"""
import os
import socket
import struct
import subprocess
import sys
import time

import private_network

PROGRAM = os.path.join(os.environ.get("BUILD_DIR", "build/dev"), "example_ping_handler")
OWN, OTHER = "10.9.0.2", "10.9.0.77"
OWN6, OTHER6 = "fd09::2", "fd09::77"

# mode: is the handler asked, and who of own, other, own IPv6, other IPv6 is answered
TABLE = {
    "none": (False, {OWN, OWN6, OTHER6}),
    "pass": (True, {OWN, OWN6, OTHER6}),
    "consume": (True, set()),
    "reply": (True, {OWN, OTHER, OWN6, OTHER6}),
}


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF


def echo(v6, ident):
    head = struct.pack("!BBHHH", 128 if v6 else 8, 0, 0, ident, 1)
    body = b"is anybody there"
    if v6:  # the kernel fills in ICMPv6's checksum
        return head + body
    return struct.pack("!BBHHH", 8, 0, checksum(head + body), ident, 1) + body


def open_sockets():
    four = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    six = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.getprotobyname("ipv6-icmp"))
    for s in (four, six):
        s.setblocking(False)
    return four, six


def replies(s, offset, kind):
    """Addresses that echo replies came from; whatever else the socket holds is passed over."""
    out = []
    while True:
        try:
            data, sender = s.recvfrom(2048)
        except BlockingIOError:
            return out
        if data[offset] == kind:
            out.append(sender[0])


def configure(device):
    for words in (f"address add 10.9.0.1/24 dev {device}", f"-6 address add fd09::1/64 dev {device} nodad",
                  f"link set {device} up"):
        subprocess.run(["ip", *words.split()], check=True)
    # The kernel makes the local route of an IPv6 address later, in a work queue; replies that come before it are lost.
    deadline = time.monotonic() + 10
    while not subprocess.run("ip -6 route show table local fd09::1".split(), capture_output=True).stdout:
        if time.monotonic() > deadline:
            raise SystemExit("fd09::1 has no local route")


def run_mode(mode):
    """What is wrong with this mode, as lines."""
    asked, answered = TABLE[mode]
    p = subprocess.Popen([PROGRAM, "ping0", OWN + "/24", OWN6 + "/64", mode], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                         text=True)
    ready = p.stdout.readline()
    if ready != f"ready: {mode}\n":
        p.communicate()
        return [f"{mode}: did not start: {ready!r}"]
    configure("ping0")
    four, six = open_sockets()
    for i, target in enumerate((OWN, OTHER)):
        four.sendto(echo(False, 100 + i), (target, 0))
    for i, target in enumerate((OWN6, OTHER6)):
        six.sendto(echo(True, 200 + i), (target, 0))
    said, _ = p.communicate("")
    seen = replies(four, 20, 0) + replies(six, 0, 129)
    wrong = []
    if p.returncode != 0:
        wrong.append(f"{mode}: exit status {p.returncode}")
    if sorted(seen) != sorted(answered):
        wrong.append(f"{mode}: answers from {sorted(seen)}, not {sorted(answered)}")
    for target in (OWN, OTHER, OWN6, OTHER6):
        if (f"asked about {target}" in said) != asked:
            wrong.append(f"{mode}: {target}: the handler was {'not ' if asked else ''}asked")
    if mode == "reply" and said.count("replied, and once only: yes") != 4:
        wrong.append(f"reply: not four replies of one each:\n{said}")
    return wrong


def inside():
    wrong = [line for mode in TABLE for line in run_mode(mode)]
    for line in wrong:
        print(line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(private_network.main(inside, PROGRAM))
