"""What each column of a table means.

A `Schema` is written by a user (YAML, JSON or Python) and says which columns are features, which one is the label, and which
one groups rows for gAUC. `tfctr.prepare` fits it: every feature then knows its `size`, and the schema can say where each
feature's ids lie, in the prepared matrix and in the one embedding table that all features share.

Ids, per feature: 0 padding, 1 missing, 2 out of vocabulary, 3.. known. In the prepared matrix each id already has its
feature's `offset` added, so it is a row of the shared table. Features of one vocabulary have one offset.
"""

import collections
import dataclasses
import functools
import hashlib
import itertools
import json
import numbers
import re
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeAlias

from tfctr.errors import ConfigError, StorageError, require, require_number
from tfctr.features import Feature, TokenFeature, feature_from_dict, feature_to_dict, refuse_unknown, with_vocabularies
from tfctr.storage import atomic_file, read_json, read_yaml, yaml_text
from tfctr.types import StrPath

# A path, a glob or a list of those; a pandas, polars, pyarrow or Ibis table; or a dictionary of lists.
RawTable: TypeAlias = Any


def input_name(name: str) -> str:
    """TensorFlow's name of the input: it knows no case and, beside letters and digits, the underscore only."""
    return re.sub(r"^(?=\d)", "arg_", re.sub(r"\W", "_", name)).lower()


def _refuse_equal_inputs(names: Iterable[str]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(input_name(name), name)
        require(
            other == name,
            f"features {other!r} and {name!r} would be one and the same input of the served model.",
            fix="rename one of the two (`column` keeps its column): names must differ in more than case and punctuation",
        )


@dataclasses.dataclass(frozen=True)
class Field:
    """Where one fitted feature lies: its columns of the prepared matrix, and its rows of the shared embedding table."""

    feature: Feature
    column: int
    offset: int

    @property
    def columns(self) -> slice:
        return slice(self.column, self.column + self.feature.width)

    @property
    def token_columns(self) -> slice:
        """Its columns but for those of weights."""
        return slice(self.column, self.column + self.feature.tokens)

    @property
    def weight_columns(self) -> slice:
        """Its columns of weights, as the bits of float32, in the order of the tokens: none, but for a weighted sequence."""
        return slice(self.column + self.feature.tokens, self.column + self.feature.width)

    @property
    def size(self) -> int:
        """How many rows of the table are its: the size of its feature."""
        assert self.feature.size is not None  # it is fitted
        return self.feature.size


def _plain_number(value: Any) -> Any:
    """A number of any library as Python's own, one of NumPy as its text is read; anything else as it is.

    >>> import numpy
    >>> [_plain_number(value) for value in (numpy.float32(0.7), numpy.int64(4), "4", True)]
    [0.7, 4, '4', True]
    """
    if not isinstance(value, numbers.Real) or type(value) in (bool, int, float):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    return float(value if isinstance(value, numbers.Rational) else str(value))


@dataclasses.dataclass(frozen=True)
class Label:
    """What counts as a click, in a column that does not hold 0 and 1.

    `y = 1` where the value is (one of) `positive`, or at least `threshold`; else 0. A missing value is refused. Numbers are
    compared as numbers, also where they are text: 1, "1" and "1.0" are equal, and true is 1; other text as it is, but for
    spaces around it.

    Args:
        column: the column's name.
        positive: the value, or a list of the values, that count as a click. Each must occur in the training table.
        threshold: the least number that counts as a click.

    Raises:
        ConfigError: neither of the two is given, or both, or one that is none.

    >>> Label("salary", positive=">50K").to_dict()
    {'column': 'salary', 'positive': '>50K'}
    >>> Label("rating", threshold=4).to_dict()
    {'column': 'rating', 'threshold': 4}
    """

    column: str
    positive: str | float | bool | list[str | float | bool] | tuple[str | float | bool, ...] | None = None
    threshold: float | None = None

    def __post_init__(self) -> None:
        fix = "give one of the two, such as positive='yes' or threshold=4; a column with 0 and 1 needs neither: label: click"
        problem = f"the label {reprlib.repr(self.column)} has `positive` {self.positive!r} and `threshold` {self.threshold!r}."
        require((self.positive is None) != (self.threshold is None), problem, fix=fix)
        if self.threshold is not None:
            require_number("threshold", self.threshold)
            object.__setattr__(self, "threshold", _plain_number(self.threshold))
            return
        positive = self.positive
        plain = tuple(map(_plain_number, positive)) if isinstance(positive, list | tuple) else _plain_number(positive)
        object.__setattr__(self, "positive", plain)
        fix = "give a text or a number, or a list of those"
        require(len(self.values) > 0, f"the label's `positive` is {self.positive!r}.", fix=fix)
        for value in self.values:
            is_value = isinstance(value, str | int | float) and value == value and str(value).strip()
            require(is_value, f"the label's `positive` is {reprlib.repr(self.positive)}.", fix=fix)

    @property
    def values(self) -> tuple[Any, ...]:
        """The values that count as a click, as a tuple."""
        return self.positive if isinstance(self.positive, tuple) else (self.positive,)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as in a YAML or JSON file."""
        positive = list(self.positive) if isinstance(self.positive, tuple) else self.positive
        values = {"column": self.column, "positive": positive, "threshold": self.threshold}
        return {key: value for key, value in values.items() if value is not None}

    @classmethod
    def from_dict(cls, values: Any) -> "str | Label":
        """The label that plain data describe: the name of a column as it is; else a `Label`."""
        if not isinstance(values, dict):
            return values
        refuse_unknown(values, {"column", "positive", "threshold"}, "the label")
        require("column" in values, "the label has no `column`.", fix="name its column: label: {column: rating, threshold: 4}")
        return cls(**values)


@dataclasses.dataclass(frozen=True)
class Schema:
    """Which columns are features, and what they mean.

    Args:
        features: `Categorical`, `Sequence` and `Numeric` columns, in the order of the prepared matrix.
        label: the column with 0 (no click) and 1 (click); or a `Label`, which says what counts as a click in another one.
        group: the column that groups rows for gAUC, usually the user.
        weight: a column of non-negative sample weights.
        folder: where a fitted schema's vocabulary files are; set by `prepare` and `load`.

    Raises:
        ConfigError: a name that cannot be served, a column with two roles, an argument out of range.

    >>> from tfctr import Categorical, Numeric
    >>> schema = Schema(features=[Categorical("user"), Numeric("price", "scaled")], label="click", group="user")
    >>> schema.is_fitted
    False
    """

    features: Sequence[Feature]
    label: str | Label
    group: str | None = None
    weight: str | None = None
    folder: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", tuple(self.features))
        require(len(self.features) > 0, "the schema has no features.", fix="name at least one")
        for feature in self.features:
            fix = "use Categorical, Sequence and Numeric"
            require(isinstance(feature, Feature), f"{reprlib.repr(feature)} is not a feature.", fix=fix)
        names = [feature.name for feature in self.features]
        _refuse_equal_inputs(names)
        object.__setattr__(self, "features", with_vocabularies(self.features))
        for role in ("label", "group", "weight"):
            value = self.label_column if role == "label" else getattr(self, role)
            require(
                (isinstance(value, str) and value) or (value is None and role != "label"),
                f"`{role}` is {reprlib.repr(value)}.",
                fix="give the name of a column",
            )
        columns = {feature.source for feature in self.features}  # two features may read one column
        roles = [*columns, self.label_column, self.weight, None if self.group in columns else self.group]
        for taken in (names, filter(None, roles)):
            name, times = collections.Counter(taken).most_common(1)[0]
            require(
                times == 1,
                f"column {name!r} has two roles in the schema.",
                fix="a column is a feature, the label or the weight; only the group may be a feature, too, and two features "
                "that read one `column` differ in `name`",
            )

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of all that gives ids their meaning: the features in order, their sizes, vocabularies, edges and means.

        Equal for two fits of the same data, wherever they lie. What does not change the meaning of an id does not count: the
        label, the group, the weight, how a model pools, and the settings that only the fit has read.

        Raises:
            ConfigError: the schema is not fitted.
        """
        meaning = [feature_to_dict(field.feature) for field in self.fields]
        for feature in meaning:
            for argument in ("pooling", "min_count", "buckets"):
                feature.pop(argument, None)
        return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()

    def require_fit(
        self,
        digest: str | None,
        what: str = "the split",
        fix: str = "use the dataset that the model was trained on, or train on this one",
    ) -> None:
        """Raise `ConfigError` unless `digest` is this schema's, or None: unknown."""
        require(digest in (None, self.digest), f"{what} is of another fit: the same ids mean other tokens there.", fix=fix)

    @property
    def label_column(self) -> str:
        """The name of the label's column."""
        return self.label.column if isinstance(self.label, Label) else self.label

    @property
    def is_fitted(self) -> bool:
        """Whether `prepare` has set every feature's size."""
        return all(feature.size is not None for feature in self.features)

    @property
    def fields(self) -> tuple[Field, ...]:
        """One `Field` a feature, in order. Raises `ConfigError` before the schema is fitted."""
        require(self.is_fitted, "this schema is not fitted yet.", fix="use the schema of a prepared dataset: `dataset.schema`")
        own = [feature for feature in self.features if feature.vocabulary_of is None]
        ends = itertools.accumulate((feature.size or 0 for feature in own), initial=0)
        offsets = {feature.name: end for feature, end in zip(own, ends, strict=False)}
        columns = itertools.accumulate((feature.width for feature in self.features), initial=0)
        places = zip(self.features, columns, strict=False)
        return tuple(Field(feature, column, offsets[feature.owner]) for feature, column in places)

    @property
    def width(self) -> int:
        """Columns of the prepared matrix."""
        return sum(feature.width for feature in self.features)

    @property
    def table_rows(self) -> int:
        """Rows of the shared embedding table: the sizes of all features, but for those that have another's rows."""
        return sum(field.size for field in self.fields if field.feature.vocabulary_of is None)

    def vocabulary_file(self, feature: TokenFeature) -> Path:
        """The file with one token a line, the first one being id 3."""
        if self.folder is None:
            raise StorageError(
                "this schema does not know where its vocabulary files are.",
                fix="load it from its prepared dataset: tfctr.Schema.load('DATA/schema.json')",
            )
        return Path(self.folder) / "vocabulary" / f"{feature.owner.replace('/', '%2F')}.txt"

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as in a YAML or JSON file: only what differs from the defaults."""
        label = self.label.to_dict() if isinstance(self.label, Label) else self.label
        roles = {"label": label, "group": self.group, "weight": self.weight}
        roles = {role: column for role, column in roles.items() if column is not None}
        return {**roles, "features": [feature_to_dict(feature) for feature in self.features]}

    @classmethod
    def from_dict(cls, values: dict[str, Any], folder: str | None = None) -> Self:
        """The schema that plain data describe. Raises `ConfigError` for an unknown or missing key, with the closest name."""
        require(
            isinstance(values, dict),
            f"a schema is a mapping. Received: {reprlib.repr(values)}.",
            fix="see the examples: `tfctr init` writes one",
        )
        values = {key: value for key, value in values.items() if key != "notes"}  # of `tfctr infer`, for people
        refuse_unknown(values, {"label", "group", "weight", "features"}, "the schema")
        for key in ("label", "features"):
            require(key in values, f"the schema has no `{key}`.", fix=f"add `{key}`")
        require(isinstance(values["features"], list), "`features` is not a list.", fix="write one `- name: ...` a feature")
        features = [feature_from_dict(feature) for feature in values["features"]]
        return cls(**{**values, "label": Label.from_dict(values["label"]), "features": features}, folder=folder)

    def get_config(self) -> dict[str, Any]:
        """`to_dict()` and the folder: what a saved model keeps of its schema."""
        return {**self.to_dict(), "folder": self.folder}

    @classmethod
    def from_config(cls, config: "Schema | Mapping[str, Any]") -> "Schema":
        """The schema behind `get_config()`; a `Schema` passes through."""
        if isinstance(config, Schema):
            return config
        values = dict(config)
        return cls.from_dict(values, folder=values.pop("folder", None))

    def save(self, path: StrPath) -> None:
        """Write a `.yaml`, `.yml` or `.json` file, atomically."""
        is_json = Path(path).suffix == ".json"
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False) if is_json else yaml_text(self.to_dict())
        with atomic_file(path) as file:
            file.write(text)

    @classmethod
    def load(cls, path: StrPath) -> Self:
        """Read a `.yaml`, `.yml` or `.json` file. Raises `ConfigError` or `StorageError`, naming the file."""
        path = Path(path)
        values = read_json(path) if path.suffix == ".json" else read_yaml(path)
        try:
            return cls.from_dict(values, folder=str(path.parent.resolve()))
        except ConfigError as error:
            raise ConfigError(f"{path}: {error.problem}", fix=error.fix) from error

    @classmethod
    def infer(
        cls, table: RawTable, label: str | Label, group: str | None = None, weight: str | None = None, **layout: Any
    ) -> "Schema":
        """A draft for a new table, to be read, corrected and saved by a person: see `tfctr.data.first_schema.infer`."""
        from tfctr.data.first_schema import infer

        return infer(table, label=label, group=group, weight=weight, **layout)
