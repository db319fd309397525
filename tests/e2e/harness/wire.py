"""wire.py - a wire that takes its time (delay.c), and small C programs of the tests."""
import os
import signal
import time

from . import servers
from .net import command
from .proc import Process

HERE = os.path.dirname(os.path.abspath(__file__))


def built(t, name, source):
    """A small C program, compiled for this test."""
    program = t.path(name)
    command([servers.need("cc"), "-O2", "-o", program, source, "-lpthread"])
    return program


class Wire:
    """names: the device at each end."""

    def __init__(self, process, names):
        self.process, self.names = process, names

    def hesitate(self, seconds):
        """Nothing arrives for so long, then all of it."""
        self.process.signal(signal.SIGSTOP)
        time.sleep(seconds)                 # the length is the point
        self.process.signal(signal.SIGCONT)


def slow_wire(t, a, a_address, b, b_address, one_way_us):
    """A point-to-point IPv4 link between two namespaces. Packets travel one by one, so loss at either end is that of segments."""
    names = ("slow0", "slow1")
    program = built(t, "delay", os.path.join(HERE, "delay.c"))
    link = Process(t, a, [program, *names, str(one_way_us)], "delay")
    link.wait_line("^ready", 5)
    command(["ip", "-n", a.name, "link", "set", names[1], "netns", b.name])
    a.ip("addr add %s peer %s dev %s" % (a_address, b_address, names[0]), "link set %s up" % names[0])
    b.ip("addr add %s peer %s dev %s" % (b_address, a_address, names[1]), "link set %s up" % names[1])
    return Wire(link, names)
