"""Histories that are read beside their targets: which, beside which, and a selection that does so in its hard view."""

from collections.abc import Iterable, Mapping
from collections.abc import Sequence as List
from typing import Any

import keras
from keras import ops

from tfctr.errors import ConfigError, require, require_one_of
from tfctr.features import Sequence
from tfctr.layers.embedding import FeatureEmbedding
from tfctr.layers.history import TargetAttention
from tfctr.layers.selection import SeparateEmbedding
from tfctr.schema import Schema
from tfctr.types import Shape, Tensor

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


def beside_targets(
    embedding: FeatureEmbedding, target_of: Mapping[str, str], outputs: Iterable[Tensor]
) -> tuple[Tensor, list[list[Tensor]]]:
    """What `FeatureEmbedding(unpooled=target_of)` gives, as the fields of all other features, `(batch, fields, dim)`, and each
    history with its target: `[(batch, length, dim), (batch, dim)]`.
    """
    fields, *whole = outputs
    places = [field.feature.name for field in embedding.pooled]
    return fields, [[one, fields[:, places.index(target)]] for one, target in zip(whole, target_of.values(), strict=True)]


@keras.saving.register_keras_serializable("tfctr")
class AttendedEmbedding(SeparateEmbedding):
    """Each encoder reads its own table; the complex one what each history says of its target, and not the history's mean.

    `hard = [fields of all other features, TargetAttention(history, target), ...]`: whether a row is easy to tell may well
    depend on whether its history must be looked into. The easy view is that of `SeparateEmbedding`.

    Args:
        schema: a fitted `Schema`.
        embedding_dim: width of the complex encoder's table.
        simple_dim: width of the simple encoder's table; None is half of `embedding_dim`, rounded down.
        histories: names of sequences; None for all that share a vocabulary with a feature of one token a row.
        targets: for each history the feature that it is read beside; None for the first of its vocabulary.
        attention_units, attention_activation, softmax: of the `TargetAttention`.

    Raises:
        ConfigError: a width below 1, no history with a target, or a name that is none.

    >>> from tfctr import Categorical, Schema, Sequence
    >>> history = Sequence("history", max_length=3, vocabulary_of="item", size=7)
    >>> schema = Schema(features=[Categorical("user", size=5), Categorical("item", size=7), history], label="click")
    >>> easy, hard = AttendedEmbedding(schema, embedding_dim=4)(ops.convert_to_tensor([[3, 5 + 6, 5 + 6, 5 + 3, 5]]))
    >>> tuple(easy.shape), tuple(hard.shape)
    ((1, 3, 2), (1, 3, 4))

    Reference: the attention is that of [DIN](https://arxiv.org/abs/1706.06978), section 4.3; it is in neither paper's TF4CTR.
    """

    def __init__(
        self,
        schema: Schema | Mapping[str, Any],
        embedding_dim: int,
        simple_dim: int | None = None,
        histories: List[str] | None = None,
        targets: List[str] | None = None,
        attention_units: List[int] = (80, 40),
        attention_activation: str = "dice",
        softmax: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(schema, embedding_dim, simple_dim, **kwargs)
        self.target_of = pairs_of(self.schema, histories, targets)
        hard = FeatureEmbedding(self.schema, embedding_dim, unpooled=self.target_of, dtype=self.dtype_policy)
        self.embeddings = [self.embeddings[0], hard]
        arguments = tuple(attention_units), attention_activation, softmax
        self.attentions = [TargetAttention(*arguments, dtype=self.dtype_policy) for _ in self.target_of]
        self.attention_units, self.attention_activation, self.softmax = arguments

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        _, *wholes = self.embeddings[1].compute_output_shape(input_shape)
        for attention, (batch, length, dim) in zip(self.attentions, wholes, strict=True):
            attention.build([(batch, length, dim), (batch, dim)])

    def call(self, ids: Tensor, training: bool | None = None) -> tuple[Tensor, Tensor]:
        easy, hard = self.embeddings
        _, *present = hard.compute_mask(ids)
        fields, pairs = beside_targets(hard, self.target_of, hard(ids))
        read = zip(self.attentions, pairs, present, strict=True)
        attended = [attention(pair, training=training, mask=[mask, None])[:, None] for attention, pair, mask in read]
        return easy(ids), ops.concatenate([fields, *attended], axis=1)  # (batch, fields, simple_dim), (batch, fields, dim)

    def compute_output_shape(self, input_shape: Shape) -> tuple[Shape, ...]:
        batch, _ = self.ids_shape(input_shape)
        return tuple((batch, len(self.schema.fields), dim) for dim in (self.simple_dim, self.embedding_dim))

    def get_config(self) -> dict[str, Any]:
        pairs = {"histories": list(self.target_of), "targets": list(self.target_of.values())}
        names = "attention_units", "attention_activation", "softmax"
        return {**super().get_config(), **pairs, **{name: getattr(self, name) for name in names}}
