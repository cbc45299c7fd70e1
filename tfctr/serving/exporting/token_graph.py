"""The rules of `tfctr.token_text` as TensorFlow operations.

A vocabulary holds canonical tokens alone. So tokens are looked up as they come, and only those that are not found, or that are
hashed and not canonical, are rewritten and looked up again.
"""

import tensorflow as tf

from tfctr.features import Sequence
from tfctr.token_text import ABSENT, FORMS, LIST, SMALL, list_rewrites


def has_form(feature):
    """Whether the feature's tokens have several writings."""
    return feature.token_type in FORMS


def is_canonical(feature, tokens):
    """Whether each token stays as it is: `(...)` text `-> (...)` bool."""
    return tf.strings.regex_full_match(tokens, FORMS[feature.token_type].canonical)


def canonical(feature, tokens, suspects):
    """The tokens, the `suspects` among them in the feature's form: `(rows, width)` text and bool `-> (rows, width)` text."""
    form = FORMS[feature.token_type]
    rewrites = form.rewrites if isinstance(feature, Sequence) else (*form.rewrites, ABSENT)
    written = rewritten(tf.boolean_mask(tokens, suspects), rewrites)
    if form.is_small:
        are_small = tf.strings.regex_full_match(written, form.is_small)
        written = tf.cond(tf.reduce_any(are_small), lambda: rewritten(written, SMALL), lambda: written)
    return tf.tensor_scatter_nd_update(tokens, tf.where(suspects), written)


def read_written_lists(separator, texts):
    """The texts; of those that are lists written as text, the items joined by the separator: `(rows,)` text."""
    are_lists = tf.strings.regex_full_match(texts, LIST)

    def read():
        return tf.where(are_lists, rewritten(texts, list_rewrites(separator)), texts)

    return tf.cond(tf.reduce_any(are_lists), read, lambda: texts)


def rewritten(texts, rewrites):
    """The texts after each `(pattern, replacement)`."""
    for pattern, replacement in rewrites:
        texts = tf.strings.regex_replace(texts, pattern, replacement)
    return texts
