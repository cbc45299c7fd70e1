"""TensorFlow Serving's REST of the local stand-in: its paths, its JSON, its status codes and its words.

`GET /v1/models/M` is the status, `/v1/models/M/metadata` the signatures; `POST /v1/models/M:predict`, `:classify` and
`:regress` ask; `/versions/V` or `/labels/L` may follow M. A request becomes the message that gRPC would carry, and the same
methods answer it. What callers may send is bounded: connections, bodies (also what gzip makes of them), depth, values, silence.

Reference: [RESTful API](https://www.tensorflow.org/tfx/serving/api_rest); `http_rest_api_handler.cc`, `http_rest_api_util.cc`,
`http_server.cc` of [tensorflow/serving](https://github.com/tensorflow/serving).
"""

import contextlib
import functools
import json
import logging
import re
import socket
import socketserver
import ssl
import sys
import threading
import zlib
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

from google.protobuf import json_format

from tfctr.serving.runtime.methods import Requests, shortened
from tfctr.serving.runtime.saved_model import StatusError, refuse_unless
from tfctr.serving.wire import json_tensors, protocol
from tfctr.serving.wire.codes import Code
from tfctr.serving.wire.json_text import MOST_BYTES, parse_object
from tfctr.serving.wire.types import Message

_LOG = logging.getLogger(__name__)
_WHICH = r"(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_ASK = re.compile(rf"/v1/models/(?P<model>[^/:]+){_WHICH}:(?P<method>classify|regress|predict)", re.IGNORECASE | re.ASCII)
_LOOK = re.compile(rf"/v1/models(?:/(?P<model>[^/:]+))?{_WHICH}(?:/(?P<metadata>metadata))?", re.IGNORECASE | re.ASCII)
# TensorFlow's status code -> HTTP's; 500 for all others.
_HTTP = {1: 499, 3: 400, 4: 504, 5: 404, 6: 409, 7: 403, 8: 429, 9: 400, 10: 409, 11: 400, 12: 501, 14: 503, 16: 401}
_MOST_CONNECTIONS = 64
_MOST_THROWN_AWAY = 2**28  # bytes of a body that is too large; a caller who is still sending would not see the answer
_SECONDS = 10.0  # that a connection may keep silent


class Rest:
    """What REST answers for `Requests`, as what JSON is made of."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests

    def get(self, path: str) -> dict[str, Any]:
        """Status or metadata. Raises `StatusError`."""
        found = _LOOK.fullmatch(path)
        if found is None:
            raise StatusError(Code.INVALID_ARGUMENT, f"Malformed request: GET {path}")
        refuse_unless(found["model"], Code.INVALID_ARGUMENT, "Missing model name in request.")
        spec = _model_spec(found)
        if found["metadata"] != "metadata":
            return _as_dict(self._requests.status(protocol.GetModelStatusRequest(model_spec=spec)))
        request = protocol.GetModelMetadataRequest(model_spec=spec, metadata_field=["signature_def"])
        answer = self._requests.metadata(request)
        signatures = protocol.SignatureDefMap()
        answer.metadata["signature_def"].Unpack(signatures)
        return {"model_spec": _as_dict(answer.model_spec), "metadata": {"signature_def": _as_dict(signatures)}}

    def post(self, path: str, body: bytes) -> dict[str, Any]:
        """Predict, Classify or Regress. Raises `StatusError`, or `ValueError` for what cannot be read or written."""
        found = _ASK.fullmatch(path)
        answers = {"predict": self._predict, "classify": self._classify, "regress": self._regress}
        answer = answers.get(found["method"]) if found else None  # methods are in lower case, the words before them in any
        if found is None or answer is None:
            raise StatusError(Code.INVALID_ARGUMENT, f"Malformed request: POST {path}")
        return answer(_model_spec(found), parse_object(body))

    def _predict(self, spec: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        signature = json_tensors.read_signature(given, "instances", "inputs")
        request = protocol.PredictRequest(model_spec={**spec, "signature_name": signature})
        _, model = self._requests.model.find(request.model_spec)
        definition = model.signatures.get(signature or "serving_default")
        unknown = f'Serving signature name: "{signature or "serving_default"}" not found in signature def'
        refuse_unless(definition is not None, Code.INVALID_ARGUMENT, unknown)
        types = {name: tensor.dtype for name, tensor in sorted(definition.inputs.items())}
        for name, array in json_tensors.read_tensors(given, types).items():
            protocol.fill(request.inputs[name], array)
        outputs = protocol.arrays_of(self._requests.predict(request).outputs)
        return json_tensors.written_tensors(outputs, by_row="instances" in given)

    def _classify(self, spec: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        return _asked(self._requests.classify, protocol.ClassificationRequest(model_spec=spec), given)

    def _regress(self, spec: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        return _asked(self._requests.regress, protocol.RegressionRequest(model_spec=spec), given)


def _asked(answer: Callable[[Message], Message], request: Message, given: Mapping[str, Any]) -> dict[str, Any]:
    request.model_spec.signature_name = json_tensors.read_signature(given, "examples", "context")
    json_tensors.fill_examples(request.input, given)
    return json_tensors.written_results(answer(request))


def _model_spec(found: Any) -> dict[str, Any]:
    spec: dict[str, Any] = {"name": unquote(found["model"])}
    if found["version"] is not None:
        number = f"Failed to convert version: {found['version'][:20]} to numeric."
        refuse_unless(len(found["version"]) <= 19 and int(found["version"]) < 2**63, Code.INVALID_ARGUMENT, number)
        spec["version"] = {"value": int(found["version"])}
    if found["label"] is not None:
        spec["version_label"] = unquote(found["label"])
    return spec


def _as_dict(message: Message) -> dict[str, Any]:
    return json_format.MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


class _Refused(Exception):
    """A request that is refused before anybody reads what it says. `status` is HTTP's."""

    def __init__(self, status: int, problem: str) -> None:
        super().__init__(problem)
        self.status = status


class RestServer(ThreadingHTTPServer):
    """A server of `Rest` in threads of its own, from `start` to `stop`.

    Args:
        rest: what answers.
        address: the host and the port to listen on; 0 is any free one.
        tls: the context of TLS; None for plain text.

    Raises:
        OSError: it cannot listen there.
    """

    daemon_threads = False  # `stop` waits for what is being answered
    request_queue_size = _MOST_CONNECTIONS

    def __init__(self, rest: Rest, address: tuple[str, int], tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._free = threading.BoundedSemaphore(_MOST_CONNECTIONS)
        self._open: set[socket.socket] = set()
        self._stopping = threading.Event()
        self._accepting = threading.Thread(target=self.serve_forever, args=(0.05,), name="tfctr-rest", daemon=True)
        super().__init__(address, functools.partial(_Handler, rest, self._stopping))

    def start(self) -> None:
        """Answer from now on."""
        self._accepting.start()

    def stop(self) -> None:
        """Take no more requests, and wait for the answers to those that are here."""
        self._stopping.set()
        self.shutdown()
        self._accepting.join()
        for connection in [*self._open]:
            with contextlib.suppress(OSError):  # it has ended
                socket.socket.shutdown(connection, socket.SHUT_RD)  # not TLS's own, which would go on in plain text
        self.server_close()

    def server_bind(self) -> None:
        """Bind, without asking the network for the host's name."""
        socketserver.TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer a connection in a thread of its own, unless there are too many."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # there is no thread to be had
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer a connection until it ends."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Shake hands, if there is TLS, and answer."""
        request.settimeout(_SECONDS)
        with self._tls.wrap_socket(request, server_side=True) if self._tls else contextlib.nullcontext(request) as connection:
            self._open.add(connection)
            try:
                super().finish_request(connection, client_address)
            finally:
                self._open.discard(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections break; all else is a bug."""
        level = logging.DEBUG if isinstance(sys.exception(), OSError) else logging.ERROR
        _LOG.log(level, "a request from %s", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    default_request_version = "HTTP/1.0"  # of a request that names none that there is
    timeout = _SECONDS
    server_version = "tfctr"
    sys_version = ""
    disable_nagle_algorithm = True  # or the second write of an answer waits for the caller to confirm the first

    def __init__(self, rest: Rest, stopping: threading.Event, *arguments: Any) -> None:
        self._rest, self._stopping = rest, stopping
        super().__init__(*arguments)

    def do_GET(self) -> None:
        self._answer(lambda path, _: self._rest.get(path))

    def do_POST(self) -> None:
        self._answer(self._rest.post)

    def _answer(self, respond: Callable[[str, bytes], dict[str, Any]]) -> None:
        try:
            path, body = self.path.partition("?")[0], self._body()
            if not path.lower().startswith("/v1/"):
                raise _Refused(404, f"Not found: {path}")
            self._write(200, respond(path, body))
        except _Refused as error:
            self._refuse(error.status, str(error))
        except StatusError as error:
            self._refuse(_HTTP.get(error.code, 500), error.problem)
        except ValueError as error:
            self._refuse(400, str(error))
        except MemoryError:
            self._refuse(429, "The request needs more memory than there is")
        except OSError:  # the connection is broken
            raise
        except Exception:
            _LOG.exception("%s %s", self.command, self.path)
            self._refuse(500, "an error of the server, which its log has")

    def _body(self) -> bytes:
        """All of it, or `_Refused`; then the connection ends, for nobody knows where the next request would begin."""
        lengths, coding = self.headers.get_all("Content-Length", []), self.headers.get("Content-Encoding", "identity")
        self.close_connection, keep = True, not (self.close_connection or self._stopping.is_set())
        if "Transfer-Encoding" in self.headers:
            raise _Refused(411, "Transfer-Encoding is not taken: send Content-Length")
        if len({*lengths}) > 1 or not all(re.fullmatch("[0-9]{1,18}", length) for length in lengths):
            raise _Refused(400, f"Content-Length is {', '.join(lengths)[:80]}")
        length = int(lengths[0]) if lengths else 0
        if length > MOST_BYTES:
            left = min(length, _MOST_THROWN_AWAY)
            while left and (part := self.rfile.read(min(left, 2**16))):
                left -= len(part)
            raise _Refused(413, f"the body has {length:,} bytes, more than {MOST_BYTES:,}")
        body = self.rfile.read(length)
        if len(body) < length:
            raise _Refused(400, f"the body ends after {len(body):,} of {length:,} bytes")
        self.close_connection = not keep
        if coding == "identity":
            return body
        if coding != "gzip":
            raise _Refused(415, f"Content-Encoding {coding} is not taken: only gzip, or none")
        return _unzipped(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What is no HTTP, or another method; then the connection ends."""
        self.close_connection = True
        self._refuse(code, message or self.responses[code][0])

    def _refuse(self, status: int, problem: str) -> None:
        self._write(status, {"error": shortened(problem)})

    def _write(self, status: int, answer: dict[str, Any]) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing, but to those who listen closely."""
        _LOG.debug(format, *args)


def _unzipped(body: bytes) -> bytes:
    unzip = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        found = unzip.decompress(body, MOST_BYTES + 1)
    except zlib.error as error:
        raise _Refused(400, "the body is no gzip") from error
    if len(found) > MOST_BYTES:
        raise _Refused(413, f"the body is more than {MOST_BYTES:,} bytes when it is unpacked")
    if not unzip.eof or unzip.unused_data:
        raise _Refused(400, "the body is not one gzip, whole and alone")
    return found
