"""Cross networks: every step multiplies what there is by the first input once more."""

import math
from typing import Any

import keras
from keras import ops

from tfctr.errors import require_count, require_one_of
from tfctr.layers.mlp import linear
from tfctr.layers.views import UNITS, VIEW, UnitsShape, ViewLayer
from tfctr.types import Shape, Tensor

NONLINEARITIES = {"hard_tanh": ops.hard_tanh, "linear": lambda x: x, "relu": ops.relu, "tanh": ops.tanh}


class CrossSteps(ViewLayer):
    """The base of all cross networks: `x[0]` is the flattened view, `x[l+1] = cross(l, x[0], x[l]) + x[l]`.

    `num_layers` steps reach crosses of degree `num_layers + 1`.

    Shapes:
        `(batch, fields, dim) -> (batch, fields * dim)`, or `(batch, units) -> (batch, units)`

    Raises:
        ConfigError: `num_layers` is below 1.
    """

    takes = (VIEW, UNITS)

    def __init__(self, num_layers: int = 3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        require_count("num_layers", num_layers)
        self.num_layers = num_layers

    def build(self, input_shape: Shape) -> None:
        _, self.units = self.compute_output_shape(input_shape)
        self.flatten = keras.layers.Flatten(dtype=self.dtype_policy)

    def call(self, fields: Tensor) -> Tensor:
        x0 = x = self.flatten(fields)  # (batch, fields * dim)
        for step in range(self.num_layers):
            x = self.cross(step, x0, x) + x
        return x

    def compute_output_shape(self, input_shape: Shape) -> UnitsShape:
        batch, *sizes = self.view_shape(input_shape)
        return batch, math.prod(sizes)

    def cross(self, step: int, x0: Tensor, x: Tensor) -> Tensor:
        """The new crosses of one step, `(batch, fields * dim)`."""
        raise NotImplementedError

    def linears(self, units: int, inputs: int, **options: Any) -> list[keras.layers.Dense]:
        """A built linear layer for each step."""
        layers = [linear(units, dtype=self.dtype_policy, **options) for _ in range(self.num_layers)]
        for layer in layers:
            layer.build((None, inputs))
        return layers


@keras.saving.register_keras_serializable("tfctr")
class VectorCrossNetwork(CrossSteps):
    """Crosses weighted by one vector a step (DCN).

    `x[l+1] = x[0] * <w[l], x[l]> + b[l] + x[l]`

    Args:
        num_layers: how many crossing steps; at least 1.

    Shapes:
        `(batch, fields, dim) -> (batch, fields * dim)`, or `(batch, units) -> (batch, units)`

    Raises:
        ConfigError: `num_layers` is below 1.

    >>> tuple(VectorCrossNetwork(num_layers=2)(ops.ones((8, 3, 4))).shape)
    (8, 12)

    Reference: [Wang et al., 2017](https://arxiv.org/abs/1708.05123), eq. 3.
    """

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        self.products = self.linears(1, self.units, use_bias=False)
        self.biases = [
            self.add_weight(name=f"bias_{step}", shape=(self.units,), initializer="zeros") for step in range(self.num_layers)
        ]

    def cross(self, step: int, x0: Tensor, x: Tensor) -> Tensor:
        return x0 * self.products[step](x) + self.biases[step]


@keras.saving.register_keras_serializable("tfctr")
class CrossNetwork(CrossSteps):
    """Crosses weighted by one matrix a step (DCNv2, full rank).

    `x[l+1] = x[0] * (W[l] x[l] + b[l]) + x[l]`

    Args:
        num_layers: how many crossing steps; at least 1.

    Shapes:
        `(batch, fields, dim) -> (batch, fields * dim)`, or `(batch, units) -> (batch, units)`

    Raises:
        ConfigError: `num_layers` is below 1.

    >>> tuple(CrossNetwork(num_layers=2)(ops.ones((8, 3, 4))).shape)
    (8, 12)

    Reference: [Wang et al., 2021](https://arxiv.org/abs/2008.13535), eq. 1.
    """

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        self.crosses = self.linears(self.units, self.units)

    def cross(self, step: int, x0: Tensor, x: Tensor) -> Tensor:
        return x0 * self.crosses[step](x)


@keras.saving.register_keras_serializable("tfctr")
class GatedCrossNetwork(CrossSteps):
    """Crosses that a gate lets through, component by component (GDCN).

    `x[l+1] = x[0] * (W[l] x[l] + b[l]) * sigmoid(G[l] x[l]) + x[l]`

    Args:
        num_layers: how many crossing steps; at least 1.

    Shapes:
        `(batch, fields, dim) -> (batch, fields * dim)`, or `(batch, units) -> (batch, units)`

    Raises:
        ConfigError: `num_layers` is below 1.

    >>> tuple(GatedCrossNetwork(num_layers=2)(ops.ones((8, 3, 4))).shape)
    (8, 12)

    Reference: [Wang et al., 2023](https://arxiv.org/abs/2311.04635), eq. 1.
    """

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        self.crosses = self.linears(self.units, self.units)
        self.gates = self.linears(self.units, self.units, use_bias=False)

    def cross(self, step: int, x0: Tensor, x: Tensor) -> Tensor:
        return x0 * self.crosses[step](x) * ops.sigmoid(self.gates[step](x))


@keras.saving.register_keras_serializable("tfctr")
class LowRankCrossNetwork(CrossSteps):
    """Crosses weighted by a mixture of low-rank matrices (DCN-Mix, the cheaper DCNv2).

    `x[l+1] = x[0] * (sum_i p_i U_i g(C_i g(V_i x[l])) + b[l]) + x[l]`, with `p = softmax(G x[l])`. The weights of the experts
    sum to 1, so that the bias stands outside the sum, and the experts are mixed where they are `rank` wide.

    Args:
        num_layers: how many crossing steps; at least 1.
        rank: width of each expert; at least 1.
        num_experts: at least 1; one expert has no gate.
        activation: `g`, a name in `NONLINEARITIES`; `"linear"` with one expert is plain low rank.

    Shapes:
        `(batch, fields, dim) -> (batch, fields * dim)`, or `(batch, units) -> (batch, units)`

    Raises:
        ConfigError: a number below 1, or an unknown activation.

    >>> tuple(LowRankCrossNetwork(num_layers=2, rank=3)(ops.ones((8, 3, 4))).shape)
    (8, 12)

    Reference: [Wang et al., 2021](https://arxiv.org/abs/2008.13535), eq. 2-4.
    """

    def __init__(
        self, num_layers: int = 3, rank: int = 32, num_experts: int = 4, activation: str = "tanh", **kwargs: Any
    ) -> None:
        super().__init__(num_layers, **kwargs)
        require_count("rank", rank)
        require_count("num_experts", num_experts)
        require_one_of(NONLINEARITIES, activation, "activation")
        self.rank = rank
        self.num_experts = num_experts
        self.activation = activation

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        width = self.num_experts * self.rank
        self.downs = self.linears(width, self.units, use_bias=False)  # V of all experts
        self.cores = [
            self.add_weight(
                name=f"core_{step}",
                shape=(self.num_experts, self.rank, self.rank),
                initializer=keras.initializers.RandomNormal(stddev=self.rank**-0.5),  # Glorot's, for each expert
            )
            for step in range(self.num_layers)
        ]
        self.ups = self.linears(self.units, width)  # U of all experts, and b
        self.gates = self.linears(self.num_experts, self.units) if self.num_experts > 1 else []

    def cross(self, step: int, x0: Tensor, x: Tensor) -> Tensor:
        bend = NONLINEARITIES[self.activation]
        experts = ops.reshape(bend(self.downs[step](x)), (-1, self.num_experts, self.rank))
        experts = bend(ops.einsum("bir,irs->bis", experts, self.cores[step]))  # (batch, experts, rank)
        if self.gates:
            experts = experts * ops.softmax(self.gates[step](x))[..., None]
        return x0 * self.ups[step](ops.reshape(experts, (-1, self.num_experts * self.rank)))
