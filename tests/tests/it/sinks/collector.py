"""A collector of OpenTelemetry: what comes is read by the official types, and each record is written as a line of JSON."""

import gzip
import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse

port, out, key = int(sys.argv[1]), sys.argv[2], sys.argv[3]


class Collector(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        status, answer = 200, b""
        if self.path != "/v1/logs" or self.headers["content-type"] != "application/json":
            status = 404
        elif self.headers.get("x-key") != key:
            status = 401
        else:
            # An unknown field, or a value of another type, is an error.
            request = json_format.Parse(body, ExportLogsServiceRequest())
            with open(out, "a") as lines:
                for resource in request.resource_logs:
                    about = {it.key: it.value.string_value for it in resource.resource.attributes}
                    for scope in resource.scope_logs:
                        for record in scope.log_records:
                            attributes = {
                                it.key: it.value.int_value if it.value.HasField("int_value") else it.value.string_value
                                for it in record.attributes
                            }
                            line = {
                                "about": about,
                                "time": record.time_unix_nano,
                                "severity": record.severity_number,
                                "event": record.event_name,
                                "body": json.loads(record.body.string_value),
                                "attributes": attributes,
                            }
                            lines.write(json.dumps(line) + "\n")
            answer = json_format.MessageToJson(ExportLogsServiceResponse()).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


HTTPServer(("127.0.0.1", port), Collector).serve_forever()
