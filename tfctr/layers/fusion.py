"""From the representations of a simple and a complex encoder to the named logits (TF4CTR's Dynamic Fusion Module)."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tfctr.errors import require_positive
from tfctr.layers.mlp import linear
from tfctr.layers.nested import DTypeLike, Nested
from tfctr.layers.views import UnitsShape, require_floats, require_representations, shapes_of
from tfctr.replicas import SeedGenerator
from tfctr.types import Shape, Tensor


class Fusion(Nested):
    """The base of all fusions: one head an encoder, and `fuse`, which each fusion defines.

    A representation one unit wide is a logit already and passes as it is; any other gets a linear head. All of it is float32
    under every policy.

    Shapes:
        `[(batch, simple units), (batch, complex units)] -> {"logit": (batch, 1), "simple": (batch, 1), "complex": (batch, 1)}`

    Raises:
        ConfigError: not two representations of rank 2 with the same rows.
    """

    def __init__(self, dtype: DTypeLike = "float32", **kwargs: Any) -> None:
        super().__init__(dtype=dtype, **kwargs)

    def __call__(self, representations: Sequence[Tensor], *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        require_floats(self, *keras.tree.flatten(representations))
        require_representations(self, shapes_of(representations), count=2, needs=())
        return super().__call__(representations, *args, **kwargs)

    def build(self, input_shape: Sequence[UnitsShape]) -> None:
        require_representations(self, input_shape, count=2)
        self.heads = [self.head(shape) for shape in input_shape]

    def call(self, representations: Sequence[Tensor], training: bool = False) -> dict[str, Tensor]:
        simple, complex_ = (head(representation) for head, representation in zip(self.heads, representations, strict=True))
        logits = ops.concatenate([simple, complex_], axis=-1)  # (batch, 2)
        return {"logit": self.fuse(logits, representations, training), "simple": simple, "complex": complex_}

    def compute_output_shape(self, input_shape: Sequence[UnitsShape]) -> dict[str, Shape]:
        (batch, _), _ = require_representations(self, input_shape, count=2)
        return dict.fromkeys(("logit", "simple", "complex"), (batch, 1))

    def fuse(self, logits: Tensor, representations: Sequence[Tensor], training: bool) -> Tensor:
        """The prediction's logit `(batch, 1)` from both heads' logits `(batch, 2)` and the representations."""
        raise NotImplementedError

    def head(self, input_shape: Shape) -> keras.layers.Layer:
        """The layer from one representation to its logit."""
        return keras.layers.Identity(dtype=self.dtype_policy) if input_shape[1] == 1 else self.linear(1, input_shape)

    def linear(self, units: int, input_shape: Shape) -> keras.layers.Dense:
        """A built linear layer."""
        layer = linear(units, dtype=self.dtype_policy)
        layer.build(input_shape)
        return layer


@keras.saving.register_keras_serializable("tfctr")
class SumFusion(Fusion):
    """`logit = simple + complex`, the fusion of the parallel models before TF4CTR.

    >>> SumFusion()([ops.ones((1, 1)), 2 * ops.ones((1, 1))])["logit"].numpy().tolist()  # both are logits already
    [[3.0]]
    """

    def fuse(self, logits: Tensor, representations: Sequence[Tensor], training: bool) -> Tensor:
        return ops.sum(logits, axis=-1, keepdims=True)


@keras.saving.register_keras_serializable("tfctr")
class MeanFusion(Fusion):
    """`logit = (simple + complex) / 2`: each head is as large as the prediction, and can be compared with it (FCN).

    >>> MeanFusion()([ops.ones((1, 1)), 2 * ops.ones((1, 1))])["logit"].numpy().tolist()  # both are logits already
    [[1.5]]

    Reference: [Li et al., 2024](https://arxiv.org/abs/2407.13349), fusion.
    """

    def fuse(self, logits: Tensor, representations: Sequence[Tensor], training: bool) -> Tensor:
        return ops.mean(logits, axis=-1, keepdims=True)


@keras.saving.register_keras_serializable("tfctr")
class WeightedSumFusion(Fusion):
    """`logit = w_1 * simple + w_2 * complex`, both weights free, from 0.5 on (WSF).

    Reference: [TF4CTR](https://arxiv.org/abs/2405.03167), eq. 8.
    """

    explains = "fusion_weights"

    def build(self, input_shape: Sequence[UnitsShape]) -> None:
        super().build(input_shape)
        self.shares = self.add_weight(name="shares", shape=(2,), initializer=keras.initializers.Constant(0.5))

    def fuse(self, logits: Tensor, representations: Sequence[Tensor], training: bool) -> Tensor:
        return ops.sum(self.shares * logits, axis=-1, keepdims=True)

    def weigh(self, representations: Sequence[Tensor]) -> Tensor:
        """The weight of each encoder, `(batch, 2)`, the same for every sample."""
        return ops.broadcast_to(self.shares, (ops.shape(representations[0])[0], 2))


@keras.saving.register_keras_serializable("tfctr")
class StackedFusion(WeightedSumFusion):
    """`logit = w_1 * simple + w_2 * complex + b`, through which no gradient reaches the encoders (AFN+).

    The heads are trained by auxiliary losses alone, each by its own. The weights start at 0.5, the bias at 0.

    Reference: [AFN](https://arxiv.org/abs/1909.03276), section "Ensemble AFN with DNN".
    """

    def build(self, input_shape: Sequence[UnitsShape]) -> None:
        super().build(input_shape)
        self.bias = self.add_weight(name="bias", shape=(1,), initializer="zeros")

    def fuse(self, logits: Tensor, representations: Sequence[Tensor], training: bool) -> Tensor:
        return super().fuse(ops.stop_gradient(logits), representations, training) + self.bias


@keras.saving.register_keras_serializable("tfctr")
class VotingFusion(Fusion):
    """`logit = p_1 * simple + p_2 * complex`, with `p` a Gumbel softmax of one vote an encoder (VF).

    `p = softmax((vote + gumbel noise) / temperature)`, where each encoder's vote is linear in its representation.

    Args:
        temperature: above 0; lower is closer to a hard vote.
        seed: of the noise; None follows `keras.utils.set_random_seed`.

    Raises:
        ConfigError: `temperature` is not above 0.

    Reference: [TF4CTR](https://arxiv.org/abs/2405.03167), eq. 9.
    """

    explains = "fusion_weights"

    def __init__(self, temperature: float = 0.8, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        require_positive("temperature", temperature)
        self.temperature = temperature
        self.seed = seed
        self.seed_generator = SeedGenerator(seed)

    def build(self, input_shape: Sequence[UnitsShape]) -> None:
        super().build(input_shape)
        self.votes = [self.linear(1, shape) for shape in input_shape]

    def fuse(self, logits: Tensor, representations: Sequence[Tensor], training: bool) -> Tensor:
        return ops.sum(self.weigh(representations, training) * logits, axis=-1, keepdims=True)

    def weigh(self, representations: Sequence[Tensor], training: bool = False) -> Tensor:
        """The weight of each encoder, `(batch, 2)`."""
        # Eq. 9 takes the log of the vote, which may be negative; the authors' code takes the vote itself, and so do we.
        votes = ops.concatenate([vote(x) for vote, x in zip(self.votes, representations, strict=True)], axis=-1)
        # The authors' code draws noise at validation and test too, so that its scores differ from run to run; ours do not.
        if training:
            uniform = keras.random.uniform(ops.shape(votes), minval=1e-20, dtype=votes.dtype, seed=self.seed_generator)
            votes = votes - ops.log(-ops.log(uniform))
        return ops.softmax(votes / self.temperature, axis=-1)


@keras.saving.register_keras_serializable("tfctr")
class ConcatenationFusion(Fusion):
    """`logit` is linear in both representations together (CF); the heads are trained by auxiliary losses alone.

    Reference: [TF4CTR](https://arxiv.org/abs/2405.03167), eq. 10.
    """

    def build(self, input_shape: Sequence[UnitsShape]) -> None:
        super().build(input_shape)
        self.joint_head = self.linear(1, (None, sum(shape[1] for shape in input_shape)))

    def fuse(self, logits: Tensor, representations: Sequence[Tensor], training: bool) -> Tensor:
        return self.joint_head(ops.concatenate(representations, axis=-1))


@keras.saving.register_keras_serializable("tfctr")
class ExpertFusion(Fusion):
    """`logit = g_1 * m_1 + g_2 * m_2`, two linear experts and a softmax gate over both representations (MoEF).

    The heads are trained by auxiliary losses alone.

    Reference: [TF4CTR](https://arxiv.org/abs/2405.03167), eq. 11.
    """

    explains = "fusion_weights"

    def build(self, input_shape: Sequence[UnitsShape]) -> None:
        super().build(input_shape)
        shape = (None, sum(shape[1] for shape in input_shape))
        self.gate = self.linear(2, shape)
        self.experts = self.linear(2, shape)

    def fuse(self, logits: Tensor, representations: Sequence[Tensor], training: bool) -> Tensor:
        experts = self.experts(ops.concatenate(representations, axis=-1))  # (batch, 2)
        return ops.sum(self.weigh(representations) * experts, axis=-1, keepdims=True)

    def weigh(self, representations: Sequence[Tensor]) -> Tensor:
        """The weight of each expert, `(batch, 2)`."""
        return ops.softmax(self.gate(ops.concatenate(representations, axis=-1)), axis=-1)
