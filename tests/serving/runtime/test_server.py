"""The local stand-in: its answers, and how it starts and stops."""

import functools
import os
import signal
import stat
import subprocess
import sys
import threading

import grpc
import numpy as np
import pytest
import tensorflow as tf
from kit.memory_of import resident
from kit.saved_models import client_of, probabilities, put, texts
from kit.served_model import predict_request, serving

from tfctr.errors import ConfigError, StorageError, TfctrError
from tfctr.serving.client.blocking import PredictionClient
from tfctr.serving.runtime.stand_in import LocalServer, serve, tensorflow_serving_command
from tfctr.serving.wire import protocol


@pytest.fixture(scope="module")
def server(models, tmp_path_factory):
    base = tmp_path_factory.mktemp("serving") / "frappe"
    put(base, models / "light")
    with LocalServer(base, port=0) as server:
        yield server


@pytest.fixture(scope="module")
def call(server):
    """`call(request)` sends one raw Predict request, and gives the answer."""
    with grpc.insecure_channel(server.target) as channel:
        yield predict_over(channel)


def predict_over(channel):
    predict = channel.unary_unary(
        f"/{protocol.PREDICTION_SERVICE}/Predict",
        request_serializer=protocol.PredictRequest.SerializeToString,
        response_deserializer=protocol.PredictResponse.FromString,
    )
    return functools.partial(predict, timeout=60)


def request(spec=None, outputs=(), users=("60", "café", "", "x"), prices=(1.0, -2.0, np.nan, 3.0)):
    return predict_request({"user": texts(*users), "price": np.array(prices)}, {"name": "frappe", **(spec or {})}, outputs)


# answers


def test_probabilities_by_their_formula(server):
    users, prices = ["60", "2438", "nobody", None], [1.0, -2.0, None, 3]
    with client_of(server) as client:
        answer = client.predict({"user": users, "price": prices})
    np.testing.assert_allclose(answer, probabilities(users, [1.0, -2.0, np.nan, 3.0]), rtol=1e-6)


@pytest.mark.parametrize("rows", [1, 3, 512])
def test_grpc_answers_the_bits_of_the_saved_model(server, models, rows):
    rng = np.random.default_rng(rows)
    users, prices = rng.choice(["60", "2438", "café", "x", ""], rows), rng.normal(size=rows)
    ids = rng.integers(-5, 5, size=(rows, 3), dtype=np.int32)
    signatures = tf.saved_model.load(models / "light").signatures
    by_name = signatures["serving_default"](user=tf.constant(users), price=tf.constant(prices))["probability"].numpy()
    by_id = signatures["ids"](ids=tf.constant(ids))["probability"].numpy()
    with client_of(server) as client:
        assert client.predict({"user": users, "price": prices}).tobytes() == by_name.tobytes()
    with client_of(server, signature="ids") as client:
        assert client.predict(ids).tobytes() == by_id.tobytes()


def test_the_answer_names_its_model(call):
    answer = call(request())
    assert (answer.model_spec.name, answer.model_spec.version.value) == ("frappe", 1)
    assert answer.model_spec.signature_name == "serving_default"
    assert list(answer.outputs) == ["probability"]
    assert list(call(request(outputs=["probability"])).outputs) == ["probability"]
    assert call(request({"version": {"value": 1}})).outputs == answer.outputs


def test_metadata(server):
    with client_of(server) as client:
        assert client.metadata() == {
            "serving_default": {
                "inputs": {"user": ("string", (None,)), "price": ("double", (None,))},
                "outputs": {"probability": ("float", (None,))},
            },
            "ids": {"inputs": {"ids": ("int32", (None, 3))}, "outputs": {"probability": ("float", (None,))}},
        }


def test_edges_of_good_requests(call):
    empty = call(request(users=(), prices=()))
    assert protocol.from_tensor(empty.outputs["probability"]).shape == (0,)
    large = call(request(users=["x" * 5_000_000], prices=[0.0]))
    np.testing.assert_allclose(protocol.from_tensor(large.outputs["probability"]), [0.26894143], rtol=1e-6)  # sigmoid(-1)


LARGE = 24  # requests; gRPC and malloc keep what four to six of them took, and a server that kept all would hold 24
KEPT = 12


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("text", [pytest.param(2**24, id="16 MiB"), pytest.param(2**26, id="64 MiB", marks=pytest.mark.slow)])
def test_large_requests_are_answered_and_leave_no_memory_behind(text, base, monkeypatch):
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")  # or each thread would keep some of what it has freed
    with serving(base) as (target, _, process), grpc.insecure_channel(target) as channel:
        predict = predict_over(channel)
        small, large = request(), request(users=["x" * text], prices=[0.0])
        golden, held = predict(small), resident(process.pid)
        for _ in range(LARGE):
            np.testing.assert_allclose(protocol.from_tensor(predict(large).outputs["probability"]), [0.26894143], rtol=1e-6)
        assert resident(process.pid) - held < KEPT * text / 2**20
        assert predict(small) == golden


# starting and stopping


@pytest.mark.parametrize(
    ("option", "value"), [*(("port", port) for port in (-1, 65536, "8500", 8500.0)), ("poll_seconds", 0), ("poll_seconds", "1")]
)
def test_numbers_that_are_none(base, option, value):
    for start in (LocalServer, serve):
        with pytest.raises(ConfigError, match=f"`{option}` is {value!r}"):
            start(base, **{option: value})


@pytest.mark.parametrize(("version", "problem"), [(7, "frappe has no version 7"), ("x", "'x' is not a version's number")])
def test_versions_that_there_are_not(base, version, problem):
    with pytest.raises(TfctrError, match=problem):
        LocalServer(base, port=0, versions=[1, version])


def test_a_taken_port_is_an_error(base):
    with LocalServer(base, port=0) as first, pytest.raises(StorageError, match=f"cannot listen on 127.0.0.1:{first.port}"):
        LocalServer(base, port=first.port).__enter__()


@pytest.mark.parametrize("layout", ["absent", "empty", "a file", "one version", "broken"])
def test_folders_that_cannot_be_served(tmp_path, models, layout):
    folder, problem = tmp_path / "frappe", "holds no published version"
    if layout == "empty":
        folder.mkdir()
    if layout == "a file":
        folder, problem = models / "light" / "saved_model.pb", "saved_model.pb is not a folder"
    if layout == "one version":
        folder, problem = models / "light", f"is one version.(?s:.*)serve the folder of all versions: {models}"
    if layout == "broken":
        put(folder, models / "broken")
        problem = "frappe/1 cannot be loaded: .* is corrupt"
    with pytest.raises(StorageError, match=problem):
        serve(folder, port=0, stand_in=True)


SERVE = """
import logging, sys
from tfctr.serving.runtime.stand_in import serve
logging.basicConfig(level="INFO", stream=sys.stdout, format="%(message)s")
serve(sys.argv[1], port=int(sys.argv[2]))
assert "tensorflow" not in sys.modules
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_runs_until_a_signal(base, number):
    with subprocess.Popen([sys.executable, "-c", SERVE, str(base), "0"], stdout=subprocess.PIPE, text=True) as child:
        late = threading.Timer(120, child.kill)  # then nothing below waits for it any longer
        late.start()
        try:
            lines = [child.stdout.readline(), child.stdout.readline()]
            assert "a local stand-in, not TensorFlow Serving" in lines[1]
            with PredictionClient(lines[1].split()[2].rstrip(":"), model="frappe", timeout=60) as client:
                assert client.predict({"user": ["60"], "price": [0.0]}).tolist() == [0.5]
            child.send_signal(number)
            assert child.wait() == 0
        finally:
            child.kill()
            late.cancel()


def test_serve_prefers_tensorflow_serving(base, tmp_path):
    program = tmp_path / "bin" / "tensorflow_model_server"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nfor argument in "$@"; do echo "$argument"; done\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    environment = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}
    command = [sys.executable, "-c", SERVE, str(base), "8511"]
    said = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=120).stdout.splitlines()
    assert "listens on every interface" in said[0]
    for option, value in (("labels", {"stable": 1}), ("rest_port", 0)):
        command[2] = SERVE.replace("int(sys.argv[2])", f"int(sys.argv[2]), {option}={value}")
        refused = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert f"ConfigError: `{option}` is for the stand-in, and {program} would take its place." in refused.stderr
    assert said[1:] == tensorflow_serving_command(program, base, 8511)[1:]
    assert said[1:4] == ["--port=8511", "--model_name=frappe", f"--model_base_path={base}"]
    with pytest.raises(ConfigError, match="`port` is 0"):
        tensorflow_serving_command(program, base, 0)
