"""`tfctr.encode`: a further table as ids, by what an earlier fit has learnt."""

import contextlib
import dataclasses
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from tfctr.data.coded import transferred
from tfctr.data.dataset import Dataset
from tfctr.data.engine import Engine, quiet, refuse_storage_failures
from tfctr.data.files import find_files, is_files
from tfctr.data.findings import findings, fit_of
from tfctr.data.fitting import examples_of, read_vocabularies
from tfctr.data.manifest import PROFILE, describe_folder
from tfctr.data.profile import Profile
from tfctr.data.remote_datasets import new_dataset
from tfctr.data.separated import Layout, refuse_idle
from tfctr.data.split import SPLITS
from tfctr.data.staging import Staged, Wanted, kept_column, stage, staged_table
from tfctr.data.writing import Blocks, group_codes, write_split
from tfctr.errors import ConfigError, choose
from tfctr.features import has_vocabulary_file
from tfctr.schema import RawTable, Schema
from tfctr.storage import read_json, require_sha256, write_json
from tfctr.types import StrPath

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Fit:
    """What `prepare` has learnt from a training table, and what it has counted of its rows.

    Args:
        schema: the fitted schema, with its vocabulary files.
        facts: as far as they are known, `training`, the shares of it, and `fit`: its `digest`, `rows` and `profile`.
        profile: the `Profile` of the training table, or None.
    """

    schema: Schema
    facts: dict[str, Any]
    profile: Profile | None

    @classmethod
    def of(cls, fitted: Dataset | Schema | StrPath) -> Self:
        """The fit of a dataset, of its folder, or of a fitted schema.

        Raises:
            ConfigError: the schema is not fitted.
            StorageError: the folder is no prepared dataset, or a file is missing or corrupt.
        """
        if isinstance(fitted, Schema):
            folder = Path(fitted.folder or "")
            is_there = fitted.folder is not None and (folder / "manifest.json").is_file()
            if not is_there or Schema.load(folder / "schema.json").digest != fitted.digest:  # another fit has taken its place
                return cls(fitted, {"fit": {"digest": fitted.digest}}, None)
        else:
            folder = fitted.folder if isinstance(fitted, Dataset) else Dataset.load(fitted).folder
        schema = Schema.load(folder / "schema.json")
        manifest = read_json(folder / "manifest.json")
        known = fit_of(manifest)
        facts = {"fit": {"digest": schema.digest, **{key: known[key] for key in ("rows", "profile") if key in known}}}
        if "training" in manifest:
            facts["training"] = manifest["training"]
        digest = manifest.get("fit", {}).get("profile_sha256")
        if digest is None:
            return cls(schema, facts, None)
        require_sha256(folder / PROFILE, digest)
        return cls(schema, facts, Profile.load(folder / PROFILE))

    def save(self, folder: Path, entries: dict[str, dict[str, Any]], tables: Mapping[str, Any]) -> None:
        """Make a dataset of a new folder, in which the splits are: schema, vocabularies and profile, and then the manifest.

        Args:
            folder: that folder.
            entries, tables: of each split, as in `describe_folder`; none for the fit alone.
        """
        (folder / "vocabulary").mkdir()
        schema = dataclasses.replace(self.schema, folder=str(folder))
        for feature in schema.features:
            if has_vocabulary_file(feature):
                shutil.copyfile(self.schema.vocabulary_file(feature), schema.vocabulary_file(feature))
        schema.save(folder / "schema.json")
        if self.profile is not None:
            self.profile.save(folder / PROFILE)
        manifest = describe_folder(schema, folder, entries, tables)
        manifest |= {**self.facts, "encoded": True, "fit": manifest["fit"] | self.facts["fit"]}
        write_json(folder / "manifest.json", manifest)


@dataclasses.dataclass(frozen=True)
class Reading:
    """How a further table is read.

    Args:
        wanted: which columns are read beside the features.
        layout: of text files.
        memory_limit, threads: as in `tfctr.prepare`.
    """

    wanted: Wanted = dataclasses.field(default_factory=Wanted)
    layout: Layout = dataclasses.field(default_factory=Layout)
    memory_limit: str = "1GB"
    threads: int | None = None


@dataclasses.dataclass(frozen=True)
class OpenTable:
    """A further table, checked, in an `Engine` that has the vocabularies of a fit; `kept` are the columns kept as they are."""

    engine: Engine
    fit: Fit
    staged: Staged
    kept: list[str]

    def blocks(self, **size: int) -> Blocks:
        """Its `Blocks`."""
        has_groups = self.fit.schema.group and self.staged.positives is not None
        groups = group_codes(self.engine, [self.staged]) if has_groups else None
        return Blocks(self.engine, self.fit.schema, self.staged, groups, **size)

    def kept_columns(self, start: int, rows: int) -> Any:
        """The kept columns of some rows, as an Arrow table, under their own names."""
        block = self.staged.block(start, rows).order_by("row")
        found = block.select(*(block[kept_column(index)].name(kept_column(index)) for index in range(len(self.kept))))
        return self.engine.stream(found).read_all().rename_columns(self.kept)

    def describe(self, blocks: Blocks) -> dict[str, Any]:
        """What a manifest says of the table, all blocks of which have been taken."""
        entry = blocks.entry()
        return {**entry, "profile": blocks.profile.describe(self.fit.schema, self.fit.profile)}

    def findings(self, entry: dict[str, Any], where: str = "the given table") -> tuple[str, ...]:
        """What a user should know of the table before its scores are used, a sentence each; `where` is what they call it."""
        manifest = {**self.fit.facts, "encoded": True, "splits": {"given": entry}}
        return tuple(findings("given", manifest, examples_of(self.engine, self.fit.schema, self.staged.table), where))


@contextlib.contextmanager
def open_table(fit: Fit, table: RawTable, work: Path, reading: Reading, name: str) -> Iterator[OpenTable]:
    """Read and check a further table.

    Args:
        fit: by what it will be encoded.
        table: as in `tfctr.prepare`.
        work: an empty folder, for what does not fit into memory.
        reading: how it is read.
        name: what errors call it, if it is no file.
    """
    with Engine(work, reading.memory_limit, reading.threads) as engine:
        labels, kept = stage(engine, fit.schema, table, "rows", f"the {name} table", reading.wanted, reading.layout)
        read_vocabularies(engine, fit.schema)
        yield OpenTable(engine, fit, staged_table(engine, "rows", labels), kept)


def require_table(table: RawTable, layout: Layout) -> None:
    """Raise before any work for files that are not there, and a layout of a table that is no text file."""
    if is_files(table):
        find_files(table)
    refuse_idle(layout, [table])


def encode(
    fitted: Dataset | Schema | StrPath,
    table: RawTable,
    *,
    out: StrPath,
    split: str = "test",
    labels: bool | None = None,
    transfer: str = "rows",
    memory_limit: str = "1GB",
    threads: int | None = None,
    separator: str | None = None,
    columns: Sequence[str] | None = None,
    missing: Sequence[str] = (),
    encoding: str | None = None,
) -> Dataset:
    """Write a further table as ids, by the vocabularies, edges and means of an earlier fit.

    Nothing is learnt from the table. Its ids mean the same as those of the dataset that it is encoded by, so that a model of
    that one reads them; `prepare` would fit anew, and give ids that mean other tokens.

    Args:
        fitted: a dataset that `prepare` has written, its folder, or its `schema`.
        table: as in `tfctr.prepare`.
        out: the new folder, or its URL. It appears when all is written, and never in part.
        split: what it is in the new dataset: `"train"`, `"valid"` or `"test"`.
        labels: whether the label, and the schema's group and weight, must be there; None for where the (first) file has a
            label. Without them the rows can be scored, not evaluated.
        transfer, memory_limit, threads, separator, columns, missing, encoding: as in `tfctr.prepare`.

    Returns:
        The `Dataset` in `out`. Its split's `shares`, `profile` and `findings` compare it with the training table of the fit.
        A warning is logged where much more is unseen or missing, or a column is distributed otherwise.

    Raises:
        DataError, ConfigError, StorageError: as `tfctr.prepare`.

    >>> import tempfile, tfctr
    >>> schema = tfctr.Schema(features=[tfctr.Categorical("user")], label="click")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     monday = tfctr.prepare(schema, train={"user": ["60", "7", "60"], "click": [1, 0, 0]}, out=f"{folder}/monday")
    ...     tuesday = encode(monday, {"user": ["7", "8", "60"]}, out=f"{folder}/tuesday")
    ...     tuesday.test.ids[:, 0].tolist(), tuesday.test.has_labels
    ([4, 2, 3], False)
    """
    layout = Layout(separator, columns, missing, encoding)
    name = choose(SPLITS, split, "split")
    if labels not in (None, True, False):
        raise ConfigError(f"`labels` is {labels!r}.", fix="use True, False, or None for where there are some")
    with refuse_storage_failures(out, memory_limit), quiet():
        require_table(table, layout)
        table = transferred({name: table}, transfer)[name]
        fit = Fit.of(fitted)
        with new_dataset(out) as folder:
            work = folder / "work"
            work.mkdir()
            reading = Reading(Wanted(labels), layout, memory_limit, threads)
            with open_table(fit, table, work, reading, name) as rows:
                blocks = rows.blocks()
                shards = write_split(blocks, folder / name)
                entry = {**shards, **rows.describe(blocks)}
                found = rows.findings(entry, f"the {name} split")
            shutil.rmtree(work)
            fit.save(folder, {name: entry}, {name: table})
    for finding in found:
        _LOG.warning(finding)
    return Dataset.load(out, verify=False)
