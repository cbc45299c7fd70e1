"""How an argument of FuxiCTR's is read: its default there, and what its value gives here."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from tfctr.errors import choose, require


class NoCounterpart(Exception):
    """What a value of FuxiCTR's would mean, where ours has nothing like it."""


# `(value, all values) -> {our argument: value}`. Raises `NoCounterpart`.
Reader = Callable[[Any, Mapping[str, Any]], dict[str, Any]]


_ACTIVATIONS = {name: name for name in ("dice", "elu", "gelu", "linear", "mish", "prelu", "relu", "selu", "sigmoid", "silu")}
_ACTIVATIONS |= {"softplus": "softplus", "tanh": "tanh", "identity": "linear", "leakyrelu": "leaky_relu"}


@dataclasses.dataclass(frozen=True)
class Argument:
    """An argument of FuxiCTR's: its default there, and how it is read."""

    default: Any
    read: Reader


def given(ours: str) -> Reader:
    """The value as it is."""
    return lambda value, values: {ours: value}


def named(ours: str, names: Mapping[str, str]) -> Reader:
    """Our name for theirs."""
    return lambda value, values: {ours: choose(names, value, f"value of {ours}")}


def only(expected: Any, meaning: str) -> Reader:
    """The one value that ours stands for."""

    def read(value: Any, values: Mapping[str, Any]) -> dict[str, Any]:
        if value != expected:
            raise NoCounterpart(meaning)
        return {}

    return read


def units(ours: str, empty: Any = ...) -> Reader:
    """The widths of hidden layers; none of them is `empty` here, where ours has that."""

    def read(value: Any, values: Mapping[str, Any]) -> dict[str, Any]:
        if value == [] and empty is ...:
            raise NoCounterpart("ours has at least one hidden layer")
        return {ours: empty if value == [] else value}

    return read


def equal(ours: str) -> Reader:
    """A value a layer, or one for all; ours has one."""
    return lambda value, values: {ours: _one(value)}


def activation(ours: str = "activation") -> Reader:
    """FuxiCTR's name of an activation, in any case; null is none."""

    def read(value: Any, values: Mapping[str, Any]) -> dict[str, Any]:
        name = _one([str(one or "linear").lower() for one in (value if isinstance(value, list) else [value])])
        if name not in _ACTIVATIONS:
            raise NoCounterpart(f"ours are {', '.join(sorted({*_ACTIVATIONS.values()}))}")
        return {ours: _ACTIVATIONS[name]}

    return read


def only_relu(value: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """ReLU, in any case."""
    if activation()(value, values) != {"activation": "relu"}:
        raise NoCounterpart("ours has ReLU there")
    return {}


def unused(value: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """An argument that another one reads."""
    return {}


def head_dim(value: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """The width of each head, of the width of all."""
    heads = values["num_heads"]
    require(value % heads == 0, f"attention_dim is {value}, and num_heads {heads}.", fix="use a multiple, as FuxiCTR asks")
    return {"head_dim": value // heads}


def second_dropout(value: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """AFM's two dropouts: of the attention's weights, and of the pooled products."""
    first, second = value
    if first:
        raise NoCounterpart("ours drops the pooled products, by the second number, and no weights of the attention")
    return {"dropout": second}


def width_of_all_heads(value: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """DCNv3's width of the embedding, which it has for each head."""
    return {"embedding_dim": value * values["num_heads"]}


def experts(value: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """The low-rank matrices of DCNv2, where it has some."""
    return {"rank": values["low_rank"], "num_experts": values["num_experts"]} if value else {}


def orders(value: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """EulerNet's products a layer."""
    return {"num_layers": len(value), "num_orders": _one(value)}


def blocks(value: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """MaskNet's blocks side by side."""
    return {"block_units": [values["parallel_block_dim"]] * value}


def _one(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    if not value or any(other != value[0] for other in value):
        raise NoCounterpart("ours has one for all layers")
    return value[0]
