#!/usr/bin/env python3
"""`culvert doctor` on machines that are folders: a sound one, and the same with one thing wrong at a time."""
import os
import subprocess
import tempfile
import unittest

PROGRAM = os.path.join(os.environ.get("BUILD_DIR", "build/dev"), "culvert")
SOUND = {
    "/proc/sys/kernel/osrelease": "6.1.0-18-amd64\n",
    "/dev/net/tun": "",
    "/proc/self/ns/user": "",
    "/proc/sys/user/max_user_namespaces": "15000\n",
    "/proc/self/limits": "Limit      Soft Limit   Hard Limit   Units\nMax open files    1024    1048576    files\n",
    "/proc/sys/net/ipv4/ping_group_range": "0\t2147483647\n",
    "/proc/sys/net/ipv4/conf/all/rp_filter": "2\n",
    "/proc/sys/net/ipv4/conf/default/rp_filter": "2\n",
    "/proc/sys/net/ipv4/ip_forward": "1\n",
    "/proc/sys/net/ipv6/conf/all/forwarding": "1\n",
    "/proc/net/route": "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n"
                       "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n",
    "/etc/nsswitch.conf": "passwd: files\nhosts: files dns\n",
    "/etc/resolv.conf": "nameserver 192.0.2.53\n",
}
# path, what is there (None: nothing), kind of finding, words of it, words of its fix
ROWS = [
    ("/proc/sys/kernel/osrelease", "4.19.0\n", "problem", "older than 5.10", "linux-image"),
    ("/proc/sys/kernel/osrelease", None, "problem", "/proc is not there", "mount"),
    ("/dev/net/tun", None, "problem", "/dev/net/tun is missing", "modprobe tun"),
    ("/proc/self/ns/user", None, "note", "no user namespaces", "root"),
    ("/proc/sys/user/max_user_namespaces", "0\n", "note", "switched off", "max_user_namespaces=15000"),
    ("/proc/sys/kernel/unprivileged_userns_clone", "0\n", "note", "root only", "unprivileged_userns_clone=1"),
    ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1\n", "note", "AppArmor", "userns=0"),
    ("/proc/self/limits", "Max open files   512   512   files\n", "problem", "512 open files", "LimitNOFILE"),
    ("/proc/sys/net/ipv4/ping_group_range", "1\t0\n", "note", "ping_group_range", "ping_group_range='0 2147483647'"),
    ("/proc/net/route", "Iface Destination\n", "note", "no IPv4 default route", "ip route add default"),
    ("/proc/sys/net/ipv4/conf/all/rp_filter", "1\n", "problem", "rp_filter is strict", "all.rp_filter=2"),  # faults.md E11
    ("/proc/sys/net/ipv4/ip_forward", "0\n", "note", "ip_forward is off", "ip_forward=1"),  # faults.md E11
    ("/proc/sys/net/ipv6/conf/all/forwarding", "0\n", "note", "IPv6 forwarding", "ipv6.conf.all.forwarding=1"),
    ("/proc/net/ip_tables_names", "filter\nnat\n", "note", "NAT table", "iptables"),  # faults.md E11
    ("/etc/resolv.conf", "nameserver 127.0.0.53\n", "problem", "systemd-resolved", "resolvectl"),  # faults.md D14
    ("/run/nscd/socket", "", "problem", "nscd", "systemctl disable"),  # faults.md D14
    ("/etc/nsswitch.conf", "hosts: files mdns4_minimal [NOTFOUND=return] dns\n", "note", "mdns", "nsswitch.conf"),
]


def look(files):
    with tempfile.TemporaryDirectory() as root:
        for path, text in files.items():
            if text is None:
                continue
            os.makedirs(os.path.dirname(root + path), exist_ok=True)
            with open(root + path, "w", encoding="ascii") as f:
                f.write(text)
        r = subprocess.run([PROGRAM, "doctor", "--root", root], capture_output=True, text=True, check=False)
    return r.returncode, r.stdout


def findings(text):
    return [line for line in text.splitlines() if line.startswith(("problem:", "note:"))]


class Doctor(unittest.TestCase):
    def test_a_sound_machine_has_no_finding(self):
        status, text = look(SOUND)
        self.assertEqual((status, findings(text)), (0, []), text)

    def test_one_wrong_thing_is_one_finding_with_its_fix(self):
        for path, there, kind, words, fix in ROWS:
            with self.subTest(path=path, there=there):
                status, text = look({**SOUND, path: there})
                self.assertEqual(status, 1 if kind == "problem" else 0, text)
                found = findings(text)
                self.assertEqual(len(found), 1, text)
                self.assertTrue(found[0].startswith(kind + ":") and words in found[0], text)
                self.assertIn(fix, text.splitlines()[text.splitlines().index(found[0]) + 1])

    def test_resolved_by_its_socket_is_found(self):  # faults.md D14
        status, text = look({**SOUND, "/etc/nsswitch.conf": "hosts: files resolve [!UNAVAIL=return] dns\n",
                             "/run/systemd/resolve/io.systemd.Resolve": ""})
        self.assertEqual(status, 1, text)
        self.assertIn("nsswitch.conf", text)

    def test_a_root_that_is_no_folder_is_wrong_usage(self):
        r = subprocess.run([PROGRAM, "doctor", "--root", "/nothing/here"], capture_output=True, check=False)
        self.assertEqual(r.returncode, 2)


if __name__ == "__main__":
    unittest.main()
