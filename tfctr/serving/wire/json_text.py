"""JSON objects from callers whom nobody knows: bounded before they are parsed, and refused where readers differ.

`NaN`, `Infinity` and `-Infinity` are numbers, as in TensorFlow Serving. Numbers are as its parser has them: whole ones that 64
bits hold are whole, all others float64.
"""

import json
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

MOST_BYTES = 2**24
MOST_DEPTH = 32
MOST_VALUES = 2**20
_LONGEST_SHOWN = 256
_LONGEST_WHOLE = 20  # digits and sign of what 64 bits hold
_STEPS = np.zeros(256, np.int8)
_STEPS[[*b"[{"]], _STEPS[[*b"]}"]] = 1, -1
_BEFORE_A_VALUE = np.zeros(256, bool)
_BEFORE_A_VALUE[[*b",[{"]] = True


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object in UTF-8 that a request consists of.

    Raises:
        ValueError: it is none, is too large, deep or long, has a key twice, a number beyond float64 or half of a character.

    >>> parse_object(b'{"instances": [1, 2.5, NaN]}')
    {'instances': [1, 2.5, nan]}
    >>> parse_object(b'{"a": 1, "a": 2}')
    Traceback (most recent call last):
    ValueError: JSON Parse error: the key "a" stands twice in one object
    """
    _require_bounded(body)
    try:
        hooks: dict[str, Any] = {"object_pairs_hook": _members, "parse_int": _whole, "parse_float": _finite}
        found = json.loads(body.decode(), **hooks)
        if rb"\ud" in body.lower():
            json.dumps(found, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise ValueError(f"JSON Parse error: {error.msg} at offset: {error.pos}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"JSON Parse error: no UTF-8 at offset: {error.start}") from error
    except UnicodeEncodeError as error:
        raise ValueError("JSON Parse error: The surrogate pair in string is invalid.") from error
    if not isinstance(found, dict):
        raise ValueError(f"JSON Value: {shown(found)} Is not object")
    return found


def shown(value: Any) -> str:
    """A parsed value as the start of its text, for errors.

    >>> shown({"price": [0.5, None]})
    '{"price": [0.5, null]}'
    """
    return json.dumps(value)[:_LONGEST_SHOWN]


def _require_bounded(body: bytes) -> None:
    if len(body) > MOST_BYTES:
        raise ValueError(f"JSON Parse error: {len(body):,} bytes are more than {MOST_BYTES:,}")
    if not body.strip():
        raise ValueError("JSON Parse error: The document is empty")
    codes = np.frombuffer(body.replace(rb"\\", b"").replace(rb"\"", b""), np.uint8)
    outside = np.cumsum(codes == ord('"'), dtype=np.uint8) % 2 == 0  # of texts; one that has no end is refused later
    depth = np.cumsum(_STEPS[codes] * outside, dtype=np.int32).max(initial=0)
    if depth > MOST_DEPTH:
        raise ValueError(f"JSON Parse error: {depth:,} levels are more than {MOST_DEPTH}")
    if np.count_nonzero(_BEFORE_A_VALUE[codes] & outside) >= MOST_VALUES:
        raise ValueError(f"JSON Parse error: more than {MOST_VALUES:,} values")


def _members(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        ((twice, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"JSON Parse error: the key {shown(twice)} stands twice in one object")
    return members


def _whole(text: str) -> int | float:
    number = int(text) if len(text) <= _LONGEST_WHOLE else _finite(text)
    return number if -(2**63) <= number < 2**64 else float(number)


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"JSON Parse error: Number too big to be stored in double: {text[:_LONGEST_SHOWN]}")
    return number
