"""What annotations call the things that go over the wire."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from tfctr.types import Shape

# A message of TensorFlow Serving, or a part of one. The classes are made at run time, so nothing can check their fields.
Message: TypeAlias = Any

# Rows in any form that `rows.to_columns` takes: columns, a list of dicts, a table of any library, a matrix.
Rows: TypeAlias = Any

# The values of one input, one for each row: an array, or for text a list of `bytes`.
Column: TypeAlias = np.ndarray | list[bytes]

# The NumPy type and the shape, with None for the batch, of each input or output of a signature, by name.
TensorSpecs: TypeAlias = Mapping[str, tuple[np.dtype, Shape]]

# What joins the tokens of lists: one character for all columns, or each column's own; None where it is not known.
Separators: TypeAlias = str | Mapping[str, str] | None
