"""The file of a checkpoint: arrays and plain data in one archive, each member with its checksum."""

import contextlib
import dataclasses
import json
import logging
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
import tensorflow as tf

from tfctr.errors import StorageError
from tfctr.storage import atomic_file, make_folder

_LOG = logging.getLogger(__name__)
_NAME = "checkpoint-{epoch:06d}-{step:09d}.zip"
_KEPT = 2
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
    def last_in(cls, folder: Path) -> Self | None:
        """The last one in a folder that is whole; None where there is none. Raises `StorageError` where none is whole."""
        files = files_in(folder)
        for file in reversed(files):
            try:
                return cls.open(file)
            except StorageError as error:
                _LOG.warning("%s", error)
        if files:
            raise StorageError(f"no checkpoint in {folder} is whole.", fix="remove the folder, and train anew")
        return None

    @classmethod
    def add_to(
        cls, folder: Path, epoch: int, step: int, state: dict[str, Any], arrays: Iterable[tuple[str, np.ndarray]]
    ) -> None:
        """Write that of an epoch and step into a folder, where the last two stay; a full disk is a logged warning."""
        try:
            make_folder(folder)
            cls.write(folder / _NAME.format(epoch=epoch, step=step), state, arrays)
            for file in files_in(folder)[:-_KEPT]:
                file.unlink()
        except OSError as error:
            _LOG.warning("no checkpoint of epoch %d, step %d; those before are kept, training goes on: %s", epoch, step, error)

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


def files_in(folder: Path) -> list[Path]:
    """The files of a training, the last one last."""
    return sorted(folder.glob("checkpoint-*.zip"))


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except StorageError:
        raise
    except Exception as error:  # a damaged archive raises errors of many kinds
        raise StorageError(f"{path} is corrupt: {error}.", fix=_FIX) from error
