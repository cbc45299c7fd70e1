"""The models with two parallel encoders, as pairs for `TF4CTR`.

`build("TF4CTR", schema, **PAIRS["DCNv2"])` is TF4CTR around the encoders of DCNv2. First-order terms that a model adds to its
two encoders, as XDeepFM and DeepFM do, are left out: TF4CTR has two encoders and nothing else.
"""

from typing import Any


def _beside_mlp(encoder: str, batch_norm: bool = False, **arguments: Any) -> dict[str, dict[str, Any]]:
    deep = {"type": "MLP", "hidden_units": [400, 400, 400], "batch_norm": batch_norm}
    return {"simple_encoder": {"type": encoder, **arguments}, "complex_encoder": deep}


# What tables 2 and 5 of [TF4CTR](https://arxiv.org/abs/2405.03167) put in the places of the simple and the complex encoder.
PAIRS = {
    "WideDeep": _beside_mlp("LinearTerms"),
    "DeepFM": _beside_mlp("FactorizationMachine"),
    "DCN": _beside_mlp("VectorCrossNetwork", num_layers=6),
    "XDeepFM": _beside_mlp("CIN", units=[100, 100, 100]),
    "AutoInt": _beside_mlp("SelfAttention", num_layers=3, num_heads=2, head_dim=32),
    "AFN": _beside_mlp("LogarithmicNetwork", neurons=600, hidden_units=[400, 400, 400], batch_norm=True),
    "DCNv2": _beside_mlp("CrossNetwork", num_layers=2),
}
