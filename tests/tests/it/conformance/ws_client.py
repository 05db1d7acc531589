# A bot that speaks over WebSockets: a line for each thing. In one thread: the TLS of Python 3.11 loses what one thread writes while another one reads.
import asyncio, os, ssl
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

context = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])


def dial(**more):
    return connect("wss://raw.test/v1/socket", ssl=context, max_size=None, **more)


async def receive(socket):
    return await asyncio.wait_for(socket.recv(), 20)


async def end(socket):
    try:
        await receive(socket)
    except ConnectionClosed:
        return socket.close_code, socket.close_reason


async def main():
    async with dial(compression=None) as socket:
        print("extensions", [type(it).__name__ for it in socket.protocol.extensions], socket.subprotocol)
        for size in [0, 1, 125, 126, 127, 65535, 65536, 16 << 20]:
            text, data = "x" * size, os.urandom(size)
            await socket.send(text)
            assert await receive(socket) == text
            await socket.send(data)
            assert await receive(socket) == data
        print("sizes")
        await socket.send(["\u00fc", "", "in", " parts ", "\U0001f600"])
        print("parts", await receive(socket))
        await socket.send("in parts")
        print("streamed", "|".join([it async for it in socket.recv_streaming() if it]))
        ping = await socket.ping(b"payload")
        print("ping", await asyncio.wait_for(ping, 20) >= 0)
        await socket.send("ping me")
        print("pong", await receive(socket))
    for code, reason in [(1000, "done"), (1001, ""), (3000, "three"), (4999, "\u00fc" * 60)]:
        async with dial() as socket:
            await socket.send(f"close {code} {reason}")
            print("closed by server", *await end(socket))
        async with dial() as socket:
            await socket.close(code, reason)
            print("closed by client", code)
    async with dial(compression="deflate", subprotocols=["two"]) as socket:
        print("deflated", [type(it).__name__ for it in socket.protocol.extensions], socket.subprotocol)
        for size in [1, 70000, 4 << 20]:
            await socket.send("y" * size)
            assert await receive(socket) == "y" * size
    socket = await dial(compression=None)
    # Text that is none: 0x81, masked by zeros.
    socket.transport.write(b"\x81\x82\0\0\0\0\xc3\x28")
    print("no text", (await end(socket))[0])
    # One that goes without a word.
    (await dial()).transport.abort()


asyncio.run(main())
