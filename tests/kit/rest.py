"""Calls to REST, and columns as JSON."""

import base64
import contextlib
import http.client
import json
from urllib.parse import urlsplit


def ask(url, content=None, **headers):
    """The status and the JSON of the answer; content is a body, or what JSON is made of."""
    parts = urlsplit(url)
    body = content if content is None or isinstance(content, bytes) else json.dumps(content).encode()
    with contextlib.closing(http.client.HTTPConnection(parts.netloc, timeout=60)) as connection:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("GET" if body is None else "POST", parts.path, body, names)
        answer = connection.getresponse()
        assert answer.headers["Content-Type"] == "application/json"
        return answer.status, json.loads(answer.read())


def listed(column):
    return [value.decode() if isinstance(value, bytes) else value for value in column.tolist()]


def in_rows(columns):
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def as_json(columns):
    """Serialized examples as base64, all else as it is."""
    bytes_ = {"inputs": lambda column: [{"b64": base64.b64encode(text).decode()} for text in column]}
    return {name: bytes_.get(name, listed)(column) for name, column in columns.items()}
