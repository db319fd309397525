"""The harness itself, without culvert: if these fail, no other result means anything."""
import socket
import struct

from faultd import FaultServer, UdpRelay, cut_after, handshake, hang, relay, server_bytes
from harness import Failure, check, check_equal, client, servers, test
from harness import lab as at
from harness.bystander import bystanders


@test("curl fetches through dante and microsocks, both families", culvert=False)
def _(t):
    lab = t.lab()
    lab.services()
    for server in (servers.dante(lab), servers.microsocks(lab)):
        for target in at.TARGET:
            body = client.curl(lab.gw, servers.Services.url(target, "bytes/100000"), "-x",
                               server.url.replace("socks5", "socks5h"))
            check_equal(len(body), 100000, "%s to %s" % (server.name, target))


@test("dante relays datagrams of both families", culvert=False)
def _(t):
    lab = t.lab()
    lab.services()
    dante = servers.dante(lab)
    for target in at.TARGET:
        with client.tcp(lab.gw, dante.address, dante.port) as control:
            control.sendall(b"\5\1\0")
            client.receive(control, 2)
            control.sendall(b"\5\3\0\1\0\0\0\0\0\0")
            answer = client.receive(control, 10)
            check_equal(answer[:4], b"\5\0\0\1", "reply to ASSOCIATE")
            port = struct.unpack(">H", answer[8:])[0]
            packed = socket.inet_pton(socket.AF_INET6 if ":" in target else socket.AF_INET, target)
            header = b"\0\0\0" + (b"\4" if ":" in target else b"\1") + packed + struct.pack(">H", 7)
            check_equal(client.ask(lab.gw, dante.address, port, header + b"ahoi")[-4:], b"ahoi", target)


@test("the plain kernel carries the bystanders, and iperf3, dig and ping", culvert=False, limit=40)
def _(t):
    lab = t.lab()
    lab.services()
    servers.unbound(lab)
    servers.nginx(lab, {"hello": b"x" * 1000})
    servers.iperf3(lab)
    lab.route_plainly()
    with bystanders(lab):
        client.curl_bytes(lab.cli, at.TARGET[0], 1 << 20)
        client.curl_upload(t, lab.cli, at.TARGET[1], 1 << 20)
        check_equal(client.dig(lab.cli, at.TARGET[0], "example.test"), [at.TARGET[0]])
        check_equal(len(client.dig(lab.cli, at.TARGET[1], "big.test", "TXT")), 6)
        check_equal(client.ping(lab.cli, at.TARGET[1])[0], 3)
        check_equal(len(client.curl(lab.cli, "http://%s/hello" % at.TARGET[0])), 1000)
        check_equal(lab.cli.result(["iperf3", "-c", at.TARGET[0], "-n", "10M"]).returncode, 0)


@test("refused, unreachable, prohibited and silent targets look so", culvert=False)
def _(t):
    lab = t.lab()
    lab.cli.sysctl("net/ipv4/tcp_syn_retries", 1)
    seen = {}
    for name, addresses in (("refused", at.TARGET), ("unreachable", at.UNREACHABLE), ("silent", at.SILENT)):
        seen[name] = [client.outcome(lab.srv, a, 4, timeout=1)[0] for a in addresses]
    check_equal(seen, {"refused": ["ECONNREFUSED"] * 2, "unreachable": ["EHOSTUNREACH"] * 2, "silent": ["timed out"] * 2})


@test("a capture shows a packet that should not be there, and is empty otherwise", culvert=False)
def _(t):
    lab = t.lab()
    lab.services()
    lab.route_plainly()
    quiet = lab.only("tcp port 8080")
    client.curl_bytes(lab.cli, at.TARGET[0], 10000)
    quiet.check_nothing()
    leaky = lab.only("tcp port 8080")
    client.ask(lab.cli, at.TARGET[0], 7, b"leak")
    check(leaky.leaked(), "the echo was not seen")


@test("loss on the client's link is real and streams survive it", culvert=False)
def _(t):
    lab = t.lab()
    lab.services()
    lab.route_plainly()
    lab.lose(1)
    client.download(lab.cli, at.TARGET[0], 4 << 20)
    client.upload(lab.cli, at.TARGET[1], 4 << 20)
    counted = lab.cli.run(["nft", "list", "ruleset"])
    check("counter packets 0 " not in counted, "nothing was dropped:\n" + counted)


@test("a client that reads a wrong byte fails", culvert=False)
def _(t):
    checker = client.StreamChecker()
    good = next(client.stream_blocks(65536))
    check_equal(checker.feed(good), None)
    check_equal(checker.feed(good), 65536, "a block twice")


@test("the fault server follows its plan", culvert=False)
def _(t):
    lab = t.lab()
    lab.services()
    good = FaultServer(t, lab.srv, at.PROXY[0], 2000, handshake([relay()]))
    body = client.curl(lab.gw, servers.Services.url(at.TARGET[0], "bytes/70000"), "-x", "socks5://%s:2000" % at.PROXY[0])
    check_equal(len(body), 70000)
    check_equal(good.connections[0].target, (at.TARGET[0], 8080))
    for k in range(server_bytes()):
        FaultServer(t, lab.srv, at.PROXY[0], 2001 + k, cut_after(k, [hang()]))
        with client.tcp(lab.gw, at.PROXY[0], 2001 + k, timeout=0.1) as s:
            s.sendall(b"\5\1\0\5\1\0\1\1\2\3\4\0\7")
            try:
                got = client.receive(s, 100)
            except TimeoutError:
                got = None
            check_equal(got, None, "cut after %d" % k)


@test("the lying relay tells the truth by default", culvert=False)
def _(t):
    lab = t.lab()
    r = UdpRelay(t, lab.srv, at.PROXY[0], 2000)
    with client.tcp(lab.gw, at.PROXY[0], 2000) as s:
        s.sendall(b"\5\1\0\5\3\0\1\0\0\0\0\0\0")
        client.receive(s, 12)
        message = b"\0\0\0\1\1\2\3\4\0\7ahoi"
        check_equal(client.ask(lab.gw, at.PROXY[0], r.relay_port, message), message)


@test("a bystander that loses its server is noticed", culvert=False, limit=40)
def _(t):
    lab = t.lab()
    services = lab.services()
    lab.route_plainly()
    try:
        with bystanders(lab):
            services.process.stop()
    except Failure as e:
        check("ended" in str(e) or "reset" in str(e), str(e))
        return
    raise Failure("nobody noticed")


@test("an ordinary user exists inside a mount namespace only, with a TUN node of its own", culvert=False)
def _(t):
    import os
    from harness.user import NAME, UID, User
    lab = t.lab()
    user = User(t, lab, at.TARGET[0])
    mode = os.stat("/dev/net/tun").st_mode
    r = user.run(["sh", "-c", "id -un; cat /etc/resolv.conf; [ -w /dev/net/tun ] && echo writable; unshare -Un true && echo namespaces; "
                              "sleep 60 >/dev/null 2>&1 & echo $!"])
    out = r.stdout.decode()
    check(out.startswith(NAME + "\nnameserver 10.77.9.1") and "writable" in out and "namespaces" in out, out + r.stderr.decode())
    check_equal(user.processes(), [int(out.split()[-1])], "processes of the user")
    os.kill(user.processes()[0], 9)
    check_equal(os.stat("/dev/net/tun").st_mode, mode, "the host's TUN node")
    with open("/etc/passwd") as f:
        check(":%d:" % UID not in f.read(), "the host knows the user")
    for how, wanted in (("count", "No space left"), ("filter", "not permitted")):
        forbidden = User(t, lab, prefix="/usr/bin/python3 %s %s" % (os.path.join(os.path.dirname(__file__), "harness/forbid.py"), how))
        r = forbidden.run(["sh", "-c", "id -u; unshare -U true"])
        check(r.stdout.decode().strip() == str(UID) and wanted in r.stderr.decode(), "%s: %s" % (how, r))


@test("10,000 connections to the holder", culvert=False, limit=60)
def _(t):
    import resource
    resource.setrlimit(resource.RLIMIT_NOFILE, (11000, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    lab = t.lab()
    servers.Holder(lab)
    held = client.open_many(lab.gw, (at.PROXY[0], 1090), 10000)
    held[0].sendall(b"\5\1\0\5\1\0\1\1\2\3\4\0\7hi")
    check_equal(len(client.receive(held[0], 14)), 14)
