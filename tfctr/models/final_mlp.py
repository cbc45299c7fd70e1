from collections.abc import Sequence
from typing import Unpack

from tfctr.layers import MLP, BilinearFusion, FeatureGating
from tfctr.models._base import CTRModel, ModelOptions, ids_input
from tfctr.models._registry import register
from tfctr.models._twin import twin_outputs
from tfctr.schema import Schema


@register
class FinalMLP(CTRModel):
    """Two MLPs over differently gated fields, added and multiplied.

    `logit = w_1 . o_1 + w_2 . o_2 + b + sum over heads of o_1h . W_h o_2h`, `o_k = MLP_k(gate_k * fields)`

    The sentence of TF4CTR with other words: `FeatureGating` + `MLP`, `MLP` + `BilinearFusion`.

    Args:
        schema: a fitted `Schema`.
        embedding_dim: width of the embedding table.
        simple_hidden_units, complex_hidden_units, activation, dropout, batch_norm: of the two `MLP`s.
        simple_context, complex_context, gate_hidden_units, separate_contexts: of `FeatureGating`; such as the user's features
            for one gate and the item's for the other. The features of a context have a table of their own for their gate, as in
            the released code; `separate_contexts=False` lets it read the fields.
        num_heads: of `BilinearFusion`; the paper finds several cheaper than one, and no worse.
        embedding_l2, l2_scope: see `CTRModel`.

    Reference: [Mao et al., 2023](https://arxiv.org/abs/2304.00902), figure 1.
    """

    EARLIER = (("separate_contexts", False),)

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 16,
        simple_hidden_units: Sequence[int] = (400,),
        complex_hidden_units: Sequence[int] = (400, 400, 400),
        activation: str = "relu",
        dropout: float = 0.0,
        batch_norm: bool = False,
        simple_context: Sequence[str] = (),
        complex_context: Sequence[str] = (),
        gate_hidden_units: Sequence[int] = (64,),
        separate_contexts: bool = True,
        num_heads: int = 10,
        **options: Unpack[ModelOptions],
    ) -> None:
        ids = ids_input(schema)  # (batch, columns)
        contexts = simple_context, complex_context
        selection = FeatureGating(schema, embedding_dim, *contexts, gate_hidden_units, separate_contexts)
        simple = MLP(simple_hidden_units, activation, dropout, batch_norm)
        complex_ = MLP(complex_hidden_units, activation, dropout, batch_norm)
        outputs = twin_outputs(ids, selection, simple, complex_, BilinearFusion(num_heads))
        super().__init__(schema, ids, outputs, selection.embeddings, **options)
