"""FuxiCTR's `feature_cols` as a schema."""

import keyword
import re
from collections.abc import Iterator
from typing import Any

from tfctr.errors import ConfigError, choose, did_you_mean, require
from tfctr.features import Categorical, Feature, Numeric, Sequence
from tfctr.fuxictr.notes import Notes
from tfctr.fuxictr.reading import Keys
from tfctr.schema import Schema

_SPLITTER = "^"
_BUCKETS = 10
_LEFT_OUT = {
    "dtype": "`prepare` learns the form of the tokens from the training table",
    "source": "every part of a model reads all features",
    "remap": "tokens always become ids",
    "vocab_size": "`prepare` counts the tokens",
    "freeze_emb": "it belongs to pretrained_emb",
    "pretrain_dim": "it belongs to pretrained_emb",
    "pretrain_usage": "it belongs to pretrained_emb",
}
_LOST = {
    "share_embedding": "each feature has rows of its own here; `vocabulary_of` lets it share those of another",
    "pretrained_emb": "vectors are a matter of a run: training.pretrained",
    "emb_output_dim": "all features are embedded in equally many numbers",
}
# FuxiCTR runs these texts as Python.
_POOLINGS = {"layers.MaskedAveragePooling()": "mean", "layers.MaskedSumPooling()": "sum"}
_POOLINGS |= {"MaskedAveragePooling": "mean", "MaskedSumPooling": "sum"}  # as its documentation has them


def schema_of(parameters: Keys, notes: Notes) -> Schema:
    """The schema of a dataset's columns.

    Raises:
        ConfigError: no columns or no label, an unknown type of feature, or a sequence whose length is not known.
    """
    columns = [Keys(column) for column in _columns(parameters)]
    sources = {column.values["name"]: _source(column) for column in columns}  # its column in the table
    minimum = parameters.take("min_categr_count", 1)
    buckets = parameters.take("num_buckets", _BUCKETS)
    width = parameters.values.get("embedding_dim")
    features = [_feature(column, minimum, buckets, width, notes) for column in columns]
    group = parameters.take("group_id")
    require(group is None or isinstance(group, str), f"`group_id` is {group!r}.", fix="name a column")
    for column in columns:
        if column.values.get("type") == "meta" and column.values["name"] != group:
            notes.add("left out", "type", "meta", "no model reads it, and `group_id` does not name it", column.values["name"])
    features = [feature for feature in features if feature is not None]
    if any(not isinstance(feature, Numeric) for feature in features):
        meaning = "they have an embedding of their own; in FuxiCTR they are out of vocabulary, or what `fill_na` says"
        notes.add("differs", "missing values", None, meaning)
    if any(isinstance(feature, Sequence) and feature.pooling != "sum" for feature in features):
        meaning = "the linear terms of a model that has some are pooled like its vectors; FuxiCTR adds those of a sequence"
        notes.add("differs", "sequences", None, meaning)
    return Schema(features, label=_label(parameters, notes), group=sources.get(group, group))


def _columns(parameters: Keys) -> Iterator[dict[str, Any]]:
    """The active columns, one name each, in the order in which a model reads them."""
    given = parameters.take("feature_cols")
    fix = "give the dataset_config from which the dataset was built, with its feature_cols"
    require(isinstance(given, list) and given, "the dataset has no `feature_cols`.", fix=fix)
    found: dict[str, dict[str, Any]] = {}
    for column in given:
        for name in _names(column, "feature_cols"):
            if column.get("active") is not False:
                found[name] = {key: value for key, value in {**column, "name": name}.items() if key != "active"}
    for column in _list(parameters, "feature_specs"):
        for name in _names(column, "feature_specs"):
            require(name in found, f"feature_specs: there is no column {name!r}.", fix=did_you_mean(name, found))
            found[name] |= {key: value for key, value in column.items() if key != "name"}
    names = _list(parameters, "use_features") or list(found)
    for name in names:
        is_known = isinstance(name, str) and name in found
        require(is_known, f"use_features: there is no column {name!r}.", fix=did_you_mean(name, found))
    yield from (found[name] for name in names)


def _list(parameters: Keys, key: str) -> list[Any]:
    given = parameters.take(key, [])
    require(isinstance(given, list), f"`{key}` is {given!r}.", fix="give a list, or null")
    return given


def _names(column: Any, where: str) -> list[str]:
    name = column.get("name") if isinstance(column, dict) else None
    names: list[Any] = name if isinstance(name, list) else [name]
    fix = 'write {name: user, type: categorical, ...}, or name: ["user", "item"]'
    require(all(isinstance(name, str) and name for name in names), f"{where} has an entry without a name.", fix=fix)
    return names


def _source(column: Keys) -> str:
    """The column of the table that FuxiCTR reads."""
    copied = re.fullmatch(r"copy_from\((.+)\)", str(column.values.get("preprocess", "")))
    return copied[1] if copied else column.values["name"]


def _feature(column: Keys, minimum: int, buckets: int, width: int | None, notes: Notes) -> Feature | None:
    name = column.take("name")
    kind = column.take("type")
    makers = {"categorical": _categorical, "sequence": _sequence, "numeric": _numeric, "meta": None, "embedding": None}
    make = choose(makers, kind, f"type of feature {name!r}")
    if kind == "embedding":
        notes.add("lost", "type", kind, "a column of ready vectors is no feature", name)
    if make is None:
        return None
    dim = column.take("embedding_dim", width)
    if dim != width:
        notes.add("lost", "embedding_dim", dim, "all features are embedded in equally many numbers", name)
    served = _served(name)
    if served != name:
        notes.add("differs", "name", name, f"a served input cannot be called so: it is {served}, of this column")
    source = _source(column)
    common = {"name": served, **({"column": source} if source != served else {})}
    feature = make(name, common, column, {"min_count": minimum, "buckets": buckets}, notes)
    if source == name and "preprocess" in column.rest():
        notes.add("lost", "preprocess", column.take("preprocess"), "it is a function of yours: make this column before", name)
    column.take("preprocess")
    for key, value in column.rest().items():
        if key in _LOST:
            notes.add("lost", key, value, _LOST[key], name)
        elif key in _LEFT_OUT:
            notes.add("left out", key, value, _LEFT_OUT[key], name)
        else:
            notes.add("left out", key, value, f"FuxiCTR does not read it of a {kind} feature", name)
    return feature


def _categorical(name: str, common: dict[str, Any], column: Keys, defaults: dict[str, int], notes: Notes) -> Feature:
    _pooling(name, column, notes, known={})
    min_count = column.take("min_categr_count", defaults["min_count"])
    buckets = column.take("num_buckets", defaults["buckets"])
    processor = column.take("category_processor")
    if processor is not None:
        unfinished = "FuxiCTR 2.3 fits it, and then cannot encode it"
        if processor == "quantile_bucket":
            notes.add("differs", "category_processor", processor, f"quantiles of the training table; {unfinished}", name)
            return Numeric(**common, transform="quantile", buckets=buckets)
        if processor == "hash_bucket":
            notes.add("differs", "category_processor", processor, f"our own hash of a token; {unfinished}", name)
            return Categorical(**common, hash_buckets=buckets)
        known = did_you_mean(processor, ("quantile_bucket", "hash_bucket"))
        raise ConfigError(f"feature {name!r}: unknown category_processor {processor!r}.", fix=known)
    if column.values.get("preprocess") == "convert_to_bucket":
        column.take("preprocess")
        column.take("fill_na")
        meaning = "taken for the function of that name for Criteo, floor(ln(x)^2); missing numbers are missing"
        notes.add("differs", "preprocess", "convert_to_bucket", meaning, name)
        return Numeric(**common, transform="log2_floor", min_count=min_count)
    _filled(name, column, notes)
    return Categorical(**common, min_count=min_count)


def _sequence(name: str, common: dict[str, Any], column: Keys, defaults: dict[str, int], notes: Notes) -> Feature:
    length = column.take("max_len", 0)
    fix = "add max_len to the column: FuxiCTR looks for the longest one in the training table"
    require(length, f"feature {name!r}: `max_len` is not given.", fix=fix)
    padding = column.take("padding", "post")
    keep = choose({"post": "first", "pre": "last"}, padding, f"padding of feature {name!r}")
    pooling = _pooling(name, column, notes, _POOLINGS)
    min_count = column.take("min_categr_count", defaults["min_count"])
    separator = column.take("splitter", _SPLITTER)
    _filled(name, column, notes)
    return Sequence(**common, max_length=length, separator=separator, pooling=pooling, keep=keep, min_count=min_count)


def _numeric(name: str, common: dict[str, Any], column: Keys, defaults: dict[str, int], notes: Notes) -> Feature:
    _pooling(name, column, notes, known={})
    normalizer = column.take("normalizer")
    if normalizer != "StandardScaler":
        notes.add("differs", "normalizer", normalizer or "none", "numbers are standardized: (x - mean) / deviation", name)
    meaning = "missing numbers have a vector of their own, and count neither for the mean nor for the deviation"
    notes.add("differs", "fill_na", column.take("fill_na"), meaning, name)
    column.take("dtype")
    return Numeric(**common, transform="scaled")


def _pooling(name: str, column: Keys, notes: Notes, known: dict[str, str]) -> Any:
    """How a sequence is pooled. Notes an encoder that there is not; null is one, too: of a sequence, no pooling."""
    for key in ("feature_encoder", "encoder"):
        encoder = column.take(key)
        if isinstance(encoder, str) and encoder in known:
            return known[encoder]
        if encoder is not None or (known and key in column.given):
            meaning = "a sequence is pooled by its mean or sum" if known else "a feature is its row of the table"
            notes.add("lost", key, "null" if encoder is None else encoder, meaning, name)
    return "mean"


def _filled(name: str, column: Keys, notes: Notes) -> None:
    """Note what FuxiCTR would put in the place of a null, which is also its text of a missing token."""
    value = column.take("fill_na", "")
    if value != "":
        meaning = f"a null is missing; the text {str(value)!r} is a token, or missing by `prepare --missing {value}`"
        notes.add("differs", "fill_na", value, meaning, name)
    elif column.values.get("dtype") in ("int", "float"):
        notes.add("differs", "fill_na", None, "a null is missing; in FuxiCTR it is the token 0", name)


def _label(parameters: Keys, notes: Notes) -> str:
    labels = parameters.take("label_col")
    labels = labels if isinstance(labels, list) else [labels]
    if len(labels) > 1:
        notes.add("lost", "label_col", len(labels), "there is one label: the first is taken")
    fix = "write label_col: {name: click, dtype: float}"
    require(labels and isinstance(labels[0], dict), "the dataset has no `label_col`.", fix=fix)
    label = Keys(labels[0])
    name = label.take("name")
    require(isinstance(name, str) and name, "`label_col` has no `name`.", fix=fix)
    label.take("dtype")
    for key, value in label.rest().items():
        if key == "preprocess":
            notes.add("lost", f"label_col.{key}", value, "make the label before")
        elif key == "fill_na":
            notes.add("differs", f"label_col.{key}", value, "a row without a label is refused")
        else:
            notes.add("left out", f"label_col.{key}", value, "FuxiCTR does not read it")
    return name


def _served(name: str) -> str:
    """The name as a served input may have it."""
    name = re.sub(r"[^A-Za-z0-9_.\-/]", "_", name)
    return f"{name}_" if keyword.iskeyword(name) or name == "self" else name
