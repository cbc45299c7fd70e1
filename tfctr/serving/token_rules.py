"""What a client must know of a model's schema to send lists, numbers with a fraction as text, and rows of a raw table.

It travels with the model, as the signature `schema`, whose only answer is JSON: `{"genres": {"separator": "|", "token_type":
"text"}}` for each feature of tokens, and `"column"` for each feature whose column has another name. `GetModelMetadata` of
TensorFlow Serving tells names and types alone.
"""

import dataclasses
import json
from collections.abc import Mapping

from tfctr.errors import ConfigError

SIGNATURE, INPUT, OUTPUT = "schema", "rows", "schema"
_FRACTIONS = ("text", "number")


@dataclasses.dataclass(frozen=True)
class TokenRules:
    """What to know of the columns with tokens.

    Args:
        separators: what joins the tokens of lists: column -> one character, or one for all, or None where it is not known.
        fractions: the columns that take numbers with a fraction, as their shortest decimal text.
        columns: the columns that have another name in the raw table: input -> that name.
    """

    separators: Mapping[str, str] | str | None
    fractions: frozenset[str] = frozenset()
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)


def rules_of(schema):
    """The rules of a fitted `Schema`.

    >>> from tfctr import Schema, Sequence
    >>> rules_of(Schema([Sequence("genres", 3, separator=" ", token_type="text", column="Genres")], label="click"))
    TokenRules(separators={'genres': ' '}, fractions=frozenset({'genres'}), columns={'genres': 'Genres'})
    """
    return _rules(_described(schema))


def written_rules(schema):
    """The rules of a fitted `Schema` as the JSON text that the signature answers."""
    return json.dumps(_described(schema), ensure_ascii=False)


def read_rules(text):
    """The rules in that JSON text; further keys are for later clients."""
    return _rules(json.loads(text))


def agreed(rules, separator):
    """The rules, once the caller's `separator` is the model's own. Raises `ConfigError` where it is another one."""
    for name, own in rules.separators.items():
        given = separator.get(name, own) if isinstance(separator, Mapping) else separator
        if given not in (None, own):
            raise ConfigError(
                f"`separator` is {given!r} for {name!r}, whose tokens the model separates by {own!r}.",
                fix="leave it out: the client knows the model's",
            )
    return rules


def _described(schema):
    """Feature -> what its kind of tokens is, and its column where that has another name; features of neither are left out."""
    described = {}
    for feature in schema.features:
        keys = ("separator", "token_type") if feature.raw_type == "string" else ()
        of_tokens = {key: getattr(feature, key) for key in keys if hasattr(feature, key)}
        described[feature.name] = of_tokens | ({"column": feature.source} if feature.source != feature.name else {})
    return {name: said for name, said in described.items() if said}


def _rules(described):
    separators, columns = (
        {name: feature[key] for name, feature in described.items() if key in feature} for key in ("separator", "column")
    )
    fractions = frozenset(name for name, feature in described.items() if feature.get("token_type") in _FRACTIONS)
    return TokenRules(separators, fractions, columns)
