"""Cross layers and dense layers that meet at every depth (EDCN)."""

from collections.abc import Sequence
from typing import Any, Self

import keras
from keras import ops

from tfctr.errors import require_count, require_one_of, require_positive
from tfctr.layers.dropout import Dropout
from tfctr.layers.hidden import at_once, is_plain_norm, move_statistics
from tfctr.layers.mlp import linear
from tfctr.layers.normalization import batch_normalization
from tfctr.layers.views import UnitsShape, ViewLayer
from tfctr.types import Shape, Tensor


class ConcatenationBridge(keras.layers.Layer):
    """`relu(W [x, h] + b)`: `[(batch, units), (batch, units)] -> (batch, units)`."""

    def build(self, input_shape: Sequence[UnitsShape]) -> None:
        units = input_shape[0][-1]
        self.project = linear(units, activation="relu", dtype=self.dtype_policy)
        self.project.build((None, 2 * units))

    def call(self, inputs: Sequence[Tensor]) -> Tensor:
        return self.project(ops.concatenate(inputs, axis=-1))


class AttentionBridge(keras.layers.Layer):
    """`a_x * x + a_h * h`: shapes as above.

    Over `"units"`, each side weighs its own units: `a_x = softmax(P_x relu(W_x x + b_x))`, and `a_h` alike. Over `"sides"`,
    each side has one weight: `[a_x, a_h] = softmax([p . relu(W_x x + b_x), p . relu(W_h h + b_h)])`.
    """

    def __init__(self, attention: str = "units", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        require_one_of(ATTENTIONS, attention, "attention")
        self.attention = attention

    def build(self, input_shape: Sequence[UnitsShape]) -> None:
        units = input_shape[0][-1]
        policy = self.dtype_policy
        self.hidden = [linear(units, activation="relu", dtype=policy) for _ in input_shape]
        if self.attention == "units":
            self.scores = [linear(units, use_bias=False, dtype=policy) for _ in input_shape]
        else:
            self.score = linear(1, use_bias=False, dtype=policy)
            self.scores = [self.score] * len(input_shape)
        for layer in {id(layer): layer for layer in [*self.hidden, *self.scores]}.values():
            layer.build((None, units))

    def call(self, inputs: Sequence[Tensor]) -> Tensor:
        scores = [score(hidden(x)) for score, hidden, x in zip(self.scores, self.hidden, inputs, strict=True)]
        if self.attention == "units":
            weights = [ops.softmax(score) for score in scores]  # (batch, units) each
        else:
            weights = ops.split(ops.softmax(ops.concatenate(scores, axis=-1)), 2, axis=-1)  # (batch, 1) each
        return weights[0] * inputs[0] + weights[1] * inputs[1]


ATTENTIONS = ("units", "sides")
BRIDGES = {
    "hadamard": keras.layers.Multiply,
    "addition": keras.layers.Add,
    "concatenation": ConcatenationBridge,
    "attention": AttentionBridge,
}


@keras.saving.register_keras_serializable("tfctr")
class Regulation(ViewLayer):
    """Two gates that decide how much of each field the cross and the dense layer read (EDCN).

    `view_k = softmax(g_k / temperature) * fields`, one learned number a field and view, equal at the start.

    Args:
        temperature: above 0; lower is closer to one field alone.
        batch_norm: whether to normalize each view.

    Shapes:
        `(batch, fields, dim) -> (batch, fields * dim), (batch, fields * dim)`

    Raises:
        ConfigError: `temperature` is not above 0.

    >>> cross, deep = Regulation()(ops.ones((1, 2, 1)))
    >>> cross.numpy().tolist(), deep.numpy().tolist()
    ([[0.5, 0.5]], [[0.5, 0.5]])

    Reference: [Chen et al., 2021](https://doi.org/10.1145/3459637.3481915), regulation module.
    """

    def __init__(self, temperature: float = 1.0, batch_norm: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        require_positive("temperature", temperature)
        self.temperature = temperature
        self.batch_norm = batch_norm

    def build(self, input_shape: Shape) -> None:
        _, fields, dim = self.view_shape(input_shape)
        self.gates = self.add_weight(name="gates", shape=(2, fields), initializer="ones")
        self.norms = [batch_normalization(dtype=self.dtype_policy) for _ in range(2 * self.batch_norm)]
        for norm in self.norms:
            norm.build((None, fields * dim))

    def call(self, fields: Tensor, training: bool = False) -> tuple[Tensor, ...]:
        gates = ops.softmax(self.gates / self.temperature)  # (2, fields)
        if training and self._can_share_statistics():
            return self._normalized_views(fields, gates)
        flat = (-1, fields.shape[1] * fields.shape[2])
        views = [ops.reshape(gates[view][:, None] * fields, flat) for view in range(2)]
        if self.batch_norm:
            views = [norm(view, training=training) for norm, view in zip(self.norms, views, strict=True)]
        return tuple(views)

    def _can_share_statistics(self) -> bool:
        plain = all(is_plain_norm(norm) and norm.activity_regularizer is None for norm in self.norms)
        return self.batch_norm and plain and {layer.compute_dtype for layer in (self, *self.norms)} == {"float32"}

    def _normalized_views(self, fields: Tensor, gates: Tensor) -> tuple[Tensor, Tensor]:
        """What the norms give for `gate_k * fields`, whose mean is `gate_k * mean`, and variance `gate_k^2 * variance`."""
        flat = ops.reshape(fields, (-1, fields.shape[1] * fields.shape[2]))
        gates = ops.repeat(gates, fields.shape[2], axis=1)  # (2, fields * dim)
        norms: list[Any] = self.norms
        gains = ops.stack([norm.gamma.value for norm in norms])
        shifts = ops.stack([norm.beta.value for norm in norms])
        epsilons = ops.convert_to_tensor([[norm.epsilon] for norm in norms], "float32")
        cross, deep, mean, variance = at_once(_normalized, flat, gates, gains, shifts, epsilons)
        for norm, gate in zip(self.norms, ops.unstack(gates), strict=True):
            move_statistics(norm, gate * mean, ops.square(gate) * variance)
        return ops.reshape(cross, ops.shape(flat)), ops.reshape(deep, ops.shape(flat))

    def compute_output_shape(self, input_shape: Shape) -> tuple[Shape, Shape]:
        batch, fields, dim = self.view_shape(input_shape)
        return (batch, fields * dim), (batch, fields * dim)


def _crossed(start: Tensor, weighted: Tensor, bias: Tensor, cross: Tensor) -> Tensor:
    return start * weighted + bias + cross


def _normalized(x: Tensor, gates: Tensor, gains: Tensor, shifts: Tensor, epsilons: Tensor) -> tuple[Tensor, ...]:
    """Batch normalization of `x` times each of two gates, `(batch, units)` each; mean and variance of `x` over the batch."""
    mean = ops.mean(x, axis=0)
    centered = x - mean
    variance = ops.mean(ops.square(centered), axis=0)
    scales = gains * gates * ops.rsqrt(ops.square(gates) * variance + epsilons)  # (2, units)
    return centered * scales[0] + shifts[0], centered * scales[1] + shifts[1], mean, variance


@keras.saving.register_keras_serializable("tfctr")
class BridgedCross(ViewLayer):
    """A cross network and an MLP of equal width that share what they learn after each layer (EDCN).

    Layer `l` of `num_layers`, from `f_0` = fields:

    - regulation: `x, h = Regulation(f_l)`; the first `x` is `x_0`
    - cross and dense: `x = x_0 (w . x) + b + x`; `h = dropout(relu(W h + c))`
    - bridge: `f_{l+1} = bridge(x, h)`

    The representation is the last `x`, `h` and `f` side by side. In the authors' MindSpore code a dense layer rectifies its
    input and not its output, and one mean and variance normalize a whole view; here it is as in FuxiCTR.

    Args:
        num_layers: at least 1.
        bridge: `"hadamard"`, `"addition"`, `"concatenation"` or `"attention"`.
        temperature, batch_norm: of each `Regulation`; without normalization the Hadamard bridge does not learn from small
            embeddings, as products of products vanish.
        dropout: share of each dense layer's units dropped in training, in [0, 1).
        attention: of the attention bridge: `"units"`, a softmax over the units of each side, as in DeepCTR, torch-rechub and
            FuxiCTR (which has one network for both sides; the authors released the Hadamard bridge only), or `"sides"`, one
            softmax over the two sides.

    Shapes:
        `(batch, fields, dim) -> (batch, 3 * fields * dim)`

    Raises:
        ConfigError: `num_layers` is below 1, an unknown bridge or attention, a temperature not above 0.

    >>> tuple(BridgedCross(num_layers=2)(ops.ones((8, 3, 4))).shape)
    (8, 36)

    Reference: [Chen et al., 2021](https://doi.org/10.1145/3459637.3481915), bridge and regulation modules.
    """

    def __init__(
        self,
        num_layers: int = 3,
        bridge: str = "hadamard",
        temperature: float = 1.0,
        dropout: float = 0.0,
        batch_norm: bool = True,
        attention: str = "units",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        require_count("num_layers", num_layers)
        require_one_of(BRIDGES, bridge, "bridge")
        require_one_of(ATTENTIONS, attention, "attention")
        self.num_layers = num_layers
        self.bridge = bridge
        self.temperature = temperature
        self.dropout = dropout
        self.batch_norm = batch_norm
        self.attention = attention
        self.regulations = [Regulation(temperature, batch_norm, dtype=self.dtype_policy) for _ in range(num_layers)]

    def build(self, input_shape: Shape) -> None:
        _, fields, dim = self.view_shape(input_shape)
        policy = self.dtype_policy
        units = fields * dim
        layers = range(self.num_layers)
        self.crosses = [linear(1, use_bias=False, dtype=policy) for _ in layers]
        self.biases = [self.add_weight(name=f"bias_{layer}", shape=(units,), initializer="zeros") for layer in layers]
        self.denses = [linear(units, activation="relu", dtype=policy) for _ in layers]
        self.drops = [Dropout(self.dropout, dtype=policy) for _ in layers]
        options = {"attention": self.attention} if self.bridge == "attention" else {}
        self.bridges = [BRIDGES[self.bridge](**options, dtype=policy) for _ in layers]
        for layer in layers:
            self.regulations[layer].build(input_shape)
            self.crosses[layer].build((None, units))
            self.denses[layer].build((None, units))
            self.bridges[layer].build([(None, units), (None, units)])

    def call(self, fields: Tensor, training: bool = False) -> Tensor:
        start = cross = deep = None
        bridged = fields
        for layer in range(self.num_layers):
            cross, deep = self.regulations[layer](ops.reshape(bridged, ops.shape(fields)), training=training)
            start = cross if start is None else start  # (batch, fields * dim)
            weighted = self.crosses[layer](cross)  # (batch, 1)
            cross = at_once(_crossed, start, weighted, self.biases[layer], cross)  # (batch, fields * dim)
            deep = self.drops[layer](self.denses[layer](deep), training=training)
            bridged = self.bridges[layer]([cross, deep])
        return ops.concatenate([cross, deep, bridged], axis=-1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, fields, dim = self.view_shape(input_shape)
        return batch, 3 * fields * dim

    def get_config(self) -> dict[str, Any]:
        arguments = ("num_layers", "bridge", "temperature", "dropout", "batch_norm", "attention")
        return {**super().get_config(), **{name: getattr(self, name) for name in arguments}}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return super().from_config({"attention": "sides", **config})  # what "attention" was before there was a choice
