"""redirect.py PORT - the kernel's own TCP as a gateway: takes connections that netfilter redirected, dials the target they were for,
and splices. What our own TCP is measured against (test_goodput.py)."""
import os
import resource
import socket
import struct
import sys
import threading

SO_ORIGINAL_DST = 80
PIECE = 1 << 20


def pump(a, b):
    """Everything from a to b, then its end."""
    r, w = os.pipe()
    try:
        while True:
            n = os.splice(a.fileno(), w, PIECE)
            if n == 0:
                break
            while n:
                n -= os.splice(r, b.fileno(), n)
        b.shutdown(socket.SHUT_WR)
    except OSError:
        for s in (a, b):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass                        # the other direction was faster
    finally:
        os.close(r)
        os.close(w)


def relay(near):
    port, address = struct.unpack("!2xH4s8x", near.getsockopt(socket.IPPROTO_IP, SO_ORIGINAL_DST, 16))
    with near, socket.create_connection((socket.inet_ntoa(address), port)) as far:
        for s in (near, far):
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        back = threading.Thread(target=pump, args=(far, near), daemon=True)
        back.start()
        pump(near, far)
        back.join()


def main(port):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with socket.create_server(("0.0.0.0", port), backlog=1024) as listener:
        print("listening", flush=True)
        while True:
            near, _ = listener.accept()
            threading.Thread(target=relay, args=(near,), daemon=True).start()


main(int(sys.argv[1]))
