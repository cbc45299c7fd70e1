"""Prepared data: ids on disk, and checked.

DATA/schema.json  DATA/vocabulary/*.txt  DATA/manifest.json
DATA/train/ids-00000.npy labels-00000.npy [groups-00000.npy] [weights-00000.npy]  ids-00001.npy ...
"""

import dataclasses
from pathlib import Path

import numpy as np

from tfctr.data.split import DTYPES, Split
from tfctr.errors import ConfigError, StorageError, TfctrError
from tfctr.features import Numeric
from tfctr.schema import Schema
from tfctr.storage import read_json, sha256

FORMAT = 1
_PREPARE_AGAIN = "restore the folder, or prepare the data again"


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A folder that `tfctr.prepare` wrote: the fitted schema, and a `Split` for each table.

    `train`, `valid` and `test` are those splits; one that was not prepared is a `ConfigError`, and one whose files have changed
    a `StorageError`. They are compared when the split is first asked for: an evaluation does not read the training table.
    `alone` is `{feature: AUC}`, how well each alone ranks the clicks of training; None where nobody could tell.
    """

    schema: Schema
    splits: dict
    folder: Path
    unverified: dict = dataclasses.field(default_factory=dict, repr=False)  # {split: {file: SHA-256}}
    alone: dict | None = dataclasses.field(default=None, repr=False)

    @classmethod
    def load(cls, folder, verify=True):
        """Open a prepared folder. Ids stay on disk until they are used; labels, groups and weights are read.

        Args:
            folder: what was `out` of `tfctr.prepare`.
            verify: read every file once and compare its SHA-256 with the manifest, those of a split when it is first asked for;
                without it only sizes are compared, now.

        Raises:
            StorageError: a file is missing, truncated, changed, or of another format.
        """
        folder = Path(folder)
        if not (folder / "manifest.json").is_file():
            fix = f"give the folder where it is, or make it: tfctr prepare SCHEMA --train TABLE --valid TABLE --out {folder}"
            raise StorageError(f"{folder} is not a prepared dataset: it has no manifest.json.", fix=fix)
        manifest = read_json(folder / "manifest.json")
        try:
            return cls._from_manifest(folder, manifest, verify)
        except TfctrError:
            raise
        except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
            raise StorageError(f"{folder / 'manifest.json'} is not a manifest: {error!r}.", fix=_PREPARE_AGAIN) from error

    @classmethod
    def _from_manifest(cls, folder, manifest, verify):
        _require(manifest["format"] == FORMAT, folder, f"has the format {manifest['format']}, this tfctr reads {FORMAT}")
        if verify:
            _check_sha256(folder / "schema.json", manifest["schema_sha256"])
        schema = Schema.load(folder / "schema.json")
        _require(schema.is_fitted, folder / "schema.json", "is not a fitted schema")
        _require(schema.width == manifest["width"], folder / "schema.json", "has another width than the manifest")
        _check_vocabularies(schema, manifest["vocabulary"], verify)
        splits, unverified = {}, {}
        for name, description in manifest["splits"].items():
            splits[name] = load_split(folder / name, name, description, schema)
            splits[name].describe(manifest)
            files = [file for shard in description["shards"] for file in shard["files"].items()]
            unverified[name] = {folder / name / file: digest for file, digest in files}
        return cls(schema, splits, folder, unverified if verify else {}, manifest.get("alone"))

    @property
    def train(self):
        return self._split("train")

    @property
    def valid(self):
        return self._split("valid")

    @property
    def test(self):
        return self._split("test")

    def _split(self, name):
        if name not in self.splits:
            raise ConfigError(
                f"the dataset in {self.folder} has no {name} split; it has: {', '.join(self.splits)}.",
                fix=f"prepare it with a {name} table: tfctr prepare SCHEMA --train TABLE --{name} TABLE --out FOLDER",
            )
        for path, digest in self.unverified.get(name, {}).items():
            _check_sha256(path, digest)
        self.unverified.pop(name, None)
        return self.splits[name]


# reading a folder


def _check_vocabularies(schema, digests, verify):
    for feature in schema.features:
        if not isinstance(feature, Numeric) and feature.hash_buckets is None:
            path = schema.vocabulary_file(feature)
            _require(path.is_file(), path, "is missing")
            if verify:
                _check_sha256(path, digests[path.name])


def load_split(folder, name, description, schema):
    """A split of a folder as its manifest describes it; contents are not compared."""
    names = ["ids", "labels", *(["groups"] if schema.group else []), *(["weights"] if schema.weight else [])]
    columns = {column: [] for column in names}
    for number, shard in enumerate(description["shards"]):
        for column in names:
            file = f"{column}-{number:05d}.npy"
            shape = (shard["rows"], schema.width) if column == "ids" else (shard["rows"],)
            columns[column].append(_open_array(folder / file, DTYPES[column], shape))
    rows = sum(shard["rows"] for shard in description["shards"])
    _require(rows == description["rows"] and rows > 0, folder, f"has {rows} rows, the manifest says {description['rows']}")
    shards = columns.pop("ids")
    values = {column: np.concatenate(arrays) for column, arrays in columns.items()}
    return Split(name, shards, **values, digest=schema.digest)


def _open_array(path, dtype, shape):
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError as error:
        raise StorageError(f"{path} is missing.", fix=_PREPARE_AGAIN) from error
    except (ValueError, OSError) as error:
        raise StorageError(f"{path} is truncated or corrupt: {error}", fix=_PREPARE_AGAIN) from error
    found, expected = f"{array.dtype} {array.shape}", f"{np.dtype(dtype)} {shape}"
    _require(found == expected, path, f"holds {found}, the manifest says {expected}")
    return array.view(np.ndarray)


def _check_sha256(path, expected):
    _require(path.is_file(), path, "is missing")
    _require(sha256(path) == expected, path, "is not the file that was written: its SHA-256 is not the manifest's")


def _require(condition, path, problem):
    if not condition:
        raise StorageError(f"{path} {problem}.", fix=_PREPARE_AGAIN)
