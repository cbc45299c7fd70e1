"""What a version's files were when it was published: their SHA-256, in `assets.extra/SHA256SUMS`.

Anybody can compare: `cd VERSION && sha256sum -c assets.extra/SHA256SUMS`.
"""

import re
from pathlib import Path

from tfctr.errors import StorageError, require
from tfctr.storage import atomic_file, sha256
from tfctr.types import StrPath

MANIFEST = "assets.extra/SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")
_FIX = "choose another version, or publish this one again from its run"


def seal(folder: StrPath) -> None:
    """Write the manifest of a new version; one that came with the files must hold.

    Raises:
        StorageError: the folder holds a link or a name that no manifest can tell, or is not what its manifest says.
    """
    folder = Path(folder)
    if (folder / MANIFEST).exists():
        verify(folder)
    else:
        _write(folder)


def verify(folder: StrPath) -> None:
    """Compare every file of a version with its manifest. Raises `StorageError`, naming the first file that differs."""
    folder = Path(folder)
    expected = _read(folder)
    found = _files(folder)
    for name in sorted(expected.keys() | found.keys()):
        require(name in found, f"{folder / name} is missing.", fix=_FIX, error=StorageError)
        added = f"{folder / name} was added after {folder} was published."
        require(name in expected, added, fix=_FIX, error=StorageError)
        differs = f"{folder / name} is not the file that was published: SHA-256 differs."
        require(_digest(found[name]) == expected[name], differs, fix=_FIX, error=StorageError)


def _write(folder: Path) -> None:
    lines = [f"{_digest(path)}  {name}\n" for name, path in _files(folder).items()]
    (folder / MANIFEST).parent.mkdir(exist_ok=True)
    with atomic_file(folder / MANIFEST) as file:
        file.writelines(lines)


def _read(folder: Path) -> dict[str, str]:
    """`{name: SHA-256}`."""
    try:
        lines = (folder / MANIFEST).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(f"{folder} has no readable {MANIFEST}: nothing says what it should hold.", fix=_FIX) from error
    parsed = [match for line in lines if (match := _LINE.fullmatch(line))]
    require(parsed and len(parsed) == len(lines), f"{folder / MANIFEST} is corrupt.", fix=_FIX, error=StorageError)
    return {match[2]: match[1] for match in parsed}


def _files(folder: Path) -> dict[str, Path]:
    """`{name: path}` of all files but the manifest, in the order of their names."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        plain = (path.is_dir() or path.is_file()) and not path.is_symlink()
        problem = f"{path} is neither a file nor a folder of its own."
        require(plain, problem, fix="copy what it links to", error=StorageError)
        printable = "\\" not in name and name.isprintable()
        require(printable, f"{name!r} cannot be a file of a version.", fix="use printable names", error=StorageError)
        if path.is_file() and name != MANIFEST:
            found[name] = path
    return found


def _digest(path: Path) -> str:
    try:
        return sha256(path)
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}.", fix=_FIX) from error
