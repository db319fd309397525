"""Rules about addresses and owners where a packet does not say enough: names with several addresses, sockets with several targets."""
import socket

from harness import check, check_equal, client, servers, test, within
from harness import lab as at
from harness.core import check_table
from harness.core import within
from harness.names import dig, dns, question


def fake_of(lab, name, kind="A"):
    address = dig(lab.cli, at.PROXY2[0], name, kind)[0]
    check(address.startswith("198.19."), address)
    return address


def through(lab, name):
    """What a byte sent to the echo services of @name says: by TCP, by UDP."""
    said = []
    fake = fake_of(lab, name)
    try:
        with client.tcp(lab.cli, fake, 7000) as s:
            s.sendall(b"echo\nx")
            said.append(client.receive(s, 1))
    except OSError as e:
        said.append(type(e).__name__)
    try:
        said.append(client.ask(lab.cli, fake, 7, b"y"))
    except OSError as e:
        said.append(type(e).__name__)
    return said


@test("a name is dialled only at the addresses that its rule took it by: split DNS is no way round a rule",
      cases={"late": ("late", "ConnectionRefusedError"), "early": ("early", "ConnectionResetError")}, limit=60)
def _(t, accept, refused):
    lab = t.lab()
    lab.direct_route()
    lab.services()
    nobody = at.PROXY2[0]      # is there, and serves none of this
    servers.unbound(lab, more=["split.test. 60 IN A " + at.TARGET[0], "split.test. 60 IN A " + nobody,
                               "split.test. 60 IN AAAA " + at.TARGET[1], "far.test. 60 IN A " + at.TARGET2[0]])
    gw = lab.gateway(rules=["IP-CIDR,%s/32,DIRECT" % nobody, "IP-CIDR,%s/32,DIRECT" % at.TARGET2[0], "MATCH,REJECT"],
                     stack={"tcp": {"accept": accept}}, **dns(t, "fake-ip", nameserver=[at.TARGET[0]]))
    for _ in range(3):
        check_equal(through(lab, "split.test"), [refused, "ConnectionRefusedError"], "only where the rule leads")
        check_equal(through(lab, "far.test"), [b"x", b"y"], "a name with one address")
    gw.says(r"\(split\.test\) via DIRECT by IP-CIDR,%s/32,DIRECT" % nobody)


@test("every target that a UDP socket talks to by name is looked up for rules about addresses", limit=60)
def _(t):
    lab = t.lab()
    lab.direct_route()
    lab.services()
    servers.dnsmasq(lab, {"near.test": at.TARGET[0], "far.test": at.TARGET2[0], "both.test": "%s,%s" % at.TARGET2})
    gw = lab.gateway(rules=["IP-CIDR,%s/32,REJECT" % at.TARGET[0], "IP-CIDR6,%s/128,REJECT-DROP" % at.TARGET2[1],
                            "MATCH,DIRECT"],
                     **dns(t, "fake-ip", nameserver=[at.TARGET[0]]))
    near, far, both = (fake_of(lab, n) for n in ("near.test", "far.test", "both.test"))
    with lab.cli.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(10)
        for _ in range(2):
            s.sendto(b"far", (far, 7))
            check_equal(s.recvfrom(100), (b"far", (far, 7)))
            s.connect((near, 7))
            s.send(b"near")
            try:
                check(False, "answered: %r" % s.recv(100))
            except ConnectionRefusedError:
                pass
            s.connect((far, 7))
            s.send(b"again")
            check_equal(s.recv(100), b"again")
    before = gw.counter("flow.dropped")
    with lab.cli.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.sendto(b"both", (both, 7))
        within(10, lambda: gw.counter("flow.dropped") == before + 1, "the datagram that a rule drops", every=0.05)
    check_equal(gw.counter("flow.undecided"), 0)


ASKS_FIRST = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(15)
s.sendto(bytes.fromhex("%s"), ("%s", 53))
s.recvfrom(1000)
s.connect(("%s", 7))
s.send(b"two")
try:
    print(s.recv(100).decode())
except ConnectionRefusedError:
    print("refused")
"""


@test("a UID rule holds for a UDP socket whose first datagram was a question that is answered here", limit=60)
def _(t):
    lab = t.lab()
    lab.services()
    lab.direct_route()
    gw = lab.gateway(rules=["UID,4000,REJECT", "MATCH,DIRECT"], tun={"auto-route": True}, route=False, **dns(t, "fake-ip"))
    wrong = []
    for uid, wanted in ((4000, "refused"), (5000, "two")):
        script = ASKS_FIRST % (question("a.test").hex(), at.TARGET[0], at.TARGET[0])
        r = lab.gw.result(["setpriv", "--reuid", str(uid), "--clear-groups", "/usr/bin/python3", "-c", script], timeout=60)
        if (r.stdout + r.stderr).strip() != wanted:
            wrong.append("%d: %s" % (uid, r.stdout + r.stderr))
    check_table(wrong)
    check(gw.counter("dns.fake") >= 2, "answered here")
