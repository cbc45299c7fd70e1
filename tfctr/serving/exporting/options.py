"""What a version is made of beside its model: one object, checked once, that `export` and `publish_model` take."""

import dataclasses
import math
import numbers
import reprlib
from collections.abc import Collection, Mapping
from typing import Any

from tfctr.errors import ConfigError, require, require_count, require_one_of
from tfctr.retrieval.retriever import Retriever
from tfctr.serving.exporting.calibration import Calibration, all_negatives
from tfctr.serving.exporting.compression import CompressedTables
from tfctr.types import StrPath

SPARED = ("explain", "embedding")  # signatures that a version may be without


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What goes into a version, and how it answers.

    Args:
        vocabularies: the folder or URL of the prepared dataset, if it is no longer where the model was trained.
        metrics: `{name: number}` for the model card; None, or a number that is not finite, is what is not defined.
        examples: up to 10,000 raw rows, in any form that `PredictionClient` takes, that join the golden rows of
            `serving_default`; the first 64 those of the other signatures, too. They stand in the version, for all who may read
            it: give none that are about people. The other golden rows are made up.
        candidates: names of the features that differ among the candidates of one request; None for no signature `rank`.
        optional: names of features that requests to `serving_default`, `rank`, `explain` and `embedding` may leave out, and
            that are then missing: clients written before a new feature need no change. Not for a server that batches requests.
        calibration: made by `fit_calibration`. `explain` keeps the logits as they are, and judges difficulty by the model's own
            probability.
        negatives_kept: the share of the non-clicks that was kept in the rows that the model was trained and calibrated on. The
            probabilities are for all rows: `p / (p + (1 - p) / negatives_kept)`.
        tables: made by `compress_tables`; None stores the model's own, in float32. All signatures read them, so that golden
            answers are those of the model with these tables.
        retriever: a `tfctr.retrieval.Retriever` of the same dataset: adds `recommend`, and `retrieve`, `user_vector` and
            `item_vector` of `export_retriever`. Its item's features are the `candidates`.
        retrieved: how many items it retrieves for a user, all of which the model then ranks.
        without: which of the signatures `explain` and `embedding` the version does not have: they tell more of the model than
            probabilities do.
        origin: plain data that say where the model comes from, for the model card: `run.origin`.

    Raises:
        ConfigError: `metrics` holds what is no number, `calibration` is of another kind, `negatives_kept` is not in (0, 1], or
            `without` names another signature.

    >>> ExportOptions(metrics={"auc": 0.75, "group_auc": float("nan")}).metrics
    {'auc': 0.75, 'group_auc': None}
    """

    vocabularies: StrPath | None = None
    metrics: Mapping[str, float | None] | None = None
    examples: Any = None
    candidates: Collection[str] | None = None
    optional: Collection[str] = ()
    calibration: Calibration | None = None
    negatives_kept: float = 1.0
    tables: CompressedTables | None = None
    retriever: Retriever | None = None
    retrieved: int = 100
    without: Collection[str] = ()
    origin: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "metrics", _known_metrics(self.metrics or {}))
        are_names = isinstance(self.without, Collection) and not isinstance(self.without, str)
        require(are_names, f"`without` is {self.without!r}.", fix='give a list of signatures, such as ["explain"]')
        for name in self.without:
            require_one_of(SPARED, name, "signature to leave out")
        all_negatives(self.calibration, self.negatives_kept)
        is_one = self.retriever is None or isinstance(self.retriever, Retriever)
        require(is_one, f"`retriever` is {reprlib.repr(self.retriever)}.", fix="give one: `load_retriever(FOLDER)`")
        require_count("retrieved", self.retrieved)
        self._name_candidates()

    def _name_candidates(self) -> None:
        """The item's features of the retriever are the candidates; others are refused."""
        if self.retriever is not None:
            features = self.retriever.items.features
            named = features if self.candidates is None else tuple(self.candidates)
            problem = f"`candidates` is {list(named)}, and the retriever's items have {list(features)}."
            require(sorted(named) == sorted(features), problem, fix="leave out `candidates`")
            object.__setattr__(self, "candidates", named)

    @property
    def served_calibration(self) -> Calibration | None:
        """From the model's logits to probabilities for all rows; None is the model's own sigmoid."""
        return all_negatives(self.calibration, self.negatives_kept)


def chosen_options(options: ExportOptions | None, fields: Mapping[str, Any]) -> ExportOptions:
    """The options, with some of their fields replaced.

    Raises:
        ConfigError: there is no such field, or one cannot be used.
    """
    known = [field.name for field in dataclasses.fields(ExportOptions)]
    for name in fields:
        require_one_of(known, name, "option of an export")
    return dataclasses.replace(options or ExportOptions(), **fields)


def _known_metrics(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    """Plain numbers, None for what is not defined."""
    if not isinstance(metrics, Mapping):
        raise ConfigError(f"`metrics` is {reprlib.repr(metrics)}.", fix='give a dict of numbers, such as {"auc": 0.75}')
    known = {}
    for name, value in metrics.items():
        if value is not None and not isinstance(value, numbers.Real):
            raise ConfigError(f"the metric {name!r} is {reprlib.repr(value)}.", fix="give a number, or None")
        known[name] = float(value) if value is not None and math.isfinite(value) else None
    return known
