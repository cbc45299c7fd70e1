"""Prepared data: ids on disk, and checked.

DATA/schema.json  DATA/vocabulary/*.txt  DATA/profile.npz  [DATA/last_seen.npz]  DATA/manifest.json
DATA/train/ids-00000.npy labels-00000.npy [groups-00000.npy] [weights-00000.npy]  ids-00001.npy ...

DATA may be a URL: see `tfctr.data.remote_datasets`.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from tfctr.data.manifest import FORMAT, fit_files, require_fit_files
from tfctr.data.remote import is_url
from tfctr.data.remote_datasets import fetch, local_folder, origin_of
from tfctr.data.split import DTYPES, Split
from tfctr.errors import ConfigError, StorageError, TfctrError, require
from tfctr.features import has_vocabulary_file
from tfctr.schema import Schema
from tfctr.storage import read_json, require_sha256
from tfctr.types import StrPath

_PREPARE_AGAIN = "restore the folder, or prepare the data again"


@dataclasses.dataclass(frozen=True)
class Dataset:
    """What `tfctr.prepare` or `tfctr.encode` wrote: the fitted schema, and a `Split` for each table.

    `train`, `valid` and `test` are those splits; one that was not prepared is a `ConfigError`, and one whose files have changed
    a `StorageError`. They are compared when the split is first asked for: an evaluation does not read the training table.
    `alone` is `{feature: AUC}`, how well each alone ranks the clicks of training; None where nobody could tell. One that
    `is_encoded` is of the fit of another dataset. `extension` says what has become of the tokens of the dataset that it
    extends, if there is one: see `tfctr.prepare`. Of one at a URL `folder` is that of this machine, where its files come to.
    """

    schema: Schema
    splits: Mapping[str, Split]
    folder: Path
    unverified: dict[str, dict[Path, str]] = dataclasses.field(default_factory=dict, repr=False)  # {split: {file: SHA-256}}
    alone: dict[str, float] | None = dataclasses.field(default=None, repr=False)
    is_encoded: bool = False
    extension: dict[str, Any] | None = dataclasses.field(default=None, repr=False)

    @classmethod
    def load(cls, folder: StrPath, verify: bool = True) -> Self:
        """Open a prepared folder. Ids stay on disk until they are used; labels, groups and weights are read.

        Args:
            folder: what was `out` of `tfctr.prepare`, a folder or a URL. The files of a URL come when they are needed, and stay
                in a folder of this machine (see `tfctr.data.remote_datasets`).
            verify: read every file once and compare its SHA-256 with the manifest, those of a split when it is first asked for;
                without it only sizes are compared, now. What comes from a URL is always compared; what came earlier and has
                changed comes anew.

        Raises:
            StorageError: a file is missing, truncated, changed, or of another format.
        """
        folder = local_folder(folder)
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
    def _from_manifest(cls, folder: Path, manifest: Any, verify: bool) -> Self:
        problem = f"{folder} has the format {manifest['format']}, this tfctr reads {FORMAT}."
        require(manifest["format"] == FORMAT, problem, fix=_PREPARE_AGAIN, error=StorageError)
        remote = origin_of(folder)
        if remote is not None:
            fetch(remote, folder, fit_files(manifest), verify)
        if verify:
            require_sha256(folder / "schema.json", manifest["schema_sha256"])
            require_fit_files(folder, manifest)
        schema = Schema.load(folder / "schema.json")
        problem = f"{folder / 'schema.json'} is not a fitted schema."
        require(schema.is_fitted, problem, fix=_PREPARE_AGAIN, error=StorageError)
        digest = manifest.get("fit", {}).get("digest", schema.digest)
        problem = f"{folder / 'schema.json'} is of another fit than the manifest."
        require(schema.digest == digest, problem, fix=_PREPARE_AGAIN, error=StorageError)
        problem = f"{folder / 'schema.json'} has another width than the manifest."
        require(schema.width == manifest["width"], problem, fix=_PREPARE_AGAIN, error=StorageError)
        _check_vocabularies(schema, manifest["vocabulary"], verify)
        described = manifest["splits"]
        digests = {name: _files(name, description) for name, description in described.items()}

        def open_split(name: str) -> Split:
            if remote is not None:
                fetch(remote, folder, digests[name], verify)
            split = load_split(folder / name, name, described[name], schema)
            split.describe(manifest)
            return split

        unverified = {name: {folder / file: digest for file, digest in files.items()} for name, files in digests.items()}
        return cls(
            schema,
            {name: open_split(name) for name in described} if remote is None else _Fetched(described, open_split),
            folder,
            unverified if verify and remote is None else {},
            manifest.get("alone"),
            manifest.get("encoded", False),
            manifest.get("fit", {}).get("extension"),
        )

    @property
    def train(self) -> Split:
        return self._split("train")

    @property
    def valid(self) -> Split:
        return self._split("valid")

    @property
    def test(self) -> Split:
        return self._split("test")

    def _split(self, name: str) -> Split:
        if name not in self.splits:
            place = origin_of(self.folder) or self.folder
            problem = f"the dataset in {place} has no {name} split; it has: {', '.join(self.splits)}."
            raise ConfigError(problem, fix=self._way_to(name))
        for path, digest in self.unverified.get(name, {}).items():
            require_sha256(path, digest)
        self.unverified.pop(name, None)
        return self.splits[name]

    def _way_to(self, name: str) -> str:
        if self.is_encoded:
            return f"encode a table as such: tfctr encode DATASET TABLE --split {name} --out FOLDER"
        return f"prepare it with a {name} table: tfctr prepare SCHEMA --train TABLE --{name} TABLE --out FOLDER"


def fit_folder(place: StrPath) -> Path:
    """The folder of a dataset, or of a copy of its vocabularies: of a URL that of this machine, with the files of its fit."""
    return Dataset.load(place).folder if is_url(place) else Path(place)


# reading a folder


class _Fetched(Mapping[str, Split]):
    """Splits, each of which is opened when it is first asked for."""

    def __init__(self, names: Iterable[str], open_split: Callable[[str], Split]) -> None:
        self._opened: dict[str, Split | None] = dict.fromkeys(names)
        self._open = open_split

    def __getitem__(self, name: str) -> Split:
        split = self._opened[name]
        if split is None:
            split = self._opened[name] = self._open(name)
        return split

    def __contains__(self, name: object) -> bool:
        return name in self._opened

    def __iter__(self) -> Iterator[str]:
        return iter(self._opened)

    def __len__(self) -> int:
        return len(self._opened)


def _files(name: str, description: Any) -> dict[str, str]:
    """`{file: SHA-256}` of a split, as the manifest describes it."""
    return {f"{name}/{file}": digest for shard in description["shards"] for file, digest in shard["files"].items()}


def _check_vocabularies(schema: Schema, digests: Mapping[str, str], verify: bool) -> None:
    for feature in schema.features:
        if has_vocabulary_file(feature):
            path = schema.vocabulary_file(feature)
            require(path.is_file(), f"{path} is missing.", fix=_PREPARE_AGAIN, error=StorageError)
            if verify:
                require_sha256(path, digests[path.name])


def load_split(folder: Path, name: str, description: Any, schema: Schema) -> Split:
    """A split of a folder as its manifest describes it; contents are not compared."""
    others = [*(["groups"] if schema.group else []), *(["weights"] if schema.weight else [])]
    names = ["ids", *(["labels", *others] if "positives" in description else [])]
    columns: dict[str, list[np.ndarray]] = {column: [] for column in names}
    for number, shard in enumerate(description["shards"]):
        for column in names:
            file = f"{column}-{number:05d}.npy"
            shape = (shard["rows"], schema.width) if column == "ids" else (shard["rows"],)
            columns[column].append(_open_array(folder / file, DTYPES[column], shape))
    rows = sum(shard["rows"] for shard in description["shards"])
    problem = f"{folder} has {rows} rows, the manifest says {description['rows']}."
    require(rows == description["rows"] and rows > 0, problem, fix=_PREPARE_AGAIN, error=StorageError)
    shards = columns.pop("ids")
    values = {column: np.concatenate(arrays) for column, arrays in columns.items()}
    return Split(name, shards, values.pop("labels", None), **values, digest=schema.digest)


def _open_array(path: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> np.ndarray:
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError as error:
        raise StorageError(f"{path} is missing.", fix=_PREPARE_AGAIN) from error
    except (ValueError, OSError) as error:
        raise StorageError(f"{path} is truncated or corrupt: {error}", fix=_PREPARE_AGAIN) from error
    found = f"{array.dtype} {array.shape}"
    expected = f"{np.dtype(dtype)} {shape}"
    problem = f"{path} holds {found}, the manifest says {expected}."
    require(found == expected, problem, fix=_PREPARE_AGAIN, error=StorageError)
    return array.view(np.ndarray)
