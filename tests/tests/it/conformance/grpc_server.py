# A gRPC server of any bytes: grpc_server.py ADDRESS CERT KEY. Each call that was given up is a line.
import sys, threading, time
from concurrent import futures
import grpc

address, certificate, key = sys.argv[1:]


def say(*words):
    print(*words, flush=True)


def known(context):
    if ("authorization", "Bearer canary_7f3a9d51e8b24c06_live") not in context.invocation_metadata():
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "no key")


def unary(request, context):
    known(context)
    context.send_initial_metadata((("x-first", "head"),))
    context.set_trailing_metadata((("x-total", str(len(request))), ("x-raw-bin", b"\0\xff")))
    return request


def down(request, context):
    known(context)
    for number in range(int(request)):
        yield b"%d" % number


def up(requests, context):
    known(context)
    return b"%d" % sum(len(request) for request in requests)


def both(requests, context):
    known(context)
    context.add_callback(lambda: context.code() or say("ended both"))
    for request in requests:
        yield request.upper()


def fail(request, context):
    known(context)
    context.set_trailing_metadata((("x-why", "none"),))
    context.abort(grpc.StatusCode.NOT_FOUND, "no such thing: \u00fc 100 %")


def late(request, context):
    known(context)
    yield b"one"
    context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "after one")


def slow(request, context):
    known(context)
    left = context.time_remaining()
    gone = threading.Event()
    context.add_callback(gone.set)
    say("slow", "deadline" if left is not None and left < 2 else "none", "given up" if gone.wait(20) else "kept")
    return b""


class Echo(grpc.GenericRpcHandler):
    def service(self, details):
        one, many = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
        return {
            "/conf.Echo/Unary": one(unary),
            "/conf.Echo/Fail": one(fail),
            "/conf.Echo/Slow": one(slow),
            "/conf.Echo/Down": many(down),
            "/conf.Echo/Late": many(late),
            "/conf.Echo/Up": grpc.stream_unary_rpc_method_handler(up),
            "/conf.Echo/Both": grpc.stream_stream_rpc_method_handler(both),
        }.get(details.method)


options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
server = grpc.server(futures.ThreadPoolExecutor(16), handlers=[Echo()], options=options)
pair = [(open(key, "rb").read(), open(certificate, "rb").read())]
server.add_secure_port(f"{address}:443", grpc.ssl_server_credentials(pair))
server.start()
server.wait_for_termination()
