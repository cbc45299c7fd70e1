"""From ids to one view for each of two encoders (TF4CTR's Sample Selection Embedding Module)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from tfctr.errors import ConfigError
from tfctr.layers.embedding import FeatureEmbedding
from tfctr.layers.mlp import MLP, linear
from tfctr.layers.views import IdsLayer
from tfctr.schema import Schema
from tfctr.types import Shape, Tensor


class Selection(IdsLayer):
    """The base of all selections: `embeddings`, one `FeatureEmbedding` a table, whose L2 the model may add.

    Shapes:
        `(batch, schema.width)` int32 `-> (batch, fields, dim), (batch, fields, dim)`, the easy view and the hard view
    """

    def __init__(self, schema: Schema | Mapping[str, Any], embedding_dim: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.schema = Schema.from_config(schema)
        self.embedding_dim = embedding_dim
        self.embeddings = [self.table(embedding_dim)]

    def table(self, dim: int, features: Sequence[str] | None = None) -> FeatureEmbedding:
        """A `FeatureEmbedding` of this schema, `dim` wide."""
        return FeatureEmbedding(self.schema, dim, features, dtype=self.dtype_policy)

    def build(self, input_shape: Shape) -> None:
        for embedding in self.embeddings:
            embedding.build(input_shape)

    def compute_output_shape(self, input_shape: Shape) -> tuple[Shape, ...]:
        batch, _ = self.ids_shape(input_shape)
        view = batch, len(self.schema.fields), self.embedding_dim
        return view, view

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "schema": self.schema.get_config(), "embedding_dim": self.embedding_dim}


@keras.saving.register_keras_serializable("tfctr")
class SharedEmbedding(Selection):
    """Both encoders read the same fields (Share).

    Args:
        schema: a fitted `Schema`.
        embedding_dim: width of the table.

    >>> from tfctr import Categorical, Schema
    >>> schema = Schema(features=[Categorical("user", size=5), Categorical("item", size=7)], label="click")
    >>> easy, hard = SharedEmbedding(schema, embedding_dim=4)(ops.convert_to_tensor([[3, 5 + 6]]))
    >>> tuple(easy.shape), tuple(hard.shape)
    ((1, 2, 4), (1, 2, 4))
    """

    def call(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        fields = self.embeddings[0](ids)  # (batch, fields, dim)
        return fields, fields


@keras.saving.register_keras_serializable("tfctr")
class SeparateEmbedding(Selection):
    """Each encoder reads its own table; the simple encoder's is narrower (SER).

    Args:
        schema: a fitted `Schema`.
        embedding_dim: width of the complex encoder's table.
        simple_dim: width of the simple encoder's table; None is half of `embedding_dim`, rounded down.

    Raises:
        ConfigError: a width below 1.

    >>> from tfctr import Categorical, Schema
    >>> schema = Schema(features=[Categorical("user", size=5), Categorical("item", size=7)], label="click")
    >>> easy, hard = SeparateEmbedding(schema, embedding_dim=4)(ops.convert_to_tensor([[3, 5 + 6]]))
    >>> tuple(easy.shape), tuple(hard.shape)
    ((1, 2, 2), (1, 2, 4))

    Reference: [TF4CTR](https://arxiv.org/abs/2405.03167), eq. 3.
    """

    def __init__(
        self, schema: Schema | Mapping[str, Any], embedding_dim: int, simple_dim: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(schema, embedding_dim, **kwargs)
        if simple_dim is None and embedding_dim == 1:
            raise ConfigError(f"`embedding_dim` is {embedding_dim}: no half.", fix="use at least 2, or give `simple_dim`")
        self.simple_dim = embedding_dim // 2 if simple_dim is None else simple_dim
        self.embeddings = [self.table(self.simple_dim), *self.embeddings]

    def call(self, ids: Tensor) -> tuple[Tensor, ...]:
        return tuple(embedding(ids) for embedding in self.embeddings)

    def compute_output_shape(self, input_shape: Shape) -> tuple[Shape, ...]:
        self.ids_shape(input_shape)
        return tuple(embedding.compute_output_shape(input_shape) for embedding in self.embeddings)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "simple_dim": self.simple_dim}


class LearnedSelection(Selection):
    """The base of selections with networks over the embedded fields.

    In the authors' code their hidden layers have the encoders' dropout and batch normalization, and ReLU. A model that gets
    a selection by name does the same; a layer has what it is given.
    """

    explains = "gate"

    def __init__(
        self,
        schema: Schema | Mapping[str, Any],
        embedding_dim: int,
        activation: str = "relu",
        dropout: float = 0.0,
        batch_norm: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(schema, embedding_dim, **kwargs)
        self.activation = activation
        self.dropout = dropout
        self.batch_norm = batch_norm
        self.view_shape = (len(self.schema.fields), embedding_dim)
        self.units = math.prod(self.view_shape)

    def mlp(self, *hidden_units: int) -> MLP:
        """An `MLP` over the flattened fields."""
        widths = [max(1, units) for units in hidden_units]
        return MLP(widths, self.activation, self.dropout, self.batch_norm, dtype=self.dtype_policy)

    def gate(self, outputs: int) -> keras.Sequential:
        """One hidden layer of a quarter of the units, then `outputs` float32 logits."""
        return keras.Sequential([self.mlp(self.units // 4), linear(outputs, dtype="float32")])

    def get_config(self) -> dict[str, Any]:
        networks = {"activation": self.activation, "dropout": self.dropout, "batch_norm": self.batch_norm}
        return {**super().get_config(), **networks}


@keras.saving.register_keras_serializable("tfctr")
class GatedEmbedding(LearnedSelection):
    """One gate in (0, 1) a sample: the simple encoder reads `g * fields`, the complex one `(1 - g) * fields` (GM).

    `g = sigmoid(gate(fields))`, where the gate is a network of `D -> D / 4 -> 1` units and `D = fields * dim`. The published
    runs mix several gates; this is the one of the authors' newest code.

    Args:
        schema: a fitted `Schema`.
        embedding_dim: width of the table.
        activation, dropout, batch_norm: of the hidden layer, as in `MLP`.

    Reference: [TF4CTR](https://arxiv.org/abs/2405.03167), eq. 4.
    """

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        self.easiness = self.gate(1)
        self.easiness.build((None, *self.view_shape))

    def call(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        fields = self.embeddings[0](ids)  # (batch, fields, dim)
        gate = ops.cast(self.weigh(fields), fields.dtype)[:, :, None]  # (batch, 1, 1)
        return gate * fields, (1.0 - gate) * fields

    def weigh(self, fields: Tensor) -> Tensor:
        """The gate `g` of each sample, `(batch, 1)`."""
        return ops.sigmoid(self.easiness(fields))


@keras.saving.register_keras_serializable("tfctr")
class ExpertEmbedding(LearnedSelection):
    """Two expert networks over the fields; each encoder reads its own mixture of their outputs (MMoE).

    `view = g_1 * expert_1(fields) + g_2 * expert_2(fields)`, with one softmax gate a view. An expert is a network of
    `D -> D / 2 -> D` units, where `D = fields * dim`, with activation and dropout on the last layer too, as in the authors'
    code; a gate is one of `D -> D / 4 -> 2` units.

    Args:
        schema: a fitted `Schema`.
        embedding_dim: width of the table.
        activation, dropout, batch_norm: of every hidden layer and of the experts' last, as in `MLP`.

    Reference: [TF4CTR](https://arxiv.org/abs/2405.03167), eq. 5.
    """

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        self.experts = [self.mlp(self.units // 2, self.units) for _ in range(2)]
        self.gates = [self.gate(2) for _ in range(2)]
        for network in [*self.experts, *self.gates]:
            network.build((None, *self.view_shape))

    def call(self, ids: Tensor) -> tuple[Tensor, ...]:
        fields = self.embeddings[0](ids)  # (batch, fields, dim)
        first, second = (expert(fields) for expert in self.experts)  # (batch, fields * dim)
        views = []
        for gate in self.gates:
            weights = ops.cast(self._shares(gate, fields), fields.dtype)  # (batch, 2)
            view = weights[:, :1] * first + weights[:, 1:] * second
            views.append(ops.reshape(view, (-1, *self.view_shape)))
        return tuple(views)

    def weigh(self, fields: Tensor) -> Tensor:
        """What each view takes of each expert, `(batch, views, experts)`; each view's shares sum to 1."""
        return ops.stack([self._shares(gate, fields) for gate in self.gates], axis=1)

    def _shares(self, gate: keras.Sequential, fields: Tensor) -> Tensor:
        return ops.softmax(gate(fields), axis=-1)
