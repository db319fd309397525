"""The TUN device: taken, lost, downed, narrowed, adopted (faults.md section 3)."""
import fcntl
import os
import re
import struct

from harness import check, check_equal, client, gateway, servers, test, within
from harness import lab as at

TUNSETIFF, IFF_TUN, IFF_TAP, IFF_NO_PI, IFF_VNET_HDR, IFF_MULTI_QUEUE = 0x400454ca, 1, 2, 0x1000, 0x4000, 0x100


def make_tun(namespace, name, flags):
    """A device that this process owns, in the namespace."""
    with namespace.entered():
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
    return fd


def refused(lab, status=2, seconds=3, prefix=(), **more):
    """Start a gateway that must not start: its one sentence."""
    gw = lab.gateway(rules=["MATCH,REJECT"], ready=False, prefix=prefix, **more)
    gw.stopped = True
    check_equal(gw.process.wait(lab.context.slow(seconds)), status, "exit status\n" + gw.log)
    gw.check_log()
    lines = [x for x in gw.process.lines if x.strip()]
    check(lines and len(lines) <= 3, "%d lines: %s" % (len(lines), lines))
    return " ".join(lines)


@test("the device is set down and up: nothing leaks meanwhile, flows go on", rows=["V3", "G5"], limit=40)
def _(t):
    lab = t.lab()
    lab.services()
    lab.direct_route()
    dante = servers.dante(lab)
    gw = lab.gateway(proxies=[dante])
    s = t.own(client.tcp(lab.cli, at.TARGET[0], 7), "close")
    s.sendall(b"before")
    check_equal(client.receive(s, 6), b"before")
    only = lab.only("tcp port %d" % dante.port)
    lab.gw.ip("link set tun0 down")
    check(client.outcome(lab.cli, at.TARGET[0], 8080, timeout=1)[0] != "open", "a connection came about with the device down")
    gw.process.wait_line("down", t.slow(3))
    lab.gw.ip("link set tun0 up")
    at.restore_table(lab)
    within(t.slow(5), lambda: [a for x in lab.gw.ip_json("addr", "show", "tun0") for a in x["addr_info"]
                               if a["local"] == "fdfe:dcba:9876::1"], "the IPv6 address is back")
    s.sendall(b"after")
    check_equal(client.receive(s, 5), b"after", "the old connection")
    for target in at.TARGET:
        client.download(lab.cli, target, 100000)
    only.check_nothing()
    gw.check_alive()


@test("the device is deleted: made anew within 2 s with everything on it", rows=["V4"], limit=40)
def _(t):
    lab = t.lab()
    lab.services()
    gw = lab.gateway(proxies=[servers.dante(lab)])
    client.download(lab.cli, at.TARGET[0], 1000)
    old = lab.gw.ip_json("link", "show", "tun0")[0]["ifindex"]
    cpu = gw.resources().cpu_s
    lab.gw.ip("link del tun0")
    within(t.slow(2), lambda: [x for x in lab.gw.ip_json("link") if x["ifname"] == "tun0" and x["ifindex"] != old
                               and "UP" in x["flags"]], "tun0 is back")
    within(t.slow(2), lambda: len([a for x in lab.gw.ip_json("addr", "show", "tun0") for a in x["addr_info"]]) >= 2, "its addresses")
    at.restore_table(lab)
    for target in at.TARGET:
        client.download(lab.cli, target, 100000)
    gw.check_alive()
    t.note("%.2f s of CPU for all of it" % (gw.resources().cpu_s - cpu))


@test("a name that is taken, too long or not a name: exit 2, a sentence, nothing changed", rows=["V6"],
      cases={"by another owner": "owner", "by a bridge": "bridge", "16 bytes": "x" * 16, "with a slash": "a/b", "empty": ""})
def _(t, case):
    lab = t.lab()
    name = {"owner": "tun0", "bridge": "tun0"}.get(case, case)
    if case == "owner":
        fd = make_tun(lab.gw, "tun0", IFF_TUN | IFF_NO_PI)
        t.stack.callback(os.close, fd)
    elif case == "bridge":
        lab.gw.ip("link add tun0 type bridge")
    before = gateway.network_state(lab.gw)
    sentence = refused(lab, tun={"name": name})
    check(name in sentence or "tun.name" in sentence, "it does not name it: " + sentence)
    gateway.check_network(lab.gw, before)


@test("a device without multi-queue: one queue, one line says so", rows=["V7", "V8"])
def _(t):
    lab = t.lab()
    lab.services()
    lab.gw.run(["ip", "tuntap", "add", "dev", "tun0", "mode", "tun"])
    gw = lab.gateway(proxies=[servers.dante(lab)], workers=2)
    check(re.search(r"queue", gw.log), "no line about queues:\n" + gw.log)
    for target in at.TARGET:
        client.download(lab.cli, target, 1 << 20)
        client.upload(lab.cli, target, 1 << 20)


@test("no /dev/net/tun, no permission, no capability: exit 1 within a second, each with its own sentence", rows=["V9"],
      cases={"missing": "missing", "mode 0600": "mode", "no CAP_NET_ADMIN": "capability"})
def _(t, case):
    lab = t.lab()
    empty = t.path("dev")
    os.mkdir(empty)
    os.chmod(empty, 0o755)
    script = {"missing": 'mount --bind %s /dev/net && exec "$@"' % empty,
              "mode": 'mknod -m 600 %s/tun c 10 200; mount --bind %s /dev/net && '
                      'exec setpriv --reuid 65534 --inh-caps +net_admin --ambient-caps +net_admin --clear-groups "$@"' % (empty, empty),
              "capability": 'mknod -m 666 %s/tun c 10 200; mount --bind %s /dev/net && '
                            'exec setpriv --bounding-set -net_admin --inh-caps -net_admin "$@"' % (empty, empty)}[case]
    if case == "mode":      # the configuration is readable by its owner alone
        os.chmod(t.dir, 0o777)
    sections = gateway.config([], ["MATCH,REJECT"], api={"unix": t.path("a.sock")})
    conf = t.write("v9.yaml", gateway.config_text(sections))
    gw = gateway.Gateway(lab, ["run", "-c", conf], t.path("a.sock"),
                         prefix=["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh"])
    gw.stopped = True
    check_equal(gw.process.wait(t.slow(1.5)), 1, "exit status\n" + gw.log)
    said = {"missing": "/dev/net/tun", "mode": "/dev/net/tun|permission", "capability": "CAP_NET_ADMIN|root"}[case]
    check(re.search(said, gw.log, re.I), "the sentence does not help: " + gw.log)


@test("the MTU changes while running: followed within a second", rows=["V11"], limit=40,
      cases={"1280": 1280, "576": 576, "9000": 9000})
def _(t, mtu):
    lab = t.lab(mtu=9000)
    lab.services()
    gw = lab.gateway(proxies=[servers.dante(lab)])
    s = t.own(client.tcp(lab.cli, at.TARGET[0], 7), "close")
    s.sendall(b"x" * 10000)
    client.receive(s, 10000)
    lab.gw.ip("link set tun0 mtu %d" % mtu)
    within(t.slow(2), lambda: gw.status().get("mtu", mtu) == mtu, "the status shows it", every=0.1)
    s.sendall(b"y" * 100000)
    check_equal(client.receive(s, 100000), b"y" * 100000, "the old connection")
    import socket
    TCP_MAXSEG = 2
    with client.tcp(lab.cli, at.TARGET[0], 7) as new:
        check(new.getsockopt(socket.IPPROTO_TCP, TCP_MAXSEG) <= mtu - 40, "MSS above the MTU")
    client.download(lab.cli, at.TARGET[0], 1 << 20)
    if mtu >= 1280:
        at.restore_table(lab)
        client.download(lab.cli, at.TARGET[1], 1 << 20)
    gw.check_alive()


@test("an adopted descriptor that is no TUN, or closed: exit 2, naming what was found", rows=["V5"],
      cases={"a file": "file", "closed": "closed", "a TAP": "tap"})
def _(t, case):
    lab = t.lab()
    fd = {"tap": lambda: make_tun(lab.gw, "tap0", IFF_TAP | IFF_NO_PI)}.get(case, lambda: os.open("/dev/null", os.O_RDWR))()
    os.dup2(fd, 97, inheritable=True)
    t.stack.callback(os.close, 97)
    t.stack.callback(os.close, fd)
    sections = gateway.config([], ["MATCH,REJECT"], api={"unix": t.path("a.sock")})
    sections["tun"] = {"fd": 97}
    conf = t.write("v5.yaml", gateway.config_text(sections))
    gw = gateway.Gateway(lab, ["run", "-c", conf], t.path("a.sock"), pass_fds=[] if case == "closed" else [97])
    gw.stopped = True
    check_equal(gw.process.wait(t.slow(3)), 2, "exit status\n" + gw.log)
    check(re.search(r"97|fd", gw.log), gw.log)


@test("an adopted TUN works", rows=["V5"],
      cases={"plain": IFF_TUN | IFF_NO_PI, "with the virtio-net header": IFF_TUN | IFF_NO_PI | IFF_VNET_HDR})
def _(t, flags):
    lab = t.lab()
    lab.services()
    fd = make_tun(lab.gw, "adopted0", flags)
    lab.gw.ip("link set adopted0 up", "addr add 198.18.0.1/30 dev adopted0", "addr add fdfe:dcba:9876::1/126 dev adopted0")
    sections = gateway.config([servers.dante(lab)], api={"unix": t.path("culvert.sock")}, workers=1)
    sections["tun"] = {"fd": 97}
    conf = t.write("adopt.yaml", gateway.config_text(sections), 0o600)
    os.dup2(fd, 97, inheritable=True)
    t.stack.callback(os.close, 97)
    t.stack.callback(os.close, fd)
    gw = gateway.Gateway(lab, ["run", "-c", conf], t.path("culvert.sock"), pass_fds=[97])
    gw.wait_ready()
    lab.route_into("adopted0")
    for target in at.TARGET:
        client.download(lab.cli, target, 1 << 20)


@test("the device's queue overflows: only loss, TCP recovers", rows=["V10"], limit=40)
def _(t):
    lab = t.lab()
    lab.services()
    gw = lab.gateway(proxies=[servers.culvert_serve(lab)])
    lab.gw.ip("link set tun0 txqueuelen 4")
    with client.udp(lab.cli, at.TARGET[0], 9) as s:
        s.setblocking(False)
        for _ in range(20000):
            try:
                s.send(b"burst" * 200)
            except OSError:
                continue
    for target in at.TARGET:
        client.download(lab.cli, target, 8 << 20)
        client.upload(lab.cli, target, 8 << 20)
    gw.check_alive()
