"""TensorFlow Serving's configuration files: text forms of its messages, each read back before it takes its place.

| file | flag | message |
|---|---|---|
| `models.config` | `--model_config_file` | `ModelServerConfig`: which models, and where |
| `monitoring.config` | `--monitoring_config_file` | `MonitoringConfig`: metrics for Prometheus, at `--rest_api_port` |
| `batching.config` | `--batching_parameters_file` | `BatchingParameters`: joins requests that wait |
| `ssl.config` | `--ssl_config_file` | `SSLConfig`: TLS on the gRPC port; holds the private key, so only its owner may read it |

Reference: [tensorflow/serving](https://github.com/tensorflow/serving), `model_server_config.proto`, `monitoring_config.proto`,
`session_bundle_config.proto`, `ssl_config.proto`, and `server.cc`, which reads them.
"""

import contextlib
import dataclasses
import re
import reprlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from google.protobuf import text_format

from tfctr.errors import ConfigError, StorageError, require_count
from tfctr.serving.runtime.flags import CAREFUL_FLAGS
from tfctr.serving.runtime.saved_model import read_signatures
from tfctr.serving.runtime.warmup import MOST_ROWS, read_warmup
from tfctr.serving.store.folders import latest, require_base, version_folder, versions
from tfctr.serving.store.policy import chosen_versions
from tfctr.serving.wire.pem import read_server_pem
from tfctr.serving.wire.protocol import BatchingParameters, ModelServerConfig, MonitoringConfig, SSLConfig
from tfctr.serving.wire.types import Message
from tfctr.storage import atomic_file, locked
from tfctr.types import StrPath

_ABSOLUTE = re.compile(r"/.*|[A-Za-z][A-Za-z0-9+.-]*://.+")
_METRICS = re.compile(r"(/[A-Za-z0-9_.-]+)+")
# So that labels may stand in the file at the start, and move when it changes.
_LABEL_FLAGS = ("--model_config_file_poll_wait_seconds=10", "--allow_version_labels_for_unavailable_models=true")
_MOST = 2**31 - 1  # what a server counts is int32


@dataclasses.dataclass(frozen=True)
class Batching:
    """How TensorFlow Serving joins requests that wait into one batch. What is None is left to the server.

    A request that the model refuses, such as one with a wrong shape, fails all those that were joined with it.

    Args:
        max_batch_size: the most rows of a batch, at least 64, which warm-up records have. A request with more is refused: the
            `max_rows` of a `PredictionClient` must not be above it.
        batch_timeout_micros: how long a request waits for others, in microseconds; 0 joins only what waits for a thread.
        num_batch_threads: how many batches run at the same time; the server's number of cores if None.
        max_enqueued_batches: how many batches may wait, after which requests are refused as UNAVAILABLE.
        allowed_batch_sizes: batches are padded to one of these; ascending, the last one is `max_batch_size`.

    Raises:
        ConfigError: one of them is no such number.

    >>> Batching(64, allowed_batch_sizes=(8, 32))
    Traceback (most recent call last):
    tfctr.errors.ConfigError: `allowed_batch_sizes` is (8, 32).
      fix: give ascending sizes, of which the last is `max_batch_size`, 64
    """

    max_batch_size: int
    batch_timeout_micros: int = 0
    num_batch_threads: int | None = None
    max_enqueued_batches: int | None = None
    allowed_batch_sizes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        require_count("max_batch_size", self.max_batch_size, most=_MOST)
        if self.max_batch_size < MOST_ROWS:
            fix = f"give at least {MOST_ROWS}: warm-up records have up to so many rows, and must fit into a batch"
            raise ConfigError(f"`max_batch_size` is {self.max_batch_size}.", fix=fix)
        require_count("batch_timeout_micros", self.batch_timeout_micros, least=0, most=_MOST)
        for name in ("num_batch_threads", "max_enqueued_batches"):
            if getattr(self, name) is not None:
                require_count(name, getattr(self, name), most=_MOST)
        sizes = self.allowed_batch_sizes
        if not isinstance(sizes, tuple | list):
            raise ConfigError(f"`allowed_batch_sizes` is {reprlib.repr(sizes)}.", fix="give a tuple, such as (8, 64)")
        for size in sizes:
            require_count("allowed_batch_sizes", size, most=_MOST)
        if sizes and (list(sizes) != sorted(set(sizes)) or sizes[-1] != self.max_batch_size):
            fix = f"give ascending sizes, of which the last is `max_batch_size`, {self.max_batch_size}"
            raise ConfigError(f"`allowed_batch_sizes` is {sizes!r}.", fix=fix)


def write_server_config(
    folder: StrPath,
    bases: Iterable[StrPath],
    *,
    models_at: StrPath | None = None,
    metrics_path: str = "/monitoring/prometheus/metrics",
    batching: Batching | None = None,
    certificate: StrPath | None = None,
    key: StrPath | None = None,
    root_certificates: StrPath | None = None,
) -> list[str]:
    """Write the configuration files of a TensorFlow Serving that serves these models, once all of them are checked.

    Args:
        folder: where the files go; made if absent. Of an earlier `models.config`, the other models, labels and policies stay.
        bases: for each model the folder of all its versions; its name is the model's.
        models_at: the folder, or the URI, under which the server finds the folders of the models; where they are now if None.
        metrics_path: where Prometheus asks for metrics.
        batching: a `Batching`, for all models of the file, each of which must be among `bases`; None joins none. Versions that
            are published later must be such as can be batched, too: exported without `optional` and `candidates`.
        certificate, key: PEM files; the server then answers gRPC over TLS only. REST and the metrics stay as they are, open.
        root_certificates: a PEM file of authorities; clients must show a certificate of theirs.

    Returns:
        The flags for `tensorflow_model_server`, a list.

    Raises:
        ConfigError: an argument cannot be used, a model cannot be batched, or `models.config` has it elsewhere.
        StorageError: a folder holds no version; a file cannot be read or written; another process changed `models.config`.

    >>> write_server_config("config", ["serving/frappe"], models_at="/models")[-2:]  # doctest: +SKIP
    ['--model_config_file=/srv/config/models.config', '--monitoring_config_file=/srv/config/monitoring.config']
    """
    folder, folders = Path(folder).absolute(), [require_base(base) for base in bases]
    _require_names(folders)
    messages = {"monitoring_config_file": (folder / "monitoring.config", _monitoring(metrics_path))}
    if batching is not None:
        messages["batching_parameters_file"] = (folder / "batching.config", _batching_parameters(batching))
    if pem := read_server_pem(certificate, key, root_certificates):
        messages["ssl_config_file"] = (folder / "ssl.config", _ssl_config(pem))
    with changing_config(folder / "models.config") as models:
        for base in folders:
            _add_model(models, base, models_at)
        if batching is not None:
            _require_all_batchable(models, folders, batching)
    for path, message in messages.values():
        write_config(path, message)
    files = {"model_config_file": folder / "models.config", **{flag: path for flag, (path, _) in messages.items()}}
    flags = [*CAREFUL_FLAGS, *_LABEL_FLAGS, *(f"--{flag}={path}" for flag, path in files.items())]
    return flags if batching is None else [*flags, "--enable_batching=true"]


def read_config(path: StrPath) -> Message:
    """A `ModelServerConfig`; an empty one if there is no file. Raises `ConfigError` for a file that is none."""
    try:
        return text_format.Parse(Path(path).read_text(encoding="utf-8"), ModelServerConfig())
    except FileNotFoundError:
        return ModelServerConfig()
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}.", fix="check the path") from error
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a model configuration file: {error}", fix="correct or remove it") from error


@contextlib.contextmanager
def changing_config(path: StrPath) -> Iterator[Message]:
    """A `ModelServerConfig` to change in the block; it is written when that ends well. Others who change it so wait.

    Raises:
        StorageError: somebody else has changed the file meanwhile: what they wrote stays.
    """
    path = Path(path)
    with contextlib.ExitStack() as alone:
        is_there = path.parent.is_dir()  # no folder is made for what is refused
        if is_there:
            alone.enter_context(unchanging_config(path))
        before, changed = read_config(path), ModelServerConfig()
        changed.CopyFrom(before)
        yield changed
        if not is_there:
            alone.enter_context(unchanging_config(path))
        if read_config(path) != before:
            raise StorageError(f"another process has changed {path} meanwhile.", fix="look at the file, and repeat the command")
        write_config(path, changed)


def unchanging_config(path: StrPath) -> contextlib.AbstractContextManager[None]:
    """Nobody changes a configuration file by `changing_config` in the block."""
    path = Path(path)
    return locked(path.with_name(f".{path.name}.lock"))


def write_config(path: StrPath, message: Message) -> None:
    """Write a message as text, which is read back first. Only its owner may read a file with a key in it."""
    text = text_format.MessageToString(message, as_utf8=True)
    if text_format.Parse(text, type(message)()) != message:
        raise ConfigError(f"{path} would not say what it should.", fix="use printable names and paths")
    with atomic_file(path, private=isinstance(message, SSLConfig)) as file:
        file.write(f"# Written by tfctr: a tensorflow.serving.{message.DESCRIPTOR.name}.\n{text}")


def find_model(server_config: Message, name: str) -> Message | None:
    """The `ModelConfig` with this name; None if there is none."""
    models = {model.name: model for model in server_config.model_config_list.config}
    return models.get(name)


def find_or_add(server_config: Message, name: str, base_path: StrPath) -> Message:
    """The `ModelConfig` with this name, added at `base_path` if there is none."""
    model = find_model(server_config, name)
    if model is None:
        path = str(base_path)
        if not _ABSOLUTE.fullmatch(path) or not path.isprintable():
            fix = "give an absolute path, or a URI, of printable characters"
            raise ConfigError(f"a server cannot find the model {name!r} at {path!r}.", fix=fix)
        model = server_config.model_config_list.config.add(name=name, model_platform="tensorflow", base_path=path)
    return model


def _require_names(bases):
    names = [base.name for base in bases]
    if len(names) != len(set(names)) or not names:
        problem = f"two models are named {max(names, key=names.count)!r}." if names else "there are no models."
        raise ConfigError(problem, fix="give one folder for each model; its name is the model's")


def _add_model(server_config, base, models_at):
    latest(base)
    base_path = str(base) if models_at is None else f"{str(models_at).rstrip('/')}/{base.name}"
    model = find_or_add(server_config, base.name, base_path)
    if model.base_path != base_path:
        problem = f"models.config has the model {base.name!r} at {model.base_path!r} already, not at {base_path!r}."
        raise ConfigError(problem, fix="remove it from the file, or correct `models_at`")


def _require_all_batchable(server_config, bases, batching):
    """`--enable_batching` holds for all models of the file. Where the server finds one says nothing about where it is here."""
    folders = {base.name: base for base in bases}
    for model in server_config.model_config_list.config:
        if model.name not in folders:
            problem = f"models.config has the model {model.name!r}, too, which may be one that cannot be batched."
            raise ConfigError(problem, fix="give its folder, too; or batch no requests; or remove it from the file")
        base = folders[model.name]
        for number in sorted(chosen_versions(model.model_version_policy, versions(base))):
            _require_batchable(version_folder(base, number), batching)


def _require_batchable(version, batching):
    """Every signature must have the batch as first dimension of all inputs and outputs; warm-up records must fit into one."""
    for name, signature in read_signatures(version).items():
        where = f"{version} cannot be batched: signature {name!r}:"
        if signature.defaults:
            optional = ", ".join(sorted(signature.defaults))
            fix = "export it without `optional`, or serve it without batching"
            raise ConfigError(f"{where} requests may leave out {optional}.", fix=fix)
        for kind, tensors in (("input", signature.inputs), ("output", signature.outputs)):
            for tensor in sorted(tensors):
                _require_batch(f"{where} the {kind} {tensor!r}", tensors[tensor].tensor_shape)
    rows = max((record.rows for record in read_warmup(version)), default=0)
    if rows > batching.max_batch_size:
        problem = f"`max_batch_size` is {batching.max_batch_size}: {version} has a warm-up record of {rows} rows."
        raise ConfigError(problem, fix=f"give at least {rows}, or the server cannot load it")


def _require_batch(where, shape):
    if shape.unknown_rank or (shape.dim and shape.dim[0].size == -1):
        return
    rows = f"always {shape.dim[0].size} row" if shape.dim else "no rows"
    fix = "export it without `candidates`, whose context has one row, or serve it without batching"
    raise ConfigError(f"{where} has {rows}, not those of the batch.", fix=fix)


def _monitoring(path):
    if not isinstance(path, str) or not _METRICS.fullmatch(path):
        raise ConfigError(f"`metrics_path` is {path!r}.", fix="give a path such as /monitoring/prometheus/metrics")
    return MonitoringConfig(prometheus_config={"enable": True, "path": path})


def _batching_parameters(batching):
    parameters = BatchingParameters(allowed_batch_sizes=batching.allowed_batch_sizes)
    for name in ("max_batch_size", "batch_timeout_micros", "num_batch_threads", "max_enqueued_batches"):
        if (value := getattr(batching, name)) is not None:
            getattr(parameters, name).value = value
    return parameters


def _ssl_config(pem):
    try:
        text = {argument: content.decode() for argument, content in pem.items()}
    except UnicodeDecodeError as error:
        raise ConfigError("a PEM file is no text.", fix="give PEM files as openssl writes them") from error
    return SSLConfig(
        server_key=text["key"],
        server_cert=text["certificate"],
        custom_ca=text.get("root_certificates"),
        client_verify="root_certificates" in text,
    )
