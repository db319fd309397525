"""auto-route when the network changes under it, when others undo it, and when it is killed."""
import os
import shutil
import signal
import time

from harness import check, check_equal, client, gateway, servers, test, within
from harness import lab as at
from harness import net
from harness.proc import Process
from routelab import peer, soon_works, works


def start(lab, name="culvert", proxy=None, **tun):
    proxy = proxy or servers.culvert_serve(lab)
    return lab.gateway(proxies=[proxy], tun=dict({"auto-route": True}, **tun), route=False, name=name), proxy


def prepared(t):
    lab = t.lab()
    lab.services()
    lab.direct_route()
    return lab


def second_uplink(lab):
    net.link(lab.gw, "wan1", ["10.77.20.1/24", "fd77:20::1/64"], lab.srv, "eth1", ["10.77.20.2/24", "fd77:20::2/64"])
    lab.srv.ip("route add 198.51.100.0/24 via 10.77.20.1")


def both_are_out(lab):
    for ns in (lab.gw, lab.cli):
        for target in at.TARGET:
            check(not client.outcome(ns, target, 8080, timeout=0.7)[0] == "open", "%s is open from %s" % (target, ns.name))


@test("the uplink moves to another interface: new flows at once, old ones on the vanished address end", rows=["E3"], limit=60)
def _(t):
    lab = prepared(t)
    second_uplink(lab)
    gw, proxy = start(lab)
    works(lab)
    old = client.tcp(lab.cli, at.TARGET[0], 7)
    old.sendall(b"x")
    check_equal(client.receive(old, 1), b"x")
    lab.gw.ip("route replace default via 10.77.20.2 dev wan1", "route replace default via fd77:20::2 dev wan1",
              "route add %s via 10.77.20.2" % proxy.address)
    lab.gw.ip("addr del %s/24 dev wan0" % at.GW_SRV[0], "addr del %s/64 dev wan0" % at.GW_SRV[1])
    gw.says("is gone: ended", 5)
    old.settimeout(5)
    try:
        check(not old.recv(1), "data on a dead connection")
    except OSError:
        pass
    only = lab.only("inbound", "wan0")      # that is: nothing at all is sent
    soon_works(lab)
    works(lab)
    only.check_nothing()
    # and back
    lab.gw.ip("addr add %s/24 dev wan0" % at.GW_SRV[0], "addr add %s/64 dev wan0 nodad" % at.GW_SRV[1],
              "route del %s via 10.77.20.2" % proxy.address,
              "route replace default via %s dev wan0" % at.PROXY[0], "route replace default via %s dev wan0" % at.PROXY[1])
    lab.gw.ip("link del wan1")
    soon_works(lab)
    gw.check_alive()


@test("the uplink is down for a while, and comes back", rows=["E3"], limit=60)
def _(t):
    lab = prepared(t)
    gw, proxy = start(lab)
    works(lab)
    only = lab.only("host %s" % proxy.address)
    lab.gw.ip("link set wan0 down")
    both_are_out(lab)
    time.sleep(1)                 # the length of the fault
    lab.gw.ip("link set wan0 up", "addr add %s/64 dev wan0 nodad" % at.GW_SRV[1])
    lab.gw.ip("route replace default via " + at.PROXY[0], "route replace default via " + at.PROXY[1])
    soon_works(lab)
    only.check_nothing()
    gw.check_alive()


@test("the uplink's address leaves and is back at once, as when DHCP renews: connections go on", rows=["E3"])
def _(t):
    lab = prepared(t)
    gw, proxy = start(lab)
    with client.tcp(lab.cli, at.TARGET[0], 7) as s:
        s.settimeout(5)
        for i in range(5):
            lab.gw.ip("addr del %s/24 dev wan0" % at.GW_SRV[0], "addr add %s/24 dev wan0" % at.GW_SRV[0],
                      "route replace default via " + at.PROXY[0])
            s.sendall(b"%d" % i)
            check_equal(client.receive(s, 1), b"%d" % i)
    check("is gone: ended" not in gw.log, "an address that was back was taken for gone")
    works(lab)
    gw.check_alive()


@test("an uplink that filters strictly by reverse path: one line names the fix, and the fix works", rows=["E11"])
def _(t):
    lab = prepared(t)
    lab.gw.sysctl("net/ipv4/conf/wan0/rp_filter", 1)
    gw = lab.gateway(rules=["MATCH,DIRECT"], tun={"auto-route": True}, route=False)
    line = gw.says("filters strictly by reverse path", 5)
    check("sysctl net.ipv4.conf.wan0.rp_filter=2" in line, line)
    check_equal(client.outcome(lab.gw, at.TARGET[0], 8080, timeout=1.5)[0] == "open", False, "open without the fix")
    lab.gw.sysctl("net/ipv4/conf/wan0/rp_filter", 2)
    within(5, lambda: client.outcome(lab.gw, at.TARGET[0], 8080, timeout=2)[0] == "open", "the fix works", every=0.1)
    gw.check_alive()


@test("started without a network: ready at once, and works when it comes", rows=["X12"], limit=60)
def _(t):
    lab = t.lab()
    lab.services()
    lab.gw.ip("link set wan0 down")
    gw = lab.gateway(proxies=[{"name": "up", "type": "socks5", "server": at.PROXY[0], "port": 1082, "udp": True}],
                     tun={"auto-route": True}, route=False)
    both_are_out(lab)
    gw.check_alive()
    lab.gw.ip("link set wan0 up", "addr add %s/64 dev wan0 nodad" % at.GW_SRV[1])
    lab.direct_route()
    servers.culvert_serve(lab)
    soon_works(lab)
    works(lab)
    gw.check_alive()


@test("a firewall's reload flushes everything: our table is back once, and other tables are never touched", rows=["E7"], limit=60)
def _(t):
    lab = prepared(t)
    lab.gw.nft("table inet other {\n chain c { type filter hook forward priority 0; counter mark set 0x7\n }\n}\n")
    before = gateway.network_state(lab.gw)
    gw, proxy = start(lab)

    def ours():
        return lab.gw.run(["nft", "list", "table", "inet", "culvert"], check=False)
    whole = ours()
    check("ct direction reply" in whole, "no table of ours: %s" % whole)
    lab.gw.nft("flush ruleset\ntable inet docker {\n chain c { type filter hook forward priority 0; counter mark set 0x9\n }\n}\n")
    gw.says("somebody flushed our table of nftables; it is back", 5)
    check_equal(ours(), whole)
    lab.gw.nft("flush table inet culvert\n")
    gw.says("flushed again; it comes back in a minute", 5)
    check("ct direction reply" not in ours(), "it was put back a second time")
    works(lab)
    check_equal(gw.terminate(), 0)
    lab.gw.nft("flush ruleset\ntable inet other {\n chain c { type filter hook forward priority 0; counter mark set 0x7\n }\n}\n")
    gateway.check_network(lab.gw, before)


@test("the TUN is set down, and deleted: nothing leaves meanwhile, and it is back", rows=["V3", "V12"], limit=60)
def _(t):
    lab = prepared(t)
    before = gateway.network_state(lab.gw)
    gw, proxy = start(lab)
    works(lab)
    only = lab.only("host %s" % proxy.address)
    lab.gw.ip("link set tun0 down")
    both_are_out(lab)
    lab.gw.ip("link set tun0 up")
    soon_works(lab)
    lab.gw.ip("link del tun0")
    soon_works(lab)
    lab.gw.ip("rule del pref 9090")
    gw.says("somebody removed 1 routes or rules of ours; they are back", 5)
    works(lab)
    lab.gw.ip("rule del pref 9090")
    gw.says("were removed again; they come back in a minute", 5)
    only.stop()                   # that rule was the lead
    check_equal(gw.terminate(), 0)
    gateway.check_network(lab.gw, before)


@test("what is removed twice within a minute is back when the minute is over", rows=["V12", "E7"], limit=120, long=True)
def _(t):
    lab = prepared(t)
    gw, _ = start(lab)
    for words in ("they are back", "were removed again; they come back in a minute"):
        lab.gw.ip("rule del pref 9090")
        gw.says(words, 5)
    for words in ("it is back", "flushed again; it comes back in a minute"):
        lab.gw.nft("flush table inet culvert\n")
        gw.says(words, 5)
    within(70, lambda: "9090:" in lab.gw.run(["ip", "rule"]) and
           "ct direction reply" in lab.gw.run(["nft", "list", "table", "inet", "culvert"], check=False), "still left so")
    works(lab)
    gw.check_alive()


def kill(gw):
    gw.process.signal(signal.SIGKILL)
    gw.stopped = True
    gw.process.wait(5)


def cleanup(t, lab, *more):
    r = lab.gw.result([gateway.program(t), "cleanup", *more], timeout=20)
    return r.returncode, (r.stdout + r.stderr).strip()


@test("kill -9: nothing leaks from the dead one's rules, cleanup puts back every byte, and so does a new start", rows=["X2", "X3"],
      limit=90)
def _(t):
    lab = prepared(t)
    before = gateway.network_state(lab.gw)
    gw, proxy = start(lab)
    works(lab)
    check_equal(cleanup(t, lab)[0], 1, "cleanup beside a living one")
    works(lab)
    kill(gw)
    only = lab.only("host %s" % proxy.address)
    both_are_out(lab)
    only.check_nothing()
    status, said = cleanup(t, lab)
    check_equal(status, 0, said)
    check("removed" in said, said)
    gateway.check_network(lab.gw, before)
    check_equal(cleanup(t, lab), (0, "nothing to remove"))
    second, _ = start(lab, "second", proxy)
    kill(second)
    third, _ = start(lab, "third", proxy, **{"strict-route": True, "route-exclude-address": ["192.0.2.0/24"]})
    third.says("an earlier culvert left")
    works(lab)
    check_equal(third.terminate(), 0)
    gateway.check_network(lab.gw, before)


UNIT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../packaging/systemd/culvert.service")
AS_THE_UNIT = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps=-all,+net_admin,+net_raw",
               "--ambient-caps=-all,+net_admin,+net_raw", "--bounding-set=-all,+net_admin,+net_raw", "--no-new-privs"]


def stop_line(t):
    """ExecStopPost= of the packaged unit, with what systemd would leave it of privileges."""
    with open(UNIT, encoding="utf-8") as f:
        words = [x.split("=", 1)[1].split() for x in f if x.startswith("ExecStopPost=")][0]
    copy = t.path("culvert-copy")
    shutil.copy(gateway.program(t), copy)
    os.chmod(copy, 0o755)
    os.chmod(t.dir, 0o755)
    return AS_THE_UNIT + [copy] + words[1:]


@test("the helper is killed: one line, exit 1, nothing leaks, and the service's stop line puts back every byte", rows=["X3", "X8"],
      limit=60)
def _(t):
    lab = prepared(t)
    before = gateway.network_state(lab.gw)
    gw, proxy = start(lab)
    works(lab)
    with open("/proc/%d/task/%d/children" % (gw.pid, gw.pid)) as f:
        helper = int(f.read().split()[0])
    only = lab.only("host %s" % proxy.address)
    os.kill(helper, signal.SIGKILL)
    gw.stopped = True
    check_equal(gw.process.wait(t.slow(5)), 1, "exit status")
    check_equal(len([x for x in gw.process.lines if "helper process" in x and "culvert cleanup" in x]), 1, "lines about it")
    both_are_out(lab)
    only.check_nothing()
    r = lab.gw.result(stop_line(t), timeout=20)
    check_equal(r.returncode, 0, r.stdout + r.stderr)
    gateway.check_network(lab.gw, before)


@test("on-exit: a block holds after a clean end and after a kill, until cleanup or a new start", rows=["X3"],
      cases={"block": ("block", None), "keep": ("keep", None), "block, killed": ("block", kill)}, limit=90)
def _(t, how, end):
    lab = prepared(t)
    before = gateway.network_state(lab.gw)
    gw, proxy = start(lab, **{"on-exit": how})
    works(lab)
    if end is None:
        check_equal(gw.terminate(), 0)
    else:
        end(gw)
    only = lab.only("host %s" % proxy.address)
    both_are_out(lab)
    check_equal(client.outcome(lab.gw, proxy.address, proxy.port, timeout=2)[0], "open", "a connected network is in reach")
    check_equal(cleanup(t, lab, "--stopped")[0], 0)
    both_are_out(lab)
    only.check_nothing()
    again, _ = start(lab, "again", proxy, **{"on-exit": how})
    works(lab)
    check_equal(again.terminate(), 0)
    both_are_out(lab)
    check_equal(cleanup(t, lab)[0], 0)
    gateway.check_network(lab.gw, before)
    check(peer(lab.gw, at.TARGET[0]) == at.GW_SRV[0], "the machine's own way is open again")


def run_confirm(t, lab, proxy, seconds, name):
    conf = t.write(name + ".yaml", gateway.config_text(gateway.config(
        [proxy], tun={"auto-route": True, "on-exit": "block"}, api={"unix": t.path(name + ".sock")})), 0o600)
    gw = gateway.Gateway(lab, ["run", "-c", conf, "--confirm", seconds], t.path(name + ".sock"), name=name)
    gw.wait_ready()
    return gw


@test("--confirm: nobody confirms, and everything is put back, whatever on-exit says; a signal confirms", rows=["X1"], limit=60)
def _(t):
    lab = prepared(t)
    before = gateway.network_state(lab.gw)
    proxy = servers.culvert_serve(lab)
    gw = run_confirm(t, lab, proxy, "1s", "silent")
    gw.says("nobody confirmed", 5)
    gw.stopped = True
    check_equal(gw.process.wait(t.slow(5)), 1)
    gateway.check_network(lab.gw, before)
    gw = run_confirm(t, lab, proxy, "2s", "signal")
    gw.process.signal(signal.SIGUSR1)
    gw.says("confirmed: the gateway stays", 5)
    works(lab)
    check_equal(gw.terminate(), 0)
    check_equal(cleanup(t, lab)[0], 0)
    gateway.check_network(lab.gw, before)


def etc_of_its_own(t, mounted):
    """A mount namespace whose /etc is a copy that the test may change; the host's is never touched. Returns how to enter it."""
    etc = t.path("etc")
    net.command(["cp", "-a", "/etc", etc])
    if os.path.lexists(etc + "/resolv.conf"):
        os.unlink(etc + "/resolv.conf")
    with open(etc + "/resolv.conf", "w") as f:
        f.write("# a line of the administrator's\nnameserver %s\n" % at.TARGET[0])
    t.write("mounted", open(etc + "/resolv.conf").read())
    script = "mount --bind %s /etc && %s echo up && exec sleep 1000" % (
        etc, "mount --bind %s /etc/resolv.conf &&" % t.path("mounted") if mounted else "")
    holder = Process(t, None, ["unshare", "-m", "sh", "-c", script], "holder")
    holder.wait_line("^up$", 10)
    return ["nsenter", "-m", "-t", str(holder.pid), "--"]


@test("system-dns: resolv.conf names us and comes back with every byte, after an end and after a kill", rows=["X1", "X2", "X3"],
      cases={"a file": False, "a mount of its own, as in containers": True}, limit=60)
def _(t, mounted):
    lab = prepared(t)
    servers.unbound(lab)
    enter = etc_of_its_own(t, mounted)
    show = ["sh", "-c", "stat -c '%a %u %F' /etc/resolv.conf; cat /etc/resolv.conf; ls /etc | grep culvert"]
    before = lab.gw.run(enter + show, check=False)
    state = gateway.network_state(lab.gw)

    def go(name):
        gw = lab.gateway(proxies=[servers.culvert_serve(lab, port=1082 + len(name))], tun={"auto-route": True, "system-dns": True},
                         dns={"mode": "fake-ip"}, route=False, prefix=enter, name=name)
        during = lab.gw.run(enter + show)
        check("nameserver 198.18.0.2" in during and "nameserver fdfe:dcba:9876::2" in during, during)
        r = lab.gw.result(enter + ["dig", "+short", "+time=2", "example.test"])
        check(r.stdout.startswith("198.1"), "no fake address: %s" % r.stdout)
        return gw
    gw = go("one")
    check_equal(gw.terminate(), 0)
    check_equal(lab.gw.run(enter + show, check=False), before, "after an end")
    kill(go("two"))
    r = lab.gw.result(enter + [gateway.program(t), "cleanup"], timeout=20)
    check_equal(r.returncode, 0, r.stderr)
    check("/etc/resolv.conf is back" in r.stdout, r.stdout)
    check_equal(lab.gw.run(enter + show, check=False), before, "after a kill and cleanup")
    kill(go("three"))
    check_equal(go("four").terminate(), 0)
    check_equal(lab.gw.run(enter + show, check=False), before, "after a kill and another start")
    gateway.check_network(lab.gw, state)
