"""Which form the tokens of each feature have, learnt from the training table: see `Categorical`."""

import dataclasses
import logging

import ibis

from tfctr.data.canonical import canonical, rewritten
from tfctr.data.engine import Engine, Table, Value
from tfctr.data.fitting import tokens_together
from tfctr.features import Numeric, TokenFeature
from tfctr.schema import Schema
from tfctr.token_text import IS_BLANK, IS_NUMBER, IS_TRUTH, IS_WHOLE, IS_WORD, NO_CODE, SMALL, TokenType

_LOG = logging.getLogger(__name__)


def choose_token_types(engine: Engine, schema: Schema, train: Table) -> Schema:
    """The schema, each feature of tokens with its `token_type`: the one it has, or else what its tokens in `train` are."""
    features = [
        feature
        if isinstance(feature, Numeric) or feature.token_type is not None or feature.vocabulary_of is not None
        else dataclasses.replace(feature, token_type=_choose(engine, schema, train, index, feature))
        for index, feature in enumerate(schema.features)
    ]
    return dataclasses.replace(schema, features=features)


def _choose(engine: Engine, schema: Schema, train: Table, index: int, feature: TokenFeature) -> TokenType:
    seen = tokens_together(schema, train, index).select("token")
    seen = seen.filter(~seen.token.re_search(IS_BLANK))
    is_number = seen.token.re_search(IS_NUMBER)
    is_word = seen.token.re_search(IS_WORD)
    if engine.fetch(seen.filter(~is_number & ~is_word).limit(1)):  # most columns of text end here, after a few rows
        return "text"
    is_whole: Value = is_word | seen.token.re_search(IS_WHOLE)
    found = engine.fetch(
        seen.agg(
            words=is_word.any(),
            numbers=is_number.any(),
            truths=seen.token.re_search(IS_TRUTH).all(),
            whole=is_whole.all(),
        )
    )[0]
    if found["words"]:
        return "boolean" if found["truths"] else "text"
    if not found["numbers"]:
        return "text"
    token_type = "whole" if found["whole"] else "number"
    if codes := _codes(engine, seen, dataclasses.replace(feature, token_type=token_type)):
        one, other = codes
        _LOG.warning("feature %r: %r and %r are two tokens, so its tokens are codes, taken as text", feature.name, one, other)
        return "text"
    return token_type


def _codes(engine: Engine, seen: Table, feature: TokenFeature) -> tuple[str, str] | None:
    """Two tokens that are one number, and still not the same; None if there are no such."""
    distinct = seen.distinct()
    written = distinct.select(
        "token", number=canonical(feature, distinct.token), code=rewritten(distinct.token, [NO_CODE, *SMALL])
    )
    several = written.group_by("number").agg(codes=written.code.nunique(), one=written.token.min(), other=written.token.max())
    found = engine.fetch(several.filter(several.codes > 1).order_by(ibis.asc("number")).limit(1))
    return (found[0]["one"], found[0]["other"]) if found else None
