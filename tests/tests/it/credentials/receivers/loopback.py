"""An API on plain HTTP that wants a key. ADDRESS KEY LOG: each connection and each request is a line of LOG."""

import http.server
import json
import socket
import sys

ADDRESS, KEY, LOG = sys.argv[1:]


class Api(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        seen = {"path": self.path, "from": self.client_address[1], "headers": dict(self.headers.items())}
        with open(LOG, "a") as log:
            log.write(json.dumps(seen) + "\n")
        ours = self.headers.get_all("x-api-key") == [KEY]
        body = f"key {self.headers.get('x-api-key')} of {ADDRESS}\n".encode()
        self.send_response(200 if ours else 401)
        self.send_header("content-type", "text/plain")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    def process_request(self, request, client_address):
        with open(LOG, "a") as log:
            log.write(json.dumps({"connected": client_address[1]}) + "\n")
        super().process_request(request, client_address)

    address_family = socket.AF_INET6 if ":" in ADDRESS else socket.AF_INET


open(LOG, "a").close()
Server((ADDRESS, 80), Api).serve_forever()
