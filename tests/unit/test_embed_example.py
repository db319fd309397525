#!/usr/bin/env python3
"""docs/examples/embed_gateway.c does what its comment says, in a private network namespace: it relays a connection through a SOCKS5
proxy (ours, which is the target as well), answers its questions, takes a reload, tells a mistake, and ends with its input."""
import os
import socket
import subprocess
import sys
import tempfile
import threading

import private_network

PROGRAM = os.path.join(os.environ.get("BUILD_DIR", "build/dev"), "example_embed_gateway")
CONFIG = """
runtime: {{workers: 1}}
tun: {{name: example0, address: [198.18.0.1/24], auto-route: false}}
proxies: [{{name: p, type: socks5, server: 127.0.0.1, port: {port}}}]
rules: ['MATCH,{target}']
"""


def take(connection):
    """SOCKS5 without a login (RFC 1928), then an echo."""
    with connection:
        connection.recv(2 + 255)
        connection.sendall(b"\5\0")
        connection.recv(4 + 255 + 2)
        connection.sendall(b"\5\0\0\1" + bytes(6))
        while data := connection.recv(65536):
            connection.sendall(data)


def serve(listener):
    while True:
        threading.Thread(target=take, args=(listener.accept()[0],), daemon=True).start()


def ask(p, question, prefix):
    """The answer: the first line with this start; lines of the log may come before it."""
    p.stdin.write(question + "\n")
    p.stdin.flush()
    while line := p.stdout.readline():
        if line.startswith(prefix):
            return line.strip()
    return "(the end)"


def inside():
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=serve, args=(listener,), daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "gateway.yaml")

        def write(target):
            with open(path, "w", encoding="utf-8") as f:
                f.write(CONFIG.format(port=listener.getsockname()[1], target=target))
            os.chmod(path, 0o600)

        write("nobody")
        r = subprocess.run([PROGRAM, path], capture_output=True, text=True, timeout=60)
        assert r.returncode == 2 and ":5:" in r.stderr and "nobody" in r.stderr, r
        write("p")
        p = subprocess.Popen([PROGRAM, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        first = p.stdout.readline()
        while first and "ready: example0" not in first:
            first = p.stdout.readline()
        with socket.create_connection(("198.18.0.9", 80), 20) as s:
            s.sendall(b"hello")
            assert s.recv(5) == b"hello"
            assert ask(p, "status", "status:").startswith("status: example0, 1 workers, 1 TCP and 0 UDP flows, ")
        assert int(ask(p, "tun.rx_packets", "tun.rx_packets:").split()[1]) > 2
        assert ask(p, "nonsense", "no counter") == 'no counter is called "nonsense"'
        write("REJECT")
        assert ask(p, "reload", "reload:") == "reload: done"
        try:
            socket.create_connection(("198.18.0.9", 80), 20)
            raise AssertionError("the reload decided nothing")
        except ConnectionRefusedError:
            pass
        write("nobody")
        assert path + ":5:" in ask(p, "reload", "reload:")
        p.communicate("")
        assert p.returncode == 0, p.returncode
    return 0


if __name__ == "__main__":
    sys.exit(private_network.main(inside, PROGRAM))
