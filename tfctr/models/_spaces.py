"""The graph of every model that reads the same fields in several semantic spaces: SimMHN, CETN, TriDNN."""

from collections.abc import Sequence
from typing import Any, Literal

import keras
from keras import ops

from tfctr.errors import ConfigError, require_one_of
from tfctr.layers import MLP, ElementwiseProducts, InnerProducts, KeyValueBlock, Perturbation
from tfctr.losses import ContrastLoss, CosineLoss
from tfctr.types import Tensor

SPACES = ("fields", "elementwise", "inner")


def semantic_views(fields: Tensor, spaces: Sequence[str], perturbation: float = 0.0) -> list[Tensor]:
    """The view of each space by its name in `SPACES`: the fields, their element-wise products, their inner products.

    The products are those of the perturbed fields, and computed once for both spaces.
    """
    if not spaces:
        raise ConfigError("`spaces` is empty.", fix=f"name at least one of: {', '.join(SPACES)}")
    for space in spaces:
        require_one_of(SPACES, space, "space")
    views = {"fields": fields}  # (batch, fields, dim)
    noisy = Perturbation(perturbation)(fields) if perturbation else fields
    if "elementwise" in spaces:
        views["elementwise"] = ElementwiseProducts()(noisy)  # (batch, pairs, dim)
        views["inner"] = ops.sum(views["elementwise"], axis=-1)  # (batch, pairs)
    elif "inner" in spaces:
        views["inner"] = InnerProducts()(noisy)
    return [views[space] for space in spaces]


def values_and_weights(
    views: Sequence[Tensor],
    hidden_units: Sequence[int],
    weight_hidden_units: Sequence[int] | None,
    activation: str | Sequence[str],
    dropout: float = 0.0,
    weight_dropout: float = 0.0,
    batch_norm: bool = False,
    use_bias: bool = True,
) -> tuple[list[Tensor], list[Tensor] | None]:
    """What each space's networks read in its view: a list of values `(batch, units)`, and one of weights `(batch, 1)`.

    Without `weight_hidden_units` there are no weights, and the second is None.
    """
    activations = for_each(len(views), "activation", activation)
    if weight_hidden_units is None:
        networks = [MLP(hidden_units, name, dropout, batch_norm, use_bias) for name in activations]
        return [network(view) for network, view in zip(networks, views, strict=True)], None
    options: dict[str, Any] = {"dropout": dropout, "batch_norm": batch_norm, "use_bias": use_bias}
    options |= {"weight_dropout": weight_dropout, "weight_batch_norm": batch_norm}
    blocks = [KeyValueBlock(hidden_units, weight_hidden_units, name, **options) for name in activations]
    pairs = [block(view) for block, view in zip(blocks, views, strict=True)]
    return [value for value, _ in pairs], [weight for _, weight in pairs]


def for_each(count: int, argument: str, value: Any) -> list[Any]:
    """A list of `count` values, from one for all or a list of one each."""
    values = list(value) if isinstance(value, list | tuple) else [value] * count
    if len(values) != count:
        raise ConfigError(f"`{argument}` is {value!r}.", fix=f"give one value, or a list of {count}")
    return values


def diversity_and_homogeneity(
    auxiliary_spaces: int,
    contrast: Literal["do_info_nce", "info_nce"] | None,
    contrast_weight: float,
    temperature: float,
    cosine_weights: float | Sequence[float] | None,
) -> dict[str, keras.losses.Loss]:
    """CETN's losses on the outputs `value_0` (the main space's), `value_1` and so on, by name."""
    losses: dict[str, keras.losses.Loss] = {}
    if contrast is not None:
        if auxiliary_spaces != 2:
            raise ConfigError(f"a contrast of {auxiliary_spaces} auxiliary spaces.", fix="use three spaces, or contrast=None")
        losses["contrast"] = ContrastLoss("value_1", "value_2", contrast, temperature, contrast_weight)
    if cosine_weights is not None:
        for i, weight in enumerate(for_each(auxiliary_spaces, "cosine_weights", cosine_weights), start=1):
            losses[f"cosine_{i}"] = CosineLoss("value_0", f"value_{i}", weight)
    return losses
