#!/usr/bin/env python3
"""`culvert explain` says which rule takes a flow, why those before it do not, and what it cannot know."""
import os
import pathlib
import subprocess
import sys
import tempfile

CULVERT = pathlib.Path(os.environ.get("BUILD_DIR", "build/dev")) / "culvert"

CONFIG = """
proxies: [{name: up, type: socks5, server: proxy.example.net, port: 1080}]
proxy-groups: [{name: pick, type: select, proxies: [up, DIRECT]}]
rule-providers:
  home: {type: inline, behavior: domain, payload: ['+.home.arpa']}
  ads: {type: http, behavior: domain, url: 'https://lists.example/ads', path: /nonexistent/ads}
rules:
  - {network: icmp, dst-cidr: 192.0.2.0/24, via: DIRECT, name: lab pings}
  - RULE-SET,home,DIRECT
  - IP-CIDR,10.0.0.0/8,DIRECT
  - AND,((NETWORK,udp),(DST-PORT,443)),REJECT
  - SRC-IP-CIDR,192.168.1.64/26,up
  - UID,0-99,REJECT-DROP
  - PROCESS-NAME,syncthing,DIRECT
  - DOMAIN-SUFFIX,example.org,up
  - DOMAIN,group.example,pick
"""

# arguments, what is said (each in this order), what is not said
ROWS = [
    (["nas.home.arpa"], ["tcp to nas.home.arpa, port 443", "no    rules[0] lab pings: it is not for tcp", "yes   rules[1]",
                         "exit: DIRECT"], ["rules[2]", "unless"]),
    (["www.example.org:80"], ["port 80", "open  rules[2] IP-CIDR,10.0.0.0/8,DIRECT: depends on the address",
                              "open  rules[4] SRC-IP-CIDR,192.168.1.64/26,up: depends on the client's address",
                              "open  rules[5] UID,0-99,REJECT-DROP: depends on the user",
                              "open  rules[6] PROCESS-NAME,syncthing,DIRECT: depends on the program",
                              "yes   rules[7] DOMAIN-SUFFIX,example.org,up: www.example.org is or is below example.org",
                              "exit: up, at proxy.example.net:1080", "unless an open rule"], []),
    (["10.2.3.4:22"], ["no    rules[0]", "yes   rules[2] IP-CIDR,10.0.0.0/8,DIRECT: 10.2.3.4 is in 10.0.0.0/8"], []),
    (["--net", "udp", "[2001:db8::1]:443"], ["udp to 2001:db8::1, port 443", "yes   rules[3]", "exit: REJECT, refused"], []),
    (["--net", "icmp", "192.0.2.7"], ["yes   rules[0] lab pings"], ["port"]),
    (["--src", "192.168.1.65", "192.0.2.7"], ["from 192.168.1.65", "yes   rules[4]"], []),
    (["--uid", "33", "192.0.2.7"], ["user 33 is 0-99", "exit: REJECT-DROP, dropped in silence"], []),
    (["--uid", "1000", "--process", "/usr/bin/syncthing", "192.0.2.7"],
     ["no    rules[5] UID,0-99,REJECT-DROP: user 1000 is not 0-99", "yes   rules[6]"], []),
    (["--uid", "1000", "--process", "/bin/sh", "other.example"],
     ["no    rules[7]", "yes   no rule takes it, so it is rejected", "exit: REJECT"], []),
    (["--uid", "1000", "--process", "/bin/sh", "--src", "10.0.0.1", "group.example"],
     ["yes   rules[8]", "exit: pick, a group: the one that was picked, the first until then of up, DIRECT"], []),
    (["nas.home.arpa"], ["the list of rule-providers.ads has never been fetched"], []),
]
MISTAKES = [
    (["example.org:http"], "\"http\" is no port"),
    (["exa mple"], "neither a name nor an address"),
    (["--net", "sctp", "a.example"], "tcp, udp or icmp would work"),
    (["--src", "here", "a.example"], "an address would work"),
    (["--uid", "root", "a.example"], "a number would work"),
    ([], "HOST[:PORT] is missing"),
]


def in_order(text, parts):
    at = 0
    for part in parts:
        at = text.find(part, at)
        if at < 0:
            return part
        at += len(part)
    return None


def main():
    if not CULVERT.exists():
        print(f"{CULVERT} is not built")
        return 1
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "t.yaml"
        path.write_text(CONFIG)
        for arguments, says, not_says in ROWS:
            done = subprocess.run([CULVERT, "explain", "-c", path, *arguments], capture_output=True, text=True, timeout=30)
            missing = in_order(done.stdout, says)
            extra = [part for part in not_says if part in done.stdout]
            if done.returncode != 0 or missing or extra:
                print(f"{arguments}: status {done.returncode}, not said: {missing}, said: {extra}\n{done.stdout}{done.stderr}")
                wrong += 1
        for arguments, says in MISTAKES:
            done = subprocess.run([CULVERT, "explain", "-c", path, *arguments], capture_output=True, text=True, timeout=30)
            if done.returncode != 2 or says not in done.stderr:
                print(f"{arguments}: status {done.returncode}, said: {done.stderr}")
                wrong += 1
    print(f"{len(ROWS) + len(MISTAKES)} questions, {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
