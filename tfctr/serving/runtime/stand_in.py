"""A local stand-in for TensorFlow Serving, not TensorFlow Serving: its gRPC calls over loopback, and its REST if asked for.

For trying an exported model, and for tests, where the real server cannot be installed. Models run in TensorFlow's C API by the
strict loader. What is here follows TensorFlow Serving's rules and words: a base path with numbered versions, polled; the
highest is served; a new one is loaded, and its warm-up records replayed, before the old one goes; one that fails to load leaves
the old one in place and is not tried again. Predict, Classify, Regress, MultiInference, metadata, status and a new config
(policy and labels) are answered; see `methods`, `example_methods`, `served_model` and `rest`. What is not here: several models,
batching, monitoring, warm-up by MultiInference; and a deadline that passes while a model runs does not stop it.
"""

import contextlib
import logging
import os
import shutil
import signal
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import grpc

from tfctr.errors import ConfigError, StorageError, require_count, require_positive
from tfctr.serving.runtime.flags import CAREFUL_FLAGS
from tfctr.serving.runtime.methods import Requests
from tfctr.serving.runtime.rest import Rest, RestServer
from tfctr.serving.runtime.saved_model import StatusError, disable_xla
from tfctr.serving.runtime.served_model import ServedModel
from tfctr.serving.store.folders import latest, version_folder
from tfctr.serving.store.policy import version_policy
from tfctr.serving.wire.pem import read_server_pem
from tfctr.types import StrPath

_LOG = logging.getLogger(__name__)


def serve(
    folder: StrPath,
    port: int = 8500,
    host: str = "127.0.0.1",
    name: str | None = None,
    poll_seconds: float = 1.0,
    stand_in: bool = False,
    ready: "Callable[[LocalServer], object] | None" = None,
    *,
    versions: Sequence[int | str] | None = None,
    labels: Mapping[str, int] | None = None,
    certificate: StrPath | None = None,
    key: StrPath | None = None,
    root_certificates: StrPath | None = None,
    rest_port: int | None = None,
) -> None:
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
        versions, labels, certificate, key, root_certificates, rest_port: as for `LocalServer` (the stand-in only).

    Raises:
        ConfigError: an argument cannot be used.
        StorageError: no version under `folder`, one that cannot be loaded, or a port that is taken.
    """
    folder = _base_path(folder)
    _require_numbers(port, poll_seconds, rest_port)
    pem = {"certificate": certificate, "key": key, "root_certificates": root_certificates}
    options: dict[str, Any] = {"versions": versions, "labels": labels, "rest_port": rest_port, **pem}
    binary = None if stand_in else shutil.which("tensorflow_model_server")
    if binary:
        _refuse_options(options, binary)
        _LOG.warning("running %s, which listens on every interface of this machine", binary)
        os.execv(binary, tensorflow_serving_command(binary, folder, port, name, poll_seconds))
    disable_xla()
    with _held_signals() as signals, LocalServer(folder, port, host, name, poll_seconds, **options) as server:
        _LOG.info("%s at %s: a local stand-in, not TensorFlow Serving", server.name, server.target)
        if server.rest_url is not None:
            _LOG.info("REST at %s", server.rest_url)
        if ready is not None:
            ready(server)
        signal.sigwait(signals)


def _refuse_options(options: Mapping[str, Any], binary: str) -> None:
    """Raise `ConfigError` for an option that `tensorflow_model_server` would not get."""
    for option, value in options.items():
        if value or value == 0:  # any free port
            fix = "give `stand_in=True` (--stand-in), or start that program with files of its own: docker/README.md"
            raise ConfigError(f"`{option}` is for the stand-in, and {binary} would take its place.", fix=fix)


@contextlib.contextmanager
def _held_signals() -> Iterator[set[signal.Signals]]:
    """The signals that end the server; inside the block they can be waited for, and do nothing else."""
    # Not handled: a handler runs between any two instructions of this thread, whatever locks it holds.
    signals = {signal.SIGINT, signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield signals
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def tensorflow_serving_command(
    binary: str, folder: StrPath, port: int = 8500, name: str | None = None, poll_seconds: float = 1.0
) -> list[str]:
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
        *CAREFUL_FLAGS,
    ]


class LocalServer:
    """The stand-in server, for `with`: it answers inside the block.

    `port`, `target` ("host:port") and `version` say what it serves, and where; `rest_url` is the model's address in REST.

    Args:
        folder, port, host, name, poll_seconds: as in `serve`.
        versions: serve these, not the highest one alone.
        labels: names of versions that are served, `{"stable": 1, "canary": 2}`.
        certificate, key: PEM files; the server then answers over TLS only.
        root_certificates: a PEM file of authorities; clients must show a certificate of theirs.
        rest_port: answer TensorFlow Serving's REST there, too, on the same host and by the same certificates; 0 takes any free
            port, None none.

    Raises:
        ConfigError: an argument cannot be used.
        StorageError: a version cannot be served, a file cannot be read, or the port is taken.

    >>> with LocalServer("serving/frappe", port=0) as server:  # doctest: +SKIP
    ...     PredictionClient(server.target, model="frappe").predict(rows)
    """

    def __init__(
        self,
        folder: StrPath,
        port: int = 8500,
        host: str = "127.0.0.1",
        name: str | None = None,
        poll_seconds: float = 1.0,
        *,
        versions: Sequence[int | str] | None = None,
        labels: Mapping[str, int] | None = None,
        certificate: StrPath | None = None,
        key: StrPath | None = None,
        root_certificates: StrPath | None = None,
        rest_port: int | None = None,
    ) -> None:
        folder = _base_path(folder)
        _require_numbers(port, poll_seconds, rest_port)
        if versions is not None:
            versions = [int(version_folder(folder, number).name) for number in versions]
        self.name = name or folder.name
        self._model = ServedModel(self.name, folder, version_policy(versions))
        self._labels = labels or {}
        self._credentials = _credentials(certificate, key, root_certificates)
        self._tls = _tls(certificate, key, root_certificates)
        self._rest_port = rest_port
        self._rest: RestServer | None = None
        self._address = (host, port)
        self.port: int | None = None
        self._poll_seconds = poll_seconds
        self._stopping = threading.Event()

    @property
    def version(self) -> int | None:
        """The version that requests without one get; None while there is none."""
        return max(self._model.loaded, default=None)

    @property
    def target(self) -> str:
        """What a client connects to."""
        return f"{self._address[0]}:{self.port}"

    @property
    def rest_url(self) -> str | None:
        """Where REST has the model, such as "http://127.0.0.1:8501/v1/models/frappe"; None if it is not asked for."""
        if self._rest is None:
            return None
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://{self._address[0]}:{self._rest.server_address[1]}/v1/models/{quote(self.name, safe='')}"

    def __enter__(self) -> Self:
        self._model.refresh(first=True)
        try:
            self._model.label(self._labels)
        except StatusError as error:
            raise ConfigError(f"`labels` is {self._labels!r}: {error.problem}.", fix="give `versions` with them all") from error
        self._server = grpc.server(
            futures.ThreadPoolExecutor(4 * (os.cpu_count() or 1)),
            # Without so_reuseport=0 two servers would share one port without a word.
            options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)],
        )
        requests = Requests(self._model)
        self._server.add_generic_rpc_handlers(requests.handlers())
        self.port = self._bind()
        if self._rest_port is not None:
            self._rest = self._bind_rest(requests, self._rest_port)
            self._rest.start()
        self._server.start()
        self._poller = threading.Thread(target=self._poll, name="tfctr-versions", daemon=True)
        self._poller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        if self._rest is not None:
            self._rest.stop()
        self._server.stop(grace=5).wait(timeout=10)
        self._poller.join()

    def _bind(self) -> int:
        host, port = self._address
        try:
            if self._credentials is None:
                return self._server.add_insecure_port(f"{host}:{port}")
            return self._server.add_secure_port(f"{host}:{port}", self._credentials)
        except RuntimeError as error:
            raise _taken(host, port, "--port") from error

    def _bind_rest(self, requests: Requests, port: int) -> RestServer:
        host = self._address[0]
        try:
            return RestServer(Rest(requests), (host, port), self._tls)
        except OSError as error:
            self._server.stop(grace=None)
            raise _taken(host, port, "--rest-port") from error

    def _poll(self) -> None:
        while not self._stopping.wait(self._poll_seconds):
            try:
                self._model.refresh()
            except Exception:  # without this thread the server would keep its version for ever
                _LOG.exception("%s: cannot look for versions; trying again", self._model.base)


def _taken(host: str, port: int, option: str) -> StorageError:
    problem = f"cannot listen on {host}:{port}: the port is taken, or the host is not this machine's."
    return StorageError(problem, fix=f"give another {option}")


def _credentials(
    certificate: StrPath | None, key: StrPath | None, root_certificates: StrPath | None
) -> grpc.ServerCredentials | None:
    pem = read_server_pem(certificate, key, root_certificates)
    if not pem:
        return None
    roots = pem.get("root_certificates")
    return grpc.ssl_server_credentials([(pem["key"], pem["certificate"])], roots, require_client_auth=roots is not None)


def _tls(certificate: StrPath | None, key: StrPath | None, root_certificates: StrPath | None) -> ssl.SSLContext | None:
    """The same for REST, of files that `_credentials` has found usable."""
    if certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    if root_certificates is not None:
        context.load_verify_locations(root_certificates)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _require_numbers(port: Any, poll_seconds: Any, rest_port: Any) -> None:
    require_count("port", port, 0, 65535)
    if rest_port is not None:
        require_count("rest_port", rest_port, 0, 65535)
    require_positive("poll_seconds", poll_seconds)


def _base_path(folder: StrPath) -> Path:
    folder = Path(folder).resolve()
    if folder.is_file():
        raise StorageError(f"{folder} is not a folder.", fix="serve the folder of all versions")
    if (folder / "saved_model.pb").exists():
        raise StorageError(f"{folder} is one version.", fix=f"serve the folder of all versions: {folder.parent}")
    latest(folder)
    return folder
