"""Mutated JSON, sent to the local stand-in's REST: each body is refused, or has the answer that gRPC gives to what it says."""

import json
import random

import numpy as np
import pytest
from kit.rest import as_json, ask, in_rows
from kit.saved_models import texts
from kit.served_model import COLUMNS, predict_request

from tfctr.serving.wire import protocol

GOOD = [json.dumps({"instances": in_rows(as_json(COLUMNS))}).encode(), json.dumps({"inputs": as_json(COLUMNS)}).encode()]
PARTS = [
    *(b"[", b"]", b"{", b"}", b",", b":", b'"', b"\\", b"[["),
    b"NaN",
    b"-Infinity",
    b"null",
    b"1e999",
    b"9" * 30,
    b"\xff",
    b"0",
]


def mutate(draw):
    """A good body, changed at one place to three."""
    body = bytearray(draw.choice(GOOD))
    for _ in range(draw.randint(1, 3)):
        start = draw.randrange(len(body))
        stop = start + draw.choice([0, 1, 1, 2, 8, 40])
        body[start:stop] = draw.choice([draw.choice(PARTS), draw.randbytes(1), body[start:stop] * 2, b"", b" "])
    return bytes(body)


def expected(server, body):
    """What gRPC answers to that body, as Python reads it; None if it refuses."""
    given = json.loads(body)
    columns = given.get("inputs") or {name: [row[name] for row in given["instances"]] for name in COLUMNS}
    arrays = {
        name: texts(*columns[name]) if column.dtype.hasobject else np.array(columns[name], column.dtype)
        for name, column in COLUMNS.items()
    }
    answer = server.call("Predict", predict_request(arrays))
    return protocol.from_tensor(answer.outputs["probability"]).tolist()


def check(server, bodies, seed):
    draw, seen = random.Random(seed), []
    for _ in range(bodies):
        body = mutate(draw)
        status, answer = ask(f"{server.rest_url}:predict", body)
        assert status in (200, 400), (body, answer)
        if status == 200:
            found = answer["predictions" if b'"instances"' in body else "outputs"]
            np.testing.assert_array_equal(np.array(found, np.float32), expected(server, body), err_msg=repr(body))
        seen.append(status)
    assert server.process.poll() is None
    assert min(seen.count(200), seen.count(400)) > bodies / 20


def test_mutated_bodies_do_no_harm(live_server):
    check(live_server, 300, seed=1)


@pytest.mark.slow
def test_many_mutated_bodies_do_no_harm(live_server):
    check(live_server, 10_000, seed=2)
