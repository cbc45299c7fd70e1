"""The example schemas and runs that the package brings: those of `examples/`, which the documentation cites.

They lie at the top of a checkout, and in the package where it is installed (see `setup.py`).
"""

from pathlib import Path

_PACKAGE = Path(__file__).parent


def examples() -> dict[str, Path]:
    """`{name: file}` of the example schemas (`frappe`) and runs (`frappe_tf4ctr`)."""
    folder = next(folder for folder in (_PACKAGE / "examples", _PACKAGE.parent / "examples") if folder.is_dir())
    return {file.stem: file for file in sorted(folder.glob("*.yaml"))}
