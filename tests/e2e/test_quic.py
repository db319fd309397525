"""QUIC by its name: the first datagrams of a flow are held until they tell it (config.md sniffer)."""
import errno
import socket
import time

from faultd import UdpRelay
from harness import check, check_equal, client, test, within
from harness import lab as at
from harness.quic import two_datagrams

RULES = ["DOMAIN-SUFFIX,one.test,one", "MATCH,rest"]
ONE, REST = two_datagrams("www.one.test"), two_datagrams("other.test")


def two_ways(t, timeout="300ms", rules=None, idle="10s", **more):
    """The gateway and the relays `one` and `rest`."""
    lab = t.lab()
    relays = {name: UdpRelay(t, lab.srv, at.PROXY[0], 2001 + i) for i, name in enumerate(("one", "rest"))}
    gw = lab.gateway(proxies=[r.proxy(name) for name, r in relays.items()], rules=rules or RULES,
                     stack={"udp": {"dns-idle-timeout": idle}}, sniffer={"timeout": timeout}, **more)
    return lab, gw, relays["one"], relays["rest"]


def came(relay, n):
    return [payload for _, payload, _ in relay.wait_datagrams(n)]


@test("a hello of two datagrams is routed by its name, both orders, and nothing is lost or changes places", quick=True,
      cases={"in order": [0, 1], "out of order": [1, 0], "one sent again": [0, 0, 1]})
def _(t, order):
    lab, gw, one, rest = two_ways(t, timeout="10s")
    for n, (relay, hello) in enumerate(((one, ONE), (rest, REST))):
        with client.udp(lab.cli, at.TARGET[0], 443) as s:
            sent = [hello[i] for i in order] + [b"early data", b"more"]
            for data in sent:
                s.send(data)
            check_equal(came(relay, len(sent)) == sent, True, "what the relay got")
            check_equal([s.recv(2048) for _ in sent] == sent, True, "its answers")
        check_equal(gw.counter("flow.sniffed"), n + 1)
    check_equal((len(one.datagrams), len(rest.datagrams)), (len(order) + 2, len(order) + 2))


@test("a hello whose second datagram is lost waits for sniffer.timeout, then the rules decide without a name; so does the rest")
def _(t):
    lab, gw, one, rest = two_ways(t, timeout="1s")
    with client.udp(lab.cli, at.TARGET[0], 443) as s:
        start = time.monotonic()
        s.send(ONE[0])
        check_equal(came(rest, 1) == [ONE[0]], True, "the first datagram")
        check(time.monotonic() - start >= 0.9, "it waited")
        s.send(ONE[1])                       # too late: the flow stays where it is
        check_equal(came(rest, 2)[1] == ONE[1], True, "the second one")
    check_equal((len(one.datagrams), gw.counter("flow.sniffed")), (0, 0))


@test("16 datagrams are held for a name, then all of them go by the rules, in order")
def _(t):
    lab, _, one, rest = two_ways(t, timeout="10s", idle="1s")
    with client.udp(lab.cli, at.TARGET[0], 443) as s:
        sent = [ONE[0]] + [b"%d" % i for i in range(15)]
        for i, data in enumerate(sent):
            if i == 15:
                time.sleep(2.5)              # a mapping that waits for a name is not idle, whatever dns-idle-timeout says
            s.send(data)
        check_equal(came(rest, 16) == sent, True, "all sixteen, in order")
    check_equal(len(one.datagrams), 0)


@test("one client port with two targets: each keeps the way that its name gave it")
def _(t):
    lab, gw, one, rest = two_ways(t, timeout="10s")
    with client.udp(lab.cli, family=socket.AF_INET, source=at.CLI[0]) as s:
        a, b = (at.TARGET[0], 443), (at.TARGET2[0], 443)
        for data, target in ((ONE[0], a), (REST[0], b), (ONE[1], a), (REST[1], b)):
            s.sendto(data, target)
        check_equal((came(one, 2) == ONE, came(rest, 2) == REST), (True, True), "the hellos")
        for i in range(10):                  # what follows has no name in it
            s.sendto(b"a%d" % i, a)
            s.sendto(b"b%d" % i, b)
        check_equal(came(one, 12)[2:], [b"a%d" % i for i in range(10)])
        check_equal(came(rest, 12)[2:], [b"b%d" % i for i in range(10)])
    check_equal((gw.counter("flow.sniffed"), one.associates, rest.associates), (2, 1, 1))


@test("a name that is rejected is refused at once, and a port that is not sniffed waits for nothing")
def _(t):
    lab, gw, one, rest = two_ways(t, timeout="10s", rules=["DOMAIN-SUFFIX,one.test,REJECT", "MATCH,rest"], idle="1s")
    with client.udp(lab.cli, at.TARGET[0], 443) as s:
        for data in ONE:
            s.send(data)
        try:
            s.recv(2048)
            refused = False
        except ConnectionRefusedError:
            refused = True
        check(refused, "port unreachable")
    check_equal(gw.counter("flow.sniffed"), 1)
    gw.wait_no_flows(kind="udp")             # what was refused leaves no mapping for the five minutes of others
    with client.udp(lab.cli, at.TARGET[0], 4433) as s:
        s.send(ONE[0])
        check_equal(came(rest, 1) == [ONE[0]], True, "another port")
    check_equal(len(one.datagrams), 0)


@test("a way out that does not open is told to the client of a held hello, which then takes TCP")
def _(t):
    lab = t.lab()
    dead = {"name": "one", "type": "socks5", "server": at.PROXY[0], "port": 9}
    lab.gateway(proxies=[dead], rules=["DOMAIN-SUFFIX,one.test,one", "MATCH,REJECT"], sniffer={"timeout": "10s"})
    with client.udp(lab.cli, at.TARGET[0], 443) as s:
        s.setsockopt(socket.IPPROTO_IP, 11, 1)       # IP_RECVERR: a connected socket hears of unreachable hosts
        for data in ONE:
            s.send(data)
        try:
            s.recv(2048)
            heard = None
        except OSError as e:
            heard = e.errno
        check_equal(heard, errno.EHOSTUNREACH)


@test("a table full of hellos that wait is no way round a rule: what finds no place is lost, and tried again later")
def _(t):
    lab, gw, _, rest = two_ways(t, timeout="3s", rules=["DOMAIN-SUFFIX,one.test,REJECT", "MATCH,rest"], runtime={"workers": 1})
    halves = [client.udp(lab.cli, at.TARGET[0], 443, source=(at.CLI, at.CLI2)[i % 2][0]) for i in range(128)]   # 64 a client
    for s in halves:
        s.send(REST[0])
    within(10, lambda: gw.flows("udp") == len(halves), "all of them wait", every=0.05)
    with client.udp(lab.cli, at.TARGET[0], 443, timeout=0.2) as s:
        refused = False
        while not refused and not any(p in ONE for _, p, _ in rest.datagrams):   # as QUIC sends its hello again
            for data in ONE:
                s.send(data)
            try:
                s.recv(2048)
            except ConnectionRefusedError:
                refused = True
            except TimeoutError:
                pass
    for s in halves:
        s.close()
    check(gw.counter("flow.undecided") > 0, "the table was not full")
    came(rest, 1)
    check(not any(payload in ONE for _, payload, _ in rest.datagrams), "the rejected hello went out")
