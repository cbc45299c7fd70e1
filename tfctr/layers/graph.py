"""Encoders that take the fields for the nodes of a graph."""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tfctr.errors import ConfigError, require_count, require_one_of
from tfctr.layers.interactions import require_pairs
from tfctr.layers.mlp import linear
from tfctr.layers.nested import DTypeLike
from tfctr.layers.normalization import FieldNormalization
from tfctr.layers.views import UNITS, ViewLayer, ViewShape
from tfctr.types import Shape, Tensor


@keras.saving.register_keras_serializable("tfctr")
class FieldGraph(ViewLayer):
    """A complete graph of the fields, whose nodes pass messages along weighted edges (Fi-GNN).

    - nodes: `h_i = relu(concat over heads of softmax_j(q_i . k_j / sqrt(width)) v_j)`, kept as `h0_i`
    - edges: `A_ij = softmax over j != i of leaky_relu(w . [h0_i, h0_j])`, computed from two scores a node, not from pairs
    - steps: `a_i = W_in[i] (sum_j A_ji W_out[j] h_j) + b`, then `h_i <- GRU(h_i, a_i) + h0_i`

    This is the paper's form, and that of the authors' code until July 2020, which made 3 steps. Their code of today, in
    GraphCTR, has matrices of their own for each step and weighs all edges alike; FuxiCTR has matrices for each step, weighs
    those that a node hears, resets after the GRU's matrix, and starts from the fields.

    Args:
        num_steps: how many times messages are passed; at least 1.
        state_dim: width of a node's state.
        num_heads: of the self-attention that makes the first states; divides `state_dim`. 0 leaves it out: the first states are
            the fields, whose width must be `state_dim`.
        shared_steps: whether all steps have the same matrices and bias, or each its own.
        edges: `"sent"`, where a node weighs those that it sends to, `A_ij` as above; `"heard"`, where it weighs those that it
            hears, `sum_j A_ij W_out[j] h_j`; or `"equal"`, where each edge weighs 1.
        reset_after: whether the GRU's reset gate multiplies the state behind its matrix, as PyTorch's does, or before.

    Shapes:
        `(batch, fields, dim) -> (batch, fields * state_dim)`

    Raises:
        ConfigError: an argument below 1, heads that do not divide the state, unknown edges, a width of the fields that no
            attention makes `state_dim`, or one field alone.

    >>> tuple(FieldGraph(num_steps=2, state_dim=6)(ops.ones((8, 3, 4))).shape)
    (8, 18)

    Reference: [Li et al., 2019](https://arxiv.org/abs/1910.05552), sections 3.4 to 3.6.
    """

    def __init__(
        self,
        num_steps: int = 3,
        state_dim: int = 16,
        num_heads: int = 2,
        shared_steps: bool = True,
        edges: str = "sent",
        reset_after: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if min(num_steps, state_dim) < 1 or num_heads < 0 or (num_heads and state_dim % num_heads):
            raise ConfigError(
                f"`num_steps` is {num_steps}, `state_dim` {state_dim}, `num_heads` {num_heads}.",
                fix="use at least 1 each, and heads that divide the state, or 0 heads",
            )
        require_one_of(EDGES, edges, "edges")
        self.num_steps = num_steps
        self.state_dim = state_dim
        self.num_heads = num_heads
        self.shared_steps = shared_steps
        self.edges = edges
        self.reset_after = reset_after

    def build(self, input_shape: Shape) -> None:
        view_shape = self.view_shape(input_shape)
        require_pairs(view_shape)
        _, fields, dim = view_shape
        policy = self.dtype_policy
        state = self.state_dim
        if not self.num_heads and dim != state:
            raise ConfigError(
                f"`state_dim` is {state}, and the fields are {dim} wide.", fix=f"use `state_dim={dim}`, or attention heads"
            )
        self.projections = [linear(state, use_bias=False, dtype=policy) for _ in range(3 if self.num_heads else 0)]
        for projection in self.projections:
            projection.build(input_shape)
        if self.edges != "equal":
            self.edge_scores = linear(2, use_bias=False, dtype=policy)
            self.edge_scores.build((None, fields, state))
        steps = () if self.shared_steps else (self.num_steps,)
        start = keras.initializers.RandomNormal(stddev=state**-0.5)
        self.outgoing = self.add_weight(name="outgoing", shape=(*steps, fields, state, state), initializer=start)
        self.incoming = self.add_weight(name="incoming", shape=(*steps, fields, state, state), initializer=start)
        self.bias = self.add_weight(name="bias", shape=(*steps, state), initializer="zeros")
        options = {"reset_after": self.reset_after, "recurrent_initializer": _orthogonal, "dtype": policy}
        self.update = keras.layers.GRUCell(state, **options)
        self.update.build((None, state))

    def call(self, fields: Tensor) -> Tensor:
        states = first = self.attend(fields) if self.num_heads else fields  # (batch, fields, state)
        edges = EDGES[self.edges](self, first)  # (batch or 1, fields, fields): what each row's node hears of each other
        for step in range(self.num_steps):
            weights = self.outgoing, self.incoming, self.bias
            outgoing, incoming, bias = weights if self.shared_steps else (weight[step] for weight in weights)
            messages = ops.matmul(edges, by_field(states, outgoing))
            messages = by_field(messages, incoming) + bias
            flat = [ops.reshape(x, (-1, self.state_dim)) for x in (messages, states)]  # (batch * fields, state) each
            states = ops.reshape(self.update(*flat)[0], ops.shape(first)) + first
        return ops.reshape(states, (-1, first.shape[1] * self.state_dim))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, fields, _ = self.view_shape(input_shape)
        return batch, fields * self.state_dim

    def attend(self, fields: Tensor) -> Tensor:
        """The first states, by multi-head self-attention: `(batch, fields, state_dim)`."""
        heads = (-1, fields.shape[1], self.num_heads, self.state_dim // self.num_heads)
        queries, keys, values = (ops.reshape(projection(fields), heads) for projection in self.projections)
        scores = ops.einsum("bihc,bjhc->bhij", queries, keys) / math.sqrt(heads[-1])
        mixed = ops.einsum("bhij,bjhc->bihc", ops.softmax(scores), values)
        return ops.relu(ops.reshape(mixed, (-1, fields.shape[1], self.state_dim)))

    def weigh(self, states: Tensor) -> Tensor:
        """The weight of the edge from each node to each other: `(batch, fields, fields)`, 0 on the diagonal."""
        scores = self.edge_scores(states)  # (batch, fields, 2): w . [h_i, h_j] is a sum of two parts
        scores = ops.leaky_relu(scores[:, :, :1] + ops.transpose(scores[:, :, 1:], (0, 2, 1)), negative_slope=0.01)
        return masked_softmax(scores, ops.logical_not(ops.eye(states.shape[1], dtype="bool")))


def _all_others(graph: "FieldGraph", states: Tensor) -> Tensor:
    return (1.0 - ops.eye(states.shape[1], dtype=states.dtype))[None]


EDGES = {
    "sent": lambda graph, states: ops.transpose(graph.weigh(states), (0, 2, 1)),
    "heard": lambda graph, states: graph.weigh(states),
    "equal": _all_others,
}


@keras.saving.register_keras_serializable("tfctr")
class AttentiveScore(ViewLayer):
    """A logit from the states of a graph: each node's own score, weighed by all nodes together.

    `sum_i sigmoid(V h)_i * (u . h_i) [+ b]`, `h` the concatenation of all `h_i`. Computed in float32 under every policy: a
    logit.

    Args:
        num_fields: how many nodes lie side by side in the input.
        use_bias: whether to add `b`, which the paper and the authors' code do not have.

    Shapes:
        `(batch, num_fields * state) -> (batch, 1)`

    >>> import numpy as np
    >>> layer = AttentiveScore(num_fields=2)
    >>> layer.build((None, 2))
    >>> layer.set_weights([np.array([[3.0]]), np.zeros((2, 2))])  # u, V
    >>> layer(ops.convert_to_tensor([[1.0, 5.0]])).numpy().tolist()  # 0.5 * 3 * 1 + 0.5 * 3 * 5
    [[9.0]]

    Reference: [Li et al., 2019](https://arxiv.org/abs/1910.05552), section 3.7.
    """

    takes = (UNITS,)

    def __init__(self, num_fields: int, use_bias: bool = False, dtype: DTypeLike = "float32", **kwargs: Any) -> None:
        super().__init__(dtype=dtype, **kwargs)
        require_count("num_fields", num_fields)
        self.num_fields = num_fields
        self.use_bias = use_bias

    def build(self, input_shape: Shape) -> None:
        _, units = self.view_shape(input_shape)
        if units % self.num_fields:
            raise ConfigError(f"{units} units are no {self.num_fields} nodes of one width.", fix="give the nodes side by side")
        self.score = linear(1, use_bias=False, dtype=self.dtype_policy)
        self.weight = linear(self.num_fields, use_bias=False, activation="sigmoid", dtype=self.dtype_policy)
        self.score.build((None, self.num_fields, units // self.num_fields))
        self.weight.build((None, units))
        self.bias = self.add_weight(name="bias", shape=(1,), initializer="zeros") if self.use_bias else None

    def call(self, states: Tensor) -> Tensor:
        nodes = ops.reshape(states, (-1, self.num_fields, states.shape[1] // self.num_fields))
        logit = ops.sum(self.weight(states) * self.score(nodes)[:, :, 0], axis=-1, keepdims=True)
        return logit if self.bias is None else logit + self.bias

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, _ = self.view_shape(input_shape)
        return batch, 1


@keras.saving.register_keras_serializable("tfctr")
class FactorizationGraph(ViewLayer):
    """Factorization machines stacked on a graph that keeps each field's best neighbours (GraphFM).

    A layer takes the fields `e` to the next ones, one degree higher:

    - select: `p_ij = sigmoid(w_2 . relu(W_1 (e_i * e_j) + b_1) + b_2)`; in each row the largest are kept, ties
      and itself too
    - attend: `a_ij = softmax over the kept j of leaky_relu(a . (e_i * e_j))`, one `a` a head
    - aggregate: `e_i <- norm(relu(W sum_j a_ij p_ij (e_i * e_j) + U e_i))`, one `W` a head, the heads side by side; the sum is
      `e_i * sum_j a_ij p_ij e_j`, so that no products of pairs are held

    The representation is the mean over the fields of all layers' outputs side by side.

    The paper has neither `U` nor the normalization; without them products of small embeddings vanish layer by layer. They are
    from the authors' code, which is another function, `form="released"`:

    - attend: `a_ij = softmax over all j of p_ij relu(a . (e_i * e_j) + c)`, with `p_ij = 0` for the dropped ones, which keep a
      weight
    - aggregate: `e_i <- norm_i(relu(W_i sum_j a_ij (e_i * e_j) + relu(U_i e_i + u_i)))`, with matrices, bias and norm of its
      own for each field

    Args:
        hidden_units: width of each layer's fields; each a multiple of `num_heads`.
        kept: share of the fields that each layer keeps as neighbours, rounded up.
        num_heads: attention heads of each layer.
        selection_units: width of the hidden layer that scores an edge.
        form: `"paper"` or `"released"`.

    Shapes:
        `(batch, fields, dim) -> (batch, sum(hidden_units))`

    Raises:
        ConfigError: not one share in (0, 1] a layer, heads that do not divide a width, an unknown form, or one field alone.

    >>> tuple(FactorizationGraph(hidden_units=(8, 6), kept=(1.0, 0.5))(ops.ones((5, 3, 4))).shape)
    (5, 14)

    Reference: [Li et al., 2021](https://arxiv.org/abs/2105.11866), interaction selection and aggregation.
    """

    def __init__(
        self,
        hidden_units: Sequence[int] = (64, 64, 64),
        kept: Sequence[float] = (1.0, 0.5, 0.125),
        num_heads: int = 2,
        selection_units: int = 16,
        form: str = "paper",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        require_one_of(FORMS, form, "form")
        if not hidden_units or len(kept) != len(hidden_units) or not all(0 < share <= 1 for share in kept):
            raise ConfigError(f"`hidden_units` is {hidden_units}, `kept` {kept}.", fix="give one share in (0, 1] a layer")
        if num_heads < 1 or selection_units < 1 or any(units < 1 or units % num_heads for units in hidden_units):
            raise ConfigError(f"{num_heads} heads do not divide {hidden_units}.", fix="use multiples of `num_heads`")
        self.hidden_units = tuple(hidden_units)
        self.kept = tuple(kept)
        self.num_heads = num_heads
        self.selection_units = selection_units
        self.form = form

    def build(self, input_shape: Shape) -> None:
        view_shape = self.view_shape(input_shape)
        require_pairs(view_shape)
        _, fields, dim = view_shape
        self.steps = []
        for units, share in zip(self.hidden_units, self.kept, strict=True):
            step = FORMS[self.form](
                units, math.ceil(share * fields), self.num_heads, self.selection_units, dtype=self.dtype_policy
            )
            step.build((None, fields, dim))
            self.steps.append(step)
            dim = units

    def call(self, fields: Tensor) -> Tensor:
        pooled = []
        for step in self.steps:
            fields = step(fields)  # (batch, fields, units)
            pooled.append(ops.mean(fields, axis=1))
        return ops.concatenate(pooled, axis=-1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, _, _ = self.view_shape(input_shape)
        return batch, sum(self.hidden_units)


@keras.saving.register_keras_serializable("tfctr")
class FactorizationStep(keras.layers.Layer):
    """One layer of `FactorizationGraph`: `(batch, fields, dim) -> (batch, fields, units)`."""

    def __init__(self, units: int, neighbors: int, num_heads: int, selection_units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.neighbors = neighbors
        self.num_heads = num_heads
        self.selection_units = selection_units

    def build(self, input_shape: ViewShape) -> None:
        dim = input_shape[-1]
        selection = self.selection_units
        self.products = self.add_weight(name="products", shape=(selection, dim), initializer="glorot_normal")
        self.products_bias = self.add_weight(name="products_bias", shape=(selection,), initializer="zeros")
        self.score = self.add_weight(name="score", shape=(selection, 1), initializer="glorot_normal")
        self.score_bias = self.add_weight(name="score_bias", shape=(1,), initializer="zeros")
        self.attention = self.add_weight(name="attention", shape=(self.num_heads, dim), initializer="glorot_normal")
        self.build_aggregation(input_shape)

    def build_aggregation(self, input_shape: ViewShape) -> None:
        shape = (self.num_heads, input_shape[-1], self.units // self.num_heads)
        self.kernel = self.add_weight(name="kernel", shape=shape, initializer="glorot_normal")
        self.residual = linear(self.units, dtype=self.dtype_policy)
        self.norm = keras.layers.LayerNormalization(epsilon=1e-8, dtype=self.dtype_policy)
        self.residual.build(input_shape)
        self.norm.build((*input_shape[:2], self.units))

    def call(self, fields: Tensor) -> Tensor:
        edges = self.edges(fields)  # (batch, fields, fields)
        heads = []
        for attention, kernel in zip(ops.unstack(self.attention), ops.unstack(self.kernel), strict=True):
            scores = ops.leaky_relu(products_of_pairs(fields, attention), negative_slope=0.01)
            weights = masked_softmax(scores, edges > 0) * edges  # (batch, fields, fields)
            heads.append(ops.matmul(fields * ops.matmul(weights, fields), kernel))  # (batch, fields, units / heads)
        return self.norm(ops.relu(ops.concatenate(heads, axis=-1) + self.residual(fields)))

    def edges(self, fields: Tensor) -> Tensor:
        """`p_ij` where `j` is a kept neighbour of `i`, else 0: `(batch, fields, fields)`."""
        scores = self.score_bias
        units = zip(ops.unstack(self.products), ops.unstack(self.products_bias), ops.unstack(self.score), strict=True)
        for vector, bias, weight in units:  # one at a time: all together would be pairs times units
            scores = scores + weight * ops.relu(products_of_pairs(fields, vector) + bias)
        scores = ops.sigmoid(scores)
        return ops.where(scores >= ops.top_k(scores, self.neighbors)[0][..., -1:], scores, 0.0)


@keras.saving.register_keras_serializable("tfctr")
class ReleasedFactorizationStep(FactorizationStep):
    """One layer of `FactorizationGraph` as in the authors' code: shapes as above."""

    def build_aggregation(self, input_shape: ViewShape) -> None:
        _, fields, dim = input_shape
        heads = self.num_heads
        units = self.units
        start = keras.initializers.RandomNormal(stddev=math.sqrt(2.0 / (dim + units)))  # Glorot's, of one field's matrix
        self.attention_bias = self.add_weight(name="attention_bias", shape=(heads,), initializer="zeros")
        self.kernel = self.add_weight(name="kernel", shape=(heads, fields, dim, units // heads), initializer=start)
        self.residual = self.add_weight(name="residual", shape=(fields, dim, units), initializer=start)
        self.residual_bias = self.add_weight(name="residual_bias", shape=(fields, units), initializer="zeros")
        self.norm = FieldNormalization(epsilon=1e-8, dtype=self.dtype_policy)
        self.norm.build((*input_shape[:2], units))

    def call(self, fields: Tensor) -> Tensor:
        edges = self.edges(fields)  # (batch, fields, fields)
        heads = []
        weights_of_heads = (self.attention, self.attention_bias, self.kernel)
        for attention, bias, kernel in zip(*map(ops.unstack, weights_of_heads), strict=True):
            scores = edges * ops.relu(products_of_pairs(fields, attention) + bias)
            weights = masked_softmax(scores, True)  # (batch, fields, fields)
            heads.append(by_field(fields * ops.matmul(weights, fields), kernel))  # (batch, fields, units / heads)
        residual = ops.relu(by_field(fields, self.residual) + self.residual_bias)
        return self.norm(ops.relu(ops.concatenate(heads, axis=-1) + residual))


FORMS = {"paper": FactorizationStep, "released": ReleasedFactorizationStep}


def products_of_pairs(fields: Tensor, vector: Tensor) -> Tensor:
    """`vector . (e_i * e_j)` of all pairs: `(batch, fields, dim), (dim,) -> (batch, fields, fields)`."""
    return ops.matmul(fields * vector, ops.transpose(fields, (0, 2, 1)))


def by_field(fields: Tensor, kernel: Tensor) -> Tensor:
    """Each field times its own matrix: `(batch, fields, dim), (fields, dim, units) -> (batch, fields, units)`."""
    return ops.einsum("bfd,fdu->bfu", fields, kernel)


def _orthogonal(shape: Shape, dtype: str | None = None) -> Tensor:
    """Keras' start of a GRU, in float32 first: TensorFlow has no QR decomposition in bfloat16."""
    return ops.cast(keras.initializers.Orthogonal()(shape, dtype="float32"), dtype)


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last axis of what `mask` keeps, 0 elsewhere; in float32."""
    weights = ops.softmax(ops.where(mask, ops.cast(scores, "float32"), -1e9))
    return ops.cast(weights, scores.dtype)
