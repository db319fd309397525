"""auto-route at home: on a desktop and on a router, beside servers, port forwards, firewalls and other programs that route."""
import os

from harness import Skip, check, check_equal, client, gateway, servers, test, within
from harness import lab as at
from routelab import (FORWARDED, SSH, EchoServer, came_directly, from_internet, is_led, peer, port_forward, soon_works, talk,
                      works)


def start(t, lab, proxy=None, **tun):
    proxy = proxy or servers.culvert_serve(lab)
    return lab.gateway(proxies=[proxy], tun=dict({"auto-route": True}, **tun), route=False), proxy


@test("traffic, a server on the machine and a port forward in parallel: answers go back the way of their question", rows=["E7"],
      limit=60)
def _(t):
    lab = t.lab()
    lab.services()
    lab.direct_route()
    port_forward(lab)
    EchoServer(t, lab.gw, SSH)
    EchoServer(t, lab.cli, SSH)
    before = gateway.network_state(lab.gw)
    earlier = [from_internet(lab, f, SSH) for f in (0, 1)]
    away = [client.tcp(lab.gw, a, 7, timeout=5) for a in at.TARGET2]      # our own, from before
    for s in earlier + away:
        talk(s, b"before")
    gw, proxy = start(t, lab)
    only = lab.only("host %s or ((host %s or host %s) and (tcp port %d or tcp port %d or tcp port 7))"
                    % (proxy.address, *at.TARGET2, SSH, FORWARDED))
    later = [from_internet(lab, f, p) for f in (0, 1) for p in (SSH, FORWARDED)]
    for _ in range(3):
        works(lab)
        for s in earlier + later + away:
            talk(s, b"still here")
    only.check_nothing()
    check_equal(gw.terminate(), 0)
    for s in earlier + later + away:
        talk(s, b"and after")
        s.close()
    gateway.check_network(lab.gw, before)


@test("strict-route: a family that the TUN does not carry is refused, and nothing of it leaves", rows=["E4"])
def _(t):
    lab = t.lab()
    lab.services()
    lab.direct_route()
    before = gateway.network_state(lab.gw)
    gw, proxy = start(t, lab, **{"strict-route": True, "address": ["198.18.0.1/30"]})
    only = lab.only("host %s" % proxy.address)
    for ns in (lab.gw, lab.cli):
        check(is_led(ns, at.TARGET[0]), "IPv4 is not led")
        check(client.outcome(ns, at.TARGET[1], 8080, timeout=3)[0] in ("ENETUNREACH", "EHOSTUNREACH"),
              "IPv6 is not refused: %s" % (client.outcome(ns, at.TARGET[1], 8080, timeout=3),))
    only.check_nothing()
    check_equal(gw.terminate(), 0)
    gateway.check_network(lab.gw, before)


@test("strict-route: neither a more specific route nor a LAN with public addresses leads past the tunnel", rows=["E5"], limit=60)
def _(t):
    lab = t.lab()
    lab.services()
    lab.direct_route()
    gw, proxy = start(t, lab, **{"strict-route": True})
    only = lab.only("host %s" % proxy.address)
    # A DHCP server's option 121, and router advertisements with more specific routes.
    lab.gw.ip(*["route add %s via %s proto dhcp" % (n, at.PROXY[":" in n])
                for n in ("10.77.9.0/24", "0.0.0.0/1", "fd77:9::/64", "::/1")])
    gw.says(r"strict-route: a route to 10\.77\.9\.0/24 would lead past the tunnel and is not followed", 5)
    within(t.slow(5), lambda: set(gw.status()["routes-not-followed"]) ==
           {"10.77.9.0/24", "0.0.0.0/1", "fd77:9::/64", "::/1"}, "status shows them")
    # A LAN that claims to be part of the internet.
    lab.gw.ip("addr add 203.0.113.1/24 dev lan0", "addr add 2001:db8:7::1/64 dev lan0 nodad")
    works(lab)
    for target, v6 in (("203.0.113.9", ()), ("2001:db8:7::9", ("-6",))):
        said = lab.gw.run(["ip", *v6, "route", "get", target])
        check("dev tun0" in said, "%s goes elsewhere: %s" % (target, said))
    # A private network that comes later is in reach, and gone again when it leaves.
    lab.gw.ip("addr add 10.77.60.1/24 dev lan0")
    reach = ["ip", "route", "get", "10.77.60.9"]
    within(5, lambda: "dev lan0" in lab.gw.run(reach), "the new network is in reach", every=0.05)
    lab.gw.ip("addr del 10.77.60.1/24 dev lan0")
    within(5, lambda: "dev tun0" in lab.gw.run(reach), "the network that left is not", every=0.05)
    only.check_nothing()
    gw.check_alive()


@test("without strict-route a more specific route of the machine is followed", rows=["E5"])
def _(t):
    lab = t.lab()
    lab.services()
    lab.direct_route()
    gw, _ = start(t, lab)
    works(lab)
    lab.gw.ip("route add 10.77.9.0/24 via " + at.PROXY[0], "route add fd77:9::/64 via " + at.PROXY[1])
    for target in at.TARGET:
        check(came_directly(lab.gw, target), "%s: seen as %s" % (target, peer(lab.gw, target)))
    gw.check_alive()


def as_user(uid, gid):
    return ["setpriv", "--reuid", str(uid), "--regid", str(gid), "--clear-groups", "--"]


@test("users and groups choose what is led; forwarded traffic is nobody's", rows=["E7"],
      cases={"exclude-uid": ({"exclude-uid": [4001]}, {(4001, 1): False, (4002, 1): True}),
             "include-uid": ({"include-uid": ["4001-4010", 0]}, {(4001, 1): True, (4010, 1): True, (4011, 1): False}),
             "exclude-gid": ({"exclude-gid": [5001]}, {(1, 5001): False, (1, 5002): True}),
             "include-gid": ({"include-gid": [5001, "5005-5006"]}, {(1, 5001): True, (1, 5006): True, (1, 5002): False}),
             "both": ({"include-uid": [4001], "exclude-gid": [5001]},
                      {(4001, 1): True, (4001, 5001): False, (4002, 1): False})})
def _(t, keys, wanted):
    lab = t.lab()
    lab.services()
    lab.direct_route()
    before = gateway.network_state(lab.gw)
    gw, _ = start(t, lab, **keys)
    for (uid, gid), led in wanted.items():
        for target in at.TARGET:
            seen = peer(lab.gw, target, as_user(uid, gid))
            check_equal((seen in at.PROXY + at.TARGET, seen in at.GW_SRV), (led, not led),
                        "user %d, group %d, %s: seen as %s" % (uid, gid, target, seen))
    works(lab, (lab.cli,))
    check_equal(gw.terminate(), 0)
    gateway.check_network(lab.gw, before)


@test("interfaces choose what is led: LAN clients only, or all but them", rows=["E7"],
      cases={"include lan0": ({"include-interface": ["lan0"]}, True, False),
             "include lo": ({"include-interface": ["lo"]}, False, True),
             "include both": ({"include-interface": ["lan0", "lo"]}, True, True),
             "exclude lan0": ({"exclude-interface": ["lan0"]}, False, True)})
def _(t, keys, clients, machine):
    lab = t.lab()
    lab.services()
    lab.direct_route()
    before = gateway.network_state(lab.gw)
    gw, _ = start(t, lab, **keys)
    for ns, led in ((lab.cli, clients), (lab.gw, machine)):
        for target in at.TARGET:
            seen = peer(ns, target)
            check_equal((seen in at.PROXY + at.TARGET, seen in at.GW_SRV + at.CLI + at.CLI2), (led, not led),
                        "%s from %s: seen as %s" % (target, ns.name, seen))
    check_equal(gw.terminate(), 0)
    gateway.check_network(lab.gw, before)


UNIFIED = "/sys/fs/cgroup/unified"


@test("cgroups choose what is led", rows=["E7"],
      cases={"exclude": ("exclude-cgroup", False), "include": ("include-cgroup", True)})
def _(t, key, inside_is_led):
    root = UNIFIED if os.path.isdir(UNIFIED) else "/sys/fs/cgroup"
    name = "culvert-test-%d" % os.getpid()
    try:
        os.mkdir(os.path.join(root, name))
    except OSError as e:
        raise Skip("no cgroup can be made: %s" % e)
    try:
        lab = t.lab()
        lab.services()
        lab.direct_route()
        # nft looks paths up below /sys/fs/cgroup
        prefix = [] if root != UNIFIED else ["unshare", "-m", "sh", "-c",
                                             "mount --bind %s /sys/fs/cgroup && exec \"$@\"" % UNIFIED, "sh"]
        gw = lab.gateway(proxies=[servers.culvert_serve(lab)], tun={"auto-route": True, key: ["/" + name]}, route=False,
                         prefix=prefix)
        enter = ["sh", "-c", "echo $$ > %s/cgroup.procs && exec \"$@\"" % os.path.join(root, name), "sh"]
        for target in at.TARGET:
            for argv, led in ((enter, inside_is_led), ((), not inside_is_led)):
                seen = peer(lab.gw, target, argv)
                check_equal((seen in at.PROXY + at.TARGET, seen in at.GW_SRV), (led, not led),
                            "%s, %s: seen as %s" % ("inside" if argv else "outside", target, seen))
        gw.check_alive()
    finally:
        os.rmdir(os.path.join(root, name))


@test("a socket with the mark of another program's rule goes that program's way", rows=["E7"])
def _(t):
    lab = t.lab()
    lab.services()
    lab.direct_route()
    gw, _ = start(t, lab)
    works(lab)
    with client.tcp(lab.gw, at.TARGET[0], 7, mark=0xca6c) as s:
        check_equal(s.getsockname()[0], "198.18.0.1", "the way of an unknown mark")
    for v6 in (False, True):
        lab.gw.ip("route add default via %s table 77" % at.PROXY[v6], "rule add fwmark 0xca6c lookup 77 pref 32000", v6=v6)

    def its_way():
        with client.tcp(lab.gw, at.TARGET[0], 7, mark=0xca6c) as a, client.tcp(lab.gw, at.TARGET[1], 7, mark=0xca6c) as b:
            return (a.getsockname()[0], b.getsockname()[0]) == at.GW_SRV
    within(5, its_way, "marked sockets go the way of the other program", every=0.1)
    works(lab)
    gw.check_alive()


@test("who probes for the TUN's address from the uplink learns nothing", rows=["E6"])
def _(t):
    lab = t.lab()
    lab.services()
    lab.direct_route()
    lab.srv.ip("route add 198.18.0.0/30 via " + at.GW_SRV[0], "route add fdfe:dcba:9876::/126 via " + at.GW_SRV[1])
    tun = ("198.18.0.1", "fdfe:dcba:9876::1")

    def probes():
        return [client.outcome(lab.srv, a, p, timeout=1)[0] for a in tun for p in (1, SSH)] + \
               [client.ping(lab.srv, a, 1)[0] for a in tun]
    EchoServer(t, lab.gw, SSH)
    proxy = servers.culvert_serve(lab)
    plain = lab.gateway(proxies=[proxy], route=False, name="plain")
    check_equal(probes(), ["ECONNREFUSED", "open"] * 2 + [1, 1], "what a probe shows without auto-route")
    check_equal(plain.terminate(), 0)
    gw, _ = start(t, lab, proxy)
    only = lab.only("host %s or dst host %s or dst host %s" % (proxy.address, *tun))
    seen = probes()
    check(not any(x in ("ECONNREFUSED", "open", 1) for x in seen), "a probe was answered: %s" % seen)
    only.check_nothing()
    works(lab)
    gw.check_alive()


@test("the printed plan, carried out by hand as anybody, is what the program does", rows=["X1"])
def _(t):
    lab = t.lab()
    lab.direct_route()
    keys = {"auto-route": True, "strict-route": True, "exclude-uid": [4001], "include-interface": ["lan0", "lo"], "exclude-gid": [7],
            "route-exclude-address": ["192.0.2.0/24", "2001:db8::/32"], "on-exit": "block"}
    gw = lab.gateway(rules=["MATCH,DIRECT"], tun=keys, route=False)
    made = gateway.network_state(lab.gw)
    readable = t.write("plan.yaml", open(gw.config_path).read(), 0o644)
    os.chmod(os.path.dirname(readable), 0o755)
    printed = lab.gw.result(["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--", gateway.program(t), "run", "-c", readable, "--dry-run"],
                            timeout=20)
    check_equal(printed.returncode, 0, printed.stderr)
    check_equal(gw.terminate(), 0)
    check_equal(lab.gw.result([gateway.program(t), "cleanup"]).returncode, 0)
    lab.gw.ip("tuntap add tun0 mode tun", "link set tun0 up", "addr add 198.18.0.1/30 dev tun0", "addr add fdfe:dcba:9876::1/126 dev tun0 nodad")
    done = lab.gw.result(["sh", "-e"], stdin=open(t.write("plan.sh", printed.stdout)))
    check_equal(done.returncode, 0, done.stderr)
    now = gateway.network_state(lab.gw)
    for what in ("-4 rule", "-6 rule", "nft"):
        check_equal(now[what], made[what], what)


# As OpenWrt's fw4 makes it: what is of no zone is refused. docs/recipes.md has the rule.
FIREWALL = """table inet fw {
 chain forward { type filter hook forward priority filter; policy drop;
  ct state established,related accept
  iifname lan0 oifname wan0 accept
 }
}
"""


@test("a router whose firewall forwards nothing to unknown interfaces: the rule of docs/recipes.md opens the device, and no more", limit=60)
def _(t):
    lab = t.lab()
    lab.services()
    lab.gw.nft(FIREWALL)
    gw, proxy = start(t, lab, **{"include-interface": ["lan0"]})
    only = lab.only("host %s" % proxy.address)
    for target in at.TARGET:
        check_equal(client.outcome(lab.cli, target, 8080, timeout=1)[0], "timed out", "%s through a closed firewall" % target)
    recipe = open(os.path.join(os.path.dirname(__file__), "../../docs/recipes.md"), encoding="utf-8").read()
    rule = "nft insert rule inet fw4 forward iifname br-lan oifname culvert0 accept"
    check(rule in recipe, "docs/recipes.md has another rule")
    lab.gw.run(rule.replace("fw4", "fw").replace("br-lan", "lan0").replace("culvert0", "tun0").split())
    works(lab, [lab.cli])
    only.check_nothing()
    gw.check_alive()
