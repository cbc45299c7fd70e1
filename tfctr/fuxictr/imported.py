"""`tfctr.fuxictr.read`: an experiment of FuxiCTR's as a schema and a run."""

import dataclasses
import difflib
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tfctr.config import Config
from tfctr.fuxictr.columns import schema_of
from tfctr.fuxictr.models import ARGUMENTS, model_of
from tfctr.fuxictr.notes import Note, Notes
from tfctr.fuxictr.reading import Keys, merged
from tfctr.fuxictr.training import embedding_l2_of, tables_of, training_of
from tfctr.schema import Schema
from tfctr.storage import atomic_folder, require_free, yaml_text
from tfctr.types import StrPath

_WIDTH = 128


@dataclasses.dataclass(frozen=True)
class Imported:
    """What `read` has made of an experiment.

    Args:
        experiment_id, dataset_id: of FuxiCTR's files.
        schema: the columns, for `tfctr.prepare`.
        run: `{"model": ..., "training": ...}`: what `tfctr.config.Config.from_dict` reads.
        tables: the arguments of `tfctr.prepare` that the dataset's paths and sizes are: `train`, `valid`, `test`, `separator`.
        schema_notes, run_notes: what is not the same here.
    """

    experiment_id: str
    dataset_id: str
    schema: Schema
    run: dict[str, Any]
    tables: dict[str, Any]
    schema_notes: tuple[Note, ...]
    run_notes: tuple[Note, ...]

    @property
    def config(self) -> Config:
        """The run, with the defaults of `tfctr.config` where FuxiCTR has no such key."""
        return Config.from_dict(self.run)

    @property
    def notes(self) -> tuple[Note, ...]:
        """All notes."""
        return self.schema_notes + self.run_notes

    def save(self, out: StrPath) -> None:
        """Write `schema.yaml` and `run.yaml`, with the notes as comments, into a new folder, atomically.

        Raises:
            StorageError: the folder exists and is not empty, or cannot be written.
        """
        texts = {
            "schema": (f"FuxiCTR's dataset {self.dataset_id}.", self.schema.to_dict(), self.schema_notes),
            "run": (f"FuxiCTR's experiment {self.experiment_id}.", self.run, self.run_notes),
        }
        require_free(Path(out))
        with atomic_folder(out) as folder:
            for name, (title, values, notes) in texts.items():
                text = _comments([title, *map(str, notes)]) + yaml_text(values, short=True)
                (folder / f"{name}.yaml").write_text(text, encoding="utf-8")


def read(
    dataset: StrPath,
    model: StrPath,
    *,
    dataset_id: str | None = None,
    experiment_id: str | None = None,
    force: bool = False,
) -> Imported:
    """Translate an experiment of FuxiCTR's: its columns as a `Schema`, its model and training as a run.

    Each key is translated, or noted, with what it means: one that `differs` here, one that is `left out` since no result
    depends on it, and one that is `lost`, since nothing here does the same. Keys with null say nothing.

    Args:
        dataset: a `dataset_config.yaml`, or a folder as FuxiCTR reads it: with that file, or with `dataset_config/*.yaml`.
        model: a `model_config.yaml`, or a folder, likewise. `Base` goes before the experiment, and the dataset before both.
        dataset_id: the dataset in its file; by default the experiment's.
        experiment_id: the experiment in its file; needed where there are several.
        force: leave out what would be lost.

    Raises:
        ConfigError: an id, a model or a type of feature that is not known, with the closest name; a value that FuxiCTR would
            refuse; or keys that would be lost, all of them at once.
        StorageError: a file is missing.
    """
    parameters, experiment_id = merged(dataset, model, dataset_id, experiment_id)
    keys = Keys(parameters)
    on_schema, on_run = Notes(), Notes()
    tables = tables_of(keys, on_schema)
    schema = schema_of(keys, on_schema)
    embedding_l2 = embedding_l2_of(keys, on_run)
    section = model_of(keys, on_run) | ({"embedding_l2": embedding_l2} if embedding_l2 else {})
    run = {"model": section, "training": training_of(keys, on_run)}
    found = keys.take("dataset_id")
    for key, value in keys.rest().items():
        on_run.add("left out", key, value, _unread(key, keys))
    for notes in () if force else (on_schema, on_run):
        notes.refuse_lost()
    Config.from_dict(run)  # refuses a value that no run has
    return Imported(experiment_id, found, schema, run, tables, tuple(on_schema), tuple(on_run))


def _unread(key: str, keys: Keys) -> str:
    close = [] if key in ARGUMENTS else difflib.get_close_matches(key, keys.known, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"FuxiCTR's {keys.values['model']} does not read it, as it is configured{hint}"


def _comments(lines: Iterable[str]) -> str:
    return "".join(
        textwrap.fill(line, _WIDTH, initial_indent="# ", subsequent_indent="#   ", break_on_hyphens=False) + "\n"
        for line in lines
    )
