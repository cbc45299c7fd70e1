"""What each column of a table means.

A `Schema` is written by a user (YAML, JSON or Python) and says which columns are features, which one is the label, and which
one groups rows for gAUC. `tfctr.prepare` fits it: every feature then knows its `size`, and the schema can say where each
feature's ids lie, in the prepared matrix and in the one embedding table that all features share.

Ids, per feature: 0 padding, 1 missing, 2 out of vocabulary, 3.. known. In the prepared matrix each id already has its
feature's `offset` added, so it is a row of the shared table.
"""

import dataclasses
import json
import keyword
import re
import reprlib
import sys
from pathlib import Path

from tfctr.errors import ConfigError, StorageError, choose, require_one_of, suggest
from tfctr.storage import atomic_file, read_json, read_yaml, yaml_text

PADDING, MISSING, OUT_OF_VOCABULARY, FIRST_KNOWN = 0, 1, 2, 3

TRANSFORMS = ("log2_floor", "quantile", "edges", "scaled")
POOLINGS = ("mean", "sum", "sqrtn")

# A name becomes an input of the served model: TensorFlow Serving takes these characters and no Python keyword.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-/]*")


def _require(condition, problem, fix):
    if not condition:
        raise ConfigError(problem, fix=fix)


def _require_name(name, what):
    _require(
        isinstance(name, str) and _NAME.fullmatch(name) and not keyword.iskeyword(name) and name != "self",
        f"{what} {name!r} cannot be the name of a served input.",
        "use letters, digits and _ . - / only, begin with a letter or digit, and use no Python keyword",
    )


def _refuse_equal_inputs(names):
    """TensorFlow's names of a graph's inputs know no case and, beside letters and digits, the underscore only."""
    seen = {}
    for name in names:
        other = seen.setdefault(re.sub(r"^(?=\d)", "arg_", re.sub(r"\W", "_", name)).lower(), name)
        _require(
            other == name,
            f"features {other!r} and {name!r} would be one and the same input of the served model.",
            "rename one of the two columns: names must differ in more than case and punctuation",
        )


def _require_count(feature, argument, least=1):
    value = getattr(feature, argument)
    _require(
        isinstance(value, int) and not isinstance(value, bool) and value >= least,
        f"feature {feature.name!r}: `{argument}` is {value!r}.",
        f"use a whole number of at least {least}",
    )


@dataclasses.dataclass(frozen=True)
class Categorical:
    """A column that holds one token a row.

    Null and empty text are missing. Text is taken as it is, and a CSV file holds text only: "60.0", "007" and "True" are
    tokens. In a typed table the numbers 60 and 60.0 are the token "60", true is "true", and 1.5 is refused.

    Args:
        name: the column.
        min_count: tokens seen fewer times than this in the training table are out of vocabulary.
        hash_buckets: instead of a vocabulary, hash each token into this many ids.
        size: ids of this feature, the reserved 0, 1 and 2 included; set by `prepare`.
        vocabulary_sha256: of the vocabulary file, so that no other one is ever taken for it; set by `prepare`, None if hashed.
    """

    name: str
    min_count: int = 1
    hash_buckets: int | None = None
    size: int | None = None
    vocabulary_sha256: str | None = None

    raw_type = "string"
    width = 1

    def __post_init__(self):
        _require_name(self.name, "feature")
        _require_count(self, "min_count")
        if self.hash_buckets is not None:
            _require_count(self, "hash_buckets")
            _require(
                self.min_count == 1,
                f"feature {self.name!r}: hashed tokens are not counted, so `min_count` has no meaning beside `hash_buckets`.",
                "give one of the two",
            )


@dataclasses.dataclass(frozen=True)
class Sequence:
    """A column that holds several tokens a row: "Animation|Comedy", or a list.

    The first `max_length` tokens are kept, padded behind, and pooled over what is not padding. Empty tokens are dropped; a row
    without any token is missing. A list is joined by `separator` first, so a token never contains it.

    Args:
        name: the column.
        separator: one character between the tokens.
        max_length: tokens kept a row.
        pooling: how the tokens' vectors become one: `"mean"`, `"sum"` or `"sqrtn"` (sum / sqrt(count)).
        min_count, hash_buckets, size, vocabulary_sha256: as in `Categorical`.
    """

    name: str
    max_length: int
    separator: str = "|"
    pooling: str = "mean"
    min_count: int = 1
    hash_buckets: int | None = None
    size: int | None = None
    vocabulary_sha256: str | None = None

    raw_type = "string"

    def __post_init__(self):
        Categorical.__post_init__(self)
        _require_count(self, "max_length")
        _require(
            isinstance(self.separator, str) and len(self.separator) == 1,
            f"feature {self.name!r}: `separator` is {self.separator!r}.",
            "use one character",
        )
        require_one_of(POOLINGS, self.pooling, f"pooling of feature {self.name!r}")

    @property
    def width(self):
        return self.max_length


@dataclasses.dataclass(frozen=True)
class Numeric:
    """A column that holds one number a row. Null and NaN are missing.

    | transform | what the model sees |
    |---|---|
    | `"log2_floor"` | the bucket `floor(ln(x)^2)` for x > 2, else `int(x)` (the Criteo rule); rare ones are out of vocabulary |
    | `"quantile"` | one of `buckets` intervals with equal counts in the training table |
    | `"edges"` | one of the intervals between the given `edges`; an edge belongs to the interval on its right |
    | `"scaled"` | `(x - mean) / scale` times a learned vector |

    Args:
        name: the column.
        transform: one of the above.
        buckets: intervals of `"quantile"`.
        edges: ascending numbers, given for `"edges"`, found by `prepare` for `"quantile"` and `"log2_floor"`.
        min_count: for `"log2_floor"`.
        interval_ids: the id of each of the `len(edges) + 1` intervals; set by `prepare`.
        mean, scale: mean and standard deviation of the training table, for `"scaled"`; set by `prepare`.
        size: as in `Categorical`.
    """

    name: str
    transform: str = "log2_floor"
    buckets: int | None = None
    edges: tuple[float, ...] | None = None
    min_count: int = 1
    interval_ids: tuple[int, ...] | None = None
    mean: float | None = None
    scale: float | None = None
    size: int | None = None

    raw_type = "number"
    width = 1

    def __post_init__(self):
        _require_name(self.name, "feature")
        require_one_of(TRANSFORMS, self.transform, f"transform of feature {self.name!r}")
        _require_count(self, "min_count")
        _require(
            self.min_count == 1 or self.transform == "log2_floor",
            f"feature {self.name!r}: `min_count` has a meaning for the transform 'log2_floor' only.",
            "remove `min_count`",
        )
        _require(
            (self.buckets is not None) == (self.transform == "quantile"),
            f"feature {self.name!r}: `buckets` is {self.buckets!r} with the transform {self.transform!r}.",
            "give `buckets` with 'quantile', and only there",
        )
        if self.buckets is not None:
            _require_count(self, "buckets", least=2)
        _require(
            self.edges or self.transform != "edges",
            f"feature {self.name!r}: the transform 'edges' needs `edges`.",
            "list the edges in ascending order",
        )
        _require(
            self.edges is None or self.transform != "scaled",
            f"feature {self.name!r}: `edges` have no meaning for the transform 'scaled'.",
            "remove `edges`, or use the transform 'edges'",
        )
        for argument in ("edges", "interval_ids"):
            values = getattr(self, argument)
            if values is not None:
                problem = f"feature {self.name!r}: `{argument}` is {values!r}."
                _require(isinstance(values, list | tuple), problem, "give a list of numbers")
                object.__setattr__(self, argument, tuple(values))
        if self.edges is not None:
            _require(
                all(isinstance(edge, int | float) and abs(edge) <= sys.float_info.max for edge in self.edges)
                and all(left < right for left, right in zip(self.edges, self.edges[1:], strict=False)),
                f"feature {self.name!r}: `edges` must be finite and strictly ascending.",
                "sort them and drop the doubles",
            )


Feature = Categorical | Sequence | Numeric
FEATURE_TYPES = {"categorical": Categorical, "sequence": Sequence, "numeric": Numeric}


@dataclasses.dataclass(frozen=True)
class Field:
    """Where one fitted feature lies: its columns of the prepared matrix, and its rows of the shared embedding table."""

    feature: Feature
    column: int
    offset: int

    @property
    def columns(self):
        return slice(self.column, self.column + self.feature.width)


@dataclasses.dataclass(frozen=True)
class Schema:
    """Which columns are features, and what they mean.

    Args:
        features: `Categorical`, `Sequence` and `Numeric` columns, in the order of the prepared matrix.
        label: the column with 0 (no click) and 1 (click).
        group: the column that groups rows for gAUC, usually the user.
        weight: a column of non-negative sample weights.
        folder: where a fitted schema's vocabulary files are; set by `prepare` and `load`.

    Raises:
        ConfigError: a name that cannot be served, a column with two roles, an argument out of range.

    >>> schema = Schema(features=[Categorical("user"), Numeric("price", "scaled")], label="click", group="user")
    >>> schema.is_fitted
    False
    """

    features: tuple[Feature, ...]
    label: str
    group: str | None = None
    weight: str | None = None
    folder: str | None = None

    def __post_init__(self):
        object.__setattr__(self, "features", tuple(self.features))
        _require(len(self.features) > 0, "the schema has no features.", "name at least one")
        for feature in self.features:
            fix = "use Categorical, Sequence and Numeric"
            _require(isinstance(feature, Feature), f"{reprlib.repr(feature)} is not a feature.", fix)
        names = [feature.name for feature in self.features]
        _refuse_equal_inputs(names)
        taken = [*names, self.label, self.weight, None if self.group in names else self.group]
        for name in filter(None, taken):
            _require(
                taken.count(name) == 1,
                f"column {name!r} has two roles in the schema.",
                "a column is one feature, or the label, or the weight; only the group may be a feature, too",
            )
        for role in ("label", "group", "weight"):
            value = getattr(self, role)
            _require(
                (isinstance(value, str) and value) or (value is None and role != "label"),
                f"`{role}` is {value!r}.",
                "give the name of a column",
            )

    @property
    def is_fitted(self):
        """Whether `prepare` has set every feature's size."""
        return all(feature.size is not None for feature in self.features)

    @property
    def fields(self):
        """One `Field` a feature, in order. Raises `ConfigError` before the schema is fitted."""
        _require(self.is_fitted, "this schema is not fitted yet.", "use the schema of a prepared dataset: `dataset.schema`")
        fields, column, offset = [], 0, 0
        for feature in self.features:
            fields.append(Field(feature, column, offset))
            column, offset = column + feature.width, offset + feature.size
        return tuple(fields)

    @property
    def width(self):
        """Columns of the prepared matrix."""
        return sum(feature.width for feature in self.features)

    @property
    def table_rows(self):
        """Rows of the shared embedding table: the sizes of all features."""
        return sum(field.feature.size for field in self.fields)

    def vocabulary_file(self, feature):
        """The file with one token a line, the first one being id 3."""
        if self.folder is None:
            raise StorageError(
                "this schema does not know where its vocabulary files are.",
                fix="load it from its prepared dataset: tfctr.Schema.load('DATA/schema.json')",
            )
        return Path(self.folder) / "vocabulary" / f"{feature.name.replace('/', '%2F')}.txt"

    def to_dict(self):
        """Plain data, as in a YAML or JSON file: only what differs from the defaults."""
        roles = {"label": self.label, "group": self.group, "weight": self.weight}
        roles = {role: column for role, column in roles.items() if column is not None}
        return {**roles, "features": [_feature_to_dict(feature) for feature in self.features]}

    @classmethod
    def from_dict(cls, values, folder=None):
        """The schema that plain data describe. Raises `ConfigError` for an unknown or missing key, with the closest name."""
        _require(isinstance(values, dict), f"a schema is a mapping. Received: {reprlib.repr(values)}.", "see the examples")
        _refuse_unknown(values, {"label", "group", "weight", "features"}, "the schema")
        for key in ("label", "features"):
            _require(key in values, f"the schema has no `{key}`.", f"add `{key}`")
        _require(isinstance(values["features"], list), "`features` is not a list.", "write one `- name: ...` a feature")
        features = [_feature_from_dict(feature) for feature in values["features"]]
        return cls(**{**values, "features": features}, folder=folder)

    def get_config(self):
        """`to_dict()` and the folder: what a saved model keeps of its schema."""
        return {**self.to_dict(), "folder": self.folder}

    @classmethod
    def from_config(cls, config):
        """The schema behind `get_config()`; a `Schema` passes through."""
        if isinstance(config, cls):
            return config
        values = dict(config)
        return cls.from_dict(values, folder=values.pop("folder", None))

    def save(self, path):
        """Write a `.yaml`, `.yml` or `.json` file, atomically."""
        is_json = Path(path).suffix == ".json"
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False) if is_json else yaml_text(self.to_dict())
        with atomic_file(path) as file:
            file.write(text)

    @classmethod
    def load(cls, path):
        """Read a `.yaml`, `.yml` or `.json` file. Raises `ConfigError` or `StorageError`, naming the file."""
        path = Path(path)
        values = read_json(path) if path.suffix == ".json" else read_yaml(path)
        try:
            return cls.from_dict(values, folder=str(path.parent.resolve()))
        except ConfigError as error:
            raise ConfigError(f"{path}: {error.problem}", fix=error.fix) from error

    @classmethod
    def infer(cls, table, label, group=None, weight=None):
        """A draft for a new table, to be read, corrected and saved by a person: see `tfctr.data.inference.infer`."""
        from tfctr.data.inference import infer

        return infer(table, label=label, group=group, weight=weight)


def _feature_to_dict(feature):
    kind = next(name for name, cls in FEATURE_TYPES.items() if cls is type(feature))
    values = {"name": feature.name, "type": kind}
    for field in dataclasses.fields(feature):
        value = getattr(feature, field.name)
        if field.name != "name" and value != field.default:
            values[field.name] = list(value) if isinstance(value, tuple) else value
    return values


def _feature_from_dict(values):
    _require(
        isinstance(values, dict) and "name" in values and "type" in values,
        f"a feature needs a `name` and a `type`. Received: {reprlib.repr(values)}.",
        f"types: {', '.join(FEATURE_TYPES)}",
    )
    cls = choose(FEATURE_TYPES, values["type"], f"type of feature {values['name']!r}")
    arguments = {key: value for key, value in values.items() if key != "type"}
    _refuse_unknown(arguments, {field.name for field in dataclasses.fields(cls)}, f"feature {values['name']!r}")
    for field in dataclasses.fields(cls):
        is_given = field.name in arguments or field.default is not dataclasses.MISSING
        _require(is_given, f"feature {values['name']!r} has no `{field.name}`.", f"add `{field.name}`")
    return cls(**arguments)


def _refuse_unknown(values, known, where):
    for key in values:
        _require(key in known, f"unknown key {key!r} in {where}.", suggest(key, known))
