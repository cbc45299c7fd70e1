"""The rules of `tfctr.token_text` as TensorFlow operations.

A vocabulary holds canonical tokens alone. So tokens are looked up as they come, and only those that are not found, or that are
hashed and not canonical, are rewritten and looked up again.
"""

from collections.abc import Iterable

import tensorflow as tf

from tfctr.features import Sequence, TokenFeature
from tfctr.token_text import ABSENT, FORMS, LIST, SMALL, list_rewrites
from tfctr.types import Tensor


def has_form(feature: TokenFeature) -> bool:
    """Whether the feature's tokens have several writings."""
    return feature.token_type in FORMS


def is_canonical(feature: TokenFeature, tokens: Tensor) -> Tensor:
    """Whether each token stays as it is: `(...)` text `-> (...)` bool."""
    return tf.strings.regex_full_match(tokens, _form(feature).canonical)


def canonical(feature: TokenFeature, tokens: Tensor, suspects: Tensor) -> Tensor:
    """The tokens, the `suspects` among them in the feature's form: `(rows, width)` text and bool `-> (rows, width)` text."""
    form = _form(feature)
    rewrites = form.rewrites if isinstance(feature, Sequence) else (*form.rewrites, ABSENT)
    written = rewritten(tf.boolean_mask(tokens, suspects), rewrites)
    if form.is_small:
        are_small = tf.strings.regex_full_match(written, form.is_small)
        written = tf.cond(tf.reduce_any(are_small), lambda: rewritten(written, SMALL), lambda: written)
    return tf.tensor_scatter_nd_update(tokens, tf.where(suspects), written)


def _form(feature):
    return FORMS[feature.token_type]


def read_written_lists(separator: str, texts: Tensor) -> Tensor:
    """The texts; of those that are lists written as text, the items joined by the separator: `(rows,)` text."""
    are_lists = tf.strings.regex_full_match(texts, LIST)

    def read():
        return tf.where(are_lists, rewritten(texts, list_rewrites(separator)), texts)

    return tf.cond(tf.reduce_any(are_lists), read, lambda: texts)


def rewritten(texts: Tensor, rewrites: Iterable[tuple[str, str]]) -> Tensor:
    """The texts after each `(pattern, replacement)`."""
    for pattern, replacement in rewrites:
        texts = tf.strings.regex_replace(texts, pattern, replacement)
    return texts
