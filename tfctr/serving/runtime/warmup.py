"""Warm-up records: requests to every signature, with the model's answers, which a server replays before it serves a version.

They lie in the version as TensorFlow Serving wants them, a TFRecord file of `PredictionLog`. A request that fails fails the
load, so that the version before stays; and what TensorFlow does once for each signature is done before the first user asks.
TensorFlow Serving ignores the answers. The strict check, the stand-in and a rollback compare with them.

Reference: [SavedModel warmup](https://www.tensorflow.org/tfx/serving/saved_model_warmup); `saved_model_warmup_util.cc`.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from tfctr.errors import ExportError, StorageError
from tfctr.serving.runtime.example_methods import classifications, regressions
from tfctr.serving.runtime.methods import Requests
from tfctr.serving.runtime.saved_model import SavedModel, StatusError, refuse_unless
from tfctr.serving.wire.codes import Code
from tfctr.serving.wire.protocol import PredictionLog, PredictResponse, RegressionResponse, arrays_of, predict_messages
from tfctr.serving.wire.tfrecord import read_records, write_records
from tfctr.serving.wire.types import Message
from tfctr.storage import read_object
from tfctr.types import StrPath

_FILE = "assets.extra/tf_serving_warmup_requests"
MOST_ROWS = 64  # of a record: a server that joins requests refuses one that is larger than a batch of its own
_MOST_RECORDS = 1000
_PROBABILITIES = ("probability", "scores", "outputs")  # the last two are those of `classify` and `regress`
# How far a probability may be off where TensorFlow's build or the processor differs: a few units in the last place of the
# precision that the model computes in.
_OFF = {"float32": 2.0**-20, "float16": 2.0**-8, "bfloat16": 2.0**-5}
# The kinds of log that are replayed, and what answers each.
_METHODS = {"predict_log": Requests.predict, "classify_log": Requests.classify, "regress_log": Requests.regress}


@dataclasses.dataclass(frozen=True)
class Record:
    """One request, and the answer that was recorded with it.

    Args:
        kind: the field of `PredictionLog` that holds them, such as "predict_log".
        request, response: messages of TensorFlow Serving.
    """

    kind: str
    request: Message
    response: Message

    @property
    def signature(self) -> str:
        """The name of the signature that is asked."""
        return self.request.model_spec.signature_name

    @property
    def outputs(self) -> dict[str, np.ndarray]:
        """The recorded answer, name -> array."""
        return _outputs(self.response)

    @property
    def rows(self) -> int:
        """How many rows the recorded answer has."""
        return max((array.shape[0] for array in self.outputs.values() if array.ndim), default=1)

    def answer(self, model: SavedModel) -> dict[str, np.ndarray]:
        """What a `SavedModel` answers now, name -> array. Raises `StatusError` as TensorFlow Serving would."""
        return _outputs(_METHODS[self.kind](Requests(_AnyName(model)), self.request))


def write_warmup(version: StrPath, golden: Iterable[Mapping[str, Any]], model: str) -> None:
    """Write golden batches as the warm-up records of a version.

    Batches of `classify` and `regress` become requests to Classify and Regress, all others to Predict. None names a version.

    Args:
        version: the version's folder.
        golden: a list of `{"signature", "inputs", "outputs"}`, as `ServedGraph.golden` gives them.
        model: the name under which the model is served.
    """
    write_records(Path(version) / _FILE, (_to_log(batch, model).SerializeToString() for batch in golden))


def read_warmup(version: StrPath) -> Iterator[Record]:
    """The warm-up records of a version, one after the other; none if it has no such file.

    Raises:
        StatusError: with TensorFlow Serving's words, once it reaches a record that cannot be replayed, or the 1001st.
    """
    path = Path(version) / _FILE
    if not path.exists():
        return
    for number, content in enumerate(_contents(path)):
        most = f"Number of warmup records exceeds the maximum ({_MOST_RECORDS}) at {path}"
        refuse_unless(number < _MOST_RECORDS, Code.INVALID_ARGUMENT, most)
        try:
            log = PredictionLog.FromString(content)
        except DecodeError as error:
            raise StatusError(Code.INVALID_ARGUMENT, f"Failed to parse warmup record: {content[:80]!r} from {path}") from error
        kind = log.WhichOneof("log_type")
        refuse_unless(kind in _METHODS, Code.UNIMPLEMENTED, f"Unsupported log_type for warmup: {kind}")
        yield Record(kind, getattr(log, kind).request, getattr(log, kind).response)


def replay(version: StrPath, model: SavedModel) -> int:
    """Send every warm-up record of a version to its `SavedModel`, and compare the probabilities with those recorded.

    Returns:
        How many probabilities were compared; none of a model that was exported otherwise and whose records have no answers.

    Raises:
        StatusError: at the first record that fails.
        ExportError: some are further off than another build of TensorFlow, or another processor, makes them.
    """
    compared = 0
    differing = 0
    most = _OFF[_precision(version)]
    for record in read_warmup(version):
        answered = record.answer(model)
        for name in _PROBABILITIES:
            if (expected := record.outputs.get(name)) is not None:
                compared += expected.size
                differing += _differing(answered.get(name), expected, most)
    if differing:
        raise ExportError(
            f"{version}: {differing} of {compared} golden answers differ from those that it gave when it was exported.",
            fix="export it again with the TensorFlow that serves it, or serve another version",
        )
    return compared


def _precision(version: StrPath) -> str:
    card = Path(version) / "assets.extra" / "model_card.json"
    precision = read_object(card).get("precision") if card.exists() else None
    return precision if precision in _OFF else "float32"


def _differing(found: np.ndarray | None, expected: np.ndarray, most: float) -> int:
    if found is None or found.shape != expected.shape:
        return expected.size
    return int(np.sum(~(np.abs(found - expected) <= most)))


class _AnyName:
    """A model that answers to every name and version: TensorFlow Serving does not look at them here."""

    def __init__(self, model: SavedModel) -> None:
        self.name = ""
        self._model = model

    def find(self, spec: Message) -> tuple[int, SavedModel]:
        """As `ServedModel.find`."""
        return 0, self._model


def _contents(path: Path) -> Iterator[bytes]:
    try:
        yield from read_records(path)
    except StorageError as error:
        words = f"{error.problem} Please verify your warmup data is in TFRecord format."
        raise StatusError(Code.DATA_LOSS, words) from error


def _to_log(batch: Mapping[str, Any], model: str) -> Message:
    request, response = predict_messages(batch, model)
    match batch["signature"]:
        case "classify":
            kind = "classify_log"
            result = {"classifications": classifications(batch["outputs"])}
        case "regress":
            kind = "regress_log"
            result = {"regressions": regressions(batch["outputs"]["outputs"])}
        case _:
            return PredictionLog(predict_log={"request": request, "response": response})
    spec = request.model_spec
    log = PredictionLog(**{kind: {"request": {"model_spec": spec}, "response": {"model_spec": spec, "result": result}}})
    examples = getattr(log, kind).request.input.example_list.examples
    for text in batch["inputs"]["inputs"].tolist():
        examples.add().ParseFromString(text)
    return log


def _outputs(response: Message) -> dict[str, np.ndarray]:
    if isinstance(response, PredictResponse):
        return arrays_of(response.outputs)
    if isinstance(response, RegressionResponse):
        return {"outputs": np.array([row.value for row in response.result.regressions], np.float32)}
    rows = [row.classes for row in response.result.classifications]
    return {
        "classes": np.array([[known.label.encode() for known in row] for row in rows], object),
        "scores": np.array([[known.score for known in row] for row in rows], np.float32),
    }
