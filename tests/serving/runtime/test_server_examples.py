"""The local stand-in's Classify, Regress and MultiInference, and one context with many candidates."""

import contextlib

import grpc
import numpy as np
import pytest
from kit.saved_models import client_of, export_examples, export_shared_input, put

from tfctr.errors import DataError
from tfctr.serving.runtime.stand_in import LocalServer
from tfctr.serving.wire import protocol

ANSWERS = {
    protocol.ClassificationRequest: ("Classify", protocol.ClassificationResponse),
    protocol.RegressionRequest: ("Regress", protocol.RegressionResponse),
    protocol.MultiInferenceRequest: ("MultiInference", protocol.MultiInferenceResponse),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serving")
    export_examples(folder / "model")
    put(folder / "clicks", folder / "model")
    with LocalServer(folder / "clicks", port=0) as server:
        yield server


@contextlib.contextmanager
def calls_to(server):
    with grpc.insecure_channel(server.target) as channel:

        def send(request):
            method, answer = ANSWERS[type(request)]
            path = f"/{protocol.PREDICTION_SERVICE}/{method}"
            request = request.SerializeToString()
            return channel.unary_unary(path, response_deserializer=answer.FromString)(request, timeout=60)

        yield send


@pytest.fixture(scope="module")
def call(server):
    with calls_to(server) as send:
        yield send


def example(price):
    return {"features": {"feature": {"price": {"float_list": {"value": [price]}}}}}


def given(*prices):
    return {"example_list": {"examples": [example(price) for price in prices]}}


def spec(signature, **options):
    return {"name": "clicks", "signature_name": signature, **options}


def classification(signature, *prices):
    return protocol.ClassificationRequest(model_spec=spec(signature), input=given(*prices))


def regression(signature, *prices):
    return protocol.RegressionRequest(model_spec=spec(signature), input=given(*prices))


def inference(*tasks, prices=(1.5,)):
    return protocol.MultiInferenceRequest(
        tasks=[{"model_spec": spec(signature), "method_name": f"tensorflow/serving/{method}"} for signature, method in tasks],
        input=given(*prices),
    )


def values(result):
    return [regression.value for regression in result.regressions]


def classes(result):
    return [[(found.label, found.score) for found in row.classes] for row in result.classifications]


@pytest.mark.parametrize("signature", ["regress", "regress_column"])
def test_regress(call, signature):
    answer = call(regression(signature, 1.5, -2.0, 0.25))
    assert values(answer.result) == [1.5, -2.0, 0.25]
    assert (answer.model_spec.name, answer.model_spec.version.value) == ("clicks", 1)
    assert answer.model_spec.signature_name == signature


def test_classify(call):
    assert classes(call(classification("classify", 1.5, -2.0)).result) == [
        [("no", -1.5), ("yes", 1.5)],
        [("no", 2.0), ("yes", -2.0)],
    ]
    assert classes(call(classification("scores", 1.5)).result) == [[("", -1.5), ("", 1.5)]]


def test_examples_may_share_a_context(call):
    shared = {"example_list_with_context": {"context": example(1.5), "examples": [{}, {}, example(0.5)]}}
    request = protocol.RegressionRequest(model_spec=spec("regress"), input=shared)
    assert values(call(request).result) == [1.5, 1.5, 0.5]


def test_several_signatures_of_one_input_at_once(tmp_path):
    export_shared_input(tmp_path / "model")
    put(tmp_path / "clicks", tmp_path / "model")
    with LocalServer(tmp_path / "clicks", port=0) as server, calls_to(server) as call:
        answer = call(inference(("regress", "regress"), ("classify", "classify"), prices=(1.5, -2.0)))
    first, second = answer.results
    assert values(first.regression_result) == [1.5, -2.0]
    assert classes(second.classification_result) == [[("no", -1.5), ("yes", 1.5)], [("no", 2.0), ("yes", -2.0)]]
    assert [result.model_spec.signature_name for result in answer.results] == ["regress", "classify"]


@pytest.mark.parametrize(
    ("request_", "code", "words"),
    [
        (protocol.RegressionRequest(input=given(1)), "INVALID_ARGUMENT", "ModelSpec has no name"),
        (protocol.RegressionRequest(model_spec={"name": "other"}), "NOT_FOUND", "Servable not found"),
        (regression("nothing", 1), "INVALID_ARGUMENT", "No signature was found with the name: nothing"),
        (regression("regress"), "INVALID_ARGUMENT", "Input is empty"),
        (protocol.RegressionRequest(model_spec=spec("regress")), "INVALID_ARGUMENT", "Input is empty"),
        (regression("rank", 1), "INVALID_ARGUMENT", "Expected one input Tensor"),
        (regression("classify", 1), "INVALID_ARGUMENT", "Expected one output Tensor"),
        (regression("scores", 1), "FAILED_PRECONDITION", "No regression outputs found"),
        (regression("wide", 1), "INVALID_ARGUMENT", r"either \[batch_size\] or \[batch_size, 1\] but got \[1, 2\]"),
        (regression("short", 1, 2), "INVALID_ARGUMENT", "Input batch size did not match output batch size: 2 vs. 1"),
        (regression("texts", 1), "INVALID_ARGUMENT", "Expected output Tensor of DT_FLOAT.  Got: DT_STRING"),
        (classification("regress", 1), "FAILED_PRECONDITION", "Expected classification signature outputs to contain"),
        (classification("flat", 1), "INVALID_ARGUMENT", r"Expected Tensor shape: \[batch_size num_classes\] but got \[1\]"),
        (classification("swapped", 1), "INVALID_ARGUMENT", "Expected scores Tensor of DT_FLOAT. Got: DT_STRING"),
        (classification("few", 1, 2), "INVALID_ARGUMENT", "Expected scores output batch size of 2. Got: 1"),
        (classification("uneven", 1), "INVALID_ARGUMENT", "should match in dim_size.1.. Got 1 vs. 2"),
        (inference(), "INVALID_ARGUMENT", "ModelSpec has no name"),
        (inference(("regress", "regress"), ("regress", "regress")), "INVALID_ARGUMENT", "Duplicate evaluation of signature"),
        (inference(("nothing", "regress")), "INVALID_ARGUMENT", "Requested signature not found in model graph: nothing"),
        (inference(("regress", "rank")), "UNIMPLEMENTED", "Unsupported signature method_name: tensorflow/serving/rank"),
        (inference(("regress", "regress"), prices=()), "INVALID_ARGUMENT", "Input is empty"),
    ],
)
def test_requests_that_are_refused(call, request_, code, words):
    with pytest.raises(grpc.RpcError, match=words) as raised:
        call(request_)
    assert raised.value.code() is grpc.StatusCode[code]


def test_all_tasks_ask_for_one_model(call):
    request = inference(("regress", "regress"), ("classify", "classify"))
    request.tasks[1].model_spec.name = "other"
    with pytest.raises(grpc.RpcError, match="must access the same model name"):
        call(request)


def test_rank(server):
    prices = np.linspace(0, 0.5, 5, dtype=np.float32)
    with client_of(server, max_rows=2) as client:
        assert client.rank({"bid": 2}, {"price": prices}).tolist() == (2 * prices).tolist()
        with pytest.raises(DataError, match="user: column 'bid' is missing"):
            client.rank({"bit": 2}, {"price": prices})
