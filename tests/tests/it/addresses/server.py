"""server.py ADDRESS PORT LOG [silent]: notes each request in LOG and answers 200, over TLS unless the port is 80.

A silent one listens, and answers no connection: its queue is full.
"""
import http.server, json, socket, ssl, sys, time

address, port, log = sys.argv[1], int(sys.argv[2]), sys.argv[3]
family = socket.AF_INET

if sys.argv[4:] == ["silent"]:
    listener = socket.socket(family)
    listener.bind((address, port))
    listener.listen(0)
    queued = []
    while True:
        client = socket.socket(family)
        client.settimeout(0.3)
        queued.append(client)
        try:
            client.connect((address, port))
        except TimeoutError:
            break
    open(log + ".full", "w").close()
    time.sleep(1000)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        with open(log, "a") as file:
            seen = {"path": self.path, "authorization": self.headers.get("authorization"), "peer": self.client_address[1]}
            file.write(json.dumps(seen) + "\n")
        self.send_response(200)
        self.send_header("content-length", "4")
        self.end_headers()
        self.wfile.write(b"here")

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    address_family = family


open(log, "w").close()
server = Server((address, port), Handler)
if port != 80:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("api/server.pem", "api/server.key")
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
server.serve_forever()
