"""Views of the fields by learned gates: FinalMLP's feature selection, FinalNet's field gate."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import keras
from keras import ops

from tfctr.errors import choose
from tfctr.layers.mlp import MLP, linear
from tfctr.layers.selection import Selection
from tfctr.layers.views import ViewLayer
from tfctr.schema import Schema
from tfctr.types import Shape, Tensor


@keras.saving.register_keras_serializable("tfctr")
class FeatureGating(Selection):
    """Each encoder reads the fields through its own gate in (0, 2) (FinalMLP's stream-specific feature selection).

    `view = 2 sigmoid(W MLP(context) + b) * fields`, one number a component of a field. The context is the embeddings of the
    features named, or a learned vector, which makes one gate for all samples. The released code starts that vector at zero,
    where the rectified units behind it, without a bias yet, are dead: it never learns. Here it starts with a standard deviation
    of 1e-4.

    Args:
        schema: a fitted `Schema`.
        embedding_dim: width of the table.
        simple_context, complex_context: names of features of the schema, for the two gates; none for a learned vector.
        hidden_units: of each gate's `MLP`.
        separate_contexts: whether the features of a context have a table of their own for their gate, as in the released code,
            or the gate reads the fields themselves.

    Raises:
        ConfigError: a name that is not a feature of the schema.

    >>> from tfctr import Categorical, Schema
    >>> schema = Schema(features=[Categorical("user", size=5), Categorical("item", size=7)], label="click")
    >>> easy, hard = FeatureGating(schema, 4, complex_context=["user"])(ops.convert_to_tensor([[3, 5 + 6]]))
    >>> tuple(easy.shape), tuple(hard.shape)
    ((1, 2, 4), (1, 2, 4))

    Reference: [Mao et al., 2023](https://arxiv.org/abs/2304.00902), figure 1a.
    """

    def __init__(
        self,
        schema: Schema | Mapping[str, Any],
        embedding_dim: int,
        simple_context: Sequence[str] = (),
        complex_context: Sequence[str] = (),
        hidden_units: Sequence[int] = (64,),
        separate_contexts: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(schema, embedding_dim, **kwargs)
        self.simple_context = tuple(simple_context)
        self.complex_context = tuple(complex_context)
        self.hidden_units = tuple(hidden_units)
        index = {field.feature.name: position for position, field in enumerate(self.schema.fields)}
        contexts = (self.simple_context, self.complex_context)
        self.positions = [[choose(index, name, "feature") for name in context] for context in contexts]
        self.separate_contexts = separate_contexts
        self.context_tables = [self.table(embedding_dim, names) if names and separate_contexts else None for names in contexts]
        self.embeddings = [*self.embeddings, *filter(None, self.context_tables)]

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        fields = len(self.schema.fields)
        dim = self.embedding_dim
        policy = self.dtype_policy
        start = keras.initializers.RandomNormal(stddev=1e-4)
        self.learned_contexts = [
            None if positions else self.add_weight(name="context", shape=(1, 1, dim), initializer=start)
            for positions in self.positions
        ]
        self.gates = []
        for positions, table in zip(self.positions, self.context_tables, strict=True):
            names = len(positions) if table is None else len(table.fields)
            gate = keras.Sequential([MLP(self.hidden_units, dtype=policy), linear(fields * dim, dtype=policy)])
            gate.build((None, max(1, names), dim))
            self.gates.append(gate)

    def call(self, ids: Tensor) -> tuple[Tensor, ...]:
        fields = self.embeddings[0](ids)  # (batch, fields, dim)
        views = []
        for number, gate in enumerate(self.gates):
            weights = 2.0 * ops.sigmoid(gate(self._context(number, ids, fields)))  # (batch or 1, fields * dim)
            views.append(fields * ops.reshape(weights, (-1, *fields.shape[1:])))
        return tuple(views)

    def _context(self, number: int, ids: Tensor, fields: Tensor) -> Tensor:
        """What a gate reads: `(batch or 1, names, dim)`."""
        if not self.positions[number]:
            return self.learned_contexts[number]
        table = self.context_tables[number]
        return ops.take(fields, self.positions[number], axis=1) if table is None else table(ids)

    def get_config(self) -> dict[str, Any]:
        contexts = {"simple_context": self.simple_context, "complex_context": self.complex_context}
        others = {"hidden_units": self.hidden_units, "separate_contexts": self.separate_contexts}
        return {**super().get_config(), **contexts, **others}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return super().from_config({"separate_contexts": False, **config})  # as it was before there was a choice


@keras.saving.register_keras_serializable("tfctr")
class FieldGate(ViewLayer):
    """The fields, and behind them the fields times gates that are linear in all fields (FinalNet).

    `[e_i, e_i * (sum_j W_ij e_j + b_i)]`, component by component; it starts with `W = 0` and `b = 1`.

    Shapes:
        `(batch, fields, dim) -> (batch, 2 * fields, dim)`

    >>> FieldGate()(ops.convert_to_tensor([[[3.0], [5.0]]])).numpy().tolist()
    [[[3.0], [5.0], [3.0], [5.0]]]

    Reference: [Zhu et al., 2023](https://doi.org/10.1145/3539618.3591988); the form is the released code's.
    """

    def build(self, input_shape: Shape) -> None:
        _, fields, _ = self.view_shape(input_shape)
        self.gate = keras.layers.Dense(fields, kernel_initializer="zeros", bias_initializer="ones", dtype=self.dtype_policy)
        self.gate.build((None, None, fields))

    def call(self, fields: Tensor) -> Tensor:
        gates = ops.transpose(self.gate(ops.transpose(fields, (0, 2, 1))), (0, 2, 1))  # (batch, fields, dim)
        return ops.concatenate([fields, fields * gates], axis=1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, fields, dim = self.view_shape(input_shape)
        return batch, 2 * fields, dim
