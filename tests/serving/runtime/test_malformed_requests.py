"""Malformed requests: refused with TensorFlow Serving's status and words, and the next good one is answered as ever."""

import re

import grpc
import numpy as np
import pytest
from kit.saved_models import texts
from kit.served_model import CALLS, CANDIDATES, COLUMNS, IDS, SPEC, predict_request, serialized

from tfctr.serving.wire import protocol

ITEMS = {name: COLUMNS[name] for name in CANDIDATES}
CONTEXT = {name: column[:1] for name, column in COLUMNS.items() if name not in CANDIDATES}
TWO, GARBAGE = np.zeros(2), b"\xff\xfe no message"


def predict(signature=None, without=(), outputs=(), spec=None, **inputs):
    """A Predict request of three good rows, with some inputs replaced, added or left `without`."""
    named = {**SPEC, "signature_name": signature} if signature else SPEC if spec is None else spec
    good = {"ids": {"ids": IDS}, "rank": CONTEXT | ITEMS}.get(signature, COLUMNS)
    inputs = {name: value for name, value in {**good, **inputs}.items() if name not in without}
    return "Predict", predict_request(inputs, named, outputs)


def tensor(dtype, *sizes, **values):
    """The fields of a `TensorProto`, which need not agree."""
    return {"dtype": dtype, "tensor_shape": {"dim": [{"size": size} for size in sizes]}, **values}


def spec(signature, **options):
    return {**SPEC, "signature_name": signature, **options}


def examples(*features):
    """An `Input` of one example for each of some features."""
    return {"example_list": {"examples": [{"features": {"feature": feature}} for feature in features]}}


ONE_EXAMPLE = examples({})


def classify(signature="classify", given=ONE_EXAMPLE):
    return "Classify", protocol.ClassificationRequest(model_spec=spec(signature), input=given)


def regress(signature="regress", given=ONE_EXAMPLE):
    return "Regress", protocol.RegressionRequest(model_spec=spec(signature), input=given)


def inference(*tasks, given=ONE_EXAMPLE):
    tasks = [{"model_spec": named, "method_name": f"tensorflow/serving/{method}"} for named, method in tasks]
    return "MultiInference", protocol.MultiInferenceRequest(tasks=tasks, input=given)


def metadata(named, *fields):
    return "GetModelMetadata", protocol.GetModelMetadataRequest(model_spec=named, metadata_field=fields)


def status(**named):
    return "GetModelStatus", protocol.GetModelStatusRequest(model_spec=named)


def reload(*models):
    config = {"model_config_list": {"config": models}} if models else {}
    return "HandleReloadConfigRequest", protocol.ReloadConfigRequest(config=config)


NUMBERS = {"price": {"float_list": {"value": [1.0, 2.0]}}}
INTEGERS = {"user": {"int64_list": {"value": [60]}}}
TWO_MODELS = [(spec("regress"), "regress"), (spec("classify", name="other"), "classify")]
TWO_INPUTS = [(spec("regress"), "regress"), (spec("classify"), "classify")]
CHOICES = {"version": {"value": 1}}, {"version_label": "x"}  # of which the last one counts
BOTH = b"".join(serialized(predict(spec={**SPEC, **choice})[1]) for choice in CHOICES)

MALFORMED = {
    "INVALID_ARGUMENT": {
        # which model
        "no model": (predict(spec={}), "ModelSpec has no name specified"),
        "unknown label": (predict(spec={**SPEC, "version_label": "x"}), "Unrecognized servable version label: x"),
        "version and label": (("Predict", BOTH), "Unrecognized servable version label: x"),
        # which inputs
        "no input": (predict(without=COLUMNS), r"0!=5 .*Missing but required: {genres,item,price,user}"),
        "missing input": (predict(without=["user"]), r"Sent extra: {}. Missing but required: {user}\."),
        "misspelt input": (predict(without=["user"], usr=TWO), "Sent extra: {usr}. Missing but required: {user}"),
        "extra input": (predict(x=TWO), "6!=5 .*Sent extra: {x}. Missing but required: {}"),
        "no context": (predict("rank", without=CONTEXT), "Missing but required: {price,user}"),
        # types
        "float for double": (predict(price=np.zeros(3, "f4")), "Expects arg.* to be double but float is provided"),
        "number for text": (predict(user=np.zeros(3)), "Expects arg.* to be string but double is provided"),
        "text for number": (predict(price=texts("1", "2", "3")), "Expects arg.* to be double but string"),
        "long ids": (predict("ids", ids=IDS.astype("i8")), "Expects arg.* to be int32 but int64 is provided"),
        "half": (predict(price=tensor(19, 3)), "not supported"),
        "no type": (predict(price=tensor(0, 3)), "not supported"),
        "type that is none": (predict(price=tensor(-7, 3)), "not supported"),
        # shapes
        "rank 0": (predict(user=tensor(7, string_val=[b"60"])), "(rank|[Ss]hape)"),
        "rank 2": (predict(user=COLUMNS["user"][:, None]), "(rank|[Ss]hape)"),
        "rank 300": (predict(price=tensor(2, *[1] * 300)), "Invalid TensorProto"),
        "ids of rank 1": (predict("ids", ids=IDS[0]), "(rank|[Ss]hape)"),
        "ids too wide": (predict("ids", ids=np.zeros((3, 8), "i4")), "[Ss]hape"),
        "unequal rows": (predict(price=TWO), "same number of rows: user, item, genres, age, price"),
        "one row for all": (predict(price=np.zeros(1)), "same number of rows"),
        "two contexts": (predict("rank", user=texts("60", "7")), "([Ss]hape|same number of rows)"),
        "unequal candidates": (predict("rank", item=texts("item 3")), "same number of rows: item, genres"),
        "negative size": (predict(price=tensor(2, -3)), r"cannot have the shape \(-3,\)"),
        "unknown rank": (predict(price={"dtype": 2, "tensor_shape": {"unknown_rank": True}}), "cannot have"),
        "rows of a few bytes": (predict(price=tensor(2, 2**21)), "0 values do not fit the shape"),
        "a trillion rows": (predict(price=tensor(2, 2**40)), "0 values do not fit the shape"),
        "more rows than int64": (predict(price=tensor(2, *[2**62] * 4)), "0 values do not fit the shape"),
        "a long text a million times": (
            predict(user=tensor(7, 2**20, string_val=[b"x" * 1024])),
            "a value of 1,024 bytes is not repeated 1,048,575 times",
        ),
        "nothing times a lot": (predict(price=tensor(2, 0, *[2**62] * 4)), "Invalid TensorProto"),
        # values
        "too few bytes": (predict(price=tensor(2, 3, tensor_content=b"123")), "3 bytes of content do not"),
        "too many bytes": (predict(price=tensor(2, 3, tensor_content=bytes(32))), "32 bytes of content do not"),
        "text as content": (predict(user=tensor(7, 3, tensor_content=b"abc")), "3 bytes of content do not"),
        "too many values": (predict(price=tensor(2, 1, double_val=[1, 2])), "2 values do not fit the shape"),
        # outputs
        "unknown output": (predict(outputs=["score"]), "output tensor alias not found in signature: score"),
        "output twice": (predict(outputs=["probability"] * 2), "duplicate output tensor alias: probability"),
        # Classify, Regress, MultiInference
        "classify nothing": (classify(given={}), "Input is empty"),
        "regress no examples": (regress(given=examples()), "Input is empty"),
        "classify by Predict's": (classify("serving_default"), "Expected one input Tensor"),
        "regress by classify": (regress("classify"), "Expected one output Tensor"),
        "regress by nothing": (regress("x"), "No signature was found with the name: x"),
        "two numbers for one": (classify(given=examples({}, NUMBERS)), "(?i)key: price"),
        "an integer for text": (regress(given=examples(INTEGERS)), "(?i)key: user.*data types don't match"),
        "no example": (predict("classify", without=COLUMNS, inputs=texts(GARBAGE)), "Could not parse example"),
        "no task": (inference(), "ModelSpec has no name specified"),
        "task twice": (inference(*[(spec("regress"), "regress")] * 2), "Duplicate evaluation of signature: regress"),
        "tasks of two models": (inference(*TWO_MODELS), "must access the same model name"),
        "tasks of two inputs": (inference(*TWO_INPUTS), "Input tensor must be the same for all Signatures"),
        # metadata, status, configs
        "no metadata field": (metadata(SPEC), "must specify at least one metadata_field"),
        "unknown metadata field": (metadata(SPEC, "x"), "Metadata field x is not supported"),
        "no config": (reload(), "ServerModelConfig type not supported"),
    },
    "NOT_FOUND": {
        "unknown model": (predict(spec={"name": "other"}), r"Servable not found for request: Latest\(other\)"),
        "unknown version": (predict(spec={**SPEC, "version": {"value": 7}}), r"Specific\(ctr, 7\)"),
        "negative version": (predict(spec={**SPEC, "version": {"value": -1}}), r"Specific\(ctr, -1\)"),
        "metadata of nothing": (metadata({"name": "other"}, "signature_def"), "Servable not found"),
        "status of nothing": (status(name="other"), "Could not find any versions of model other"),
        "status of no version": (status(**SPEC, version={"value": 7}), "Could not find version 7 of model ctr"),
    },
    "FAILED_PRECONDITION": {
        "unknown signature": (predict("x"), 'Serving signature key "x" not found.'),
        "long signature": (predict("x" * 10**5), r"x{900}\.\.\.TRUNCATED$"),
        "classify by ids": (classify("ids"), "No classification inputs found in SignatureDef"),
        "classify by regress": (classify("regress"), 'at least one of "classes" or "scores"'),
    },
    "UNIMPLEMENTED": {
        "unknown method": (inference((spec("rank"), "rank")), "Unsupported signature method_name: .*/rank"),
        "config of another model": (reload({"name": "other"}), "serves one model: ctr"),
    },
    "INTERNAL": {f"{method} of garbage": ((method, GARBAGE), "the bytes are no ") for method in CALLS},
}


@pytest.fixture(scope="module")
def golden(live_server):
    return live_server.golden()


@pytest.mark.parametrize(("code", "name"), [(code, name) for code, requests in MALFORMED.items() for name in requests])
def test_it_is_refused_and_the_next_one_is_answered(live_server, golden, code, name):
    request, words = MALFORMED[code][name]
    with pytest.raises(grpc.RpcError) as raised:
        live_server.call(*request)
    assert raised.value.code() is grpc.StatusCode[code]
    assert re.search(words, raised.value.details(), re.DOTALL)
    assert live_server.process.poll() is None
    assert live_server.golden() == golden


def test_a_label_of_a_version_that_is_not_served(live_server, golden):
    config = reload({**SPEC, "base_path": str(live_server.base), "version_labels": {"stable": 2}})
    with pytest.raises(
        grpc.RpcError, match="assign label to version 2 of model ctr, which is not currently available"
    ) as raised:
        live_server.call(*config)
    assert raised.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert live_server.golden() == golden


def test_a_call_that_there_is_not(live_server):
    with pytest.raises(grpc.RpcError) as raised:
        live_server.channel.unary_unary(f"/{protocol.PREDICTION_SERVICE}/PredictStreamed")(b"", timeout=60)
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("signature", [None, "explain", "embedding"])
def test_no_rows_are_no_error(live_server, signature):
    _, request = predict(signature, **{name: column[:0] for name, column in COLUMNS.items()})
    answer = live_server.call("Predict", request)
    assert answer.outputs
    assert {protocol.from_tensor(output).shape[0] for output in answer.outputs.values()} == {0}
