"""What signatures call their arguments: the aliases that annotations share.

Keras and TensorFlow carry no types of their own, and a layer takes a `keras.KerasTensor` while a model is drawn, a tensor while
it runs, and an array that Keras makes one of. `Tensor` therefore checks nothing; the docstrings give the shapes.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

# A symbolic `keras.KerasTensor`, a tensor of TensorFlow, or an array.
Tensor: TypeAlias = Any

# The sizes of a tensor; None is one that differs from batch to batch.
Shape: TypeAlias = tuple[int | None, ...]

# The path of a file or folder.
StrPath: TypeAlias = str | os.PathLike[str]

# What `keras.activations.get` takes: a name, or a function of a tensor.
Activation: TypeAlias = str | Callable[[Tensor], Tensor] | None

# What `keras.initializers.get` and `keras.regularizers.get` take: a name, its configuration, or an object.
Initializer: TypeAlias = str | Mapping[str, Any] | Callable[..., Tensor]
Regularizer: TypeAlias = str | Mapping[str, Any] | Callable[[Tensor], Tensor] | None
