"""Early accept (tcp-stack.md SYN-1): the client is answered at once, what it says waits, and a failure can only be a reset."""
from faultd import FaultServer, echo, handshake, hang, greet, reply, request, send, wait
from harness import check, check_equal, client, test
from harness import lab as at

NO_METHOD = b"\5\0"


def spoken(lab, port, data, timeout=10):
    """Connect and speak at once: (what the client saw, what came back)."""
    back = b""
    try:
        with client.tcp(lab.cli, at.TARGET[0], port, timeout=timeout) as s:
            s.sendall(data)
            while len(back) < len(data):
                piece = s.recv(1 << 16)
                if not piece:
                    return "FIN", back
                back += piece
            return "all", back
    except ConnectionRefusedError:
        return "refused", back
    except ConnectionResetError:
        return "reset", back


@test("early accept: what the client says first waits for the upstream, and no byte is lost")
def _(t):
    lab = t.lab()
    slow = [greet(), send(NO_METHOD), request(), wait(0.5), send(reply()), echo()]
    server = FaultServer(t, lab.srv, at.PROXY[0], 2000, slow)
    gw = lab.gateway(proxies=[server.proxy("up", udp=False)], stack={"tcp": {"accept": "early"}})
    data = bytes(range(256)) * 400
    how, back = spoken(lab, 80, data)
    check_equal(how, "all")
    check(back == data, "%d bytes came back, other ones" % len(back))
    gw.wait_no_flows()


@test("early accept: an upstream that refuses or is silent is a reset, a rule that rejects still refuses")
def _(t):
    lab = t.lab()
    silent = FaultServer(t, lab.srv, at.PROXY[0], 2000, [greet(), send(NO_METHOD), request(), hang()])
    refuses = FaultServer(t, lab.srv, at.PROXY[0], 2001, handshake([hang()], answer=reply(5)))
    absent = {"name": "absent", "type": "socks5", "server": at.PROXY[0], "port": 9999}
    gw = lab.gateway(proxies=[silent.proxy("silent", udp=False), refuses.proxy("refuses", udp=False), absent],
                     rules=["DST-PORT,81,silent", "DST-PORT,82,refuses", "DST-PORT,83,absent", "MATCH,REJECT"],
                     stack={"tcp": {"accept": "early", "connect-timeout": "1s"}})
    seen = {port: spoken(lab, port, b"hello")[0] for port in (81, 82, 83, 84)}
    check_equal(seen, {81: "reset", 82: "reset", 83: "reset", 84: "refused"})
    gw.wait_no_flows()
    check_equal(gw.counter("flow.tcp_failed"), 3)
