"""The models of FuxiCTR's model zoo that tfctr has, too: the arguments of both.

A table a model: each argument of FuxiCTR's constructor with its default there, and what it gives here. The defaults are theirs,
since a configuration that leaves an argument out means them.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from tfctr.errors import ConfigError, choose
from tfctr.fuxictr.arguments import (
    Argument,
    NoCounterpart,
    Reader,
    activation,
    blocks,
    equal,
    experts,
    given,
    head_dim,
    named,
    only,
    only_relu,
    orders,
    second_dropout,
    units,
    unused,
    width_of_all_heads,
)
from tfctr.fuxictr.notes import Notes
from tfctr.fuxictr.reading import Keys


@dataclasses.dataclass(frozen=True)
class Match:
    """Our model for one of FuxiCTR's.

    Args:
        name: of `tfctr.models.MODELS`.
        arguments: `{FuxiCTR's argument: Argument}`, those of `BaseModel` left out.
        fixed: our arguments that make both one function, whatever theirs are.
        differs: what is another function all the same.
    """

    name: str
    arguments: Mapping[str, Argument]
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    differs: str | None = None


@dataclasses.dataclass(frozen=True)
class Choice:
    """Several matches, of which the value of one argument of FuxiCTR's chooses."""

    key: str
    default: Any
    matches: Mapping[Any, Match]


def _mlp(units_name: str, activation_name: str, default: Any, reader: Reader | None = None) -> dict[str, Argument]:
    """The arguments of an MLP, which FuxiCTR's models name in two ways."""
    return {
        units_name: Argument(default, reader or units("hidden_units")),
        activation_name: Argument("ReLU", activation()),
        "net_dropout": Argument(0, equal("dropout")),
        "batch_norm": Argument(False, given("batch_norm")),
    }


def _two_mlps() -> dict[str, Argument]:
    """Those of DualMLP and FinalMLP, of which ours has one activation, dropout and normalization."""
    found = {}
    for number, side in ((1, "simple"), (2, "complex")):
        found |= {
            f"mlp{number}_hidden_units": Argument([64, 64, 64], units(f"{side}_hidden_units")),
            f"mlp{number}_hidden_activations": Argument("ReLU", activation()),
            f"mlp{number}_dropout": Argument(0, equal("dropout")),
            f"mlp{number}_batch_norm": Argument(False, given("batch_norm")),
        }
    return found


_DIM = {"embedding_dim": Argument(10, given("embedding_dim"))}
_PLAIN = _DIM | _mlp("hidden_units", "hidden_activations", [64, 64, 64])
_CROSS = _DIM | _mlp("dnn_hidden_units", "dnn_activations", []) | {"num_cross_layers": Argument(3, given("num_layers"))}


def _dcnv2(structure: str) -> Match:
    mixture = {
        "use_low_rank_mixture": Argument(False, experts),
        "low_rank": Argument(32, unused),
        "num_experts": Argument(4, unused),
    }
    arguments = _DIM | _mlp(f"{structure}_dnn_hidden_units", "dnn_activations", []) | mixture
    return Match("DCNv2", arguments | {"num_cross_layers": Argument(3, given("num_layers"))}, {"structure": structure})


def _afn(ensemble: bool) -> Match:
    arguments = _DIM | {
        "logarithmic_neurons": Argument(5, given("neurons")),
        "afn_hidden_units": Argument([64, 64, 64], units("logarithmic_hidden_units")),
        "afn_activations": Argument("ReLU", activation()),
        "afn_dropout": Argument(0, equal("dropout")),
        "batch_norm": Argument(True, given("batch_norm")),
    }
    if not ensemble:
        return Match("AFN", arguments, {"hidden_units": None})
    beside = {
        "dnn_hidden_units": Argument([64, 64, 64], units("hidden_units")),
        "dnn_activations": Argument("ReLU", activation()),
        "dnn_dropout": Argument(0, equal("dropout")),
    }
    return Match("AFN", arguments | beside, {"joint": True})


def _masknet(parallel: bool) -> Match:
    arguments = _DIM | {
        "dnn_hidden_units": Argument([64, 64, 64], units("hidden_units" if parallel else "block_units")),
        "dnn_hidden_activations": Argument("ReLU", only_relu),
        "reduction_ratio": Argument(1, given("reduction_ratio")),
        "net_dropout": Argument(0, equal("dropout")),
        "emb_layernorm": Argument(True, only(True, "ours always normalizes the fields")),
        "net_layernorm": Argument(True, only(True, "ours always normalizes a block")),
    }
    fixed = {"arrangement": "parallel" if parallel else "serial", "field_norms": True}
    beside = {"parallel_num_blocks": Argument(1, blocks), "parallel_block_dim": Argument(64, unused)}
    return Match("MaskNet", arguments | beside if parallel else arguments, fixed)


_SELECTION = {
    "fs_hidden_units": Argument([64], units("gate_hidden_units")),
    "fs1_context": Argument([], given("simple_context")),
    "fs2_context": Argument([], given("complex_context")),
    "num_heads": Argument(1, given("num_heads")),
}
_HEADS = {"num_heads": Argument(1, lambda value, values: {"fusion": {"type": "bilinear", "num_heads": value}})}
_BRIDGES = {"hadamard_product": "hadamard", "pointwise_addition": "addition", "concatenation": "concatenation"}
_PAIRS = {"field_all": "all", "field_each": "each", "field_interaction": "interaction"}

MODELS: dict[str, Match | Choice] = {
    "LR": Match("LR", {}),
    "FM": Match("FM", _DIM),
    "DNN": Match("DNN", _PLAIN),
    "PNN": Match("IPNN", _PLAIN | {"product_type": Argument("inner", only("inner", "ours has inner products"))}),
    "WideDeep": Match("WideDeep", _PLAIN),
    "DeepFM": Match("DeepFM", _PLAIN),
    "NFM": Match("NFM", _PLAIN, differs="batch_norm and net_dropout are of the pooled products, too, as in the paper"),
    "AFM": Match(
        "AFM",
        _DIM
        | {
            "attention_dim": Argument(10, given("attention_dim")),
            "attention_dropout": Argument([0, 0], second_dropout),
            "use_attention": Argument(True, only(True, "without attention it is FM")),
        },
    ),
    "DCN": Match("DCN", _CROSS),
    "DCNv2": Choice("model_structure", "parallel", {name: _dcnv2(name) for name in ("parallel", "stacked")}),
    "xDeepFM": Match(
        "XDeepFM",
        _DIM
        | _mlp("dnn_hidden_units", "dnn_activations", [64, 64, 64])
        | {"cin_hidden_units": Argument([16, 16, 16], units("cin_units"))},
        differs="feature maps have no bias, as in the paper",
    ),
    "FiGNN": Match(
        "FiGNN",
        {
            "embedding_dim": Argument(10, lambda value, values: {"embedding_dim": value, "state_dim": value}),
            "gnn_layers": Argument(3, given("num_steps")),
            "reuse_graph_layer": Argument(False, given("shared_steps")),
            "use_gru": Argument(True, only(True, "ours always has a GRU")),
            "use_residual": Argument(True, only(True, "ours always adds the first states")),
        },
        {"num_heads": 0, "edges": "heard", "reset_after": True},
    ),
    "AutoInt": Match(
        "AutoInt",
        _DIM
        | _mlp("dnn_hidden_units", "dnn_activations", [64, 64, 64], units("hidden_units", empty=None))
        | {
            "attention_layers": Argument(2, given("num_layers")),
            "num_heads": Argument(1, given("num_heads")),
            "attention_dim": Argument(8, head_dim),
            "layer_norm": Argument(False, only(False, "ours does not normalize")),
            "use_scale": Argument(False, only(False, "ours does not scale")),
            "use_wide": Argument(False, only(False, "ours has no linear terms")),
            "use_residual": Argument(True, only(True, "ours always adds the input")),
        },
        differs="each layer has a matrix for the input that it adds, as in the paper; no weight of the attention is dropped",
    ),
    "AFN": Choice("ensemble_dnn", True, {ensemble: _afn(ensemble) for ensemble in (True, False)}),
    "EDCN": Match(
        "EDCN",
        _DIM
        | {
            "num_cross_layers": Argument(3, given("num_layers")),
            "hidden_activations": Argument("ReLU", only_relu),
            "bridge_type": Argument("hadamard_product", named("bridge", _BRIDGES | {"attention_pooling": "attention"})),
            "temperature": Argument(1, given("temperature")),
            "net_dropout": Argument(0, equal("dropout")),
            "batch_norm": Argument(False, given("batch_norm")),
        },
        differs="a cross layer adds its input, as the authors' does",
    ),
    "MaskNet": Choice("model_type", "SerialMaskNet", {"SerialMaskNet": _masknet(False), "ParallelMaskNet": _masknet(True)}),
    "DualMLP": Match("DualMLP", _DIM | _two_mlps()),
    "FinalMLP": Choice(
        "use_fs",
        True,
        {
            True: Match("FinalMLP", _DIM | _two_mlps() | _SELECTION),
            False: Match("DualMLP", _DIM | _two_mlps() | _HEADS),
        },
    ),
    "EulerNet": Match(
        "EulerNet",
        _DIM
        | {
            "shape": Argument([3], orders),
            "net_ex_dropout": Argument(0, given("explicit_dropout")),
            "net_im_dropout": Argument(0, given("implicit_dropout")),
            "layer_norm": Argument(False, given("layer_norm")),
        },
    ),
    "FinalNet": Match(
        "FinalNet",
        _DIM
        | {
            "block_type": Argument("2B", only("2B", "ours has two blocks")),
            "batch_norm": Argument(True, given("batch_norm")),
            "use_feature_gating": Argument(False, given("field_gate")),
            "residual_type": Argument("concat", named("residual", {"concat": "concatenation", "sum": "sum"})),
        }
        | {f"block{block}_hidden_units": Argument([64, 64, 64], units("hidden_units")) for block in (1, 2)}
        | {f"block{block}_hidden_activations": Argument(None, activation()) for block in (1, 2)}
        | {f"block{block}_dropout": Argument(0, equal("dropout")) for block in (1, 2)},
    ),
    "DCNv3": Match(
        "FCN",
        {
            "embedding_dim": Argument(10, width_of_all_heads),
            "num_shallow_cross_layers": Argument(4, given("num_linear_layers")),
            "num_deep_cross_layers": Argument(4, given("num_exponential_layers")),
            "shallow_net_dropout": Argument(0.3, given("linear_dropout")),
            "deep_net_dropout": Argument(0.1, given("exponential_dropout")),
            "num_heads": Argument(1, given("num_heads")),
            "layer_norm": Argument(True, given("layer_norm")),
            "batch_norm": Argument(False, given("batch_norm")),
        },
    ),
    "QNN_alpha": Match(
        "QNNAlpha",
        {
            "embedding_dim": Argument(16, given("embedding_dim")),
            "num_layers": Argument(3, given("num_layers")),
            "num_row": Argument(2, given("num_products")),
            "num_heads": Argument(1, given("num_heads")),
            "net_dropout": Argument(0, given("dropout")),
            "batch_norm": Argument(False, given("batch_norm")),
        },
    ),
    "GDCN": Match("GDCN", _CROSS, {"structure": "stacked"}),
    "GDCNP": Match("GDCN", _CROSS, {"structure": "parallel"}),
    "FiBiNET": Match(
        "FiBiNET",
        _DIM
        | _mlp("hidden_units", "hidden_activations", [])
        | {
            "reduction_ratio": Argument(3, given("reduction")),
            "excitation_activation": Argument("ReLU", only_relu),
            "bilinear_type": Argument(
                "field_interaction", lambda value, values: dict.fromkeys(("products", "bilinear"), _PAIRS.get(value, value))
            ),
        },
    ),
}


def matches_of(match: Match | Choice) -> list[Match]:
    """The match itself, or all of a choice."""
    return list(match.matches.values()) if isinstance(match, Choice) else [match]


ARGUMENTS = {key for match in MODELS.values() for one in matches_of(match) for key in one.arguments}


def model_of(parameters: Keys, notes: Notes) -> dict[str, Any]:
    """`{"name": ..., argument: value}`, as the section `model` of a run has it, but for the L2 term.

    Raises:
        ConfigError: a model that tfctr does not have, or a value that FuxiCTR's does not have either.
    """
    name = parameters.take("model")
    match = choose(MODELS, name, "model of FuxiCTR's")
    if isinstance(match, Choice):
        match = _chosen(match, parameters.take(match.key, match.default), notes)
    if match.differs:
        notes.add("differs", "model", name, match.differs)
    values = {key: parameters.take(key, argument.default) for key, argument in match.arguments.items()}
    arguments: dict[str, Any] = {}
    for key, argument in match.arguments.items():
        try:
            read = argument.read(values[key], values)
        except NoCounterpart as error:
            notes.add("lost", key, values[key], str(error))
            continue
        except (TypeError, ValueError, ArithmeticError) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(f"`{key}` is {values[key]!r}.", fix="give a value as FuxiCTR takes it") from error
        for ours, value in read.items():
            if arguments.setdefault(ours, value) != value:
                notes.add("lost", key, values[key], f"ours has one {ours} for both: {arguments[ours]!r} is taken")
    return {"name": match.name, **arguments, **match.fixed}


def _chosen(choice: Choice, value: Any, notes: Notes) -> Match:
    if isinstance(value, str | bool) and value in choice.matches:
        return choice.matches[value]
    notes.add("lost", choice.key, value, f"ours are {', '.join(map(str, choice.matches))}; {choice.default} is taken")
    return choice.matches[choice.default]
