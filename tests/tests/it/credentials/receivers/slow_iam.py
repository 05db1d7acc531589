"""IAM, STS and an API of AWS that know a new access key only when it has been tried some times. ADDRESS CERTIFICATE KEY TIMES.

Each call for an access key is a line in iam.calls: who signed, what, which key."""

import http.server
import re
import ssl
import sys
import urllib.parse

ADDRESS, CERTIFICATE, KEY, TIMES = sys.argv[1:]
# How often each new key is refused yet, by who refuses.
UNKNOWN = {"sts": int(TIMES), "dynamodb": int(TIMES)}


def error(code):
    return f"<ErrorResponse><Error><Code>{code}</Code></Error></ErrorResponse>"


def key(name, access, more=""):
    return (f"<Response><{name}><AccessKeyId>{access}</AccessKeyId><SecretAccessKey>s{access}</SecretAccessKey>"
            f"{more}</{name}></Response>")


class Aws(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def serve(self):
        signer, service = re.search(r"Credential=(\w+)/\d+/[\w-]+/(\w+)/", self.headers["authorization"]).groups()
        form = urllib.parse.parse_qs(self.rfile.read(int(self.headers.get("content-length", 0))).decode())
        if service == "iam":
            with open("iam.calls", "a") as calls:
                print(signer, form["Action"][0], form.get("AccessKeyId", ["-"])[0], file=calls)
        if signer != "OLD" and UNKNOWN.get(service, 0) > 0:
            UNKNOWN[service] -= 1
            status = 400 if service == "dynamodb" else 403
            return self.say(status, error("InvalidClientTokenId"))
        match form.get("Action", [""])[0]:
            case "CreateAccessKey":
                self.say(200, key("AccessKey", "NEW"))
            case "AssumeRole":
                more = "<SessionToken>t</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration>"
                self.say(200, key("Credentials", "ROLE", more))
            case _:
                self.say(200, "<Response/>")

    do_GET = do_POST = serve

    def say(self, status, body):
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())


server = http.server.ThreadingHTTPServer((ADDRESS, 443), Aws)
context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain(CERTIFICATE, KEY)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
