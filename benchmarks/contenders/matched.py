"""The models that FuxiCTR's model zoo has, too, and the arguments that make both of them one function.

No shape is left to a default: hidden layers of 400, 400, 400, three cross or attention layers, no dropout, and batch
normalization only where ours has it by default. Both embed each field in as many numbers and train all weights by Adam with
0.001, the gradient's norm held at 10. No argument changes that FuxiCTR has a table for each field, and ours one for all.
"""

import dataclasses

HIDDEN = [400, 400, 400]
CROSS = {"num_cross_layers": 3, "dnn_hidden_units": HIDDEN}


@dataclasses.dataclass(frozen=True)
class Match:
    """FuxiCTR's class `name` of the folder `folder` of its model zoo, dots for slashes, and the arguments of both.

    An argument that is a function is one of the number of fields. `more` are the trainable parameters that FuxiCTR's model has
    and ours has not, on any data, and `why` tells which.
    """

    folder: str
    name: str
    ours: dict = dataclasses.field(default_factory=dict)
    theirs: dict = dataclasses.field(default_factory=dict)
    more: int = 0
    why: str = ""


ONE_BIAS = {"more": -1, "why": "one bias in its logit, where ours adds two"}
MATCHES = {
    "LR": Match("LR", "LR"),
    "FM": Match("FM", "FM"),
    "DNN": Match("DNN.DNN_torch", "DNN", {"hidden_units": HIDDEN}, {"hidden_units": HIDDEN}),
    "IPNN": Match("PNN", "PNN", {"hidden_units": HIDDEN}, {"hidden_units": HIDDEN}),
    "WideDeep": Match("WideDeep.WideDeep_torch", "WideDeep", {"hidden_units": HIDDEN}, {"hidden_units": HIDDEN}, **ONE_BIAS),
    "DeepFM": Match("DeepFM.DeepFM_torch", "DeepFM", {"hidden_units": HIDDEN}, {"hidden_units": HIDDEN}),
    # FuxiCTR cannot normalize the pooled products, as the paper does.
    "NFM": Match("NFM", "NFM", {"hidden_units": HIDDEN, "batch_norm": False}, {"hidden_units": HIDDEN}),
    "AFM": Match("AFM", "AFM", {"attention_dim": 16}, {"attention_dim": 16}),
    "DCN": Match("DCN.DCN_torch", "DCN", {"num_layers": 3, "hidden_units": HIDDEN}, CROSS, **ONE_BIAS),
    "XDeepFM": Match(
        "xDeepFM",
        "xDeepFM",
        {"cin_units": [100] * 3, "hidden_units": HIDDEN},
        {"cin_hidden_units": [100] * 3, "dnn_hidden_units": HIDDEN},
        more=299,
        why="a bias for each of its 300 feature maps, and one less in its logit",
    ),
    # Ours starts from the fields, weighs what a node hears and has matrices for each step: FuxiCTR's function.
    "FiGNN": Match(
        "FiGNN",
        "FiGNN",
        {"num_steps": 3, "num_heads": 0, "shared_steps": False, "edges": "heard", "reset_after": True},
        {"gnn_layers": 3},
    ),
    "AutoInt": Match(
        "AutoInt",
        "AutoInt",
        {"num_layers": 3, "num_heads": 2, "head_dim": 32, "hidden_units": HIDDEN},
        {"attention_layers": 3, "num_heads": 2, "attention_dim": 64, "dnn_hidden_units": HIDDEN},
        more=-2 * 64 * 64,
        why="no matrix for what its second and third layers add of their input",
    ),
    "AFN": Match(
        "AFN",
        "AFN",
        {"neurons": 600, "logarithmic_hidden_units": HIDDEN, "hidden_units": HIDDEN, "batch_norm": True, "joint": True},
        {"logarithmic_neurons": 600, "afn_hidden_units": HIDDEN, "dnn_hidden_units": HIDDEN, "batch_norm": True},
        more=3,
        why="two weights and a bias that mix the logits of its two networks",
    ),
    "DCNv2": Match(
        "DCNv2",
        "DCNv2",
        {"num_layers": 3, "structure": "parallel", "hidden_units": HIDDEN},
        {"num_cross_layers": 3, "model_structure": "parallel", "parallel_dnn_hidden_units": HIDDEN},
        **ONE_BIAS,
    ),
    # FuxiCTR's cross layer does not add its input.
    "EDCN": Match(
        "EDCN",
        "EDCN",
        {"num_layers": 3, "bridge": "hadamard", "batch_norm": True},
        {"num_cross_layers": 3, "bridge_type": "hadamard_product", "batch_norm": True},
    ),
    "MaskNet": Match(
        "MaskNet",
        "MaskNet",
        {"arrangement": "serial", "block_units": HIDDEN, "reduction_ratio": 2.0, "field_norms": True},
        {"model_type": "SerialMaskNet", "dnn_hidden_units": HIDDEN, "reduction_ratio": 2},
    ),
    "FinalMLP": Match(
        "FinalMLP",
        "FinalMLP",
        {"simple_hidden_units": [400], "complex_hidden_units": HIDDEN, "gate_hidden_units": [64], "num_heads": 10},
        {"mlp1_hidden_units": [400], "mlp2_hidden_units": HIDDEN, "fs_hidden_units": [64], "num_heads": 10},
    ),
    "EulerNet": Match(
        "EulerNet",
        "EulerNet",
        {"num_layers": 2, "num_orders": lambda fields: fields, "layer_norm": True},
        {"shape": lambda fields: [fields] * 2, "layer_norm": True},
    ),
    "FinalNet": Match(
        "FinalNet",
        "FinalNet",
        {"hidden_units": HIDDEN, "residual": "sum", "batch_norm": True, "field_gate": True},
        {
            "block1_hidden_units": HIDDEN,
            "block2_hidden_units": HIDDEN,
            "residual_type": "sum",
            "batch_norm": True,
            "use_feature_gating": True,
        },
    ),
    "GDCN": Match("GDCN", "GDCNP", {"num_layers": 3, "structure": "parallel", "hidden_units": HIDDEN}, CROSS, **ONE_BIAS),
    "FiBiNET": Match(
        "FiBiNET",
        "FiBiNET",
        {"reduction": 3, "products": "interaction", "bilinear": "interaction", "hidden_units": HIDDEN},
        {"reduction_ratio": 3, "bilinear_type": "field_interaction", "hidden_units": HIDDEN},
        **ONE_BIAS,
    ),
}


def given(arguments, fields):
    """The arguments for so many fields."""
    return {name: value(fields) if callable(value) else value for name, value in arguments.items()}
