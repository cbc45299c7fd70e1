"""What a version's files were when it was published: their SHA-256, in `assets.extra/SHA256SUMS`.

Anybody can compare: `cd VERSION && sha256sum -c assets.extra/SHA256SUMS`.
"""

import re
from pathlib import Path

from tfctr.errors import StorageError
from tfctr.storage import atomic_file, sha256

MANIFEST = "assets.extra/SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")
_FIX = "choose another version, or publish this one again from its run"


def seal(folder):
    """Write the manifest of a new version; one that came with the files must hold.

    Raises:
        StorageError: the folder holds a link or a name that no manifest can tell, or is not what its manifest says.
    """
    folder = Path(folder)
    if (folder / MANIFEST).exists():
        verify(folder)
    else:
        _write(folder)


def verify(folder):
    """Compare every file of a version with its manifest. Raises `StorageError`, naming the first file that differs."""
    folder = Path(folder)
    expected, found = _read(folder), _files(folder)
    for name in sorted(expected.keys() | found.keys()):
        _require(name in found, f"{folder / name} is missing.")
        _require(name in expected, f"{folder / name} was added after {folder} was published.")
        same = _digest(found[name]) == expected[name]
        _require(same, f"{folder / name} is not the file that was published: SHA-256 differs.")


def _write(folder):
    lines = [f"{_digest(path)}  {name}\n" for name, path in _files(folder).items()]
    (folder / MANIFEST).parent.mkdir(exist_ok=True)
    with atomic_file(folder / MANIFEST) as file:
        file.writelines(lines)


def _read(folder):
    """`{name: SHA-256}`."""
    try:
        lines = (folder / MANIFEST).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(f"{folder} has no readable {MANIFEST}: nothing says what it should hold.", fix=_FIX) from error
    parsed = [_LINE.fullmatch(line) for line in lines]
    _require(parsed and all(parsed), f"{folder / MANIFEST} is corrupt.")
    return {match[2]: match[1] for match in parsed}


def _files(folder):
    """`{name: path}` of all files but the manifest, in the order of their names."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        plain = path.is_dir() or path.is_file()
        _require(plain and not path.is_symlink(), f"{path} is neither a file nor a folder of its own.", "copy what it links to")
        _require("\\" not in name and name.isprintable(), f"{name!r} cannot be a file of a version.", "use printable names")
        if path.is_file() and name != MANIFEST:
            found[name] = path
    return found


def _digest(path):
    try:
        return sha256(path)
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}.", fix=_FIX) from error


def _require(condition, problem, fix=_FIX):
    if not condition:
        raise StorageError(problem, fix=fix)
