"""Names decide: `curl https://name` leaves by the exit that its rule says, however the name is known."""
from harness import check, check_equal, client, fronts, gateway, servers, test
from harness import lab as at
from harness.names import dig, dns

NAMES = {"www.one.test": at.TARGET[0], "other.test": at.TARGET[0]}


def resolving(t, address, argv):
    """The command in a mount namespace where resolv.conf names this server."""
    conf = t.write("resolv-%s" % address, "nameserver %s\noptions timeout:4 attempts:1\n" % address)
    return ["unshare", "-m", "sh", "-c", 'mount --bind "$0" /etc/resolv.conf && exec "$@"', conf, *argv]


def https_site(t, lab):
    """nginx with TLS for NAMES; returns the authority's file."""
    pki = fronts.Pki(t)
    pem = pki.make("site", ",".join("DNS:" + n for n in NAMES))
    conf = ["daemon off; pid %s; error_log stderr warn; worker_processes 1; user root; events {}" % t.path("nginx.pid"),
            "http { access_log off;",
            " ".join("%s_temp_path %s/%s;" % (k, t.dir, k) for k in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")),
            "server { listen %s:443 ssl http2; ssl_certificate %s; ssl_certificate_key %s; location / { return 200 $host; } } }"
            % (at.TARGET[0], pem, pem)]
    nginx = servers.Process(t, lab.srv, [servers.need("nginx"), "-p", t.dir, "-c", t.write("n.conf", "\n".join(conf))], "nginx")
    servers.wait_port(lab.srv, at.TARGET[0], 443, process=nginx)
    return pki.ca


def far_end(t, lab, port):
    """`culvert serve` that finds names by the lab's name server."""
    argv = [gateway.program(t), "serve", "--listen", "%s:%d" % (at.PROXY[0], port)]
    p = servers.Process(t, lab.srv, resolving(t, at.TARGET[0], argv), "far-end-%d" % port, env=gateway.sanitizer_env())
    servers.wait_port(lab.srv, at.PROXY[0], port, seconds=t.slow(10), process=p)
    return servers.Socks("far end", at.PROXY[0], port, True, process=p)


@test("domain rules route curl https://name to its exit: by fake address, by an answer that was seen, and by sniffing", quick=True,
      limit=90)
def _(t):
    lab = t.lab()
    lab.direct_route()
    ca = https_site(t, lab)
    servers.dnsmasq(lab, NAMES)
    one, rest = far_end(t, lab, 2001), far_end(t, lab, 2002)
    rules = ["DST-PORT,53,DIRECT", "DOMAIN-SUFFIX,one.test,one", "MATCH,rest"]
    ways = {"fake-ip": dns(t, "fake-ip"), "real": dns(t, "real", nameserver=[at.TARGET[0]]),
            "off": dict(dns(t, "off"), stack={"tcp": {"accept": "auto"}})}
    for i, (how, sections) in enumerate(ways.items()):
        gw = lab.gateway(proxies=[one.proxy("one"), rest.proxy("rest")], rules=rules, route=i == 0, **sections)
        if i > 0:
            lab.gw.ip("route replace default dev tun0 metric 10 table 20")
        for name in NAMES:
            argv = [servers.need("curl"), "-sS", "--cacert", ca, "--max-time", "20", "https://%s/" % name]
            r = lab.cli.result(resolving(t, at.TARGET[0], argv), timeout=30)
            check_equal((r.returncode, r.stdout), (0, name), "%s: %s" % (how, r.stderr))
        gw.says(r"via one by DOMAIN-SUFFIX,one\.test,one")
        gw.says(r"via rest by MATCH,rest")
        if how != "off":     # the name stands beside the address in the flow's line
            gw.says(r"-> \S+:443 \(www\.one\.test\) via one")
            gw.says(r"-> \S+:443 \(other\.test\) via rest")
        check_equal(gw.counter("flow.sniffed") > 0, how == "off", how)
        check_equal(gw.terminate(seconds=4), 0)


@test("a list of flows shows the name beside a fake address, and rules about addresses look a fake address's name up")
def _(t):
    lab = t.lab()
    lab.direct_route()
    services = lab.services()
    servers.dnsmasq(lab, {"near.test": at.TARGET[0], "far.test": at.TARGET2[0], "both.test": "%s,%s" % at.TARGET})
    server = servers.culvert_serve(lab)
    gw = lab.gateway(proxies=[server.proxy("up")], rules=["IP-CIDR,%s/32,DIRECT" % at.TARGET[0], "MATCH,REJECT"],
                     **dns(t, "fake-ip", nameserver=[at.TARGET[0]]))
    fake = dig(lab.cli, at.PROXY2[0], "near.test")[0]
    with client.tcp(lab.cli, fake, 7000) as s:
        s.sendall(b"echo\n")
        s.sendall(b"x")
        client.receive(s, 1)
        flows = [f for f in gw.status("--flows")["connections"] if f["destination"] == fake + ":7000"]
        check_equal([(f["host"], f["upstream"]) for f in flows], [("near.test", "DIRECT")])
    check_equal(client.outcome(lab.cli, dig(lab.cli, at.PROXY2[0], "far.test")[0], 7000)[0], "ECONNREFUSED", "another address")
    # of a name with several addresses one that fits is enough, whichever family comes first
    how, _ = client.outcome(lab.cli, dig(lab.cli, at.PROXY2[0], "both.test")[0], 7000)
    check_equal(how, "open", "one address of two")
    check(services is not None and gw.counter("dns.fake") >= 2, "fake addresses")
