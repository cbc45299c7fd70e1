"""The file of a checkpoint: arrays and plain data in one archive, each member with its checksum."""

import contextlib
import dataclasses
import json
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
import tensorflow as tf

from tfctr.errors import StorageError
from tfctr.storage import atomic_file

_STATE = "state.json"
_FIX = "remove it; an earlier one, or a new training, takes its place"


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """An archive on disk.

    Args:
        path: of the file.
        state: its plain data.
        types: `{array: type}` of those that NumPy's own files do not know, such as bfloat16.
    """

    path: Path
    state: dict[str, Any]
    types: dict[str, str]

    @staticmethod
    def write(path: Path, state: dict[str, Any], arrays: Iterable[tuple[str, np.ndarray]]) -> None:
        """Write the file, atomically, one array after the other: none but the one being written is in memory."""
        types = {}
        with atomic_file(path, "wb") as file, zipfile.ZipFile(file, "w") as archive:
            for name, array in arrays:
                if array.dtype.kind == "V":
                    types[name] = array.dtype.name
                    array = array.view(f"u{array.dtype.itemsize}")
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)
            archive.writestr(_STATE, json.dumps({"state": state, "types": types}, allow_nan=False))

    @classmethod
    def open(cls, path: Path) -> Self:
        """The file, all members of which agree with their checksums. Raises `StorageError` for any other one."""
        with _naming(path), zipfile.ZipFile(path) as archive:
            if (damaged := archive.testzip()) is not None:
                raise zipfile.BadZipFile(f"{damaged} does not agree with its checksum")
            return cls(path, **json.loads(archive.read(_STATE)))

    def arrays(self, names: Iterable[str]) -> Iterator[np.ndarray]:
        """The arrays of these names, each read when it is asked for."""
        with _naming(self.path), zipfile.ZipFile(self.path) as archive:
            for name in names:
                with archive.open(f"{name}.npy") as member:
                    array: np.ndarray = np.lib.format.read_array(member, allow_pickle=False)
                yield array.view(tf.as_dtype(self.types[name]).as_numpy_dtype) if name in self.types else array


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except StorageError:
        raise
    except Exception as error:  # a damaged archive raises errors of many kinds
        raise StorageError(f"{path} is corrupt: {error}.", fix=_FIX) from error
