"""A collector of OpenTelemetry: what comes is read by the official types, and each record is written as a line of JSON.

collector.py http|grpc PORT OUT KEY [CERTIFICATE PRIVATE_KEY CLIENT_CA]: with certificates, a client must have one, too.
"""

import gzip
import json
import ssl
import sys
import threading
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from google.protobuf import json_format
from google.protobuf.unknown_fields import UnknownFieldSet
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse

kind, port, out, key, *tls = sys.argv[1:]
lock = threading.Lock()


def write(request, how, client):
    with lock, open(out, "a") as lines:
        for resource in request.resource_logs:
            about = {it.key: it.value.string_value for it in resource.resource.attributes}
            for scope in resource.scope_logs:
                for record in scope.log_records:
                    attributes = {
                        it.key: it.value.int_value if it.value.HasField("int_value") else it.value.string_value
                        for it in record.attributes
                    }
                    line = {
                        "how": how,
                        "client": client,
                        "about": about,
                        "time": record.time_unix_nano,
                        "severity": record.severity_number,
                        "event": record.event_name,
                        "body": json.loads(record.body.string_value),
                        "attributes": attributes,
                    }
                    lines.write(json.dumps(line) + "\n")


def has_unknown(message):
    """Whether there is a field that the official types do not know, at any depth."""
    if len(UnknownFieldSet(message)) > 0:
        return True
    of_messages = [value for field, value in message.ListFields() if field.message_type]
    each = [it for value in of_messages for it in ([value] if hasattr(value, "ListFields") else value)]
    return any(has_unknown(it) for it in each)


class Collector(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        kind = self.headers["content-type"]
        status, answer = 200, b""
        if self.path != "/v1/logs" or kind not in ("application/json", "application/x-protobuf"):
            status = 404
        elif key != "-" and self.headers.get("x-key") != key:
            status = 401
        else:
            # An unknown field, or a value of another type, is an error.
            if kind == "application/json":
                request = json_format.Parse(body, ExportLogsServiceRequest())
                answer = json_format.MessageToJson(ExportLogsServiceResponse()).encode()
            else:
                request = ExportLogsServiceRequest.FromString(body)
                assert not has_unknown(request), "fields that nobody knows"
                answer = ExportLogsServiceResponse().SerializeToString()
            client = self.connection.getpeercert()["subject"][0][0][1] if tls else None
            write(request, kind, client)
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


class Service(logs_service_pb2_grpc.LogsServiceServicer):
    def Export(self, request, context):
        if key != "-" and dict(context.invocation_metadata()).get("x-key") != key:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "who?")
        client = context.auth_context()["x509_common_name"][0].decode() if tls else None
        assert not has_unknown(request), "fields that nobody knows"
        write(request, "grpc", client)
        return ExportLogsServiceResponse()


def read(name):
    with open(name, "rb") as file:
        return file.read()


if kind == "grpc":
    server = grpc.server(futures.ThreadPoolExecutor(2))
    logs_service_pb2_grpc.add_LogsServiceServicer_to_server(Service(), server)
    place = f"127.0.0.1:{port}"
    if tls:
        certificate, private, roots = map(read, tls)
        credentials = grpc.ssl_server_credentials([(private, certificate)], roots, require_client_auth=True)
        server.add_secure_port(place, credentials)
    else:
        server.add_insecure_port(place)
    server.start()
    server.wait_for_termination()
else:
    server = ThreadingHTTPServer(("127.0.0.1", int(port)), Collector)
    if tls:
        certificate, private, roots = tls
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=roots)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(certificate, private)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()
