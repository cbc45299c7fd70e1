"""Files of vectors, one a token: what embeddings begin with, and what they are written to.

| file | tokens | vectors |
|---|---|---|
| `.parquet` | the column `token`, or one named as the feature | the one column of lists of numbers |
| `.npy` | `NAME.txt` beside `NAME.npy`, UTF-8, one token a line, in the order of the rows | its rows, of float numbers |

A null token is that of rows whose value is missing; or, where the column `kind` says `out_of_vocabulary` beside it, of tokens
that no vocabulary has.
"""

import contextlib
import dataclasses
import reprlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute
from pyarrow import parquet

from tfctr.data.encoding import Fit, OpenTable, Reading, open_table
from tfctr.data.engine import quiet, refuse_storage_failures
from tfctr.data.parts import refuse_corrupt
from tfctr.data.staging import Wanted
from tfctr.errors import ConfigError, DataError, StorageError, did_you_mean, require
from tfctr.features import MISSING, OUT_OF_VOCABULARY, Numeric, Sequence, TokenFeature
from tfctr.schema import RawTable, Schema
from tfctr.types import StrPath

TOKEN, VECTOR, KIND, ID = "token", "vector", "kind", "id"  # the columns of a file that is written
KINDS = {MISSING: "missing", OUT_OF_VOCABULARY: "out_of_vocabulary"}  # of rows without a token; of all others it is `TOKEN`
BLOCK = 2**16  # vectors that are in memory at a time
UNKNOWN = -1  # the id of a token that the vocabulary does not have
_NO_SEPARATOR = "\x1f"
_FORMS = "give a .parquet file with the columns `token` and `vector` (lists of numbers), or a .npy file with a .txt beside it"


def token_owner(schema: Schema, name: str) -> TokenFeature:
    """The feature whose vocabulary the one of this name has. Raises `ConfigError` where rows are not those of known tokens."""
    features = {feature.name: feature for feature in schema.features}
    if name not in features:
        raise ConfigError(f"the schema has no feature {name!r}.", fix=did_you_mean(name, features))
    owner = features[features[name].owner]
    if isinstance(owner, Numeric):
        raise ConfigError(f"feature {name!r} is numeric, and has no tokens.", fix="name a categorical or sequence feature")
    problem = f"the tokens of feature {name!r} are hashed: several share a row, and none is known by its text."
    require(owner.hash_buckets is None, problem, fix="prepare it without `hash_buckets`")
    return owner


@dataclasses.dataclass(frozen=True)
class VectorFile:
    """A file of vectors, which it reads by blocks.

    Args:
        path: of the file.
        width: how many numbers its first vector has.
        column: that of the vectors; None in a `.npy` file.
        tokens: the table with the tokens.
        token_column, has_kinds: the column of it in which they are; whether it has the column `kind`, too.
    """

    path: Path
    width: int
    column: str | None
    tokens: RawTable
    token_column: str
    has_kinds: bool

    @classmethod
    def open(cls, path: StrPath, feature: str) -> Self:
        """The file, with vectors for this feature.

        Raises:
            ConfigError: it is of another kind.
            StorageError: it is missing or corrupt.
            DataError: it has no vectors, not the columns, or not as many tokens as vectors.
        """
        path = Path(path)
        require(path.suffix in (".parquet", ".npy"), f"{path} is no file of vectors.", fix=_FORMS)
        if not path.is_file():
            raise StorageError(f"{path} does not exist.", fix="check the path")
        with refuse_corrupt(str(path)):
            return cls._of_npy(path) if path.suffix == ".npy" else cls._of_parquet(path, feature)

    @classmethod
    def _of_npy(cls, path: Path) -> Self:
        vectors = _mapped(path)
        beside = path.with_suffix(".txt")
        try:
            tokens = [line.removesuffix("\r") for line in beside.read_text("utf-8").removesuffix("\n").split("\n")]
        except (OSError, UnicodeDecodeError) as error:
            problem = f"the tokens of {path} cannot be read from {beside}: {error}."
            raise StorageError(problem, fix="write them there, as UTF-8, one a line in the order of the vectors") from error
        problem = f"{path} has {len(vectors):,} vectors, and {beside} {len(tokens):,} lines."
        require(len(tokens) == len(vectors), problem, fix="write one token a line, and nothing else", error=DataError)
        return cls(path, vectors.shape[1], None, pa.table({TOKEN: tokens}), TOKEN, has_kinds=False)

    @classmethod
    def _of_parquet(cls, path: Path, feature: str) -> Self:
        file = parquet.ParquetFile(path)
        columns = file.schema_arrow
        lists = [column.name for column in columns if _is_vector(column.type)]
        problem = f"{path} has {len(lists)} columns of lists of numbers{': ' if lists else ''}{', '.join(lists)}."
        require(len(lists) == 1, problem, fix=_FORMS, error=DataError)
        token = next((name for name in (TOKEN, feature) if name in columns.names), "")
        problem = f"{path} has neither a column {TOKEN!r} nor {feature!r}, for the tokens."
        require(token, problem, fix=_FORMS, error=DataError)
        first = next((batch.column(0)[0].as_py() for batch in file.iter_batches(1, columns=lists)), None)
        require(first, f"the first vector of {path} is {'missing' if first is None else 'empty'}.", fix=_FORMS, error=DataError)
        return cls(path, len(first or ()), lists[0], str(path), token, KIND in columns.names)

    def blocks(self) -> Iterator[np.ndarray]:
        """The vectors, in order: float32 `(rows, width)`.

        Raises:
            DataError: one is null, of another width than the first, or not finite as float32; with its row and token.
        """
        start = 0
        with refuse_corrupt(str(self.path)), np.errstate(over="ignore"):
            for block in self._npy_blocks() if self.column is None else self._parquet_blocks():
                for row in np.flatnonzero(~np.isfinite(block).all(axis=1))[:1]:
                    self._refuse(start + row, f"holds {reprlib.repr(block[row].tolist())}, which is not finite as float32")
                yield block
                start += len(block)

    def _npy_blocks(self) -> Iterator[np.ndarray]:
        vectors = _mapped(self.path)
        for start in range(0, len(vectors), BLOCK):
            yield np.asarray(vectors[start : start + BLOCK], np.float32)

    def _parquet_blocks(self) -> Iterator[np.ndarray]:
        compute: Any = pyarrow.compute  # whose functions are made at import, unseen by type checkers
        start = 0
        for batch in parquet.ParquetFile(self.path).iter_batches(BLOCK, columns=[self.column]):
            vectors = batch.column(0)
            lengths = compute.list_value_length(vectors).fill_null(UNKNOWN).to_numpy()
            for row in np.flatnonzero(lengths != self.width)[:1]:
                has = "is null" if lengths[row] < 0 else f"has {lengths[row]} numbers"
                self._refuse(start + row, f"{has}, and the first one has {self.width}")
            yield vectors.flatten().to_numpy(zero_copy_only=False).astype(np.float32).reshape(-1, self.width)
            start += len(batch)

    def ids(self, schema: Schema, owner: TokenFeature) -> np.ndarray:
        """For each vector the id of its token, by the vocabulary of a feature: int32 `(rows,)`, `UNKNOWN` where that has none.

        Tokens are read as `prepare` reads those of the feature: 7, 7.0 and "007" are one where it is of whole numbers.

        Raises:
            DataError: a token that cannot be read, or two vectors of one token, with their rows.
            StorageError: the vocabulary file is missing or corrupt.
        """
        kept = [self.token_column, *([KIND] if self.has_kinds else [])]
        found = [np.empty(0, np.int32)]
        fit = Fit(_alone(schema, owner, self.token_column), {}, None)
        reading = Reading(Wanted(labels=False, kept=kept))
        name = self.path.with_suffix(".txt").name
        with contextlib.ExitStack() as stack:
            work = stack.enter_context(tempfile.TemporaryDirectory(prefix="tfctr-vectors-"))
            stack.enter_context(refuse_storage_failures(work))
            stack.enter_context(quiet())
            rows = stack.enter_context(open_table(fit, self.tokens, Path(work), reading, name))
            for arrays in rows.blocks():
                ids = arrays["ids"][:, 0].copy()
                ids[ids == OUT_OF_VOCABULARY] = UNKNOWN
                if self.has_kinds:
                    ids[_are_of_unknown(rows, sum(map(len, found)), len(ids))] = OUT_OF_VOCABULARY
                found.append(ids)
        ids = np.concatenate(found)
        self._refuse_doubles(ids)
        return ids

    def examples(self, ids: np.ndarray) -> str:
        """Up to three tokens that the vocabulary does not have."""
        return ", ".join(repr(self._token(row)) for row in np.flatnonzero(ids == UNKNOWN)[:3])

    def _refuse_doubles(self, ids: np.ndarray) -> None:
        rows = np.flatnonzero(ids != UNKNOWN)
        _, first, places = np.unique(ids[rows], return_index=True, return_inverse=True)
        for row in np.flatnonzero(first[places] != np.arange(len(rows)))[:1]:
            self._refuse(rows[row], f"is the second one of its token, after row {rows[first[places[row]]] + 1}")

    def _refuse(self, row: Any, what: str) -> NoReturn:
        problem = f"{self.path}: row {row + 1}: the vector of the token {self._token(row)!r} {what}."
        raise DataError(problem, fix="correct that row, or drop it")

    def _token(self, row: Any) -> Any:
        table = self.tokens if self.column is None else parquet.read_table(self.path, columns=[self.token_column])
        return table[self.token_column][int(row)].as_py()


def _mapped(path: Path) -> np.ndarray:
    try:
        vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise StorageError(f"{path} cannot be read: {error}", fix="write it with numpy.save") from error
    problem = f"{path} holds an array of {vectors.dtype}, of the shape {vectors.shape}."
    is_matrix = vectors.ndim == 2 and vectors.size and vectors.dtype.kind == "f"
    require(is_matrix, problem, fix="give floats, (tokens, width)", error=DataError)
    return vectors


def _is_vector(kind: pa.DataType) -> bool:
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return is_list and (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type))


def _alone(schema: Schema, owner: TokenFeature, column: str) -> Schema:
    """A schema of this feature, one token a row, read from this column."""
    changed: dict[str, Any] = {"column": column}
    if isinstance(owner, Sequence):
        changed |= {"max_length": 1, "separator": _NO_SEPARATOR, "weight_separator": None}
    return Schema([dataclasses.replace(owner, **changed)], label=f"no {column}", folder=schema.folder)


def _are_of_unknown(rows: OpenTable, start: int, number: int) -> np.ndarray:
    """Which of these rows have no token, and are said to be those of unknown ones."""
    tokens, kinds = rows.kept_columns(start, number).columns
    compute: Any = pyarrow.compute
    said = compute.equal(kinds.cast(pa.string()), KINDS[OUT_OF_VOCABULARY]).fill_null(False)
    return compute.and_(tokens.is_null(), said).to_numpy()
