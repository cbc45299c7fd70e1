"""Every public layer, made small, with rows for it."""

import numpy as np

from tfctr import Categorical, Schema, Sequence, layers

FIELDS, DIM, UNITS = 3, 4, 6
SCHEMA = Schema(features=[Categorical(name, size=5) for name in "abc"], label="click")
OF_ITEMS = Schema(features=[Categorical("a", size=5), Sequence("b", 2, vocabulary_of="a", size=5)], label="click")
SCHEMAS = {"AttendedEmbedding": OF_ITEMS}  # of those that need another one, as wide
ARGUMENTS = {
    "AttentiveScore": {"num_fields": 3},
    "CIN": {"units": [5, 2]},
    "Dropout": {"rate": 0.2},
    "FactorizationGraph": {"hidden_units": (8, 6), "kept": (1.0, 0.5)},
    "FinalBlock": {"hidden_units": [8, 6]},
    "KeyValueBlock": {"hidden_units": [8, 5], "weight_hidden_units": [4]},
    "LogarithmicNetwork": {"neurons": 5, "hidden_units": [7]},
    "LogarithmicTransform": {"neurons": 5},
    "MLP": {"hidden_units": [8, 5]},
    "MaskBlocks": {"hidden_units": [8, 5]},
    "ThroughNetwork": {"hidden_units": [4, 4], "shallow_hidden_units": [8, 4]},
}
NOT_LAYERS = {"ACTIVATIONS", "ENCODERS", "FUSIONS", "SELECTIONS", "linear"}
PUBLIC = sorted(set(layers.__all__) - NOT_LAYERS)
OF_IDS = {
    "FeatureEmbedding",
    "SharedEmbedding",
    "SeparateEmbedding",
    "GatedEmbedding",
    "ExpertEmbedding",
    "FeatureGating",
} | set(SCHEMAS)
OF_PAIRS = {layer.__name__ for layer in layers.FUSIONS.values()} | {"ThroughConnection", "SpaceFusion"}
OF_HISTORIES = {"TargetAttention", "HistoryTransformer"}
OF_ANY_SHAPE = {"Dropout"}  # as in Keras
OF_ONE_VIEW = sorted(set(PUBLIC) - OF_IDS - OF_PAIRS - OF_HISTORIES - OF_ANY_SHAPE)
OF_UNITS_TOO = {"MLP", "FinalBlock", "KeyValueBlock", "ThroughNetwork", "Dice", "Perturbation", "CrossNetwork"} | {
    f"{kind}CrossNetwork" for kind in ("Gated", "LowRank", "Vector")
}
OF_ANY_SIZE = {"FactorizationMachine", "BiInteraction", "LinearTerms", "Perturbation"}


def make(name, **options):
    schema = [SCHEMAS.get(name, SCHEMA), DIM] if name in OF_IDS else []
    return getattr(layers, name)(*schema, **ARGUMENTS.get(name, {}), **options)


def shapes_for(name, batch):
    """The positional arguments of `compute_output_shape`."""
    if name in OF_IDS:
        return [(batch, SCHEMA.width)]
    if name == "SpaceFusion":
        return [[(batch, 3), (batch, 5)], [(batch, 1), (batch, 1)]]
    if name == "ThroughConnection":
        return [(batch, UNITS), (batch, UNITS)]
    if name in OF_HISTORIES:
        return [[(batch, FIELDS, DIM), (batch, DIM)]]
    if name in OF_PAIRS:
        return [[(batch, UNITS), (batch, 4)]]
    return [(batch, UNITS)] if name == "AttentiveScore" else [(batch, FIELDS, DIM)]


def of_shapes(function, shapes):
    return [[function(shape) for shape in part] if isinstance(part, list) else function(part) for part in shapes]


def rows_for(name, batch=8):
    """The arguments of a call, with rows."""
    rng = np.random.default_rng(0)
    if name in OF_IDS:
        fields = SCHEMAS.get(name, SCHEMA).fields
        offsets = np.repeat([field.offset for field in fields], [field.feature.width for field in fields])
        return [offsets + rng.integers(1, 5, size=(batch, 3)).astype("int32")]
    return of_shapes(lambda shape: rng.normal(size=shape).astype("float32"), shapes_for(name, batch))
