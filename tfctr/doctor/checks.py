"""Whether each device trains and serves as it must: a tiny model, beside the same arithmetic in float64 (`oracle`).

A sum of n float32 products is off by at most about n units of 2^-24 of its terms, in whatever order a device adds. Here no sum
has more than 12 terms, none of them is above 3, and there are four sums on the way to a gradient, which is off by less than
6e-8 * 12 * 3 * 4 = 9e-6. A step passes that on at most 3.2 times as large: in Adam's family by the rate over the gradient's
size, 0.01 / 0.004 (the made numbers have no gradient that is smaller and not 0), in the others by 1 / sqrt(0.1). So after three
steps no weight is off by `MOST_OFF`, while one step of Adam moves a weight by 0.01, a hundred times as far. A probability is
off by a quarter of what its logit is, behind two sums: below `MOST_OFF_SERVED`.

TF32, to which GPUs round products by default, is switched off for the checks.
"""

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

import tfctr
from tfctr.doctor import kernels, oracle
from tfctr.doctor.findings import Finding
from tfctr.errors import ExportError, StorageError, TfctrError, TrainingError
from tfctr.models import DNN
from tfctr.optimizers import OPTIMIZERS, optimizer_named
from tfctr.schema import Schema
from tfctr.serving.exporting.exporter import export
from tfctr.serving.runtime.saved_model import SavedModel
from tfctr.serving.wire.token_rules import raw_columns

MOST_OFF = 1e-4
MOST_OFF_SERVED = 2e-6
NAMES = (*OPTIMIZERS, "sgd")
RATE = 0.01
RATES = {"adagrad": 0.3, "ftrl": 0.3, "sgd": 0.3}
SEED = 14_327  # of the made weights: their gradients are 0, or none of them is small
ROWS: dict[str, list[Any]] = {
    "user": ["a", "b", "c", "d", "e", "f"] * 2,
    "item": ["x", "y", "z", "z"] * 3,
    "price": [1.0, 20.0, 3.5] * 4,
    "click": [0, 1, 1, 0, 1, 0, 0, 0, 1, 1, 1, 0],
}
_GROUP = "checks"
_DIM, _UNITS = 2, 4
_REPORT = "report it with the output of `tfctr doctor --json`"
_FIXES = {
    "CPU": f"try TF_ENABLE_ONEDNN_OPTS=0; install TensorFlow again; {_REPORT}",
    "GPU": f"CUDA_VISIBLE_DEVICES=-1 goes on without it; update the driver, or pip install '.[gpu]'; {_REPORT}",
}


def check_findings() -> Iterator[Finding]:
    """A finding for the preparation of a table, each optimizer on each device, served answers, and where operations run."""
    devices = [device for device in tf.config.list_logical_devices() if device.device_type in _FIXES]
    with tempfile.TemporaryDirectory(prefix="tfctr-doctor-") as temporary, _for_checks():
        folder = Path(temporary)
        made: list[Made] = []
        yield _checked("prepare", "CPU", StorageError, lambda: made.append(prepare(folder / "data")) or "a table became ids")
        if not made:
            return
        for device in devices:
            name = device.name.removeprefix("/device:")
            for optimizer in NAMES:
                yield trains(optimizer, name, device.device_type, made[0])
        kinds = sorted({device.device_type for device in devices})
        yield exports(folder / "doctor", made[0])
        versions = sorted(folder.glob("doctor/1"))  # none, if that failed
        for version in versions:
            yield answers(version, kinds[-1], made[0])
        if "GPU" in kinds:
            yield host_finding(made[0], versions)


@dataclasses.dataclass(frozen=True)
class Made:
    """The made table, prepared: the fitted schema, ids `(rows, columns)` and labels `(rows,)`."""

    schema: Schema
    ids: np.ndarray
    labels: np.ndarray

    @property
    def batches(self) -> list[oracle.Batch]:
        """All rows, then four of them three times, so that others wait, which is where the optimizers differ; then all."""
        some = np.arange(len(self.ids)) % 4
        return [(self.ids, self.labels), (self.ids[some], self.labels[some]), (self.ids, self.labels)]

    @property
    def weights(self) -> list[np.ndarray]:
        """Numbers between -1 and 1, float32, in the order of the model's weights."""
        columns = self.schema.width * _DIM
        shapes = [(self.schema.table_rows, _DIM), (columns, _UNITS), (_UNITS,), (_UNITS, 1), (1,)]
        rng = np.random.default_rng(SEED)
        return [rng.uniform(-1, 1, shape).astype(np.float32) for shape in shapes]

    def model(self, optimizer: str = "sgd") -> DNN:
        """A compiled `DNN` with these weights."""
        model = DNN(self.schema, embedding_dim=_DIM, hidden_units=[_UNITS])
        model.set_weights(self.weights)
        model.compile(optimizer_named(optimizer, RATES.get(optimizer, RATE)))
        return model


def prepare(folder: Path) -> Made:
    """`ROWS`, prepared in a folder."""
    features = [tfctr.Categorical("user"), tfctr.Categorical("item"), tfctr.Numeric("price", "quantile", buckets=2)]
    dataset = tfctr.prepare(Schema(features, label="click"), train=ROWS, out=folder, threads=1)
    return Made(dataset.schema, np.array(dataset.train.ids), np.array(dataset.train.labels))


def trains(optimizer: str, name: str, kind: str, made: Made) -> Finding:
    """A step for each batch, on a device, beside those of the oracle."""

    def train() -> str:
        with tf.device(name):
            model = made.model(optimizer)
            for ids, labels in made.batches:
                model.train_on_batch(ids, labels)
            found = model.get_weights()
        expected = oracle.trained(optimizer, RATES.get(optimizer, RATE), made.weights, made.batches)
        off = max(float(np.max(np.abs(one - other))) for one, other in zip(found, expected, strict=True))
        return _judged(off, MOST_OFF, TrainingError)

    return _checked(f"train {optimizer} on {name}", kind, TrainingError, train)


def exports(folder: Path, made: Made) -> Finding:
    """Export a model as version 1 of a folder, behind the strict check, which runs on the CPU."""

    def check() -> str:
        export(made.model(), folder)
        return "the strict check found the bits of the model"

    return _checked("export on CPU", "CPU", ExportError, check)


def answers(version: Path, kind: str, made: Made) -> Finding:
    """An answer of a version as the stand-in gives it, beside the oracle's.

    TensorFlow places it as it likes: on the first GPU, if there is one, what has a kernel there.
    """

    def answer() -> str:
        columns = raw_columns(made.schema, {name: column for name, column in ROWS.items() if name != "click"})
        found = SavedModel(version).run("serving_default", columns, ["probability"])["probability"]
        off = float(np.max(np.abs(found - oracle.probabilities(made.weights, made.ids))))
        return _judged(off, MOST_OFF_SERVED, ExportError)

    return _checked(f"answer on {kind}", kind, ExportError, answer)


def host_finding(made: Made, versions: list[Path]) -> Finding:
    """The operations of training and of served versions for which there is no kernel for GPUs, though we mean there to be."""
    graphs = [training_graph(made.model(optimizer), made) for optimizer in NAMES] + [served_graph(path) for path in versions]
    found = {operation: node for graph in graphs for operation, node in kernels.unexplained(graph, "GPU").items()}
    if not found:
        return Finding(_GROUP, "kernels for GPUs", "for all operations, but those that stay on the host by design")
    told = ", ".join(f"{operation} ({node})" for operation, node in sorted(found.items()))
    fix = f"results are right, but steps slower; {_REPORT}"
    return Finding(_GROUP, "kernels for GPUs", f"none for {told}: they run on the CPU", fix=fix)


def training_graph(model: Any, made: Made) -> Any:
    """The `GraphDef` of a training step of a compiled model."""
    step = tf.function(model.train_step, autograph=False)
    return step.get_concrete_function((tf.constant(made.ids), tf.constant(made.labels))).graph.as_graph_def()


def served_graph(version: Path) -> Any:
    """The `GraphDef` of an exported version, all signatures in one."""
    return saved_model_pb2.SavedModel.FromString((version / "saved_model.pb").read_bytes()).meta_graphs[0].graph_def


def _judged(off: float, most: float, error: type[TfctrError]) -> str:
    """What is said of a difference; raises `error` where it is more than rounding, or not a number."""
    if not off <= most:
        raise error(f"off by {off:.1e}, rounding explains {most:.1e}")
    return f"right within {off:.1e}"


def _checked(name: str, kind: str, error: type[TfctrError], check: Callable[[], str]) -> Finding:
    """The finding of a check: what it says, or, whatever it raises, a failure. A doctor goes on to the next."""
    try:
        return Finding(_GROUP, name, check())
    except TfctrError as failure:
        return Finding(_GROUP, name, failure.problem, fix=failure.fix or _FIXES[kind], error=type(failure))
    except Exception as failure:
        first = " ".join(str(getattr(failure, "message", failure)).split())[:300]
        return Finding(_GROUP, name, f"{type(failure).__name__}: {first}", fix=_FIXES[kind], error=error)


@contextlib.contextmanager
def _for_checks() -> Iterator[None]:
    """Without TF32, and without TensorFlow's warning that many small models are traced."""
    log, rounded = tf.get_logger(), tf.config.experimental.tensor_float_32_execution_enabled()
    level = log.level
    tf.config.experimental.enable_tensor_float_32_execution(False)
    log.setLevel("ERROR")
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(rounded)
        log.setLevel(level)
