"""capture.py - "nothing but this left by that interface" (faults.md G5)."""
import os
import signal

from .core import check
from .proc import Process

# Neighbour discovery and multicast listener reports belong to every link.
LINK_CHATTER = ("arp or (icmp6 and ip6[40] >= 130 and ip6[40] <= 137) or (ip6 and ip6[6] == 0)")


class Only:
    """tcpdump of everything that is *not* allowed; the kernel's filter does the work, so it costs nothing while all is well."""

    def __init__(self, context, namespace, interface, allowed):
        self.interface, self.allowed = interface, allowed
        wrong = "not (%s) and not (%s)" % (LINK_CHATTER, allowed) if allowed else "not (%s)" % LINK_CHATTER
        name = "capture-%s-%d" % (interface, len(os.listdir(context.dir)))
        self.process = Process(context, namespace,
                               ["tcpdump", "-i", interface, "-n", "-l", "--immediate-mode", "-c", "50", wrong], name)
        self.process.wait_line("listening on", 10)

    def leaked(self):
        """Stop, and return the lines of the packets that were not allowed."""
        if self.process.alive():
            self.process.signal(signal.SIGINT)
        self.process.wait(5)
        return [x for x in self.process.lines if " IP" in x or "ethertype" in x]

    def check_nothing(self):
        leaked = self.leaked()
        check(not leaked, "by %s left more than \"%s\":\n  %s" % (self.interface, self.allowed, "\n  ".join(leaked[:10])))

    def stop(self):
        self.process.stop()
