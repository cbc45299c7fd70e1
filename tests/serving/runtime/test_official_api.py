"""The stubs of the package tensorflow-serving-api drive the local stand-in, and its services answer our client."""

import contextlib
from concurrent import futures

import grpc
import numpy as np
import pytest
import tensorflow as tf
from kit.served_model import CALLS, CANDIDATES, COLUMNS, IDS, SPEC, serialized
from tensorflow_serving.apis import (
    model_service_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2,
    prediction_service_pb2_grpc,
)

from tfctr.serving.client.blocking import PredictionClient
from tfctr.serving.wire import protocol
from tfctr.serving.wire.tfrecord import read_records

SERVICES = {
    protocol.PREDICTION_SERVICE: (prediction_service_pb2, prediction_service_pb2_grpc.PredictionServiceStub),
    protocol.MODEL_SERVICE: (model_service_pb2, model_service_pb2_grpc.ModelServiceStub),
}
USER = {name: column[0] for name, column in COLUMNS.items() if name not in CANDIDATES}


def services(module):
    return module.DESCRIPTOR.services_by_name.values()


METHODS = {
    method.name: (service.full_name, method.input_type._concrete_class)
    for module, _ in SERVICES.values()
    for service in services(module)
    for method in service.methods
}


@pytest.fixture(scope="module")
def stubs(live_server):
    """The official stub of each service, on the stand-in's channel."""
    return {name: stub(live_server.channel) for name, (_, stub) in SERVICES.items()}


def test_the_stand_in_has_every_call():
    assert {name: service for name, (service, _) in METHODS.items()} == {name: call[0] for name, call in CALLS.items()}


def test_every_call_by_the_official_stubs(live_server, stubs):
    reached = set()
    for method, ours in live_server.good_requests():
        service, request_type = METHODS[method]
        request = request_type.FromString(serialized(ours))
        assert serialized(request) == serialized(ours)
        answer = getattr(stubs[service], method)(request, timeout=60)
        assert serialized(answer) == serialized(live_server.call(method, ours)), method
        reached.add(method)
    assert reached == {*METHODS}


def test_tensors_of_tensorflow_are_answered_with_the_same_bits(live_server, stubs):
    request = predict_pb2.PredictRequest(model_spec=SPEC)
    for name, column in COLUMNS.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(column))
    answer = stubs[protocol.PREDICTION_SERVICE].Predict(request, timeout=60)
    with PredictionClient(live_server.target, model="ctr", timeout=60, separator="|") as client:
        expected = client.predict(COLUMNS)
    assert tf.make_ndarray(answer.outputs["probability"]).tobytes() == expected.tobytes()


def test_the_official_stubs_are_refused_in_tensorflow_servings_words(stubs):
    request = predict_pb2.PredictRequest(model_spec={**SPEC, "signature_name": "x"})
    with pytest.raises(grpc.RpcError, match='Serving signature key "x" not found') as raised:
        stubs[protocol.PREDICTION_SERVICE].Predict(request, timeout=60)
    assert raised.value.code() is grpc.StatusCode.FAILED_PRECONDITION


class Passing(prediction_service_pb2_grpc.PredictionServiceServicer):
    """The official service, which keeps the requests that it has read and passes them on by the official stub."""

    def __init__(self, stub):
        self.requests = []
        self.Predict, self.GetModelMetadata = (self.passing(getattr(stub, name)) for name in ("Predict", "GetModelMetadata"))

    def passing(self, call):
        def answer(request, context):
            self.requests.append(request)
            return call(request, timeout=60)

        return answer


@contextlib.contextmanager
def passing(stub):
    """An official service in front of the stand-in: its target, and the service."""
    server, service = grpc.server(futures.ThreadPoolExecutor(2)), Passing(stub)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}", service
    finally:
        server.stop(grace=None).wait()


def asked(target):
    """All that our client asks a server, with the bits of the answers."""
    options = {"model": "ctr", "timeout": 60, "separator": "|"}
    candidates = {name: COLUMNS[name].tolist() for name in CANDIDATES}
    with PredictionClient(target, **options) as client, PredictionClient(target, **options, signature="ids") as by_id:
        answers = [client.predict(COLUMNS), by_id.predict(IDS), client.rank(USER, candidates)]
        answers += client.answer(COLUMNS, "explain").outputs.values()
        return client.metadata(), [answer.tolist() if answer.dtype.hasobject else answer.tobytes() for answer in answers]


def test_the_official_service_reads_what_our_client_sends(live_server, stubs):
    with passing(stubs[protocol.PREDICTION_SERVICE]) as (target, service):
        assert asked(target) == asked(live_server.target)
    for request in service.requests:
        ours = CALLS["Predict" if isinstance(request, predict_pb2.PredictRequest) else "GetModelMetadata"][1]
        assert serialized(ours.FromString(request.SerializeToString())) == serialized(request)
    assert {request.model_spec.signature_name for request in service.requests} >= {"", "ids", "rank", "explain"}


def test_warm_up_records_are_logs_of_the_package(live_server):
    records = [*read_records(live_server.base / "1" / "assets.extra" / "tf_serving_warmup_requests")]
    kinds = set()
    for record in records:
        log = prediction_log_pb2.PredictionLog.FromString(record)
        assert serialized(log) == serialized(protocol.PredictionLog.FromString(record))
        kinds.add(log.WhichOneof("log_type"))
        if log.HasField("predict_log"):
            for tensor in log.predict_log.response.outputs.values():
                np.testing.assert_array_equal(tf.make_ndarray(tensor), protocol.from_tensor(tensor))
    assert kinds == {"predict_log", "classify_log", "regress_log"}
