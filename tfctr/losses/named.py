"""What a loss that compares several outputs of a model reads."""

from collections.abc import Mapping

import keras

from tfctr.errors import ConfigError
from tfctr.types import Tensor


def named_outputs(loss: keras.losses.Loss, outputs: Mapping[str, Tensor] | Tensor, *names: str) -> list[Tensor]:
    """`[outputs[name] for name in names]`. Raises `ConfigError` where there are no such names, with the way that works."""
    if isinstance(outputs, Mapping):
        missing = [name for name in names if name not in outputs]
        if not missing:
            return [outputs[name] for name in names]
        found = f"the outputs are {sorted(outputs)}, without {missing[0]!r}"
    else:
        found = "it was called with one output alone, as Keras' `compile(loss=...)` does"
    raise ConfigError(
        f"{type(loss).__name__} reads the outputs {', '.join(map(repr, names))}: {found}.",
        fix=f'CTRModel(schema, ids, outputs, auxiliary={{"{loss.name}": {type(loss).__name__}(...)}}) gives it all of them',
    )
