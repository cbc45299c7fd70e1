"""A local stand-in for TensorFlow Serving, not TensorFlow Serving: its Predict, metadata and status calls over loopback.

For trying an exported model, and for tests, where the real server cannot be installed. Models run in TensorFlow's C API by the
strict loader. What is here follows TensorFlow Serving's rules and words: a base path with numbered versions, polled; the
highest is served; a new one is loaded before the old one goes; one that fails to load leaves the old one in place and is not
tried again. What is not here: REST, Classify and Regress, batching, warm-up, version labels, TLS, monitoring.

Reference: [tensorflow/serving](https://github.com/tensorflow/serving), `predict_util.cc`, `server_core.cc`.
"""

import logging
import os
import shutil
import signal
import threading
from concurrent import futures
from pathlib import Path

import grpc

from tfctr.errors import ConfigError, StorageError, TfctrError
from tfctr.serving import protocol
from tfctr.serving.loader import SavedModel, StatusError, disable_xla
from tfctr.serving.publish import latest, versions

_LOG = logging.getLogger(__name__)
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_UNKNOWN, _INVALID_ARGUMENT, _NOT_FOUND, _FAILED_PRECONDITION = 2, 3, 5, 9


def serve(folder, port=8500, host="127.0.0.1", name=None, poll_seconds=1.0, stand_in=False, ready=None):
    """Serve the highest version under `folder` until SIGINT or SIGTERM.

    Where `tensorflow_model_server` is on PATH, that program takes the place of this process, unless `stand_in` is true. It
    listens on every network interface: it has no flag for the host.

    Args:
        folder: the folder of all versions, `serving/frappe`, not `serving/frappe/1`.
        port: 0 takes any free port (the stand-in only).
        host: the interface to listen on (the stand-in only).
        name: the model's name in requests; the folder's own name if None.
        poll_seconds: how often to look for a new version.
        stand_in: never run `tensorflow_model_server`.
        ready: called with the `LocalServer` as soon as it answers.

    Raises:
        ConfigError: a port that is no number from 0 to 65535.
        StorageError: no version under `folder`, one that cannot be loaded, or a port that is taken.
    """
    folder = _base_path(folder)
    _require_port(port)
    binary = None if stand_in else shutil.which("tensorflow_model_server")
    if binary:
        _LOG.warning("running %s, which listens on every interface of this machine", binary)
        os.execv(binary, tensorflow_serving_command(binary, folder, port, name, poll_seconds))
    disable_xla()
    # Waited for, not handled: a handler runs between any two instructions of this thread, whatever locks it holds.
    signals = {signal.SIGINT, signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        with LocalServer(folder, port, host, name, poll_seconds) as server:
            _LOG.info("%s at %s: a local stand-in, not TensorFlow Serving", server.name, server.target)
            if ready is not None:
                ready(server)
            signal.sigwait(signals)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def tensorflow_serving_command(binary, folder, port=8500, name=None, poll_seconds=1.0):
    """The command line that serves `folder` with the real `tensorflow_model_server`, as a list.

    >>> tensorflow_serving_command("tensorflow_model_server", "/models/frappe")[1:3]
    ['--port=8500', '--model_name=frappe']
    """
    if port == 0:
        raise ConfigError("`port` is 0, which switches tensorflow_model_server's gRPC off.", fix="give a port number")
    folder = Path(folder).resolve()
    return [
        binary,
        f"--port={port}",
        f"--model_name={name or folder.name}",
        f"--model_base_path={folder}",
        f"--file_system_poll_wait_seconds={max(1, round(poll_seconds))}",
        "--num_load_threads=2",
        "--num_unload_threads=1",
        "--enable_profiler=false",
    ]


class LocalServer:
    """The stand-in server, for `with`: it answers inside the block.

    Arguments as in `serve`. `port`, `target` ("host:port") and `version` say what it serves, and where.

    >>> with LocalServer("serving/frappe", port=0) as server:  # doctest: +SKIP
    ...     PredictionClient(server.target, model="frappe").predict(rows)
    """

    def __init__(self, folder, port=8500, host="127.0.0.1", name=None, poll_seconds=1.0):
        folder = _base_path(folder)
        _require_port(port)
        self.name = name or folder.name
        self._model = _VersionedModel(folder)
        self._address, self.port = (host, port), None
        self._poll_seconds, self._stopping = poll_seconds, threading.Event()

    @property
    def version(self):
        """The version that requests without one get; None while there is none."""
        loaded = self._model.loaded
        return None if loaded is None else loaded[0]

    @property
    def target(self):
        """What a client connects to."""
        return f"{self._address[0]}:{self.port}"

    def __enter__(self):
        self._model.refresh(first=True)
        self._server = grpc.server(
            futures.ThreadPoolExecutor(4 * (os.cpu_count() or 1)),
            # Without so_reuseport=0 two servers would share one port without a word.
            options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)],
        )
        self._server.add_generic_rpc_handlers(_Requests(self.name, self._model).handlers())
        self.port = self._bind()
        self._server.start()
        self._poller = threading.Thread(target=self._poll, name="tfctr-versions", daemon=True)
        self._poller.start()
        return self

    def __exit__(self, *_):
        self._stopping.set()
        self._server.stop(grace=5).wait(timeout=10)
        self._poller.join()

    def _bind(self):
        host, port = self._address
        try:
            return self._server.add_insecure_port(f"{host}:{port}")
        except RuntimeError as error:
            raise StorageError(
                f"cannot listen on {host}:{port}: the port is taken, or the host is not this machine's.",
                fix="give another --port",
            ) from error

    def _poll(self):
        while not self._stopping.wait(self._poll_seconds):
            try:
                self._model.refresh()
            except Exception:  # without this thread the server would keep its version for ever
                _LOG.exception("%s: cannot look for versions; trying again", self._model.base)


def _require_port(port):
    if not isinstance(port, int) or not 0 <= port < 2**16:
        raise ConfigError(f"`port` is {port!r}.", fix="give a number from 0 to 65535")


def _base_path(folder):
    folder = Path(folder).resolve()
    if (folder / "saved_model.pb").exists():
        raise StorageError(f"{folder} is one version.", fix=f"serve the folder of all versions: {folder.parent}")
    latest(folder)
    return folder


class _VersionedModel:
    """The highest loadable version under a base path: `loaded` is (number, SavedModel), or None.

    `failed` has the error of each published version that cannot be loaded, and which folder that was. Both are replaced whole,
    never changed: requests read them meanwhile.
    """

    def __init__(self, base):
        self.base = base
        self.loaded, self.failed = None, {}

    def refresh(self, first=False):
        """Load what has become the highest version. A failure is remembered, and raised only the `first` time."""
        try:
            published = {version: _identity(self.base / str(version)) for version in versions(self.base)}
        except OSError:  # a version is being removed; the next poll sees the outcome
            return
        if not published and not self.base.is_dir():  # away for a moment
            return
        self.failed = {version: failed for version, failed in self.failed.items() if published.get(version) == failed[1]}
        wanted = max(published, default=None)
        if wanted is None:
            self.loaded = None
        elif wanted != self._current() and wanted not in self.failed:
            try:
                # Requests hold the model they run on: the old one is freed when the last of them ends.
                self.loaded = (wanted, SavedModel(self.base / str(wanted)))
                _LOG.info("%s: version %d is served", self.base, wanted)
            except TfctrError as error:
                self.failed = {**self.failed, wanted: (error, published[wanted])}
                _LOG.error("%s: version %d cannot be loaded: %s", self.base, wanted, error.problem)
                if first:
                    raise StorageError(
                        f"{self.base / str(wanted)} cannot be loaded: {error.problem}",
                        fix="remove this version or export it again",
                    ) from error

    def _current(self):
        return None if self.loaded is None else self.loaded[0]


def _identity(folder):
    """Tells a folder from another one that takes its name later."""
    stat = folder.stat()
    return stat.st_ino, stat.st_ctime_ns


class _Requests:
    """What the server answers, or the `StatusError` that it refuses with."""

    def __init__(self, name, model):
        self.name, self.model = name, model

    def handlers(self):
        """gRPC handlers of both services."""

        def handler(respond, request_type):
            def behaviour(request, context):
                try:
                    return respond(request)
                except StatusError as error:
                    context.abort(_CODES[error.code], error.problem)

            return grpc.unary_unary_rpc_method_handler(
                behaviour,
                request_deserializer=request_type.FromString,
                response_serializer=lambda response: response.SerializeToString(),
            )

        prediction = {
            "Predict": handler(self.predict, protocol.PredictRequest),
            "GetModelMetadata": handler(self.metadata, protocol.GetModelMetadataRequest),
        }
        status = {"GetModelStatus": handler(self.status, protocol.GetModelStatusRequest)}
        return (
            grpc.method_handlers_generic_handler(protocol.PREDICTION_SERVICE, prediction),
            grpc.method_handlers_generic_handler(protocol.MODEL_SERVICE, status),
        )

    def predict(self, request):
        version, model = self._find(request.model_spec)
        name = request.model_spec.signature_name or "serving_default"
        _require(name in model.signatures, _FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')
        inputs = _read_inputs(model.signatures[name], request.inputs)
        outputs = model.run(name, inputs, _read_filter(model.signatures[name], request.output_filter))
        response = protocol.PredictResponse(model_spec={**self._answered_by(version), "signature_name": name})
        for output, array in outputs.items():
            response.outputs[output].CopyFrom(protocol.to_tensor(array))
        return response

    def metadata(self, request):
        fields = list(request.metadata_field)
        _require(fields, _INVALID_ARGUMENT, "GetModelMetadataRequest must specify at least one metadata_field")
        for field in fields:
            _require(field == "signature_def", _INVALID_ARGUMENT, f"Metadata field {field} is not supported")
        version, model = self._find(request.model_spec)
        signatures = protocol.SignatureDefMap(signature_def=model.signatures)
        response = protocol.GetModelMetadataResponse(model_spec=self._answered_by(version))
        response.metadata["signature_def"].Pack(signatures)
        return response

    def status(self, request):
        spec, loaded = request.model_spec, self.model.loaded
        states = {version: ("END", _code(error), error.problem) for version, (error, _) in self.model.failed.items()}
        if loaded is not None:
            states[loaded[0]] = ("AVAILABLE", 0, "")
        if spec.name != self.name or not states:
            raise StatusError(_NOT_FOUND, f"Could not find any versions of model {spec.name}")
        if spec.HasField("version"):
            wanted = spec.version.value
            _require(wanted in states, _NOT_FOUND, f"Could not find version {wanted} of model {spec.name}")
            states = {wanted: states[wanted]}
        response = protocol.GetModelStatusResponse()
        for version, (state, code, message) in sorted(states.items(), reverse=True):
            status = {"error_code": code, "error_message": message}
            response.model_version_status.add(version=version, state=state, status=status)
        return response

    def _answered_by(self, version):
        return {"name": self.name, "version": {"value": version}}

    def _find(self, spec):
        _require(spec.name, _INVALID_ARGUMENT, "ModelSpec has no name specified.")
        labels = "ModelSpec has 'version_label' set, but it is not currently allowed by the server."
        _require(not spec.version_label, _INVALID_ARGUMENT, labels)
        loaded = self.model.loaded  # read once: another version may take its place meanwhile
        by_version = spec.HasField("version")
        wanted = f"Specific({spec.name}, {spec.version.value})" if by_version else f"Latest({spec.name})"
        found = loaded is not None and spec.name == self.name and (not by_version or spec.version.value == loaded[0])
        _require(found, _NOT_FOUND, f"Servable not found for request: {wanted}")
        return loaded


def _read_inputs(signature, tensors):
    given, expected, defaults = set(tensors), set(signature.inputs), set(signature.defaults)
    extra, missing = given - expected, expected - given - defaults
    if extra or missing:
        raise StatusError(
            _INVALID_ARGUMENT,
            f"input size does not match signature: {len(given)}!={len(expected)} "
            f"len({_braces(given)}) != len({_braces(expected)}). "
            f"Sent extra: {_braces(extra)}. Missing but required: {_braces(missing)}.",
        )
    values = {name: tensors[name] if name in given else signature.defaults[name] for name in sorted(expected)}
    try:
        return {name: protocol.from_tensor(value) for name, value in values.items()}
    except ValueError as error:
        raise StatusError(_INVALID_ARGUMENT, f"Invalid TensorProto: {error}") from error


def _read_filter(signature, names):
    for name in names:
        _require(
            name in signature.outputs,
            _INVALID_ARGUMENT,
            f"output tensor alias not found in signature: {name} "
            f"Outputs expected to be in the set {_braces(signature.outputs)}.",
        )
        _require(list(names).count(name) == 1, _INVALID_ARGUMENT, f"duplicate output tensor alias: {name}")
    return list(names) or None


def _code(error):
    return error.code if isinstance(error, StatusError) else _UNKNOWN


def _braces(names):
    return "{" + ",".join(sorted(names)) + "}"


def _require(condition, code, problem):
    if not condition:
        raise StatusError(code, problem)
