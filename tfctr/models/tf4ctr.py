from collections.abc import Mapping
from typing import Any, Self, Unpack

import keras

from tfctr.layers import MLP
from tfctr.losses import TwinFocusLoss
from tfctr.models._base import CTRModel, ModelOptions, ids_input
from tfctr.models._registry import register
from tfctr.models._twin import keep_selection, make_fusion, make_selection, named_plain, twin_outputs
from tfctr.schema import Schema


@register
class TF4CTR(CTRModel):
    """Easy and hard samples go to different encoders, each with its own loss.

    `loss = ctr(logit) + alpha * simple_focus(simple) + (1 - alpha) * complex_focus(complex) + l2`

    Three plug-ins around any two encoders: the selection decides what each of them reads, the twin focus loss which samples
    each of them learns from, the fusion what their logits are worth.

    Args:
        schema: a fitted `Schema`.
        embedding_dim: width of the (larger) embedding table.
        selection: `"shared"`, `"separate"` (SER), `"gated"` (GM), `"experts"` (MMoE), `"attended"` (SER, with histories read
            beside their targets in the hard view, see `AttendedEmbedding`), or a layer from ids to two views. The networks of
            a gate and of experts by name get dropout and batch normalization of the complex encoder where it is an `MLP`, else
            of the simple one, as in the authors' code, which has one setting for all; a layer keeps its own.
        fusion: `"sum"`, `"mean"`, `"weighted_sum"`, `"voting"`, `"concatenation"`, `"experts"`, or a layer from two
            representations to the logits `logit`, `simple` and `complex`.
        simple_encoder, complex_encoder: layers from a view to a representation; by default `MLP([400])` and
            `MLP([400, 400, 400])`. `tfctr.models.PAIRS` has those of DeepFM, DCNv2 and the other parallel models.
        alpha, c, gamma: of `tfctr.losses.TwinFocusLoss`; `gamma=0` is plain deep supervision.
        embedding_l2, l2_scope: see `CTRModel`.

    Raises:
        ConfigError: an unknown selection or fusion, a loss parameter out of range, a schema that is not fitted.

    >>> from tfctr import Categorical, Schema
    >>> schema = Schema(features=[Categorical("user", size=5), Categorical("item", size=7)], label="click")
    >>> sorted(TF4CTR(schema, embedding_dim=4).output)
    ['complex', 'logit', 'simple']

    Reference: [Li et al., 2024](https://arxiv.org/abs/2405.03167), eq. 3-12; `gamma` and `c` as in eq. 7 for both labels.
    """

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 16,
        selection: str | keras.layers.Layer = "separate",
        fusion: str | keras.layers.Layer = "weighted_sum",
        simple_encoder: keras.layers.Layer | None = None,
        complex_encoder: keras.layers.Layer | None = None,
        alpha: float = 0.25,
        c: float = 0.7,
        gamma: float = 1.0,
        **options: Unpack[ModelOptions],
    ) -> None:
        ids = ids_input(schema)  # (batch, columns)
        encoders = simple_encoder or MLP([400]), complex_encoder or MLP([400, 400, 400])
        selected = make_selection(selection, schema, embedding_dim, *encoders)
        outputs = twin_outputs(ids, selected, *encoders, make_fusion(fusion))
        super().__init__(
            schema,
            ids,
            outputs,
            embeddings=selected.embeddings,
            auxiliary={"twin_focus": TwinFocusLoss(alpha, c, gamma)},
            **options,
        )
        keep_selection(self._arguments, selected)

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Self:
        return super().from_config(named_plain(config), custom_objects)
