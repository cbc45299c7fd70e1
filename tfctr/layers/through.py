"""Through connections: a shallow network's output added to that of a deep one beside it."""

from collections.abc import Sequence
from typing import Any

import keras

from tfctr.errors import ConfigError
from tfctr.layers.mlp import MLP
from tfctr.layers.nested import LayerOfInputs
from tfctr.layers.views import UNITS, VIEW, ViewLayer, require_floats, require_representations
from tfctr.types import Shape, Tensor


@keras.saving.register_keras_serializable("tfctr")
class ThroughConnection(LayerOfInputs):
    """What a network adds to another one's representation: `deep + shallow`.

    Shapes:
        `(batch, units), (batch, units) -> (batch, units)`

    Raises:
        ConfigError: the widths differ.

    >>> ThroughConnection()(keras.ops.ones((1, 2)), keras.ops.ones((1, 2))).numpy().tolist()
    [[2.0, 2.0]]

    Reference: [CETN](https://arxiv.org/abs/2312.09715), eq. 15, 26.
    """

    def __call__(self, deep: Tensor, shallow: Tensor, **kwargs: Any) -> Tensor:
        require_floats(self, deep, shallow)
        self.compute_output_shape(tuple(deep.shape), tuple(shallow.shape))
        return super().__call__(deep, shallow, **kwargs)

    def build(self, deep_shape: Shape, shallow_shape: Shape) -> None:
        self.compute_output_shape(deep_shape, shallow_shape)

    def compute_output_shape(self, deep_shape: Shape, shallow_shape: Shape) -> Shape:
        (batch, deep), (_, shallow) = require_representations(self, [deep_shape, shallow_shape], count=2)
        if deep != shallow:
            raise ConfigError(f"a through connection joins {deep} units with {shallow}.", fix="use equal widths")
        return batch, deep

    def call(self, deep: Tensor, shallow: Tensor) -> Tensor:
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
        hidden_units: Sequence[int],
        shallow_hidden_units: Sequence[int] = (400, 400, 400),
        activation: str = "relu",
        dropout: float = 0.0,
        batch_norm: bool = False,
        residual: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.hidden_units = hidden_units
        self.shallow_hidden_units = shallow_hidden_units
        self.residual = residual
        self.activation = activation
        self.dropout = dropout
        self.batch_norm = batch_norm
        self.shallow = MLP(shallow_hidden_units, activation, dropout, batch_norm, dtype=self.dtype_policy)
        self.deep = MLP(hidden_units, activation, dropout, batch_norm, dtype=self.dtype_policy)
        self.connection = ThroughConnection(dtype=self.dtype_policy)

    def build(self, input_shape: Shape) -> None:
        batch, *_ = self.view_shape(input_shape)
        shallow = (batch, self.shallow_hidden_units[-1])
        deep = (batch, self.hidden_units[-1])
        self.shallow.build(input_shape)
        self.deep.build(shallow if self.residual else input_shape)
        self.connection.build(deep, shallow)

    def call(self, view: Tensor) -> Tensor:
        shallow = self.shallow(view)
        return self.connection(self.deep(shallow if self.residual else view), shallow)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, *_ = self.view_shape(input_shape)
        return batch, self.hidden_units[-1]
