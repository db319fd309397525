"""lab.py - the small internet of a test.

    cli --veth-- gw (the gateway, tun0) --veth-- srv (proxies, targets)

Proxies listen on the addresses PROXY of the wire between gw and srv; targets have addresses of their own, behind srv. So a
packet with a target's address on that wire is a leak, and one capture filter shows it. cli reaches the targets by gw's
rule for what comes in from cli; a client in gw itself by a rule for the targets' addresses that spares marked sockets.

With far() there is a second way out of gw, through two routers, for what shows every hop:

    gw --wan1-- r1 ---- r2 ---- far (FAR)
"""
import ipaddress

from . import capture, gateway, net, servers

CLI = ("10.77.1.2", "fd77:1::2")
CLI2 = ("10.77.1.3", "fd77:1::3")       # a second client on the same host
GW_CLI = ("10.77.1.1", "fd77:1::1")
GW_SRV = ("10.77.2.1", "fd77:2::1")
PROXY = ("10.77.2.2", "fd77:2::2")
PROXY2 = ("10.77.2.3", "fd77:2::3")     # a second host for proxies: the healthy one of the bystanders
TARGET = ("10.77.9.1", "fd77:9::1")
TARGET2 = ("10.77.9.2", "fd77:9::2")    # for the bystanders
UNREACHABLE = ("10.77.8.1", "fd77:8::1")   # srv answers: host unreachable
PROHIBITED = ("10.77.8.2", "fd77:8::2")    # srv answers: prohibited
SILENT = ("10.77.8.3", "fd77:8::3")        # srv drops silently
NO_ROUTE = ("10.78.0.1", "fd78::1")        # srv has no route

R1 = ("10.77.3.2", "fd77:3::2")            # as seen from gw
R2 = ("10.77.4.2", "fd77:4::2")
FAR = ("10.77.10.1", "fd77:a::1")
FAR_NOBODY = ("10.77.5.99", "fd77:5::99")      # on the wire of r2 and far, and nobody has it
FAR_UNREACHABLE = ("10.77.10.8", "fd77:a::8")  # r2 answers: host unreachable
FAR_PROHIBITED = ("10.77.10.9", "fd77:a::9")   # r2 answers: prohibited

BEHIND_R2 = ("10.77.5.0/24", "10.77.10.0/24", "fd77:5::/64", "fd77:a::/64")
FAR_NETWORKS = BEHIND_R2 + ("10.77.4.0/24", "fd77:4::/64")
TARGETS4, TARGETS6 = "10.77.8.0/23", "fd77:8::/31"

TABLE = 20


class Lab:
    """Three namespaces and what runs in them."""

    def __init__(self, context, tag, mtu=1500):
        self.context, self.tag = context, tag
        self.made = []
        self.cli, self.gw, self.srv = (self._namespace(k) for k in ("cli", "gw", "srv"))
        net.link(self.cli, "eth0", [a + s for c in (CLI, CLI2) for a, s in zip(c, ("/24", "/64"))],
                 self.gw, "lan0", [GW_CLI[0] + "/24", GW_CLI[1] + "/64"], mtu)
        net.link(self.gw, "wan0", [GW_SRV[0] + "/24", GW_SRV[1] + "/64"],
                 self.srv, "eth0", [a + s for p in (PROXY, PROXY2) for a, s in zip(p, ("/24", "/64"))])
        self.cli.ip("route add default via " + GW_CLI[0], "route add default via " + GW_CLI[1])
        self.srv.ip("route add 10.77.1.0/24 via " + GW_SRV[0], "route add fd77:1::/64 via " + GW_SRV[1],
                    *["addr add %s dev lo%s" % (a, " nodad" if ":" in a else "") for t in (TARGET, TARGET2) for a in t],
                    *["route add unreachable " + a for a in UNREACHABLE],
                    *["route add prohibit " + a for a in PROHIBITED])
        self.srv.nft("table inet silent {\nchain o { type filter hook output priority 0; policy accept;\n"
                     "ip daddr %s drop\nip6 daddr %s drop\n}\n}\n" % SILENT)
        self.srv.ip("route add %s via %s" % (SILENT[0], GW_SRV[0]), "route add %s via %s" % (SILENT[1], GW_SRV[1]))
        self.gw.sysctl("net/ipv4/ip_forward", 1)
        self.gw.sysctl("net/ipv6/conf/all/forwarding", 1)
        for ns in (self.cli, self.gw):
            ns.sysctl("net/ipv4/tcp_syn_linear_timeouts", 0, missing_ok=True)

    def _namespace(self, kind):
        ns = net.Namespace("%s-%s" % (self.tag, kind))
        self.made.append(ns)
        return ns

    def namespace(self, kind):
        """One more, for tests with a topology of their own."""
        return self._namespace(kind)

    def close(self):
        for ns in reversed(self.made):
            ns.remove()

    def far(self, mtu=1500):
        """Two routers and a host behind them, reached by gw directly; `mtu` is that of the wire between the routers."""
        self.r1, self.r2, self.host = (self._namespace(k) for k in ("r1", "r2", "far"))
        for (a, b), (a_name, b_name), net_, size in (((self.gw, self.r1), ("wan1", "in"), 3, 1500),
                                                     ((self.r1, self.r2), ("out", "in"), 4, mtu),
                                                     ((self.r2, self.host), ("out", "eth0"), 5, 1500)):
            net.link(a, a_name, ["10.77.%d.1/24" % net_, "fd77:%d::1/64" % net_],
                     b, b_name, ["10.77.%d.2/24" % net_, "fd77:%d::2/64" % net_], size)
        for router in (self.r1, self.r2):
            router.sysctl("net/ipv4/ip_forward", 1)
            router.sysctl("net/ipv6/conf/all/forwarding", 1)
            router.sysctl("net/ipv4/icmp_ratelimit", 0)
            router.sysctl("net/ipv4/icmp_msgs_per_sec", 100000, missing_ok=True)
            router.sysctl("net/ipv6/icmp/ratelimit", 0)
            for family in ("ipv4", "ipv6"):      # an address that nobody has is given up after 0.6 s
                router.sysctl("net/%s/neigh/out/retrans_time_ms" % family, 200)
        self.gw.ip(*["route add %s via %s" % (d, R1[":" in d]) for d in FAR_NETWORKS])
        self.r1.ip(*["route add %s via %s" % (d, R2[":" in d]) for d in BEHIND_R2])
        self.r2.ip("route add 10.77.3.0/24 via 10.77.4.1", "route add fd77:3::/64 via fd77:4::1",
                   "route add 10.77.10.0/24 via 10.77.5.2", "route add fd77:a::/64 via fd77:5::2",
                   *["route add unreachable " + a for a in FAR_UNREACHABLE],
                   *["route add prohibit " + a for a in FAR_PROHIBITED])
        self.host.ip("route add default via 10.77.5.1", "route add default via fd77:5::1",
                     *["addr add %s dev lo%s" % (a, " nodad" if ":" in a else "") for a in FAR])

    # ---- ways into the TUN ----

    def route_into(self, device):
        """What comes from cli goes into `device`, and what gw itself sends to the targets, ICMP errors included."""
        for v6 in (False, True):
            self.gw.ip("rule add iif lan0 lookup %d pref 100" % TABLE,
                       "route add unreachable default metric 4000000 table %d" % TABLE,
                       "route add default dev %s metric 10 table %d" % (device, TABLE),
                       "rule add fwmark %d lookup main pref 50" % gateway.ROUTING_MARK,
                       "rule add to %s lookup %d pref 60" % (TARGETS6 if v6 else TARGETS4, TABLE), v6=v6)

    def route_plainly(self):
        """The kernel routes cli's packets to the targets; for tests of the harness."""
        self.gw.ip("route add default via " + PROXY[0], "route add default via " + PROXY[1],
                   "route add unreachable 192.0.2.0/24")

    def direct_route(self):
        """gw may reach the targets itself: needed for DIRECT, and the trap for leaks."""
        self.route_plainly()

    # ---- what runs ----

    def gateway(self, **kw):
        """Start culvert in gw, wait until it is ready, and route cli into it."""
        return gateway.start(self, **kw)

    def services(self, **kw):
        return servers.Services(self, **kw)

    def only(self, allowed, interface="wan0", namespace=None):
        """A capture that must stay empty: nothing but `allowed` (a pcap filter) passes the interface."""
        return self.context.own(capture.Only(self.context, namespace or self.gw, interface, allowed))

    def lose(self, percent, namespace=None, interface="eth0"):
        """Random loss on a client's link, both directions (there is no netem on many kernels), packet by packet. Who has an address is
        still found out: three lost questions are "no route to host"."""
        self.drop("meta l4proto { tcp, udp, icmp } numgen random mod 1000 < %d" % round(percent * 10), namespace, interface)

    def drop(self, which, namespace=None, interface="eth0"):
        """Lose what nft's expression `which` matches, where it arrives: dropped at its output, a sender would be told (EPERM)."""
        for end, name in ((namespace or self.cli, interface), (self.gw, "lan0")):
            end.ip("link set %s gso_max_segs 1" % name)
            end.nft("table netdev loss\ndelete table netdev loss\ntable netdev loss {\n"
                    "chain i { type filter hook ingress device %s priority 0;\n%s counter drop\n}\n}\n" % (name, which))


def in_network(address, network):
    return ipaddress.ip_address(address) in ipaddress.ip_network(network)


def restore_table(lab):
    """The test's own routes through the device went with it, when it was deleted."""
    for v6 in (False, True):
        lab.gw.ip("route replace default dev tun0 metric 10 table %d" % TABLE, v6=v6)
