"""A model that tfctr exported with every signature, served by a process of its own, and raw calls to it."""

import contextlib
import json
import shutil
import subprocess
import sys

import grpc
import numpy as np
import pytest

import tfctr
from kit.randomized import randomize
from kit.saved_models import texts
from tfctr.models import MODELS
from tfctr.schema import Schema
from tfctr.serving.exporting.tf_examples import make_tf_examples
from tfctr.serving.wire import protocol

CALLS = {
    "Predict": (protocol.PREDICTION_SERVICE, protocol.PredictRequest, protocol.PredictResponse),
    "Classify": (protocol.PREDICTION_SERVICE, protocol.ClassificationRequest, protocol.ClassificationResponse),
    "Regress": (protocol.PREDICTION_SERVICE, protocol.RegressionRequest, protocol.RegressionResponse),
    "MultiInference": (protocol.PREDICTION_SERVICE, protocol.MultiInferenceRequest, protocol.MultiInferenceResponse),
    "GetModelMetadata": (protocol.PREDICTION_SERVICE, protocol.GetModelMetadataRequest, protocol.GetModelMetadataResponse),
    "GetModelStatus": (protocol.MODEL_SERVICE, protocol.GetModelStatusRequest, protocol.GetModelStatusResponse),
    "HandleReloadConfigRequest": (protocol.MODEL_SERVICE, protocol.ReloadConfigRequest, protocol.ReloadConfigResponse),
}
SPEC = {"name": "ctr"}
COLUMNS = {
    "user": texts("60", "Zoë", "nobody"),
    "item": texts("item 3", "", "item 8"),
    "genres": texts("Comedy|Drama", "Sci-Fi", ""),
    "age": np.array([30.0, np.nan, -1.5]),
    "price": np.array([0.5, 1e9, np.nan]),
}
CANDIDATES, OPTIONAL = ("item", "genres"), ("age",)
IDS = np.arange(21, dtype=np.int32).reshape(3, 7)

_SERVE = """
import sys
from tfctr.serving.runtime.stand_in import serve
ready = lambda server: print(server.target, server.rest_url, flush=True)
serve(sys.argv[1], port=0, rest_port=0, poll_seconds=0.1, stand_in=True, ready=ready)
"""


class Server:
    """A server process: its `target` and `rest_url`, its `process`, the model's `base`, and `examples` of `COLUMNS`' rows."""

    def __init__(self, target, rest_url, process, base, examples):
        self.target, self.rest_url, self.process, self.base, self.examples = target, rest_url, process, base, examples
        self.channel = grpc.insecure_channel(target, options=[("grpc.max_receive_message_length", -1)])

    def start(self, method, data):
        """Send bytes; the answer's future."""
        service, _, answer = CALLS[method]
        call = self.channel.unary_unary(f"/{service}/{method}", response_deserializer=answer.FromString)
        return call.future(data, timeout=60)

    def call(self, method, request):
        """The answer to a message, or to bytes that may be none."""
        return self.start(method, request if isinstance(request, bytes) else serialized(request)).result()

    def good_requests(self):
        """A good request of each kind: pairs of a method and a message."""
        named, signatures = {"default": SPEC}, ("ids", "rank", "explain", "embedding", "classify", "regress")
        named |= {name: {**SPEC, "signature_name": name} for name in signatures}
        rank = {name: column if name in CANDIDATES else column[:1] for name, column in COLUMNS.items()}
        given = {"example_list": {"examples": self.examples}}
        tasks = {
            name: {"model_spec": named[name], "method_name": f"tensorflow/serving/{name}"} for name in ("classify", "regress")
        }
        model = {"name": "ctr", "base_path": str(self.base), "version_labels": {"stable": 1}}
        return [
            ("Predict", predict_request(COLUMNS)),
            ("Predict", predict_request(rank, named["rank"])),
            ("Predict", predict_request({"ids": IDS}, named["ids"])),
            ("Predict", predict_request(COLUMNS, named["explain"])),
            ("Predict", predict_request(COLUMNS, named["embedding"])),
            ("Predict", predict_request(COLUMNS, {**SPEC, "version_label": "stable"}, ["probability"])),
            ("Classify", protocol.ClassificationRequest(model_spec=named["classify"], input=given)),
            ("Regress", protocol.RegressionRequest(model_spec=named["regress"], input=given)),
            ("MultiInference", protocol.MultiInferenceRequest(tasks=[tasks["classify"]], input=given)),
            ("MultiInference", protocol.MultiInferenceRequest(tasks=[tasks["regress"]], input=given)),
            ("GetModelMetadata", protocol.GetModelMetadataRequest(model_spec=SPEC, metadata_field=["signature_def"])),
            ("GetModelStatus", protocol.GetModelStatusRequest(model_spec=SPEC)),
            ("HandleReloadConfigRequest", protocol.ReloadConfigRequest(config={"model_config_list": {"config": [model]}})),
        ]

    def golden(self):
        """The bytes of the answer to each of the good requests."""
        return [serialized(self.call(method, request)) for method, request in self.good_requests()]


def predict_request(inputs, spec=SPEC, outputs=()):
    """A Predict request; an input is an array, or the fields of a tensor."""
    message = protocol.PredictRequest(model_spec=spec, output_filter=outputs)
    for name, value in inputs.items():
        tensor = protocol.to_tensor(value) if isinstance(value, np.ndarray) else protocol.TensorProto(**value)
        message.inputs[name].CopyFrom(tensor)
    return message


def serialized(message):
    """The bytes of a message, always the same."""
    return message.SerializeToString(deterministic=True)


@contextlib.contextmanager
def serving(base):
    """A server process for the versions under `base`: its target, its address in REST, and the process."""
    with subprocess.Popen([sys.executable, "-c", _SERVE, str(base)], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield *process.stdout.readline().split(), process
        finally:
            process.kill()


@pytest.fixture(scope="session")
def live_server(tiny_schema, tmp_path_factory):
    """A `Server` that answers all `good_requests`."""
    base = tmp_path_factory.mktemp("served_model") / "ctr"
    model = randomize(MODELS["DeepFM"](_trained(tiny_schema, base.with_name("schema"))), scale=0.1)
    tfctr.serving.export(model, base, candidates=CANDIDATES, optional=OPTIONAL)
    columns = {name: column.tolist() for name, column in COLUMNS.items()}
    examples = [_example(text) for text in make_tf_examples(tiny_schema, columns)]
    with serving(base) as (target, rest_url, process):
        server = Server(target, rest_url, process, base, examples)
        with server.channel:
            server.call(*server.good_requests()[-1])  # gives version 1 its label
            yield server


def _trained(schema, folder):
    """The schema in a folder of its own, whose manifest says what is unseen in training: then there is `unseen`."""
    shutil.copytree(schema.folder, folder)
    training = {name: {"unseen": 0.25} for name in ("user", "item", "genres")}
    (folder / "manifest.json").write_text(json.dumps({"training": training}), encoding="utf-8")
    return Schema.load(folder / "schema.json")


def _example(text):
    kind = protocol.RegressionRequest().input.example_list.examples
    example = kind.add()
    example.ParseFromString(text)
    return example
