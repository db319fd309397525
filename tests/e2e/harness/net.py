"""net.py - network namespaces and veth links.

A thread of the test enters a namespace with setns(2) just long enough to make a socket; the socket stays there. So a test
is client and server in as many namespaces as it likes, without a process for each.
"""
import contextlib
import ctypes
import os
import socket
import subprocess

CLONE_NEWNET = 0x40000000
SO_MARK = getattr(socket, "SO_MARK", 36)
_libc = ctypes.CDLL(None, use_errno=True)


def _setns(fd):
    if _libc.setns(fd, CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "setns")


def command(argv, check=True, text=None, timeout=30):
    """Run to the end and return the output; the error of a failed command is part of the exception."""
    r = subprocess.run(argv, input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout)
    if check and r.returncode:
        raise RuntimeError("%s: exit %d: %s" % (" ".join(argv), r.returncode, r.stdout.strip()))
    return r.stdout


class Namespace:
    """One network namespace; removed with everything that still runs inside."""

    def __init__(self, name):
        self.name = name
        self.path = "/run/netns/" + name
        command(["ip", "netns", "add", name])
        self.sysctl("net/ipv6/conf/all/disable_ipv6", 0)
        self.sysctl("net/ipv6/conf/default/accept_dad", 0)
        self.sysctl("net/ipv4/conf/all/rp_filter", 0)
        self.sysctl("net/ipv4/conf/default/rp_filter", 0)
        self.sysctl("net/ipv4/ping_group_range", "0 2147483647")
        self.ip("link set lo up")
        for algorithm in ("cubic", "reno"):
            if self.sysctl("net/ipv4/tcp_congestion_control", algorithm, missing_ok=True):
                break

    def ip(self, *lines, v6=False):
        """Lines of `ip -batch`; v6 for rules and routes that do not show their family."""
        command(["ip"] + (["-6"] if v6 else []) + ["-n", self.name, "-batch", "-"], text="\n".join(lines) + "\n")

    def ip_json(self, *argv):
        import json
        out = command(["ip", "-n", self.name, "-j"] + list(argv))
        return json.loads(out) if out.strip() else []

    @contextlib.contextmanager
    def entered(self):
        """The calling thread is in the namespace inside the with block."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        there = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(there)
            try:
                yield self
            finally:
                _setns(home)
        finally:
            os.close(there)
            os.close(home)

    def socket(self, family, kind, protocol=0):
        with self.entered():
            return socket.socket(family, kind, protocol)

    def sysctl(self, key, value, missing_ok=False):
        with self.entered():
            try:
                with open("/proc/sys/" + key, "w") as f:
                    f.write(str(value))
                return True
            except OSError:
                if not missing_ok:
                    raise
                return False

    def argv(self, argv):
        """The command line that runs argv inside; every step execs, so the pid is the program's."""
        return ["nsenter", "--net=" + self.path, "--"] + argv

    def run(self, argv, check=True, timeout=30, text=None):
        return command(self.argv(argv), check, text, timeout)

    def result(self, argv, timeout=30, **kw):
        """Run inside and return the CompletedProcess, output and errors apart, whatever the exit status."""
        return subprocess.run(self.argv(argv), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              timeout=timeout, stdin=kw.pop("stdin", subprocess.DEVNULL), **kw)

    def nft(self, text):
        command(["ip", "netns", "exec", self.name, "nft", "-f", "-"], text=text)

    def pids(self):
        return [int(p) for p in command(["ip", "netns", "pids", self.name], check=False).split() if p.isdigit()]

    def remove(self):
        """Everything in it was started by the test, so ending it by pid is safe."""
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
        command(["ip", "netns", "del", self.name], check=False)


def link(a, a_name, a_addresses, b, b_name, b_addresses, mtu=1500):
    """A veth pair between two namespaces; addresses are (IPv4/len, IPv6/len)."""
    command(["ip", "link", "add", a_name, "mtu", str(mtu), "netns", a.name,
             "type", "veth", "peer", "name", b_name, "mtu", str(mtu), "netns", b.name])
    for ns, name, addresses in ((a, a_name, a_addresses), (b, b_name, b_addresses)):
        ns.ip("link set %s up" % name,
              *["addr add %s dev %s%s" % (x, name, " nodad" if ":" in x else "") for x in addresses])


def family_of(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def url_host(address):
    return "[%s]" % address if ":" in address else address
