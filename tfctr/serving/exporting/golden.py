"""Golden rows: raw rows with every kind of value, and the model's own answers, to compare any server with.

They lie beside the model as TensorFlow Serving's messages in their JSON form, which grpcurl and every protobuf library read.
"""

import itertools
import math
import random
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
from google.protobuf import json_format

from tfctr.features import Numeric, Sequence
from tfctr.schema import Schema
from tfctr.serving.wire.protocol import PredictRequest, PredictResponse, arrays_of, predict_messages
from tfctr.storage import read_json, write_json
from tfctr.token_text import written_forms
from tfctr.types import StrPath

# Raw columns by the name of their feature: text as `object` arrays of `bytes`, numbers as float64.
RawColumns: TypeAlias = Mapping[str, np.ndarray]

# A request and its answer: `{"signature": its name, "inputs": {name: array}, "outputs": {name: array}}`.
Golden: TypeAlias = dict[str, Any]

_MOST_KNOWN = 20
_STRANGE_TEXTS = (b"", b"a token that no table has", b" ", b"\0", b"\r\n", "é".encode() * 100, b"\xff\xfe")
_STRANGE_NUMBERS = (math.nan, math.inf, -math.inf, 1e308, -1e308, 5e-324, -5e-324, 0.0, -0.0)


def golden_rows(schema: Schema, rows: int = 64) -> RawColumns:
    """Raw columns: rows of one kind of value (known, missing, unseen, extreme), rows of known values, rows of any.

    Args:
        schema: a fitted `Schema` with its vocabulary files.
        rows: how many, at least 16.

    Returns:
        `{name: (rows,) array}`, text as `object` arrays of `bytes`, numbers as float64.

    >>> from tfctr import Categorical, Schema
    >>> schema = Schema(features=[Categorical("user", hash_buckets=9, size=12)], label="click")
    >>> golden_rows(schema)["user"][:2].tolist()
    [b'token 0', b'']
    """
    draw = random.Random(0)
    columns = {}
    for feature in schema.features:
        known, strange = _numbers(feature) if isinstance(feature, Numeric) else _texts(schema, feature)
        kinds = itertools.islice(itertools.cycle([*known[:1], *strange]), 16)
        usual = draw.choices(known or strange, k=rows // 2)
        mixed = draw.choices([*known, *strange], k=rows - 16 - len(usual))
        columns[feature.name] = np.array([*kinds, *usual, *mixed], np.float64 if isinstance(feature, Numeric) else object)
    return columns


def write_golden(path: StrPath, golden: Iterable[Golden], model: str) -> None:
    """Write golden batches as a list of `{"request": PredictRequest, "response": PredictResponse}` for the served `model`."""
    pairs = [zip(("request", "response"), predict_messages(batch, model), strict=True) for batch in golden]
    write_json(path, [{name: json_format.MessageToDict(message) for name, message in pair} for pair in pairs])


def read_golden(path: StrPath) -> list[Golden]:
    """The golden batches that `write_golden` wrote: a list of `{"signature", "inputs", "outputs"}`, with equal bits."""
    golden = []
    for messages in read_json(path):
        request = json_format.ParseDict(messages["request"], PredictRequest())
        response = json_format.ParseDict(messages["response"], PredictResponse())
        arrays = [arrays_of(tensors) for tensors in (request.inputs, response.outputs)]
        golden.append({"signature": request.model_spec.signature_name, "inputs": arrays[0], "outputs": arrays[1]})
    return golden


def _texts(schema, feature):
    """The first tokens that the feature knows; texts that it does not, the missing one first, or knows by another writing."""
    known = _known_tokens(schema, feature)
    otherwise = [text for token in known[:2] for text in written_forms(feature.token_type, token.decode())]
    strange = [*_STRANGE_TEXTS[:2], *(text.encode() for text in otherwise), *_STRANGE_TEXTS[2:]]
    if isinstance(feature, Sequence):
        separator = feature.separator.encode()
        if feature.weight_separator is not None:
            known = [token + f"{feature.weight_separator}{place / 2}".encode() for place, token in enumerate(known, 1)]
        known = [separator.join(known[start:]) for start in range(len(known))]
        strange = [*strange, separator, separator.join([b"", *strange])]
    return known, strange


def _known_tokens(schema, feature):
    if feature.hash_buckets is not None:
        return [b"token %d" % number for number in range(_MOST_KNOWN)]
    with open(schema.vocabulary_file(feature), "rb") as file:
        return [line.rstrip(b"\n") for line in itertools.islice(file, _MOST_KNOWN)]


def _numbers(feature):
    """Numbers on both sides of what the feature tells apart; extreme ones, the missing one first."""
    if feature.transform == "scaled":
        return [feature.mean + feature.scale * deviations for deviations in (0.1, -3.0, -1.0, 0.0, 1.0, 3.0)], _STRANGE_NUMBERS
    edges = feature.edges[:: max(1, len(feature.edges) // _MOST_KNOWN)] or (0.0,)
    return [near for edge in edges for near in (edge, math.nextafter(edge, -math.inf))], _STRANGE_NUMBERS
