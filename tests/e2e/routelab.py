"""routelab.py - what the tests of routing share: servers on the gateway's own host and on a LAN client, and ways to tell them.

An address of srv behind the wire (at.TARGET2) is "the internet": who connects from there to the gateway, or through it to a
server on the LAN, must be answered by the way he came."""
import contextlib
import socket
import threading

from harness import check, check_equal, client, net, within
from harness import lab as at

SSH, FORWARDED = 22, 2222


class EchoServer:
    """TCP echo in a namespace, both families; ends with the test."""

    def __init__(self, t, namespace, port):
        self.sockets = []
        for family, any_address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
            s = namespace.socket(family, socket.SOCK_STREAM)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            s.bind((any_address, port))
            s.listen(16)
            self.sockets.append(s)
            threading.Thread(target=self._accept, args=(s,), daemon=True).start()
        t.own(self, "stop")

    def _accept(self, s):
        with contextlib.suppress(OSError):
            while True:
                c, _ = s.accept()
                threading.Thread(target=self._echo, args=(c,), daemon=True).start()

    @staticmethod
    def _echo(c):
        with contextlib.suppress(OSError), c:
            while data := c.recv(65536):
                c.sendall(data)

    def stop(self):
        for s in self.sockets:
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)
            s.close()


def talk(s, text):
    """A round trip on an open connection to an echo server."""
    s.settimeout(5)
    s.sendall(text)
    check_equal(client.receive(s, len(text)), text, "the echo")


def from_internet(lab, family, port, address=None):
    """A connection from beyond the wire to the gateway, or to what it forwards."""
    return client.tcp(lab.srv, address or at.GW_SRV[family], port, timeout=5, source=at.TARGET2[family])


def port_forward(lab):
    """gw leads connections to FORWARDED on its uplink to cli, as a home router does."""
    lab.gw.nft("table inet home {\n chain pre { type nat hook prerouting priority dstnat;\n"
               "  iifname wan0 tcp dport %d meta nfproto ipv4 dnat ip to %s:%d\n"
               "  iifname wan0 tcp dport %d meta nfproto ipv6 dnat ip6 to [%s]:%d\n }\n}\n"
               % (FORWARDED, at.CLI[0], SSH, FORWARDED, at.CLI[1], SSH))


def peer(namespace, target, argv=()):
    """Whose address the target sees: a proxy's, or that of whoever came directly; None: nobody came."""
    r = namespace.result(list(argv) + ["curl", "-s", "-m", "4", "http://%s:8080/peer" % net.url_host(target)])
    return r.stdout.strip() or None


def came_directly(namespace, target, argv=()):
    return peer(namespace, target, argv) in at.GW_SRV + at.CLI + at.CLI2


def is_led(namespace, target, argv=()):
    return peer(namespace, target, argv) in at.PROXY + at.TARGET + at.TARGET2


def works(lab, namespaces=None):
    """Both families, from the gateway's host and from a client behind it, through the proxy."""
    for ns in namespaces or (lab.gw, lab.cli):
        for target in at.TARGET:
            check(is_led(ns, target), "%s from %s was not led: %s" % (target, ns.name, peer(ns, target)))


def soon_works(lab, seconds=8):
    def all_led():
        return all(is_led(ns, target) for ns in (lab.gw, lab.cli) for target in at.TARGET)
    within(seconds, all_led, "traffic is led again, both families", every=0.2)
