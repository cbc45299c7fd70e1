"""Which histories a model reads, and beside which target each: of one vocabulary, unless a user says otherwise."""

from collections.abc import Sequence as List

from tfctr.errors import ConfigError, require, require_one_of
from tfctr.features import Sequence
from tfctr.layers import FeatureEmbedding
from tfctr.models._graph import require_schema
from tfctr.schema import Schema
from tfctr.types import Tensor

_FIX = (
    "let the history share its target's vocabulary and prepare again: Sequence('history', 50, vocabulary_of='item'); or name "
    "`histories` and `targets`"
)


def pairs_of(schema: Schema, histories: List[str] | None = None, targets: List[str] | None = None) -> dict[str, str]:
    """`{history: target}`: the names given; or all sequences that share their vocabulary with a feature of one token a row.

    Args:
        schema: a `Schema`.
        histories: names of sequences; None for all that have such a target.
        targets: for each history the name of a feature of one value a row; None for the first of the same vocabulary.

    Raises:
        ConfigError: a name that is none of those, a history without a target, or as good as no history at all.

    >>> from tfctr import Categorical
    >>> pairs_of(Schema([Categorical("item"), Sequence("history", 5, vocabulary_of="item")], label="click"))
    {'history': 'item'}
    """
    require_schema(schema)
    sequences = [feature.name for feature in schema.features if isinstance(feature, Sequence)]
    others = [feature.name for feature in schema.features if not isinstance(feature, Sequence)]
    owners = {feature.name: feature.owner for feature in schema.features}
    found = {name: next((other for other in others if owners[other] == owners[name]), None) for name in sequences}
    if histories is None:
        require(targets is None, "`targets` are given, and no `histories`.", fix="give one history for each target")
        pairs = {name: target for name, target in found.items() if target is not None}
        require(len(pairs) > 0, "no sequence of the schema shares its vocabulary with a feature of one token a row.", fix=_FIX)
        return pairs
    for argument, names, known in (("histories", histories, sequences), ("targets", targets or [], others)):
        require(isinstance(names, list | tuple), f"`{argument}` is {names!r}.", fix="give a list of names")
        for name in names:
            require_one_of(known, name, f"feature in `{argument}`")
    are_some = 0 < len(histories) == len(set(histories)) and len(histories) == len(histories if targets is None else targets)
    problem = f"`histories` is {list(histories)}, and `targets` {targets}."
    require(are_some, problem, fix="name each history once, and for each its target")
    if targets is not None:
        return dict(zip(histories, targets, strict=True))
    for name in histories:
        if found[name] is None:
            raise ConfigError(f"no feature of one token a row has the vocabulary of the history {name!r}.", fix=_FIX)
    return {name: str(found[name]) for name in histories}


def embed_with_histories(
    schema: Schema, embedding_dim: int, ids: Tensor, histories: List[str] | None, targets: List[str] | None
) -> tuple[FeatureEmbedding, Tensor, list[list[Tensor]]]:
    """The embedding; the fields of all features that are no histories, `(batch, fields, dim)`; and each history, whole, with
    its target: `[(batch, length, dim), (batch, dim)]`.
    """
    target_of = pairs_of(schema, histories, targets)
    embedding = FeatureEmbedding(schema, embedding_dim, unpooled=target_of)
    fields, *whole = embedding(ids)
    places = [field.feature.name for field in embedding.pooled]
    pairs = [[one, fields[:, places.index(target)]] for one, target in zip(whole, target_of.values(), strict=True)]
    return embedding, fields, pairs
