"""The wall clock jumps while flows live (faults.md X7). A machine that sleeps cannot be had in a test: test_sandbox.c has it with clocks
that are numbers."""
import os
import platform
import time

from harness import Skip, check, check_equal, client, servers, test, within
from harness import lab as at

CLOCKS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "harness", "clocks.py")
YEAR = 366 * 86400


def year_of_last_line(gw):
    return int([x for x in gw.process.lines if x[:2] == "20" and x[10:11] == "T"][-1][:4])


@test("the wall clock jumps a year ahead, two back, and a second: no flow ends, and new ones are opened", rows=["X7"], limit=90)
def _(t):
    if platform.machine() != "x86_64":
        raise Skip("the answers to clock_gettime() are written for x86-64")
    lab = t.lab()
    lab.services()
    offset = t.write("offset", "0")
    gw = lab.gateway(proxies=[servers.culvert_serve(lab)], prefix=["/usr/bin/python3", CLOCKS, offset],
                     stack={"tcp": {"idle-timeout": "60s"}, "udp": {"idle-timeout": "60s"}})
    flow = client.tcp(lab.cli, at.TARGET[0], servers.Services.ECHO, timeout=10)
    mapping = client.udp(lab.cli, at.TARGET[0], servers.Services.ECHO, timeout=10)
    now = time.gmtime().tm_year
    for jump, years in ((0, [now]), (YEAR, [now + 1, now + 2]), (-YEAR, [now - 1, now - 2]), (-YEAR + 1, [now - 1, now - 2])):
        t.write("offset", str(jump))
        for s in (flow, mapping):
            s.send(b"still here")
            check_equal(s.recv(100), b"still here", "after a jump to %+d s" % jump)
        client.download(lab.cli, at.TARGET[0], 100000)
        within(t.slow(5), lambda: year_of_last_line(gw) in years, "the gateway sees the jump to %s" % years)
    counters = gw.status()["flows"]
    check(counters["tcp"] >= 1 and counters["udp"] >= 1, "the flows are not there: %s" % counters)
    flow.close()
    mapping.close()
