"""Models by name."""

import inspect
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import keras

from tfctr.errors import ConfigError, choose, did_you_mean
from tfctr.layers import ENCODERS, FUSIONS, SELECTIONS
from tfctr.models._base import CTRModel
from tfctr.schema import Schema

# The constructors of models differ in their arguments, so that their class is known only as what makes a model.
MODELS: dict[str, Any] = {}

Model = TypeVar("Model", bound=CTRModel)


def register(cls: type[Model]) -> type[Model]:
    """Make a model known by its class name: to `build`, the command line, `.keras` files and the contract tests.

    The command line knows a model of yours by `tfctr --import MODULE`, where MODULE is what defines it.

    Raises:
        ConfigError: another class has that name; to define the same one again, as in a notebook, is no error.
    """
    known = MODELS.get(cls.__name__, cls)
    if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
        problem = f"{cls.__name__!r} is the name of {known.__module__}.{known.__qualname__}."
        raise ConfigError(problem, fix="give your model a name of its own")
    MODELS[cls.__name__] = keras.saving.register_keras_serializable("tfctr")(cls)
    return cls


def build(name: str, schema: Schema, /, **arguments: Any) -> CTRModel:
    """The registered model `name`, from plain arguments such as a YAML file holds.

    An argument that is a layer is written `{"type": "MLP", "hidden_units": [400, 400]}`.

    Raises:
        ConfigError: an unknown or missing argument, an unknown model or layer, with the closest name.
    """
    layers = {key: _layer(key, value, schema, arguments) for key, value in arguments.items()}
    return _construct(choose(MODELS, name, "model"), schema, **layers)


_REFERENCE = re.compile(r"Reference: \[(.+?), (\d{4})\]\((\S+?)\)")


def describe(name: str) -> dict[str, Any]:
    """What the registered model `name` is: its idea, paper, year and link, from its docstring; the encoders its file names.

    A model without a line such as `Reference: [Guo et al., 2017](https://...)` has None for the three.
    """
    cls = choose(MODELS, name, "model")
    text = inspect.getdoc(cls) or name
    found = _REFERENCE.search(text)
    paper, year, link = found.groups() if found else (None, None, None)
    named = vars(sys.modules[cls.__module__]).values()
    encoders = [encoder for encoder, layer in ENCODERS.items() if layer in named]
    return {"idea": text.splitlines()[0], "paper": paper, "year": year and int(year), "link": link, "encoders": encoders}


_SECTION = re.compile(r"^Args:\n((?:    .*\n|\n)+)", re.MULTILINE)
_ARGUMENT = re.compile(r"^    ((?:\w+, )*\w+): (.+(?:\n {5,}\S.*)*)", re.MULTILINE)


def describe_arguments(name: str) -> dict[str, dict[str, Any]]:
    """`{argument: {"default": ..., "meaning": ...}}` of the registered model `name`, from its signature and its docstring.

    An argument that must be given has no "default"; one that no docstring explains has the meaning None.

    >>> describe_arguments("FM")["embedding_dim"]
    {'default': 16, 'meaning': 'width of `v`.'}
    """
    cls = choose(MODELS, name, "model")
    meanings = _meanings(cls)
    of_all = _meanings(CTRModel)
    arguments = {}
    for argument, parameter in inspect.signature(cls.__init__).parameters.items():
        if argument not in ("self", "schema", "name"):
            meaning = meanings.get(argument)
            meaning = of_all.get(argument) if meaning in (None, "see `CTRModel`.") else meaning
            default = {} if parameter.default is parameter.empty else {"default": parameter.default}
            arguments[argument] = {**default, "meaning": meaning}
    return arguments


def _meanings(cls: type) -> dict[str, str]:
    """`{argument: text}` of the docstring's section "Args"."""
    section = _SECTION.search((inspect.getdoc(cls) or "") + "\n")
    found = _ARGUMENT.findall(section[1]) if section else ()
    return {name: " ".join(text.split()) for names, text in found for name in names.split(", ")}


def _layer(argument: str, value: Any, schema: Schema, others: Mapping[str, Any]) -> Any:
    """The layer that an argument such as `{"type": "MLP", ...}` means; any other argument as it is."""
    if not isinstance(value, dict):
        return value
    options = dict(value)
    choices = {"selection": SELECTIONS, "fusion": FUSIONS}.get(argument, ENCODERS)
    if "type" not in options:
        raise ConfigError(f"`{argument}` has no `type`.", fix=did_you_mean("", choices))
    layer = choose(choices, options.pop("type"), argument)
    if argument != "selection":
        return _construct(layer, **options)
    if "embedding_dim" in others:  # one width, wherever it is written
        dim = options.setdefault("embedding_dim", others["embedding_dim"])
        if dim != others["embedding_dim"]:
            problem = f"`embedding_dim` is {others['embedding_dim']}, and {dim} in `selection`."
            raise ConfigError(problem, fix="give one of them")
    return _construct(layer, schema, **options)


def _construct(cls: Callable[..., Any], /, *schema: Schema, **options: Any) -> Any:
    """`cls(*schema, **options)`, with a `ConfigError` for an argument that it does not have or that is missing."""
    signature = inspect.signature(cls.__init__)
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    known = [name for name, parameter in signature.parameters.items() if parameter.kind in named]
    known = [name for name in known if name not in ("self", "schema")]
    for option in options:
        if option not in known:
            raise ConfigError(f"{cls.__name__} has no argument {option!r}.", fix=did_you_mean(option, known))
    try:
        signature.bind(None, *schema, **options)
    except TypeError as error:
        raise ConfigError(f"{cls.__name__}: {error}.", fix="see its documentation") from error
    return cls(*schema, **options)
