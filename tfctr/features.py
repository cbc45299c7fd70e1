"""The kinds of columns that a schema can name, each with what `prepare` learns of it, and their plain data.

Ids, per feature: 0 padding, 1 missing, 2 out of vocabulary, 3.. known.
"""

import collections.abc
import dataclasses
import keyword
import math
import re
import reprlib
import sys
from collections.abc import Iterable
from typing import Any, Literal, TypeAlias, TypeGuard

from tfctr.errors import ConfigError, choose, did_you_mean, require, require_one_of
from tfctr.token_text import TOKEN_TYPES, TokenType

PADDING = 0
MISSING = 1
OUT_OF_VOCABULARY = 2
FIRST_KNOWN = 3

# Below it a scaled number is 0 on both faces: TensorFlow flushes subnormal float32 to zero, other engines do not.
SMALLEST_NORMAL = 2.0**-126

TRANSFORMS = ("log2_floor", "quantile", "edges", "scaled")
DEFAULT_BUCKETS = 50
POOLINGS = ("mean", "sum", "sqrtn")
ENDS = ("first", "last")

# A name becomes an input of the served model: TensorFlow Serving takes these characters and no Python keyword.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-/]*(?<!/)")
_LONGEST_NAME = 200  # it also names a file
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MOST = 2**31 - 1  # ids are int32
_OF_NUMBERS = "0123456789.+-eE"
_FITTED = "leave it to `prepare`"

# What a feature that has another's vocabulary takes from that one: what a user may give, and what `prepare` sets.
TOKEN_OPTIONS = ("min_count", "hash_buckets", "token_type")
_OF_VOCABULARY = (*TOKEN_OPTIONS, "size", "vocabulary_sha256")


def refuse_unknown(values: Iterable[str], known: set[str], where: str) -> None:
    """Raise `ConfigError`, which names the closest key that is known, for one that is not."""
    for key in values:
        if key not in known:
            raise ConfigError(f"unknown key {key!r} in {where}.", fix=did_you_mean(key, known))


def _require_name(name: str, what: str) -> None:
    require(
        isinstance(name, str) and _NAME.fullmatch(name) and not keyword.iskeyword(name) and name != "self",
        f"{what} {reprlib.repr(name)} cannot be the name of a served input.",
        fix="use letters, digits and _ . - / only, begin with a letter or digit, do not end with a /, and use no Python "
        "keyword; `column` may name the column of the table beside it",
    )
    require(
        len(name.replace("/", "%2F")) <= _LONGEST_NAME,
        f"{what} {reprlib.repr(name)} cannot be the name of a served input: it has {len(name)} characters.",
        fix=f"use at most {_LONGEST_NAME}, where a / counts as three",
    )


def _require_names(feature: "Feature") -> None:
    _require_name(feature.name, "feature")
    is_name = feature.column is None or isinstance(feature.column, str)
    _require_value(feature, "column", is_name, "give the name of a column of the raw table")


def _require_value(feature: "Feature", argument: str, holds: object, fix: str) -> None:
    shown = reprlib.repr(getattr(feature, argument))
    require(holds, f"feature {feature.name!r}: `{argument}` is {shown}.", fix=fix)


def _require_count(feature: "Feature", argument: str, least: int = 1, most: int = _MOST) -> None:
    value = getattr(feature, argument)
    is_count = isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
    _require_value(feature, argument, is_count, f"use a whole number from {least} to {most}")


def _require_fitted_size(feature: "Feature") -> None:
    if feature.size is not None:
        _require_count(feature, "size", least=FIRST_KNOWN)


def _require_character(feature: "Feature", argument: str, others: str = "") -> None:
    value = getattr(feature, argument)
    is_character = isinstance(value, str) and re.fullmatch("[^\ud800-\udfff]", value) and value not in others
    _require_value(feature, argument, is_character, "use one character" + (f", none of {others!r}" if others else ""))


def _require_tokens(feature: "TokenFeature") -> None:
    """Raise `ConfigError` unless the arguments that all features of tokens have can be used."""
    _require_names(feature)
    _require_count(feature, "min_count")
    _require_fitted_size(feature)
    sha256 = feature.vocabulary_sha256
    is_sha256 = sha256 is None or (isinstance(sha256, str) and _SHA256.fullmatch(sha256))
    _require_value(feature, "vocabulary_sha256", is_sha256, _FITTED)
    other = feature.vocabulary_of
    is_other = other is None or (isinstance(other, str) and other != feature.name)
    _require_value(feature, "vocabulary_of", is_other, "name another feature, whose tokens these are")
    if feature.token_type is not None:
        require_one_of(TOKEN_TYPES, feature.token_type, f"token_type of feature {feature.name!r}")
    if feature.hash_buckets is not None:
        _require_count(feature, "hash_buckets", most=_MOST - FIRST_KNOWN)
        _require_value(feature, "size", feature.size in (None, feature.hash_buckets + FIRST_KNOWN), _FITTED)
        require(
            feature.min_count == 1,
            f"feature {feature.name!r}: hashed tokens are not counted, so `min_count` has no meaning beside `hash_buckets`.",
            fix="give one of the two",
        )


@dataclasses.dataclass(frozen=True)
class Categorical:
    """A column that holds one token a row.

    Null and empty text are missing. A token has one canonical text, whether a CSV file, a typed table or a request holds it:
    which form that is, `prepare` learns from the training table, and every later table and request is read by it.

    | `token_type` | if the training tokens are all | `9`, `9.0`, ` 9`, `009` are | `True` is | `0.50` is |
    |---|---|---|---|---|
    | `"boolean"` | true or false, in any case, also with 1 and 0 | as they are, and `1.0` is `true` | `true` | as it is |
    | `"whole"` | whole numbers, of any length | `9` | `1` | as it is |
    | `"number"` | numbers, not with an exponent, but for small ones as Python writes them: 1e-07 | `9` | `1` | `0.5` |
    | `"text"` | anything else | as they are | as it is | as it is |

    Tokens of one number that differ in zeros, as 007 and 7 or 1.10 and 1.1, are codes: where the training table has both, the
    column is text, and the log says so. Except in text, blanks and "nan" are missing. A number of a typed table, or of a
    request, is read as its shortest decimal text: 60.0 as "60", 1.5 as "1.5"; the forms whole and boolean refuse a fraction.

    Args:
        name: the input of the served model, and the column unless `column` names another.
        min_count: tokens seen fewer times than this in the training table are out of vocabulary.
        hash_buckets: instead of a vocabulary, hash each token into this many ids.
        token_type: the form of the tokens, to force it; else set by `prepare`. A fitted schema of an earlier version has none,
            and takes text as it is.
        size: ids of this feature, the reserved 0, 1 and 2 included; set by `prepare`.
        vocabulary_sha256: of the vocabulary file, so that no other one is ever taken for it; set by `prepare`, None if hashed.
        column: the column of the raw table, where its name cannot be that of a served input: "Marital status".
        vocabulary_of: the feature whose tokens these are, too. Both are fitted together, and have the same ids, which are the
            same rows of an embedding table. `min_count`, `hash_buckets` and `token_type` are that one's.
    """

    name: str
    min_count: int = 1
    hash_buckets: int | None = None
    size: int | None = None
    vocabulary_sha256: str | None = None
    token_type: TokenType | None = None
    column: str | None = None
    vocabulary_of: str | None = None

    raw_type = "string"
    width = tokens = 1

    @property
    def source(self) -> str:
        """The feature's column in a raw table."""
        return self.name if self.column is None else self.column

    @property
    def owner(self) -> str:
        """The name of the feature whose ids these are: its own, or that of which it has the vocabulary."""
        return self.name if self.vocabulary_of is None else self.vocabulary_of

    def __post_init__(self) -> None:
        _require_tokens(self)


@dataclasses.dataclass(frozen=True)
class Sequence:
    """A column that holds several tokens a row: "Animation|Comedy", or a list.

    Empty tokens are dropped; of the others, the first or the last `max_length` are kept, in their order, padded behind, and
    pooled over what is not padding. A row without any token is missing. A list is joined by `separator` first, so a token
    never contains it; a list that was written as text, such as "['a', 'b']", "[1, 2]" or "[]", is read as that list.

    With a `weight_separator` tokens may have weights: a:0.5|b:0.3|c has the vectors of a, b and c with the weights 0.5,
    0.3 and 1. A weight is a number from 0 to 1e15, below 1e-15 it is 0, and a token without one weighs 1. What else stands
    behind the separator is refused by `prepare`; a served model takes the whole for a token, which it does not know.

    | pooling | of vectors `e` | with weights `w`, as `tf.nn.embedding_lookup_sparse`; 0 where the divisor is |
    |---|---|---|
    | `"mean"` | `sum(e) / count` | `sum(w e) / sum(w)` |
    | `"sum"` | `sum(e)` | `sum(w e)` |
    | `"sqrtn"` | `sum(e) / sqrt(count)` | `sum(w e) / sqrt(sum(w^2))` |

    Args:
        name, column: as in `Categorical`.
        separator: one character between the tokens.
        max_length: tokens kept a row. `prepare` says how many rows had more.
        keep: which of a longer row's tokens: `"first"`, or `"last"`, which a history in the order of time needs: its newest.
        pooling: how the tokens' vectors become one.
        min_count, hash_buckets, size, vocabulary_sha256, token_type, vocabulary_of: as in `Categorical`.
        weight_separator: one character between a token and its weight; None if tokens have none.
    """

    name: str
    max_length: int
    separator: str = "|"
    pooling: Literal["mean", "sum", "sqrtn"] = "mean"
    min_count: int = 1
    hash_buckets: int | None = None
    size: int | None = None
    vocabulary_sha256: str | None = None
    keep: Literal["first", "last"] = "first"
    token_type: TokenType | None = None
    column: str | None = None
    vocabulary_of: str | None = None
    weight_separator: str | None = None

    raw_type = "string"
    source = Categorical.source
    owner = Categorical.owner

    def __post_init__(self) -> None:
        _require_tokens(self)
        _require_count(self, "max_length")
        _require_character(self, "separator")
        if self.weight_separator is not None:
            _require_character(self, "weight_separator", others=f"{self.separator}{_OF_NUMBERS}")
            _require_character(self, "separator", others=_OF_NUMBERS)
        require_one_of(POOLINGS, self.pooling, f"pooling of feature {self.name!r}")
        require_one_of(ENDS, self.keep, f"`keep` of feature {self.name!r}")

    @property
    def tokens(self) -> int:
        return self.max_length

    @property
    def width(self) -> int:
        return self.max_length * (1 if self.weight_separator is None else 2)

    @property
    def kept(self) -> slice:
        """Which of a row's tokens are kept, as a slice."""
        return slice(self.max_length) if self.keep == "first" else slice(-self.max_length, None)


@dataclasses.dataclass(frozen=True)
class Numeric:
    """A column that holds one number a row. Null and NaN are missing.

    | transform | what the model sees |
    |---|---|
    | `"log2_floor"` | the bucket `floor(ln(x)^2)` for x > 2, else `int(x)` (the Criteo rule); rare ones are out of vocabulary |
    | `"quantile"` | one of `buckets` intervals of near equal counts in the training table; a frequent value is one alone |
    | `"edges"` | one of the intervals between the given `edges`; an edge belongs to the interval on its right |
    | `"scaled"` | `(x - mean) / scale` times a learned vector |

    Args:
        name, column: as in `Categorical`.
        transform: one of the above.
        buckets: intervals of `"quantile"`, 50 unless given: as many are made, or one a distinct value where there are fewer.
        edges: ascending numbers, given for `"edges"`, found by `prepare` for `"quantile"` and `"log2_floor"`.
        min_count: for `"log2_floor"`.
        interval_ids: the id of each of the `len(edges) + 1` intervals; set by `prepare`.
        mean, scale: mean and standard deviation of the training table, for `"scaled"`; set by `prepare`.
        size: as in `Categorical`.
    """

    name: str
    transform: Literal["log2_floor", "quantile", "edges", "scaled"] = "log2_floor"
    buckets: int | None = None
    edges: collections.abc.Sequence[float] | None = None
    min_count: int = 1
    interval_ids: tuple[int, ...] | None = None
    mean: float | None = None
    scale: float | None = None
    size: int | None = None
    column: str | None = None

    raw_type = "number"
    width = tokens = 1
    vocabulary_of = None
    source = Categorical.source
    owner = Categorical.owner

    def __post_init__(self) -> None:
        _require_names(self)
        require_one_of(TRANSFORMS, self.transform, f"transform of feature {self.name!r}")
        _require_count(self, "min_count")
        _require_fitted_size(self)
        for argument, least in (("mean", -sys.float_info.max), ("scale", math.nextafter(0, 1))):
            value = getattr(self, argument)
            is_number = isinstance(value, int | float) and least <= value <= sys.float_info.max
            _require_value(self, argument, value is None or is_number, _FITTED)
        require(
            self.min_count == 1 or self.transform == "log2_floor",
            f"feature {self.name!r}: `min_count` has a meaning for the transform 'log2_floor' only.",
            fix="remove `min_count`",
        )
        require(
            self.buckets is None or self.transform == "quantile",
            f"feature {self.name!r}: `buckets` is {reprlib.repr(self.buckets)} with the transform {self.transform!r}.",
            fix="give `buckets` with 'quantile' only",
        )
        if self.transform == "quantile":
            object.__setattr__(self, "buckets", DEFAULT_BUCKETS if self.buckets is None else self.buckets)
            _require_count(self, "buckets", least=2)
        require(
            self.edges or self.transform != "edges",
            f"feature {self.name!r}: the transform 'edges' needs `edges`.",
            fix="list the edges in ascending order",
        )
        require(
            self.edges is None or self.transform != "scaled",
            f"feature {self.name!r}: `edges` have no meaning for the transform 'scaled'.",
            fix="remove `edges`, or use the transform 'edges'",
        )
        for argument in ("edges", "interval_ids"):
            values = getattr(self, argument)
            if values is not None:
                _require_value(self, argument, isinstance(values, list | tuple), "give a list of numbers")
                object.__setattr__(self, argument, tuple(values))
        if self.interval_ids is not None:
            one_each = len(self.interval_ids) == len(self.edges or ()) + 1
            are_ids = all(type(id) is int and 0 <= id < (self.size or _MOST) for id in self.interval_ids)
            _require_value(self, "interval_ids", one_each and are_ids, _FITTED)
        if self.edges is not None:
            require(
                all(isinstance(edge, int | float) and abs(edge) <= sys.float_info.max for edge in self.edges)
                and all(left < right for left, right in zip(self.edges, self.edges[1:], strict=False)),
                f"feature {self.name!r}: `edges` must be finite and strictly ascending.",
                fix="sort them and drop the doubles",
            )


TokenFeature: TypeAlias = Categorical | Sequence
Feature: TypeAlias = Categorical | Sequence | Numeric
FEATURE_TYPES = {"categorical": Categorical, "sequence": Sequence, "numeric": Numeric}


def has_vocabulary_file(feature: Feature) -> TypeGuard[TokenFeature]:
    """Whether the feature has a vocabulary of its own: numbers, hashed tokens, and tokens of another's vocabulary have none."""
    return not isinstance(feature, Numeric) and feature.hash_buckets is None and feature.vocabulary_of is None


def with_vocabularies(features: Iterable[Feature]) -> tuple[Feature, ...]:
    """The features, each one that has another's vocabulary with what that one says of tokens.

    Raises:
        ConfigError: `vocabulary_of` names no feature of tokens with a vocabulary of its own, or an option contradicts it.
    """
    features = tuple(features)
    named = {feature.name: feature for feature in features}
    return tuple(
        feature if isinstance(feature, Numeric) or feature.vocabulary_of is None else _of_vocabulary(feature, named)
        for feature in features
    )


def _of_vocabulary(feature: "TokenFeature", named: dict[str, "Feature"]) -> "TokenFeature":
    problem = f"feature {feature.name!r}: `vocabulary_of` is {feature.vocabulary_of!r}"
    owner = named.get(feature.owner)
    if owner is None:
        raise ConfigError(f"{problem}, and the schema has no such feature.", fix=did_you_mean(feature.owner, named))
    if isinstance(owner, Numeric):
        raise ConfigError(f"{problem}, which is numeric.", fix="name a feature of tokens")
    require(owner.vocabulary_of is None, f"{problem}, which has none of its own.", fix=f"name {owner.owner!r}")
    for field in dataclasses.fields(feature):
        if field.name in TOKEN_OPTIONS:
            given, of_owner = getattr(feature, field.name), getattr(owner, field.name)
            problem = f"feature {feature.name!r}: `{field.name}` is {given!r}, and {of_owner!r} in {owner.name!r}, whose tokens"
            agree = given in (field.default, of_owner)
            require(agree, f"{problem} these are.", fix=f"give it to {owner.name!r} alone: it holds for both")
    return dataclasses.replace(feature, **{name: getattr(owner, name) for name in _OF_VOCABULARY})


def feature_to_dict(feature: Feature) -> dict[str, Any]:
    """Plain data, as in a YAML or JSON file: only what differs from the defaults, and is not that of another vocabulary."""
    kind = next(name for name, cls in FEATURE_TYPES.items() if cls is type(feature))
    values: dict[str, Any] = {"name": feature.name, "type": kind}
    elsewhere = () if feature.vocabulary_of is None else _OF_VOCABULARY
    for field in dataclasses.fields(feature):
        value = getattr(feature, field.name)
        if field.name != "name" and value != field.default and field.name not in elsewhere:
            values[field.name] = list(value) if isinstance(value, tuple) else value
    return values


def feature_from_dict(values: dict[str, Any]) -> Feature:
    """The feature that plain data describe."""
    require(
        isinstance(values, dict) and "name" in values and "type" in values,
        f"a feature needs a `name` and a `type`. Received: {reprlib.repr(values)}.",
        fix=f"types: {', '.join(FEATURE_TYPES)}",
    )
    cls = choose(FEATURE_TYPES, values["type"], f"type of feature {values['name']!r}")
    arguments = {key: value for key, value in values.items() if key != "type"}
    refuse_unknown(arguments, {field.name for field in dataclasses.fields(cls)}, f"feature {values['name']!r}")
    for field in dataclasses.fields(cls):
        is_given = field.name in arguments or field.default is not dataclasses.MISSING
        require(is_given, f"feature {values['name']!r} has no `{field.name}`.", fix=f"add `{field.name}`")
    return cls(**arguments)
