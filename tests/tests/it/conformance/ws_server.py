# A WebSocket that says what it is told: ws_server.py ADDRESS CERT KEY. How each ended is a line.
import ssl, sys
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import serve

address, certificate, key = sys.argv[1:]


def handle(socket):
    if socket.request.headers.get("authorization") != "Bearer canary_7f3a9d51e8b24c06_live":
        return socket.close(4401, "no key")
    try:
        for message in socket:
            if message == "ping me":
                socket.ping(b"are you there").wait(20)
                socket.send("you are")
            elif isinstance(message, str) and message.startswith("close "):
                _, code, reason = message.split(" ", 2)
                socket.close(int(code), reason)
            elif message == "in parts":
                socket.send(["one ", "two ", "three"])
            else:
                socket.send(message)
    except ConnectionClosed:
        pass
    print("ended", socket.close_code, socket.close_reason, flush=True)


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
serve(
    handle, address, 443, ssl=context, max_size=None,
    select_subprotocol=lambda _, offered: "two" if "two" in offered else None,
).serve_forever()
