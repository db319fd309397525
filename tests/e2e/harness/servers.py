"""servers.py - real servers in the srv namespace (test-servers.md), each started with files of its own and waited for."""
import os
import subprocess

from . import lab as lab_addresses
from .core import Skip
from .proc import Process, wait_port

HERE = os.path.dirname(os.path.abspath(__file__))


def need(program, paths=("/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/bin")):
    for folder in paths:
        full = os.path.join(folder, program)
        if os.access(full, os.X_OK):
            return full
    raise Skip("%s is not installed" % program)


class Socks:
    """A running SOCKS5 server and how a configuration names it."""

    def __init__(self, name, address, port, udp, username=None, password=None, process=None):
        self.name, self.address, self.port, self.udp = name, address, port, udp
        self.username, self.password, self.process = username, password, process

    def proxy(self, name="up", **more):
        entry = {"name": name, "type": "socks5", "server": self.address, "port": self.port, "udp": self.udp}
        if self.username:
            entry.update(username=self.username, password=self.password)
        entry.update(more)
        return entry

    @property
    def url(self):
        host = "[%s]" % self.address if ":" in self.address else self.address
        login = "%s:%s@" % (self.username, self.password) if self.username else ""
        return "socks5://%s%s:%d" % (login, host, self.port)


DANTE = """\
logoutput: stderr
internal: %(address)s port = %(port)d
external: eth0
external: lo
external.rotation: route
clientmethod: none
socksmethod: none
user.privileged: root
user.unprivileged: nobody
timeout.connect: 30
client pass {
  from: 0/0 to: 0/0
}
client pass {
  from: ::/0 to: ::/0
}
socks pass {
  from: 0/0 to: 0/0
  protocol: tcp udp
  command: bind connect udpassociate bindreply udpreply
}
socks pass {
  from: ::/0 to: ::/0
  protocol: tcp udp
  command: bind connect udpassociate bindreply udpreply
}
"""


def dante(lab, address=lab_addresses.PROXY[0], port=1080):
    """SOCKS5 with UDP; keeps half-closed connections."""
    program = need("danted")
    conf = lab.context.write("danted-%d.conf" % port, DANTE % {"address": address, "port": port})
    p = Process(lab.context, lab.srv, [program, "-f", conf, "-p", lab.context.path("danted-%d.pid" % port)],
                "danted-%d" % port)
    wait_port(lab.srv, address, port, process=p)
    return Socks("dante", address, port, True, process=p)


def microsocks(lab, address=lab_addresses.PROXY[0], port=1081, username=None, password=None):
    """SOCKS5 without UDP; closes both ways on a client's FIN."""
    argv = [need("microsocks"), "-i", address, "-p", str(port)]
    if username:
        argv += ["-u", username, "-P", password]
    p = Process(lab.context, lab.srv, argv, "microsocks-%d" % port)
    wait_port(lab.srv, address, port, process=p)
    return Socks("microsocks", address, port, "auto", username, password, process=p)


def culvert_serve(lab, address=lab_addresses.PROXY[0], port=1082, username=None, password=None):
    """The far end of our own."""
    from . import gateway
    argv = [gateway.program(lab.context), "serve", "--listen", "%s:%d" % (address, port)]
    if username:
        conf = gateway.config_text({"serve": {"socks5": {"listen": "%s:%d" % (address, port), "udp": True,
                                                         "users": {username: password}}}})
        argv = [gateway.program(lab.context), "serve", "-c", lab.context.write("serve-%d.yaml" % port, conf, 0o600)]
    p = Process(lab.context, lab.srv, argv, "culvert-serve-%d" % port, env=gateway.sanitizer_env())
    lab.context.own(gateway.NothingRefused(p), "check")
    wait_port(lab.srv, address, port, seconds=lab.context.slow(10), process=p)
    return Socks("culvert serve", address, port, True, username, password, process=p)


SSHD = """\
Port %(port)d
ListenAddress %(address)s
HostKey %(dir)s/host
AuthorizedKeysFile %(dir)s/user.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin yes
AllowTcpForwarding yes
MaxSessions 1000
"""


def ssh_dynamic(lab, address=lab_addresses.PROXY[0], port=1084, sshd_port=2222):
    """SOCKS5 by `ssh -D`: the client listens in srv and the server, in srv too, dials. Keys are made for the test."""
    directory = lab.context.path("ssh")
    os.makedirs(directory, mode=0o700, exist_ok=True)
    os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
    for name in ("host", "user"):
        subprocess.run([need("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", os.path.join(directory, name)], check=True)
    conf = lab.context.write("sshd.conf", SSHD % {"port": sshd_port, "address": address, "dir": directory})
    server = Process(lab.context, lab.srv, [need("sshd"), "-D", "-e", "-f", conf], "sshd")
    wait_port(lab.srv, address, sshd_port, process=server)
    options = ["-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "IdentitiesOnly=yes",
               "-o", "ExitOnForwardFailure=yes", "-o", "BatchMode=yes", "-i", os.path.join(directory, "user"), "-p", str(sshd_port)]
    p = Process(lab.context, lab.srv, [need("ssh"), *options, "-N", "-D", "%s:%d" % (address, port), "root@" + address], "ssh")
    wait_port(lab.srv, address, port, seconds=lab.context.slow(10), process=p)
    return Socks("ssh -D", address, port, "auto", process=p)


HEV_SERVER = """\
main:
  workers: 1
  port: %(port)d
  listen-address: '%(address)s'
misc:
  log-file: stderr
  log-level: warn
"""
HEV_TUNNEL = """\
tunnel:
  name: tun0
  mtu: 1500
  ipv4: 198.18.0.1
  ipv6: 'fdfe:dcba:9876::1'
socks5:
  address: %(address)s
  port: %(port)d
  udp: 'tcp'
  mark: %(mark)d
misc:
  log-file: stderr
  log-level: warn
"""


def hev_socks5_server(lab, address=lab_addresses.PROXY[0], port=1083):
    """UDP in TCP as its inventor has it; built by hand, from github.com/heiher/hev-socks5-server."""
    conf = lab.context.write("hev-server.yaml", HEV_SERVER % {"address": address, "port": port})
    p = Process(lab.context, lab.srv, [need("hev-socks5-server"), conf], "hev-socks5-server")
    wait_port(lab.srv, address, port, process=p)
    return Socks("hev-socks5-server", address, port, "over-tcp", process=p)


def hev_socks5_tunnel(lab, server):
    """The other gateway, with tun0, through @server; built by hand, from github.com/heiher/hev-socks5-tunnel."""
    from .core import within
    from .gateway import ROUTING_MARK
    program = need("hev-socks5-tunnel")
    conf = lab.context.write("hev-tunnel.yaml", HEV_TUNNEL % {"address": server.address, "port": server.port, "mark": ROUTING_MARK})
    p = Process(lab.context, lab.gw, [program, conf], "hev-socks5-tunnel")
    within(5, lambda: lab.gw.result(["ip", "link", "show", "tun0"]).returncode == 0, "hev-socks5-tunnel has made tun0")
    return p


UNBOUND = """\
server:
  username: ""
  chroot: ""
  directory: "%(dir)s"
  pidfile: ""
  use-syslog: no
  logfile: ""
  do-daemonize: no
%(interfaces)s
  port: 53
%(secure)s
  access-control: 0.0.0.0/0 allow
  access-control: ::/0 allow
  local-zone: "test." static
  local-data: "example.test. 60 IN A %(v4)s"
  local-data: "example.test. 60 IN AAAA %(v6)s"
  local-data: "big.test. 60 IN TXT \\"%(big)s\\""
  local-data: "big.test. 60 IN TXT \\"x%(big)s\\""
  local-data: "big.test. 60 IN TXT \\"y%(big)s\\""
  local-data: "big.test. 60 IN TXT \\"z%(big)s\\""
  local-data: "big.test. 60 IN TXT \\"0%(big)s\\""
  local-data: "big.test. 60 IN TXT \\"1%(big)s\\""
%(more)s
remote-control:
  control-enable: no
"""


def unbound(lab, addresses=lab_addresses.TARGET, more=(), pem=None):
    """DNS on port 53 of the targets; example.test is the first target, big.test needs TCP. `more`: lines of local-data.
    With `pem` (certificate and key in one file) also over TLS on 853 and HTTPS on 443, by its own TLS."""
    program = need("unbound")
    secure = ['tls-service-key: "%s"' % pem, 'tls-service-pem: "%s"' % pem, "tls-port: 853", "https-port: 443"] if pem else []
    secure += ["interface: %s@%d" % (a, port) for a in addresses for port in (853, 443) if pem]
    text = UNBOUND % {"dir": lab.context.dir, "v4": lab_addresses.TARGET[0], "v6": lab_addresses.TARGET[1],
                      "interfaces": "\n".join("  interface: " + a for a in addresses), "big": "b" * 240,
                      "secure": "\n".join("  " + x for x in secure),
                      "more": "\n".join('  local-data: "%s"' % x for x in more)}
    p = Process(lab.context, lab.srv, [program, "-c", lab.context.write("unbound.conf", text)], "unbound")
    for port in (53, 853, 443) if pem else (53,):
        wait_port(lab.srv, addresses[0], port, process=p)
    return p


def dnsmasq(lab, names, address=lab_addresses.TARGET[0]):
    """DNS on port 53 by dnsmasq: addresses by name."""
    argv = [need("dnsmasq"), "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root",
            "--bind-interfaces", "--listen-address=" + address, "--except-interface=nothing", "--pid-file="]
    argv += ["--host-record=%s,%s" % x for x in names.items()]
    p = Process(lab.context, lab.srv, argv, "dnsmasq")
    wait_port(lab.srv, address, 53, process=p)
    return p


NGINX = """\
daemon off; pid %(dir)s/nginx.pid; error_log stderr warn; worker_processes 1; user root;
events { worker_connections 4096; }
http {
  access_log off; sendfile on;
  client_body_temp_path %(dir)s/cb; proxy_temp_path %(dir)s/pt; fastcgi_temp_path %(dir)s/ft;
  uwsgi_temp_path %(dir)s/ut; scgi_temp_path %(dir)s/st;
  server { listen %(v4)s:80; listen [%(v6)s]:80; root %(dir)s/www; }
}
"""


def nginx(lab, files):
    """HTTP on port 80 of the targets; files is {name: bytes}."""
    program = need("nginx")
    root = lab.context.path("www")
    os.makedirs(root, exist_ok=True)
    os.chmod(lab.context.dir, 0o755)
    for name, data in files.items():
        with open(os.path.join(root, name), "wb") as f:
            f.write(data)
    text = NGINX % {"dir": lab.context.dir, "v4": lab_addresses.TARGET[0], "v6": lab_addresses.TARGET[1]}
    p = Process(lab.context, lab.srv, [program, "-p", lab.context.dir, "-c", lab.context.write("nginx.conf", text)], "nginx")
    wait_port(lab.srv, lab_addresses.TARGET[0], 80, process=p)
    return p


def iperf3(lab, address=lab_addresses.TARGET[0], port=5201):
    p = Process(lab.context, lab.srv, [need("iperf3"), "-s", "-B", address, "-p", str(port), "--forceflush"],
                "iperf3-%d" % port)
    p.wait_line("Server listening", 10)
    return p


class Holder(Socks):
    """A SOCKS5 server that is its own target and echoes (holder.py): one descriptor for each connection."""

    def __init__(self, lab, address=lab_addresses.PROXY[0], port=1090):
        process = Process(lab.context, lab.srv, ["/usr/bin/python3", os.path.join(HERE, "holder.py"), address, str(port)], "holder")
        process.wait_line("^listening$", 10)
        super().__init__("holder", address, port, False, process=process)


class Lists:
    """Web servers of rule lists (lists.py), with and without TLS, that answer with the files of one folder."""

    def __init__(self, lab, address=lab_addresses.PROXY[0], pem=None):
        self.folder, self.address, self.port = lab.context.path("lists"), address, 8443 if pem else 8081
        os.makedirs(self.folder, exist_ok=True)
        self.process = Process(lab.context, lab.srv, ["/usr/bin/python3", os.path.join(HERE, "lists.py"), address, str(self.port),
                                                      self.folder] + ([pem] if pem else []), "lists-%d" % self.port)
        self.process.wait_line("^listening$", 10)
        self.scheme = "https" if pem else "http"

    def write(self, name, text):
        """At one stroke, as the server may be reading it."""
        path = os.path.join(self.folder, name)
        with open(path + ".new", "w", encoding="utf-8") as f:
            f.write(text)
        os.replace(path + ".new", path)

    def url(self, name):
        return "%s://%s:%d/%s" % (self.scheme, self.address, self.port, name)

    def asked(self):
        """The answers so far, as "/path status"."""
        return [x for x in self.process.lines if x.startswith("/")]


class Services:
    """Our own program of small servers (services.py) on every target address; see there for the commands."""
    HTTP, LINE, ECHO = 8080, 7000, 7

    def __init__(self, lab, addresses=lab_addresses.TARGET + lab_addresses.TARGET2):
        self.process = Process(lab.context, lab.srv, ["/usr/bin/python3", os.path.join(HERE, "services.py"), *addresses],
                               "services")
        self.process.wait_line("^listening$", 10)

    @staticmethod
    def url(address, path):
        return "http://%s:%d/%s" % ("[%s]" % address if ":" in address else address, Services.HTTP, path)
