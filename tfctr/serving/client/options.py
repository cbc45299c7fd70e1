"""The options of a client, checked before anything is sent."""

from collections.abc import Mapping
from typing import Any

from tfctr.errors import ConfigError, require, require_count


def require_model(model: Any, version: Any, label: Any) -> None:
    """Raise `ConfigError` unless these name a model on a server, and at most one of its versions."""
    require(_is_name(model), f"`model` is {model!r}.", fix="give the model's name on the server")
    if version is not None:
        require_count("version", version, least=0, most=2**63 - 1)
    problem = f"`label` is {label!r}."
    require(label is None or _is_name(label), problem, fix="give a label's name, such as 'stable'")
    require(version is None or label is None, problem, fix="give `version` or `label`, not both")


def require_manner(separator: Any, strict: Any, observe: Any) -> None:
    """Raise `ConfigError` unless these can say how rows are read and who is told of requests."""
    problem = f"`separator` is {separator!r}."
    require(_is_separator(separator), problem, fix='give one character, or a dict such as {"genres": "|"}')
    require(isinstance(strict, bool), f"`strict` is {strict!r}.", fix="give True or False")
    if observe is not None and not callable(observe):
        raise ConfigError(f"`observe` is {observe!r}.", fix="give a function of one `Request`")


def _is_name(text: Any) -> bool:
    return isinstance(text, str) and text != "" and text.isprintable()


def _is_separator(separator: Any) -> bool:
    marks = separator.values() if isinstance(separator, Mapping) else [separator]
    return separator is None or all(isinstance(mark, str) and len(mark) == 1 for mark in marks)
