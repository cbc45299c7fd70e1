"""REST of the local stand-in: every signature that we export, by columns and by rows, with the bits that gRPC gives."""

import gzip
import json

import numpy as np
import pytest
from google.protobuf import json_format
from kit.rest import as_json, ask, in_rows, listed
from kit.served_model import CANDIDATES, COLUMNS, IDS, SPEC, predict_request

from tfctr.serving.wire import protocol

ROWS = len(IDS)


def columns_of(signature, examples):
    """The inputs of a signature as arrays."""
    texts = np.array([example.SerializeToString() for example in examples], object)
    rank = {name: column if name in CANDIDATES else column[:1] for name, column in COLUMNS.items()}
    own = {"ids": {"ids": IDS}, "schema": {"rows": np.zeros(ROWS, np.int32)}, "rank": rank}
    return own.get(signature) or ({"inputs": texts} if signature in ("classify", "regress") else COLUMNS)


def same_bits(found, expected):
    """Whether nested lists from JSON have the bits of an array, or its text."""
    if expected.dtype.hasobject:
        return found == np.vectorize(bytes.decode, otypes=[object])(expected).tolist()
    return np.array(found, expected.dtype).tobytes() == expected.tobytes() and np.shape(found) == expected.shape


def by_grpc(server, signature, columns):
    answer = server.call("Predict", predict_request(columns, {**SPEC, "signature_name": signature}))
    return protocol.arrays_of(answer.outputs)


def predicted(server, signature, **given):
    status, answer = ask(f"{server.rest_url}:predict", {"signature_name": signature, **given})
    assert status == 200, answer
    return answer


SIGNATURES = ("serving_default", "ids", "rank", "classify", "regress", "explain", "embedding", "unseen", "schema")


def test_these_are_all_signatures(live_server):
    _, answer = ask(f"{live_server.rest_url}/metadata")
    assert {*answer["metadata"]["signature_def"]["signature_def"]} == {*SIGNATURES}


@pytest.mark.parametrize("signature", SIGNATURES)
def test_a_signature_by_columns_and_by_rows(live_server, signature):
    columns = columns_of(signature, live_server.examples)
    expected = by_grpc(live_server, signature, columns)
    found = predicted(live_server, signature, inputs=as_json(columns))["outputs"]
    outputs = found if len(expected) > 1 else dict.fromkeys(expected, found)
    assert {*outputs} == {*expected}
    for name, array in expected.items():
        assert same_bits(outputs[name], array)
        assert array.shape[0] == ROWS
        assert not (array.dtype.hasobject and name.endswith("_bytes")), "text that REST would give as base64"
    if signature == "rank":  # which has no rows but those with one candidate
        columns = {name: column[:1] for name, column in columns.items()}
        expected = by_grpc(live_server, signature, columns)
    instances = in_rows(as_json(columns))
    bare = [[row[name] for row in instances] for name in columns if len(columns) == 1]
    for rows in [instances, *bare]:
        found = predicted(live_server, signature, instances=rows)["predictions"]
        assert len(expected) == 1 or all({*row} == {*expected} for row in found)
        for name, array in expected.items():
            assert same_bits(found if len(expected) == 1 else [row[name] for row in found], array)


def test_no_rows_are_no_error(live_server):
    found = predicted(live_server, "explain", inputs={name: [] for name in COLUMNS})["outputs"]
    assert {*map(str, found.values())} == {"[]"}


def test_one_context_for_several_candidates_cannot_be_said_by_rows(live_server):
    status, answer = ask(f"{live_server.rest_url}:predict", {"signature_name": "rank", "instances": in_rows(as_json(COLUMNS))})
    assert status == 400
    assert "shape" in answer["error"].lower()


def test_classify_and_regress(live_server):
    examples = [as_features(example) for example in live_server.examples]
    given = {"example_list": {"examples": live_server.examples}}
    shared = {"example_list_with_context": {"context": live_server.examples[0], "examples": [{}, {}]}}
    for sent, ours in (({"examples": examples}, given), ({"context": examples[0], "examples": [{}, {}]}, shared)):
        spec = {**SPEC, "signature_name": "regress"}
        answer = live_server.call("Regress", protocol.RegressionRequest(model_spec=spec, input=ours)).result.regressions
        status, found = ask(f"{live_server.rest_url}:regress", {"signature_name": "regress", **sent})
        assert status == 200
        assert same_bits(found["results"], np.array([row.value for row in answer], np.float32))
        spec = {**SPEC, "signature_name": "classify"}
        answer = live_server.call(
            "Classify", protocol.ClassificationRequest(model_spec=spec, input=ours)
        ).result.classifications
        status, found = ask(f"{live_server.rest_url}:classify", {"signature_name": "classify", **sent})
        assert [[label for label, _ in row] for row in found["results"]] == [["0", "1"]] * len(answer)
        scores = np.array([[known.score for known in row.classes] for row in answer], np.float32)
        assert same_bits([[score for _, score in row] for row in found["results"]], scores)


def as_features(example):
    """An example as JSON: each feature as the list of its values."""
    kinds = {name: feature.WhichOneof("kind") for name, feature in example.features.feature.items()}
    lists = {name: getattr(example.features.feature[name], kind).value if kind else [] for name, kind in kinds.items()}
    return {name: listed(np.array(values, object)) for name, values in lists.items()}


def test_status_and_metadata_are_those_of_grpc(live_server):
    status = live_server.call("GetModelStatus", protocol.GetModelStatusRequest(model_spec=SPEC))
    request = protocol.GetModelMetadataRequest(model_spec=SPEC, metadata_field=["signature_def"])
    metadata, signatures = live_server.call("GetModelMetadata", request), protocol.SignatureDefMap()
    metadata.metadata["signature_def"].Unpack(signatures)
    for which in ("", "/versions/1", "/labels/stable"):
        code, answer = ask(live_server.rest_url + which)
        assert (code, [*answer]) == (200, ["model_version_status"])
        assert answer["model_version_status"][0]["status"] == {"error_code": "OK", "error_message": ""}
        assert json_format.ParseDict(answer, protocol.GetModelStatusResponse()) == status
        code, answer = ask(f"{live_server.rest_url}{which}/metadata")
        assert (code, [*answer]) == (200, ["model_spec", "metadata"])
        assert json_format.ParseDict(answer["model_spec"], type(metadata.model_spec)()) == metadata.model_spec
        assert json_format.ParseDict(answer["metadata"]["signature_def"], protocol.SignatureDefMap()) == signatures


def test_one_version_or_label(live_server):
    rows = {"inputs": as_json(COLUMNS)}
    _, expected = ask(f"{live_server.rest_url}:predict", rows)
    for which in ("/versions/1", "/labels/stable", "/LABELS/st%61ble"):
        assert ask(f"{live_server.rest_url}{which}:predict", rows) == (200, expected)
    zipped = gzip.compress(json.dumps(rows).encode())
    assert ask(f"{live_server.rest_url}:predict", zipped, Content_Encoding="gzip") == (200, expected)
