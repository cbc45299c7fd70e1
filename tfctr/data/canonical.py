"""The rules of `tfctr.token_text` as expressions of the engine."""

import ibis

from tfctr.features import Sequence
from tfctr.token_text import ABSENT, FORMS, LIST, LOOKS_LIKE_LIST, list_rewrites


def canonical(feature, token):
    """A text column of tokens in the feature's form; NULL where a categorical column has none."""
    form = FORMS.get(feature.token_type)
    if form is None:
        return token
    rewrites = form.rewrites if isinstance(feature, Sequence) else (*form.rewrites, ABSENT)
    written = token.re_search(form.canonical).ifelse(token, rewritten(token, rewrites))
    return written if isinstance(feature, Sequence) else written.nullif("")


def read_written_list(separator, text):
    """(the text, its items joined by the separator where it is a list that was written as text; whether it cannot be read)."""
    is_list = text.re_search(LIST)
    joined = is_list.ifelse(rewritten(text, list_rewrites(separator)), text)
    return joined.nullif(""), ibis.coalesce(text.re_search(LOOKS_LIKE_LIST) & ~is_list, False)


def rewritten(text, rewrites):
    """The text after each `(pattern, replacement)`."""
    for pattern, replacement in rewrites:
        text = text.re_replace(pattern, replacement)
    return text
