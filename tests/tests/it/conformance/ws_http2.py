# A bot whose WebSocket is a stream of HTTP/2 (RFC 8441).
import os, socket, ssl
import h2.config, h2.connection, h2.events, h2.settings
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Message, TextMessage

context = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])
context.set_alpn_protocols(["h2"])
wire = context.wrap_socket(socket.create_connection(("raw.test", 443)), server_hostname="raw.test")
wire.settimeout(20)
http = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
http.initiate_connection()
wire.sendall(http.data_to_send())
came, settled = {}, False


def pump():
    global settled
    for event in http.receive_data(wire.recv(65536)):
        if isinstance(event, h2.events.RemoteSettingsChanged):
            settled = True
        elif isinstance(event, h2.events.ResponseReceived):
            came.setdefault(event.stream_id, []).append(dict(event.headers))
        elif isinstance(event, h2.events.DataReceived):
            http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            came.setdefault(event.stream_id, []).append(event.data)
    wire.sendall(http.data_to_send())


def ask(path, protocol="websocket", **more):
    stream = http.get_next_available_stream_id()
    fields = [(":method", "CONNECT"), (":scheme", "https"), (":path", path), (":authority", "raw.test")]
    fields.append((":protocol", protocol))
    fields += [("sec-websocket-version", "13"), *more.items()]
    http.send_headers(stream, fields)
    wire.sendall(http.data_to_send())
    while stream not in came:
        pump()
    return stream, came[stream].pop(0)


while not settled:
    pump()
print("enabled", http.remote_settings.enable_connect_protocol == 1)
stream, head = ask("/v1/socket", **{"sec-websocket-protocol": "one, two"})
print(head[":status"], head.get("sec-websocket-protocol"), "sec-websocket-accept" not in head, "upgrade" in head)
frames = Connection(ConnectionType.CLIENT)


def send(event):
    data = frames.send(event)
    while data:
        room = min(http.local_flow_control_window(stream), http.max_outbound_frame_size)
        if room == 0:
            pump()
            continue
        http.send_data(stream, data[:room])
        data = data[room:]
        wire.sendall(http.data_to_send())


def receive():
    whole = b""
    while True:
        for event in frames.events():
            if not isinstance(event, Message):
                return event
            whole += event.data.encode() if isinstance(event, TextMessage) else event.data
            if event.message_finished:
                return whole
        while not came[stream]:
            pump()
        frames.receive_data(came[stream].pop(0))


send(TextMessage(data="hello"))
print(receive().decode())
big = os.urandom(16 << 20)
send(BytesMessage(data=big))
answer = receive()
print(len(answer), answer == big)
send(TextMessage(data="close 4000 bye"))
end = receive()
print("closed", end.code, end.reason)
send(end.response())
for path, protocol in [("/v1/forbidden/socket", "websocket"), ("/v1/socket", "connect-udp"), ("/v1/socket", "h2c")]:
    _, head = ask(path, protocol)
    print(head[":status"], head["content-type"])
# What the server answers to a version that it does not speak.
stream = http.get_next_available_stream_id()
fields = [(":method", "CONNECT"), (":scheme", "https"), (":path", "/v1/other"), (":authority", "raw.test")]
http.send_headers(stream, fields + [(":protocol", "websocket"), ("sec-websocket-version", "99")])
wire.sendall(http.data_to_send())
while stream not in came:
    pump()
print("another version:", came[stream][0][":status"])
