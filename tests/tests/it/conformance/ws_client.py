# A bot that speaks over WebSockets: a line for each thing.
import os, ssl
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

context = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])


def dial(**more):
    return connect("wss://raw.test/v1/socket", ssl=context, max_size=None, **more)


def end(socket):
    try:
        socket.recv(timeout=20)
    except ConnectionClosed:
        return socket.close_code, socket.close_reason


with dial(compression=None) as socket:
    print("extensions", [type(it).__name__ for it in socket.protocol.extensions], socket.subprotocol)
    for size in [0, 1, 125, 126, 127, 65535, 65536, 16 << 20]:
        text, data = "x" * size, os.urandom(size)
        socket.send(text)
        assert socket.recv(timeout=20) == text
        socket.send(data)
        assert socket.recv(timeout=20) == data
    print("sizes")
    socket.send(["\u00fc", "", "in", " parts ", "\U0001f600"])
    print("parts", socket.recv(timeout=20))
    socket.send("in parts")
    print("streamed", "|".join(filter(None, socket.recv_streaming())))
    print("ping", socket.ping(b"payload").wait(20))
    socket.send("ping me")
    print("pong", socket.recv(timeout=20))
for code, reason in [(1000, "done"), (1001, ""), (3000, "three"), (4999, "\u00fc" * 60)]:
    with dial() as socket:
        socket.send(f"close {code} {reason}")
        print("closed by server", *end(socket))
    with dial() as socket:
        socket.close(code, reason)
        print("closed by client", code)
with dial(compression="deflate", subprotocols=["two"]) as socket:
    print("deflated", [type(it).__name__ for it in socket.protocol.extensions], socket.subprotocol)
    for size in [1, 70000, 4 << 20]:
        socket.send("y" * size)
        assert socket.recv(timeout=20) == "y" * size
socket = dial(compression=None)
# Text that is none: 0x81, masked by zeros.
socket.socket.sendall(b"\x81\x82\0\0\0\0\xc3\x28")
print("no text", end(socket)[0])
# One that goes without a word.
dial().socket.close()
