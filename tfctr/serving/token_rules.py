"""What a client must know of a model's schema to send lists and numbers with a fraction as text.

It travels with the model, as the signature `schema`, whose only answer is JSON: `{"genres": {"separator": "|", "token_type":
"text"}}` for each feature of tokens. `GetModelMetadata` of TensorFlow Serving tells names and types alone.
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
    """

    separators: Mapping[str, str] | str | None
    fractions: frozenset[str] = frozenset()


def rules_of(schema):
    """The rules of a fitted `Schema`.

    >>> from tfctr import Schema, Sequence
    >>> rules_of(Schema(features=[Sequence("genres", 3, separator=" ", token_type="text")], label="click"))
    TokenRules(separators={'genres': ' '}, fractions=frozenset({'genres'}))
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
    """Feature -> what its kind of tokens is; numeric features are left out."""
    tokens = {feature.name: feature for feature in schema.features if feature.raw_type == "string"}
    keys = ("separator", "token_type")
    return {name: {key: getattr(feature, key) for key in keys if hasattr(feature, key)} for name, feature in tokens.items()}


def _rules(described):
    separators = {name: feature["separator"] for name, feature in described.items() if "separator" in feature}
    return TokenRules(separators, frozenset(name for name, f in described.items() if f.get("token_type") in _FRACTIONS))
