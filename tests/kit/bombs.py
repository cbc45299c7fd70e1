"""Small model files that would take much memory."""

import functools
import io
import zipfile

import h5py
import numpy as np

MUCH = 2**28


def with_member(saved, path, name, content):
    """A copy of a file with one member replaced, and compressed."""
    with zipfile.ZipFile(saved) as before, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as after:
        for info in before.infolist():
            after.writestr(info.filename, content if info.filename == name else before.read(info))
    return path


def blanks(saved, bomb):
    return with_member(saved, bomb, "metadata.json", b"{" + b" " * MUCH + b"}")


def blanks_alone(saved, bomb):
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", b"{" + b" " * MUCH + b"}")
    return bomb


def zeros(saved, bomb, **options):
    weights = io.BytesIO()
    with h5py.File(weights, "w") as file:
        made = file.create_dataset("layers/vars/0", (MUCH // 4,), np.float32, **options)
        if "compression" in options:
            made[:] = 0
    return with_member(saved, bomb, "model.weights.h5", weights.getvalue())


BOMBS = {
    "a config of blanks": blanks,
    "a config of blanks, and no weights": blanks_alone,
    "compressed weights": functools.partial(zeros, compression="gzip"),
    "weights never written": functools.partial(zeros, chunks=(1024,)),
}
