"""lists.py ADDRESS PORT FOLDER [PEM] - a web server of rule lists, with whatever is wrong with web servers.

Each file of FOLDER is a path. Its first line may be a command that says how it is answered:
    !status N [LOCATION]    that status, and the rest as its body
    !chunked                the rest, in chunks of 7 bytes
    !huge                   bytes for ever
    !cut                    promises more than it sends
Every question is one line on standard output: PATH STATUS.
"""
import hashlib
import http.server
import os
import ssl
import sys


class Lists(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def say(self, status, body=b"", **headers):
        sys.stdout.write("%s %d\n" % (self.path, status))  # one piece: several threads write
        sys.stdout.flush()
        self.send_response_only(status)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        if "Transfer_Encoding" not in headers and "Content_Length" not in headers and status != 304:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
        self.close_connection = True

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        try:
            with open(os.path.join(self.server.folder, self.path.lstrip("/")), "rb") as f:
                data = f.read()
        except OSError:
            return self.say(404, b"no such list\n")
        command, _, rest = data.partition(b"\n") if data.startswith(b"!") else (b"", b"", data)
        words = command.decode().split()
        if not words:
            tag = '"%s"' % hashlib.sha256(rest).hexdigest()[:16]
            if self.headers.get("If-None-Match") == tag:
                return self.say(304, ETag=tag)
            return self.say(200, rest, ETag=tag)
        if words[0] == "!status":
            return self.say(int(words[1]), rest, **({"Location": words[2]} if len(words) > 2 else {}))
        if words[0] == "!cut":
            return self.say(200, rest, Content_Length=str(len(rest) + 1))
        if words[0] == "!chunked":
            pieces = [rest[i:i + 7] for i in range(0, len(rest), 7)] + [b""]
            return self.say(200, b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in pieces), Transfer_Encoding="chunked")
        self.say(200, b"", Transfer_Encoding="chunked")
        while True:
            self.wfile.write(b"10000\r\n" + b"x" * 65535 + b"\n\r\n")

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        """A client that leaves, or does not trust us, is part of the tests."""


def main(address, port, folder, pem=None):
    server = Server((address, int(port)), Lists)
    server.folder = folder
    if pem:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    print("listening", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
