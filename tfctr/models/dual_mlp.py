from collections.abc import Mapping, Sequence
from typing import Any, Self, Unpack

import keras

from tfctr.layers import MLP
from tfctr.models._base import CTRModel, ModelOptions, ids_input
from tfctr.models._registry import register
from tfctr.models._twin import keep_selection, make_fusion, make_selection, named_plain, twin_outputs
from tfctr.schema import Schema


@register
class DualMLP(CTRModel):
    """Two MLPs of different depth over the same fields, added: the base model of TF4CTR.

    `logit = w_s . MLP_s(fields) + w_c . MLP_c(fields)`

    Args:
        schema: a fitted `Schema`.
        embedding_dim: width of the embedding table.
        simple_hidden_units, complex_hidden_units, activation, dropout, batch_norm: of the two `MLP`s.
        selection, fusion: as in `TF4CTR`; the networks of a selection by name get `dropout` and `batch_norm`, too.
        embedding_l2, l2_scope: see `CTRModel`.

    Reference: [Mao et al., 2023](https://arxiv.org/abs/2304.00902), section 3.1;
    [Li et al., 2024](https://arxiv.org/abs/2405.03167), table 2.
    """

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 16,
        simple_hidden_units: Sequence[int] = (400,),
        complex_hidden_units: Sequence[int] = (400, 400, 400),
        activation: str = "relu",
        dropout: float = 0.0,
        batch_norm: bool = False,
        selection: str | keras.layers.Layer = "shared",
        fusion: str | keras.layers.Layer = "sum",
        **options: Unpack[ModelOptions],
    ) -> None:
        ids = ids_input(schema)  # (batch, columns)
        simple = MLP(simple_hidden_units, activation, dropout, batch_norm)
        complex_ = MLP(complex_hidden_units, activation, dropout, batch_norm)
        selected = make_selection(selection, schema, embedding_dim, simple, complex_)
        outputs = twin_outputs(ids, selected, simple, complex_, make_fusion(fusion))
        super().__init__(schema, ids, outputs, selected.embeddings, **options)
        keep_selection(self._arguments, selected)

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Self:
        return super().from_config(named_plain(config), custom_objects)
