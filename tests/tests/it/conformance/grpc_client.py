# A bot that calls conf.Echo in each way: a line for each.
import os, sys, threading
import grpc

roots = open(os.environ["SSL_CERT_FILE"], "rb").read()
options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
channel = grpc.secure_channel("raw.test:443", grpc.ssl_channel_credentials(roots), options)
limit = 30


def failed(call):
    try:
        return call()
    except grpc.RpcError as error:
        return f"{error.code().name} {error.details()}"


def say(*words):
    print(*words, flush=True)


unary = channel.unary_unary("/conf.Echo/Unary")
answer, call = unary.with_call(b"hello", timeout=limit)
first, last = dict(call.initial_metadata()), dict(call.trailing_metadata())
say("unary", answer.decode(), first["x-first"], last["x-total"], last["x-raw-bin"].hex())
say("down", sum(int(number) for number in channel.unary_stream("/conf.Echo/Down")(b"500", timeout=limit)))
say("up", channel.stream_unary("/conf.Echo/Up")(iter([b"x" * 10] * 500), timeout=limit).decode())

# Each answer comes before the next question.
ask = threading.Semaphore(1)


def questions():
    for number in range(50):
        ask.acquire()
        yield b"q%d" % number


both = []
for answer in channel.stream_stream("/conf.Echo/Both")(questions(), timeout=limit):
    both.append(answer.decode())
    ask.release()
say("both", len(both), both[-1])

say("fail", failed(lambda: channel.unary_unary("/conf.Echo/Fail")(b"", timeout=limit)))
late = channel.unary_stream("/conf.Echo/Late")(b"", timeout=limit)
say("late", next(late).decode(), failed(lambda: next(late)))
say("none", failed(lambda: channel.unary_unary("/conf.Echo/Nothing")(b"", timeout=limit)).split()[0])
say("denied", failed(lambda: channel.unary_unary("/conf.Other/Nothing")(b"", timeout=limit)).split()[0])
say("slow", failed(lambda: channel.unary_unary("/conf.Echo/Slow")(b"", timeout=0.7)).split()[0])
slow = channel.unary_unary("/conf.Echo/Slow").future(b"", timeout=limit)
threading.Timer(0.5, slow.cancel).start()
try:
    slow.result()
except grpc.FutureCancelledError:
    say("cancel", slow.code().name)
big = os.urandom(10 << 20)
say("big", unary(big, timeout=limit) == big)
many = [unary.future(b"%d" % number, timeout=limit) for number in range(1000)]
say("many", sum(future.result() == b"%d" % number for number, future in enumerate(many)))
