"""Through connections: a shallow network's output added to that of a deep one beside it."""

import keras

from tfctr.errors import ConfigError
from tfctr.layers.mlp import MLP
from tfctr.layers.views import UNITS, VIEW, ViewLayer, require_floats, require_representations, shapes_of


@keras.saving.register_keras_serializable("tfctr")
class ThroughConnection(keras.layers.Layer):
    """What a network adds to another one's representation: `deep + shallow`.

    Shapes:
        `(batch, units), (batch, units) -> (batch, units)`

    Raises:
        ConfigError: the widths differ.

    >>> ThroughConnection()(keras.ops.ones((1, 2)), keras.ops.ones((1, 2))).numpy().tolist()
    [[2.0, 2.0]]

    Reference: [CETN](https://arxiv.org/abs/2312.09715), eq. 15, 26.
    """

    def __call__(self, deep, shallow, **kwargs):
        require_floats(self, deep, shallow)
        self.compute_output_shape(*shapes_of([deep, shallow]))
        return super().__call__(deep, shallow, **kwargs)

    def build(self, deep_shape, shallow_shape):
        self.compute_output_shape(deep_shape, shallow_shape)

    def compute_output_shape(self, deep_shape, shallow_shape):
        (batch, deep), (_, shallow) = require_representations(self, [deep_shape, shallow_shape], count=2)
        if deep != shallow:
            raise ConfigError(f"a through connection joins {deep} units with {shallow}.", fix="use equal widths")
        return batch, deep

    def call(self, deep, shallow):
        return deep + shallow


@keras.saving.register_keras_serializable("tfctr")
class ThroughNetwork(ViewLayer):
    """A deep MLP beside a shallow one, or behind it: `deep(x) + shallow(x)`, or `deep(shallow(x)) + shallow(x)`.

    Args:
        hidden_units: of the deep MLP.
        shallow_hidden_units: of the shallow MLP; its last width is the deep one's.
        activation, dropout, batch_norm: of both, as in `MLP`.
        residual: whether the deep MLP reads the shallow one's output, as in a residual network, instead of the view.

    Shapes:
        `(batch, fields, dim)` or `(batch, units) -> (batch, hidden_units[-1])`

    Raises:
        ConfigError: an argument out of range, an unknown activation, or last widths that differ.

    >>> tuple(ThroughNetwork([4] * 32, shallow_hidden_units=[8, 4])(keras.ops.ones((2, 3, 5))).shape)
    (2, 4)

    Reference: [CETN](https://arxiv.org/abs/2312.09715), eq. 26, 27, section 4.7.
    """

    takes = (VIEW, UNITS)

    def __init__(
        self,
        hidden_units,
        shallow_hidden_units=(400, 400, 400),
        activation="relu",
        dropout=0.0,
        batch_norm=False,
        residual=False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.hidden_units, self.shallow_hidden_units, self.residual = hidden_units, shallow_hidden_units, residual
        self.activation, self.dropout, self.batch_norm = activation, dropout, batch_norm
        self.shallow = MLP(shallow_hidden_units, activation, dropout, batch_norm, dtype=self.dtype_policy)
        self.deep = MLP(hidden_units, activation, dropout, batch_norm, dtype=self.dtype_policy)
        self.connection = ThroughConnection(dtype=self.dtype_policy)

    def build(self, input_shape):
        batch, *_ = self.view_shape(input_shape)
        shallow, deep = (batch, self.shallow_hidden_units[-1]), (batch, self.hidden_units[-1])
        self.shallow.build(input_shape)
        self.deep.build(shallow if self.residual else input_shape)
        self.connection.build(deep, shallow)

    def call(self, view):
        shallow = self.shallow(view)
        return self.connection(self.deep(shallow if self.residual else view), shallow)

    def compute_output_shape(self, input_shape):
        batch, *_ = self.view_shape(input_shape)
        return batch, self.hidden_units[-1]
