"""REST of the local stand-in: refusals in TensorFlow Serving's codes and words, after which the next request is answered."""

import gzip
import json

import pytest
from kit.rest import as_json, ask
from kit.served_model import COLUMNS

from tfctr.serving.wire.json_text import MOST_BYTES, MOST_DEPTH, MOST_VALUES

ROW = {name: values[0] for name, values in as_json(COLUMNS).items()}
DEEP = b"[" * 250_000 + b"]" * 250_000


def rows(count=2, **changes):
    """Good rows, but for the last of them."""
    return {"instances": [ROW] * (count - 1) + [{**ROW, **changes}]}


def columns(**changes):
    return {"inputs": {**as_json(COLUMNS), **changes}}


def raw(text, **values):
    """A body of good rows, in which a price is that text."""
    return json.dumps(rows(price="?")).replace('"?"', text).encode()


PREDICT = {
    # what cannot be parsed
    "no body": (b"", "The document is empty"),
    "no JSON": (b"probability, please", "JSON Parse error: Expecting value at offset: 0"),
    "no object": ([1, 2], "Is not object"),
    "two objects": (b"{}{}", "JSON Parse error: Extra data at offset: 2"),
    "no end": (b'{"instances": [', "JSON Parse error: Expecting value"),
    "no UTF-8": (raw('"\xff"').replace("ÿ".encode(), b"\xff"), "JSON Parse error: no UTF-8 at offset"),
    "half a character": (raw(r'"\ud83d"'), "The surrogate pair in string is invalid"),
    "a key twice": (raw('1.0, "price": 2.0'), 'the key "price" stands twice in one object'),
    "instances twice": (b'{"instances": [1], "instances": [2]}', 'the key "instances" stands twice'),
    # what is too much
    "deep": (b'{"instances": %s}' % DEEP, "250,001 levels are more than 32"),
    "deep objects": (b'{"inputs": ' * 1000 + b"1" + b"}" * 1000, "1,000 levels are more than 32"),
    "one too deep": (b'{"inputs":' + b"[" * MOST_DEPTH + b"]" * MOST_DEPTH + b"}", "33 levels are more than 32"),
    "not too deep": (b'{"inputs":' + b"[" * (MOST_DEPTH - 1) + b"]" * (MOST_DEPTH - 1) + b"}", "inputs is a plain value/list"),
    "too many": (b'{"instances": [' + b"1," * MOST_VALUES + b"1]}", "more than 1,048,576 values"),
    "a number beyond float64": (raw("1e400"), "Number too big to be stored in double"),
    "a number of 5,000 digits": (raw("9" * 5000), "Number too big to be stored in double"),
    # what has no meaning
    "neither": ({}, "Missing 'inputs' or 'instances' key"),
    "both": ({**rows(), **columns()}, "expecting only one of 'inputs' or 'instances' keys"),
    "a misspelt member": ({**rows(), "signature": "ids"}, 'has "signature", which means nothing here'),
    "a signature that is no text": ({**rows(), "signature_name": 7}, "'signature_name' key must be a string value"),
    "unknown signature": ({**rows(), "signature_name": "x"}, 'Serving signature name: "x" not found in signature def'),
    "rows that are no list": ({"instances": ROW}, "Expecting 'instances' to be an list/array"),
    "no rows": ({"instances": []}, "No values in 'instances' array"),
    "bare values": ({"instances": [1, 2]}, "instances is a plain list, but expecting list of objects"),
    "bare columns": ({"inputs": [1, 2]}, "inputs is a plain value/list, but expecting an object"),
    "a bare value among rows": ({"instances": [ROW, 1]}, "Expecting object but got list at item 1 of input list"),
    # features
    "a row without one": ({"instances": [ROW, {"user": "60"}]}, "element: 1 of 'instances' list. JSON object: {"),
    "a row with another": (rows(usr="60"), "element: 1 key: usr of 'instances' list. Error: INVALID_ARGUMENT: JSON obj"),
    "without a column": ({"inputs": {"user": ["60"]}}, "Missing named input: age in 'inputs' object."),
    "with another column": (columns(usr=["60"] * 3), "JSON object: does not have named input: usr"),
    "unequal columns": (columns(price=[1.0, 2.0]), "same number of rows"),
    "one value for all": (columns(price=[1.0]), "same number of rows"),
    "a bare value for all": (columns(price=1.0), "hape"),
    "columns of columns": (columns(price=[[1.0]] * 3), "hape"),
    "rows of lists": (rows(1, price=[1.0]), "hape"),
    "a list in one row": (rows(price=[1.0, 2.0]), "Error: INVALID_ARGUMENT: Expecting tensor size: 1 but got: 2"),
    "a list of one in one row": (rows(price=[1.0]), "Expecting shape [] but got: [1]"),
    "ragged": (columns(price=[[1.0], [1.0, 2.0], []]), "Encountered list at unexpected size: 2 at level: 1 expected size: 1"),
    "ragged in depth": (columns(price=[1.0, [2.0], 3.0]), "Encountered list at unexpected level: 1 expected < 1"),
    "flat in depth": (
        columns(price=[[1.0], 2.0, [3.0]]),
        "2.0 found at incorrect level: 2 in the JSON DOM. Expected at level: 2",
    ),
    # types
    "text for a number": (rows(price="1.0"), 'JSON Value: "1.0" Type: String is not of expected type: double'),
    "nothing for a number": (rows(price=None), "JSON Value: null Type: Null is not of expected type: double"),
    "true for a number": (rows(price=True), "JSON Value: true Type: True is not of expected type: double"),
    "an object for a number": (rows(price={"b64": "MQ=="}), "Type: Object is not of expected type: double"),
    "a number for text": (rows(user=60), "JSON Value: 60 Type: Number is not of expected type: string"),
    "an object for text": (rows(user={"text": "60"}), "not formatted correctly for base64 data"),
    "base64 and more": (rows(user={"b64": "NjA=", "x": 1}), "not formatted correctly for base64 data"),
    "no base64": (rows(user={"b64": "N*A="}), "Unable to base64 decode"),
    "fractions for ids": (
        {"signature_name": "ids", "instances": [[0.5] * 7]},
        "0.5 Type: Number is not of expected type: int32",
    ),
    "ids beyond int32": ({"signature_name": "ids", "instances": [[2**31] * 7]}, "is not of expected type: int32"),
    "too many ids": ({"signature_name": "ids", "instances": [[1] * 8]}, "hape"),
}


@pytest.fixture(scope="module")
def golden(live_server):
    return ask(f"{live_server.rest_url}:predict", columns())


@pytest.mark.parametrize("name", PREDICT)
def test_predict_refuses(live_server, golden, name):
    content, words = PREDICT[name]
    status, answer = ask(f"{live_server.rest_url}:predict", content)
    assert (status, [*answer]) == (400, ["error"])
    assert words in answer["error"]
    assert golden == ask(f"{live_server.rest_url}:predict", columns())


EXAMPLES = {
    "no examples": ({}, "When method is classify, key 'examples' is expected and was not found"),
    "no list of them": ({"examples": {}}, "Expecting 'examples' value to be an list/array"),
    "an empty list": ({"examples": []}, "'examples' value is an empty array"),
    "no object": ({"examples": [1]}, "Example must be JSON object but got JSON Number"),
    "nothing": ({"examples": [{"user": None}]}, "Feature: user has element with unexpected JSON type: Null"),
    "a list of lists": ({"examples": [{"user": [["60"]]}]}, "Feature: user has element with unexpected JSON type: Array"),
    "an object": ({"examples": [{"user": {"x": "60"}}]}, "Feature: user has element with unexpected JSON type: Object"),
    "a number among texts": ({"examples": [{"user": ["60", 60]}]}, "element type in feature: user expecting type: bytes"),
    "fractions among whole": ({"examples": [{"age": [1, 2.5]}]}, "element type in feature: age expecting type: int64"),
    "beyond int64": ({"examples": [{"age": 2**63}]}, "Feature: age has uint64_t element. Only int64_t is supported."),
    "beyond float32": ({"examples": [{"age": 1e39}]}, "1e+39 is too big for float"),
    "whole for float": ({"examples": [{"age": 30}]}, "Key: age, Index: 0.  Data types don't match"),
    "rows of Predict": ({"examples": [{}], "instances": [1]}, 'has "instances", which means nothing here'),
    "no signature": ({"examples": [{}], "signature_name": "x"}, "No signature was found with the name: x"),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_regress_refuses(live_server, name):
    content, words = EXAMPLES[name]
    status, answer = ask(f"{live_server.rest_url}:regress", {"signature_name": "regress", **content})
    assert (status, [*answer]) == (400, ["error"])
    assert words in answer["error"]


PATHS = {
    "unknown model": ("POST", "/v1/models/other:predict", 404, "Servable not found for request: Latest(other)"),
    "unknown version": ("POST", "/v1/models/ctr/versions/7:predict", 404, "Servable not found for request: Specific(ctr, 7)"),
    "no version": ("POST", f"/v1/models/ctr/versions/{2**63}:predict", 400, f"Failed to convert version: {2**63} to numeric."),
    "unknown label": ("POST", "/v1/models/ctr/labels/x:predict", 400, "Unrecognized servable version label: x"),
    "unknown method": ("POST", "/v1/models/ctr:rank", 400, "Malformed request: POST /v1/models/ctr:rank"),
    "loud method": ("POST", "/v1/models/ctr:PREDICT", 400, "Malformed request: POST /v1/models/ctr:PREDICT"),
    "a get of it": ("GET", "/v1/models/ctr:predict", 400, "Malformed request: GET /v1/models/ctr:predict"),
    "status of nothing": ("GET", "/v1/models/other", 404, "Could not find any versions of model other"),
    "status of no version": ("GET", "/v1/models/ctr/versions/7", 404, "Could not find version 7 of model ctr"),
    "metadata of nothing": ("GET", "/v1/models/other/metadata", 404, "Servable not found for request: Latest(other)"),
    "no name": ("GET", "/v1/models", 400, "Missing model name in request."),
    "elsewhere": ("GET", "/", 404, "Not found: /"),
    "a new configuration": ("POST", "/v1/config", 400, "Malformed request: POST /v1/config"),
}


@pytest.mark.parametrize("name", PATHS)
def test_paths_that_lead_nowhere(live_server, name):
    method, path, status, words = PATHS[name]
    url = live_server.rest_url.replace("/v1/models/ctr", path)
    assert ask(url, None if method == "GET" else rows()) == (status, {"error": words})


BODIES = {
    "large": (b" " * (MOST_BYTES + 1), {}, 413, "16,777,217 bytes, more than 16,777,216"),
    "a bomb": (gzip.compress(b" " * (100 * 2**20)), {"Content_Encoding": "gzip"}, 413, "when it is unpacked"),
    "no gzip": (b"{}", {"Content_Encoding": "gzip"}, 400, "the body is no gzip"),
    "half a gzip": (gzip.compress(b"{}")[:-4], {"Content_Encoding": "gzip"}, 400, "not one gzip, whole and alone"),
    "two of them": (gzip.compress(b"{}") * 2, {"Content_Encoding": "gzip"}, 400, "not one gzip, whole and alone"),
    "another coding": (b"{}", {"Content_Encoding": "br"}, 415, "Content-Encoding br is not taken"),
    "in chunks": (b"{}", {"Transfer_Encoding": "chunked"}, 411, "Transfer-Encoding is not taken"),
    "no length": (b"{}", {"Content_Length": "-2"}, 400, "Content-Length is -2"),
}


@pytest.mark.parametrize("name", BODIES)
def test_bodies_that_are_not_read(live_server, golden, name):
    body, headers, status, words = BODIES[name]
    code, answer = ask(f"{live_server.rest_url}:predict", body, **headers)
    assert code == status
    assert words in answer["error"]
    assert golden == ask(f"{live_server.rest_url}:predict", columns())
