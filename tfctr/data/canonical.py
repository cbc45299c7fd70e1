"""The rules of `tfctr.token_text` as expressions of the engine."""

from collections.abc import Iterable

import ibis

from tfctr.data.engine import Value
from tfctr.features import Sequence, TokenFeature
from tfctr.token_text import ABSENT, FORMS, IS_SMALL, LIST, LOOKS_LIKE_LIST, SMALL, list_rewrites


def canonical(feature: TokenFeature, token: Value) -> Value:
    """A text column of tokens in the feature's form; NULL where a categorical column has none."""
    form = FORMS.get(feature.token_type or "text")
    if form is None:
        return token
    rewrites = form.rewrites if isinstance(feature, Sequence) else (*form.rewrites, ABSENT)
    other = rewritten(token, rewrites)
    written = token.re_search(form.canonical).ifelse(token, rewritten_small(other) if form.is_small else other)
    return written if isinstance(feature, Sequence) else written.nullif("")


def read_written_list(separator: str, text: Value) -> tuple[Value, Value]:
    """(the text, its items joined by the separator where it is a list that was written as text; whether it cannot be read)."""
    is_list = text.re_search(LIST)
    joined = is_list.ifelse(rewritten(text, list_rewrites(separator)), text)
    return joined.nullif(""), ibis.coalesce(text.re_search(LOOKS_LIKE_LIST) & ~is_list, False)


def rewritten_small(text: Value) -> Value:
    """The texts of decimal numbers, those below 1e-4 as Python writes them."""
    return text.re_search(IS_SMALL).ifelse(rewritten(text, SMALL), text)


def rewritten(text: Value, rewrites: Iterable[tuple[str, str]]) -> Value:
    """The text after each `(pattern, replacement)`."""
    for pattern, replacement in rewrites:
        text = text.re_replace(pattern, replacement)
    return text
