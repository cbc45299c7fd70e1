"""What a client must know of a model's schema to send lists and numbers with a fraction as text, and to read raw tables.

It travels with the model, as the signature `schema`, whose only answer is JSON: `{"genres": {"separator": "|", "token_type":
"text"}}` for each feature of tokens, and its `"column"` for each feature that is named otherwise than its column of the raw
table. `GetModelMetadata` of TensorFlow Serving tells names and types alone.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from tfctr.errors import ConfigError
from tfctr.serving.wire.rows import to_arrays
from tfctr.serving.wire.types import Rows, Separators

if TYPE_CHECKING:
    from tfctr.schema import Schema

SIGNATURE = "schema"
INPUT = "rows"
OUTPUT = "schema"
_FRACTIONS = ("text", "number")


@dataclasses.dataclass(frozen=True)
class TokenRules:
    """What to know of the columns.

    Args:
        separators: what joins the tokens of lists: column -> one character, or one for all, or None where it is not known.
        fractions: the columns that take numbers with a fraction, as their shortest decimal text.
        sources: the column of the raw table, by the input's name, where it is another one.
    """

    separators: Separators
    fractions: frozenset[str] = frozenset()
    sources: Mapping[str, str] = dataclasses.field(default_factory=dict)


def rules_of(schema: "Schema") -> TokenRules:
    """The rules of a fitted `Schema`.

    >>> from tfctr import Schema, Sequence
    >>> rules_of(Schema(features=[Sequence("genres", 3, separator=" ", token_type="text")], label="click"))
    TokenRules(separators={'genres': ' '}, fractions=frozenset({'genres'}), sources={})
    """
    return _rules(_plain_rules(schema))


def written_rules(schema: "Schema") -> str:
    """The rules of a fitted `Schema` as the JSON text that the signature answers."""
    return json.dumps(_plain_rules(schema), ensure_ascii=False)


def read_rules(text: str) -> TokenRules:
    """The rules in that JSON text; further keys are for later clients."""
    return _rules(json.loads(text))


def agreed(rules: TokenRules, separator: Separators) -> TokenRules:
    """The rules, once the caller's `separator` is the model's own. Raises `ConfigError` where it is another one."""
    known = rules.separators if isinstance(rules.separators, Mapping) else {}
    for name, own in known.items():
        given = separator.get(name, own) if isinstance(separator, Mapping) else separator
        if given not in (None, own):
            raise ConfigError(
                f"`separator` is {given!r} for {name!r}, whose tokens the model separates by {own!r}.",
                fix="leave it out: the client knows the model's",
            )
    return rules


def _plain_rules(schema):
    """Feature -> what its kind of tokens is, and its column; features of which neither is to be said are left out."""
    described = {feature.name: _tokens(feature) | _source(feature) for feature in schema.features}
    return {name: said for name, said in described.items() if said}


def _tokens(feature):
    keys = ("separator", "token_type") if feature.raw_type == "string" else ()
    return {key: getattr(feature, key) for key in keys if hasattr(feature, key)}


def _source(feature):
    return {} if feature.source == feature.name else {"column": feature.source}


def _rules(described):
    return TokenRules(
        {name: feature["separator"] for name, feature in described.items() if "separator" in feature},
        frozenset(name for name, feature in described.items() if feature.get("token_type") in _FRACTIONS),
        {name: feature["column"] for name, feature in described.items() if "column" in feature},
    )


def raw_columns(schema: "Schema", rows: Rows) -> dict[str, np.ndarray]:
    """Raw rows, in any form that `PredictionClient` takes, as the columns that a served model of a fitted schema takes."""
    dtypes = {"string": np.dtype(object), "number": np.dtype(np.float64)}
    inputs = {feature.name: (dtypes[feature.raw_type], (None,)) for feature in schema.features}
    rules = rules_of(schema)
    return to_arrays(rows, inputs, rules.separators, rules.fractions, rules.sources)
