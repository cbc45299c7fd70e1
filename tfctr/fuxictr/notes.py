"""What is said of the keys that are not the same in tfctr."""

import dataclasses
import reprlib
from collections.abc import Iterator
from typing import Any, Literal

from tfctr.errors import ConfigError

Kind = Literal["differs", "left out", "lost"]
_KINDS = ("lost", "differs", "left out")
_MOST_NAMES = 6


@dataclasses.dataclass(frozen=True)
class Note:
    """One key, or one habit of FuxiCTR's, that is not the same in tfctr.

    Args:
        kind: `"differs"`, where the result may be another one; `"left out"`, where it is not; `"lost"`, where there is no
            counterpart: the import is refused, unless it is forced.
        key: the key of FuxiCTR's file; or what is meant, where it is none.
        value: its value; None where there is none.
        meaning: what it means here.
        features: the names of the feature columns that it is of.

    >>> str(Note("left out", "source", "user", "every part of a model reads all features", ("age", "city")))
    "left out: source 'user' of age, city: every part of a model reads all features"
    """

    kind: Kind
    key: str
    value: Any
    meaning: str
    features: tuple[str, ...] = ()

    def __str__(self) -> str:
        value = "" if self.value is None else f" {reprlib.repr(self.value)}"
        more = ", ..." if len(self.features) > _MOST_NAMES else ""
        of = f" of {', '.join(map(_on_one_line, self.features[:_MOST_NAMES]))}{more}" if self.features else ""
        return f"{self.kind}: {_on_one_line(self.key)}{value}{of}: {self.meaning}"


class Notes:
    """Notes as they are made; those that say the same of several features are one."""

    def __init__(self) -> None:
        self._features: dict[tuple[Kind, str, str, str], list[str]] = {}
        self._values: dict[tuple[Kind, str, str, str], Any] = {}

    def add(self, kind: Kind, key: str, value: Any, meaning: str, feature: str | None = None) -> None:
        """Note a key, once for all features of which the same is to be said."""
        same = (kind, str(key), repr(value), meaning)
        self._values[same] = value
        self._features.setdefault(same, []).extend([] if feature is None else [feature])

    def __iter__(self) -> Iterator[Note]:
        """All notes, those first that say most."""
        for (kind, key, shown, meaning), features in sorted(
            self._features.items(), key=lambda entry: _KINDS.index(entry[0][0])
        ):
            yield Note(kind, key, self._values[kind, key, shown, meaning], meaning, tuple(features))

    def refuse_lost(self) -> None:
        """Raise `ConfigError`, which names all keys that are lost, if there is one."""
        lost = [str(note).partition(": ")[2] for note in self if note.kind == "lost"]
        if lost:
            problem = "these would be lost, and change what the model learns:\n  " + "\n  ".join(lost)
            fix = "do in the table what they do, or take them out of the file; `--force` (`force=True`) leaves them out"
            raise ConfigError(problem, fix=fix)


def _on_one_line(name: str) -> str:
    return name if name.isprintable() else repr(name)
