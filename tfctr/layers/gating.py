"""Views of the fields by learned gates: FinalMLP's feature selection, FinalNet's field gate."""

import keras
from keras import ops

from tfctr.errors import choose
from tfctr.layers.mlp import MLP, linear
from tfctr.layers.selection import Selection


@keras.saving.register_keras_serializable("tfctr")
class FeatureGating(Selection):
    """Each encoder reads the fields through its own gate in (0, 2) (FinalMLP's stream-specific feature selection).

    `view = 2 sigmoid(W MLP(context) + b) * fields`, one number a component of a field. The context is the embeddings of the
    features named, or a learned vector, which makes one gate for all samples.

    Args:
        schema: a fitted `Schema`.
        embedding_dim: width of the table.
        simple_context, complex_context: names of features of the schema, for the two gates; none for a learned vector.
        hidden_units: of each gate's `MLP`.

    Raises:
        ConfigError: a name that is not a feature of the schema.

    >>> from tfctr import Categorical, Schema
    >>> schema = Schema(features=[Categorical("user", size=5), Categorical("item", size=7)], label="click")
    >>> easy, hard = FeatureGating(schema, 4, complex_context=["user"])(ops.convert_to_tensor([[3, 5 + 6]]))
    >>> tuple(easy.shape), tuple(hard.shape)
    ((1, 2, 4), (1, 2, 4))

    Reference: [Mao et al., 2023](https://arxiv.org/abs/2304.00902), figure 1a.
    """

    def __init__(self, schema, embedding_dim, simple_context=(), complex_context=(), hidden_units=(64,), **kwargs):
        super().__init__(schema, embedding_dim, **kwargs)
        self.simple_context, self.complex_context = tuple(simple_context), tuple(complex_context)
        self.hidden_units = tuple(hidden_units)
        index = {field.feature.name: position for position, field in enumerate(self.schema.fields)}
        contexts = (self.simple_context, self.complex_context)
        self.positions = [[choose(index, name, "feature") for name in context] for context in contexts]

    def build(self, input_shape):
        super().build(input_shape)
        fields, dim, policy = len(self.schema.fields), self.embedding_dim, self.dtype_policy
        start = keras.initializers.RandomNormal(stddev=1e-4)
        self.learned_contexts = [
            None if positions else self.add_weight(name="context", shape=(1, 1, dim), initializer=start)
            for positions in self.positions
        ]
        self.gates = []
        for positions in self.positions:
            gate = keras.Sequential([MLP(self.hidden_units, dtype=policy), linear(fields * dim, dtype=policy)])
            gate.build((None, max(1, len(positions)), dim))
            self.gates.append(gate)

    def call(self, ids):
        fields = self.embeddings[0](ids)  # (batch, fields, dim)
        views = []
        for gate, positions, learned in zip(self.gates, self.positions, self.learned_contexts, strict=True):
            context = ops.take(fields, positions, axis=1) if positions else learned  # (batch or 1, names, dim)
            weights = 2.0 * ops.sigmoid(gate(context))  # (batch or 1, fields * dim)
            views.append(fields * ops.reshape(weights, (-1, *fields.shape[1:])))
        return tuple(views)

    def get_config(self):
        contexts = {"simple_context": self.simple_context, "complex_context": self.complex_context}
        return {**super().get_config(), **contexts, "hidden_units": self.hidden_units}


@keras.saving.register_keras_serializable("tfctr")
class FieldGate(keras.layers.Layer):
    """The fields, and behind them the fields times gates that are linear in all fields (FinalNet).

    `[e_i, e_i * (sum_j W_ij e_j + b_i)]`, component by component; it starts with `W = 0` and `b = 1`.

    Shapes:
        `(batch, fields, dim) -> (batch, 2 * fields, dim)`

    >>> FieldGate()(ops.convert_to_tensor([[[3.0], [5.0]]])).numpy().tolist()
    [[[3.0], [5.0], [3.0], [5.0]]]

    Reference: [Zhu et al., 2023](https://doi.org/10.1145/3539618.3591988); the form is the released code's.
    """

    def build(self, input_shape):
        _, fields, _ = input_shape
        self.gate = keras.layers.Dense(fields, kernel_initializer="zeros", bias_initializer="ones", dtype=self.dtype_policy)
        self.gate.build((None, None, fields))

    def call(self, fields):
        gates = ops.transpose(self.gate(ops.transpose(fields, (0, 2, 1))), (0, 2, 1))  # (batch, fields, dim)
        return ops.concatenate([fields, fields * gates], axis=1)
