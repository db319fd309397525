"""fronts.py - certificates by openssl, TLS fronts (stunnel, haproxy, nginx) and HTTP proxies (squid) of the srv namespace."""
import os
import subprocess

from . import gateway
from . import lab as lab_addresses
from .core import Failure, Skip
from .proc import Process, wait_port
from .servers import Socks, need

ADDRESS = lab_addresses.PROXY[0]
EC = ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"]


class Pki:
    """An authority of the test's own and what it signs; paths are absolute (test-servers.md section 3)."""

    def __init__(self, context):
        self.dir = context.path("pki")
        os.makedirs(self.dir, exist_ok=True)
        os.chmod(context.dir, 0o755)
        self._openssl("req", "-x509", "-newkey", *EC, "-nodes", "-days", "3650", "-subj", "/CN=test CA", "-keyout", "ca.key",
                      "-out", "ca.crt", "-addext", "basicConstraints=critical,CA:TRUE",
                      "-addext", "keyUsage=critical,keyCertSign,cRLSign")
        self.ca = self.path("ca.crt")

    def path(self, name):
        return os.path.join(self.dir, name)

    def _openssl(self, *argv):
        r = subprocess.run([need("openssl"), *argv], cwd=self.dir, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, text=True)
        if r.returncode:
            raise Failure("openssl %s: %s" % (" ".join(argv), r.stderr))
        return r.stdout

    def make(self, name, san, days="3650", key=EC, cn=None, digest="-sha256", extensions=()):
        """NAME.crt, NAME.key and NAME.pem (both) by the authority; returns NAME.pem."""
        with open(self.path(name + ".ext"), "w") as f:
            f.write("authorityKeyIdentifier=keyid\nsubjectAltName=%s\n" % san + "".join(x + "\n" for x in extensions))
        self._openssl("req", "-newkey", *key, "-nodes", "-subj", "/CN=" + (cn or name), "-keyout", name + ".key",
                      "-out", name + ".csr")
        self._openssl("x509", "-req", "-in", name + ".csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", days,
                      digest, "-extfile", name + ".ext", "-out", name + ".crt")
        return self._join(name)

    def self_signed(self, name, san):
        self._openssl("req", "-x509", "-newkey", *EC, "-nodes", "-days", "3650", "-subj", "/CN=" + name, "-keyout",
                      name + ".key", "-out", name + ".crt", "-addext", "subjectAltName=" + san)
        return self._join(name)

    def _join(self, name):
        with open(self.path(name + ".pem"), "w") as f:
            for part in (".crt", ".key"):
                with open(self.path(name + part)) as p:
                    f.write(p.read())
        return self.path(name + ".pem")

    def server(self):
        return self.make("server", "DNS:proxy.test,IP:%s" % ADDRESS)

    def pin(self, name):
        """SHA-256 of its public key, base64 (RFC 7469)."""
        der = subprocess.run("openssl x509 -in %s -pubkey -noout | openssl pkey -pubin -outform der | openssl dgst -sha256 -binary"
                             " | openssl base64" % self.path(name + ".crt"), shell=True, stdout=subprocess.PIPE, check=True)
        return der.stdout.decode().strip()


class Front(Socks):
    """TLS in front of another server, on a port of its own."""

    def __init__(self, behind, port, tls, kind="socks5", process=None):
        super().__init__("front", ADDRESS, port, "auto", behind.username, behind.password, process)
        self.tls, self.kind = tls, kind

    def proxy(self, name="up", **more):
        entry = super().proxy(name)
        entry.update(type=self.kind, tls=self.tls)
        entry.update(more)
        return entry


def stunnel(lab, behind, sections):
    """{port: lines of the section}: each is a service in front of `behind`."""
    program = need("stunnel")
    text = "foreground = yes\npid =\nsyslog = no\ndebug = 4\n"
    for port, lines in sections.items():
        text += "[p%d]\naccept = %s:%d\nconnect = %s:%d\n%s\n" % (port, ADDRESS, port, behind.address, behind.port,
                                                                  "\n".join(lines))
    p = Process(lab.context, lab.srv, [program, lab.context.write("stunnel.conf", text)], "stunnel")
    for port in sections:
        wait_port(lab.srv, ADDRESS, port, process=p)
    return p


HAPROXY = """\
global
  maxconn 9000
defaults
  mode tcp
  timeout connect 2s
  timeout client 30s
  timeout server 30s
frontend tls
  bind %(address)s:%(port)d ssl crt %(pem)s %(more)s
  default_backend s
backend s
  server m %(to)s:%(to_port)d
"""


def haproxy(lab, behind, port, pem, more="alpn http/1.1"):
    program = need("haproxy")
    text = HAPROXY % {"address": ADDRESS, "port": port, "pem": pem, "more": more, "to": behind.address, "to_port": behind.port}
    p = Process(lab.context, lab.srv, [program, "-f", lab.context.write("haproxy.cfg", text)], "haproxy")
    wait_port(lab.srv, ADDRESS, port, process=p)
    return p


NGINX = """\
load_module %(module)s;
daemon off; master_process off; pid %(dir)s/nginx-front.pid; error_log stderr warn;
events { worker_connections 4096; }
stream {
  server {
    listen %(address)s:%(port)d ssl;
    ssl_certificate %(pem)s; ssl_certificate_key %(pem)s; ssl_protocols %(protocols)s;
    proxy_pass %(to)s:%(to_port)d;
  }
}
"""


def nginx(lab, behind, port, pem, protocols="TLSv1.2 TLSv1.3"):
    program, module = need("nginx"), "/usr/lib/nginx/modules/ngx_stream_module.so"
    if not os.access(module, os.R_OK):
        raise Skip("nginx's stream module is not installed")
    text = NGINX % {"module": module, "dir": lab.context.dir, "address": ADDRESS, "port": port, "pem": pem, "protocols": protocols,
                    "to": behind.address, "to_port": behind.port}
    p = Process(lab.context, lab.srv, [program, "-p", lab.context.dir, "-c", lab.context.write("nginx-front.conf", text)],
                "nginx-front")
    wait_port(lab.srv, ADDRESS, port, process=p)
    return p


HITCH = """\
frontend = "[%(address)s]:%(port)d"
backend = "[%(to)s]:%(to_port)d"
pem-file = "%(pem)s"
workers = 1
daemon = off
user = "nobody"
"""


def hitch(lab, behind, port, pem):
    program = need("hitch")
    text = HITCH % {"address": ADDRESS, "port": port, "pem": pem, "to": behind.address, "to_port": behind.port}
    p = Process(lab.context, lab.srv, [program, "--config=" + lab.context.write("hitch.conf", text)], "hitch")
    wait_port(lab.srv, ADDRESS, port, process=p)
    return p


SQUID = """\
http_port %(address)s:%(port)d
https_port %(address)s:%(tls_port)d tls-cert=%(pki)s/server.crt tls-key=%(pki)s/server.key
%(access)s
cache deny all
cache_mem 8 MB
pid_filename none
access_log none
cache_log stdio:/dev/stderr
cache_store_log none
coredump_dir %(dir)s
shutdown_lifetime 0 seconds
pinger_enable off
dns_nameservers 127.0.0.1
visible_hostname test
max_filedescriptors 4096
netdb_filename none
"""
SQUID_LOGIN = """\
auth_param basic program %(helper)s %(dir)s/squid.pw
acl a proxy_auth REQUIRED
http_access allow a
http_access deny all"""


def squid(lab, pki, username=None, password=None, port=3128, tls_port=3129):
    """HTTP CONNECT on `port` and, inside TLS, on `tls_port`; returns (plain, inside TLS)."""
    program = need("squid")
    directory = lab.context.path("squid")
    os.makedirs(directory, exist_ok=True)
    subprocess.run(["chmod", "-R", "a+rX", lab.context.dir], check=True)
    os.chmod(directory, 0o777)
    access = "acl all_ports port 1-65535\nhttp_access allow all"
    if username:
        helper = "/usr/lib/squid/basic_ncsa_auth"
        if not os.access(helper, os.X_OK):
            raise Skip("%s is not installed" % helper)
        made = subprocess.run(["openssl", "passwd", "-apr1", password], stdout=subprocess.PIPE, text=True, check=True).stdout
        with open(os.path.join(directory, "squid.pw"), "w") as f:
            f.write("%s:%s\n" % (username, made.strip()))
        access = SQUID_LOGIN % {"dir": directory, "helper": helper}
    text = SQUID % {"address": ADDRESS, "port": port, "tls_port": tls_port, "pki": pki.dir, "access": access, "dir": directory}
    p = Process(lab.context, lab.srv, [program, "-N", "-f", lab.context.write("squid.conf", text)], "squid")
    wait_port(lab.srv, ADDRESS, port, process=p, seconds=20)
    plain = Socks("squid", ADDRESS, port, "auto", username, password, process=p)
    plain.proxy = lambda name="up", **more: {**Socks.proxy(plain, name), "type": "http", **more}
    return plain, Front(plain, tls_port, {"ca": pki.ca}, "http", process=p)


class Masque(Socks):
    """`culvert serve` with a MASQUE server, and how curl and a configuration name it."""

    def __init__(self, address, port, username, password, ca, config, process):
        super().__init__("masque", address, port, "auto", username, password, process)
        self.ca, self.config = ca, config

    def proxy(self, name="up", **more):
        entry = super().proxy(name)
        del entry["udp"]
        entry.update(type="masque", tls={"ca": self.ca, "sni": "proxy.test"})
        entry.update(more)
        return entry

    def curl(self, login=True):
        """curl's words for it."""
        who = "%s:%s@" % (self.username, self.password) if login is True else login or ""
        return ["--proxy-cacert", self.ca, "-x", "https://%s%s:%d" % (who, self.address, self.port), "-p"]


def nghttpx(lab, pki, far, port=3443):
    """An HTTP/2 CONNECT proxy inside TLS, in front of `far`; it passes on no extended CONNECT and no half close."""
    p = Process(lab.context, lab.srv, [need("nghttpx"), "--conf=/dev/null", "--http2-proxy", "-f%s,%d" % (ADDRESS, port),
                                       "-b%s,%d;;tls;proto=h2;sni=proxy.test" % (far.address, far.port), "--cacert=" + pki.ca,
                                       "--accesslog-file=/dev/null", "--errorlog-file=/dev/stderr", "--workers=1",
                                       pki.path("server.key"), pki.path("server.crt")], "nghttpx-tls")
    wait_port(lab.srv, ADDRESS, port, process=p)
    return Masque(ADDRESS, port, far.username, far.password, pki.ca, None, p)


def masque(lab, pki, namespace=None, address=ADDRESS, port=8443, password="sesame", workers=2, **keys):
    """The far end; unless `allow` says otherwise it may reach the addresses of the lab, all of which are private."""
    entry = {"listen": "%s:%d" % (address, port), "certificate": pki.path("server.crt"), "private-key": pki.path("server.key"),
             "users": {"alice": password}, "allow": ["10.77.0.0/16", "fd77::/16"], **keys}
    text = gateway.config_text({"log": {"level": "debug"}, "runtime": {"workers": workers}, "serve": {"masque": entry}})
    config = lab.context.write("masque-%d.yaml" % port, text, 0o600)
    namespace = namespace or lab.srv
    namespace.sysctl("net/ipv4/ping_group_range", "0 2147483647")
    p = Process(lab.context, namespace, [gateway.program(lab.context), "serve", "-c", config], "masque-%d" % port,
                env=gateway.sanitizer_env())
    lab.context.own(gateway.NothingRefused(p), "check")
    wait_port(namespace, address, port, seconds=lab.context.slow(10), process=p)
    return Masque(address, port, "alice", password, pki.ca, config, p)
