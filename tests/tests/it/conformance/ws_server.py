# A WebSocket that says what it is told: ws_server.py ADDRESS CERT KEY. How each ended is a line.
import asyncio, ssl, sys
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

address, certificate, key = sys.argv[1:]


async def handle(socket):
    if socket.request.headers.get("authorization") != "Bearer canary_7f3a9d51e8b24c06_live":
        return await socket.close(4401, "no key")
    try:
        async for message in socket:
            if message == "ping me":
                await asyncio.wait_for(await socket.ping(b"are you there"), 20)
                await socket.send("you are")
            elif isinstance(message, str) and message.startswith("close "):
                _, code, reason = message.split(" ", 2)
                await socket.close(int(code), reason)
            elif message == "in parts":
                await socket.send(["one ", "two ", "three"])
            else:
                await socket.send(message)
    except ConnectionClosed:
        pass
    print("ended", socket.close_code, socket.close_reason, flush=True)


async def main():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    async with serve(
        handle, address, 443, ssl=context, max_size=None,
        select_subprotocol=lambda _, offered: "two" if "two" in offered else None,
    ) as server:
        await server.serve_forever()


asyncio.run(main())
