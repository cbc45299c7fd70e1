"""Mutated messages of every call, sent to a server whose memory is limited: each is answered or refused, and none does harm."""

import random
import resource
import sys

import pytest
from google.protobuf.message import DecodeError
from kit.memory_of import resident
from kit.served_model import CALLS, serialized

from tfctr.serving.wire import protocol

REACHED = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "UNIMPLEMENTED", "INTERNAL"}
PROPER = {*REACHED, "RESOURCE_EXHAUSTED"}
AT_ONCE = 100
MORE_MEMORY = 2**30
MORE_RESIDENT, SLACK = 0.1, 16  # the share by which the server may grow, and the MiB beside
NO_MESSAGES = 0.1  # the share of the mutated that need not be messages any more; without a limit nearly all would be none


@pytest.fixture
def limited(live_server):
    """The server, which gets little more memory than it has after every kind of request."""
    live_server.golden()
    if sys.platform == "linux":
        with open(f"/proc/{live_server.process.pid}/statm", encoding="utf-8") as file:
            held = int(file.read().split()[0]) * resource.getpagesize()
        resource.prlimit(live_server.process.pid, resource.RLIMIT_AS, (held + MORE_MEMORY, resource.RLIM_INFINITY))
    return live_server


def mutate(draw, method, messages):
    """One of some messages to a method, changed at one place to three; nearly always still a message."""
    any_bytes = draw.random() < NO_MESSAGES
    while not is_message(method, mutated := _change(draw, messages)) and not any_bytes:
        pass
    return mutated


def _change(draw, messages):
    message = bytearray(draw.choice(messages))
    for _ in range(draw.randint(1, 3)):
        start = draw.randrange(len(message) + 1)
        stop = min(len(message), start + draw.choice([1, 1, 2, 4, 8, 64]))
        other = draw.choice(messages)
        match draw.choice(["flip", "replace", "remove", "repeat", "insert", "splice", "cut"]):
            case "flip" if start < len(message):
                message[start] ^= 1 << draw.randrange(8)
            case "replace":
                message[start:stop] = draw.randbytes(stop - start)
            case "remove":
                del message[start:stop]
            case "repeat":
                message[start:start] = message[start:stop] * draw.randint(1, 3)
            case "insert":
                message[start:start] = draw.choice([b"\xff" * 9 + b"\x01", b"\x80\x80\x80\x08", b"\0", draw.randbytes(4)])
            case "splice":
                message[start:] = other[draw.randrange(len(other)) :]
            case "cut":
                del message[start:]
    return bytes(message)


def is_message(method, data):
    try:
        CALLS[method][1].FromString(data)
    except DecodeError:
        return False
    return True


def scores(answer):
    """All probabilities in an answer of any kind."""
    match answer:
        case protocol.PredictResponse():
            named = {"probability", "scores", "outputs"} & {*answer.outputs}
            yield from (score for name in named for score in protocol.from_tensor(answer.outputs[name]).ravel().tolist())
        case protocol.ClassificationResponse():
            yield from (found.score for row in answer.result.classifications for found in row.classes)
        case protocol.RegressionResponse():
            yield from (row.value for row in answer.result.regressions)
        case protocol.MultiInferenceResponse():
            for result in answer.results:
                yield from scores(protocol.ClassificationResponse(result=result.classification_result))
                yield from scores(protocol.RegressionResponse(result=result.regression_result))


def outcome(method, data, call):
    """The name of the status; an error that holds the message if that is no proper one, or a score is none."""
    error, code = call.exception(), call.code().name
    where = f"{method} {data.hex()}: {code} {call.details()}"
    assert code in PROPER, where
    assert (code == "INTERNAL") == (not is_message(method, data)), where
    if error is None:
        assert all(0 <= score <= 1 for score in scores(call.result())), where
    return code


def check(server, messages, seed):
    """Send so many mutated messages, each to the call that it was made for."""
    draw, golden, good = random.Random(seed), server.golden(), {}
    held = resident(server.process.pid) if sys.platform == "linux" else None
    for method, request in server.good_requests():
        good.setdefault(method, []).append(serialized(request))
    seen, methods = set(), [method for method, _ in server.good_requests()]
    for _ in range(messages // AT_ONCE):
        sent = []
        for method in draw.choices(methods, k=AT_ONCE):
            data = mutate(draw, method, good[method])
            sent.append((method, data, server.start(method, data)))
        seen |= {(method, outcome(method, data, call)) for method, data, call in sent}
        for data in good["HandleReloadConfigRequest"]:  # a mutated config may be a good one
            server.call("HandleReloadConfigRequest", data)
        assert server.golden() == golden, [(method, data.hex()) for method, data, _ in sent]
    assert server.process.poll() is None
    assert held is None or resident(server.process.pid) <= (1 + MORE_RESIDENT) * held + SLACK
    assert {(method, code) for method in CALLS for code in ("OK", "INTERNAL")} <= seen
    assert {code for _, code in seen} >= REACHED


@pytest.mark.slow
def test_mutated_messages_do_no_harm(limited):
    check(limited, 10_000, seed=1)


@pytest.mark.every
def test_many_mutated_messages_do_no_harm(limited):
    check(limited, 100_000, seed=2)
