"""The versions of what tfctr depends on, beside the ranges that its own metadata declare (`setup.py`)."""

import platform
from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import Requirement  # comes with TensorFlow, Keras and Ibis
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tfctr import __version__
from tfctr.doctor.findings import Finding
from tfctr.errors import StorageError

_GROUP = "versions"
# TensorFlow under other names, which have the same modules.
_OTHER_NAMES = {"tensorflow": ("tensorflow-cpu", "tensorflow-intel", "tensorflow-macos", "tf-nightly")}


def package_findings() -> Iterator[Finding]:
    """A finding for tfctr, Python, and each package that tfctr needs."""
    yield Finding(_GROUP, "tfctr", __version__)
    try:
        ranges = required_ranges()
    except metadata.PackageNotFoundError:
        yield Finding(_GROUP, "ranges", "unknown: tfctr is not installed", fix="pip install . in a clone of it")
        return
    yield judged("python", platform.python_version(), SpecifierSet(metadata.metadata("tfctr")["Requires-Python"]))
    for name, allowed in ranges.items():
        version, installed_as = _installed(name)
        yield judged(name, version, allowed, installed_as)
    yield from _clash()


def required_ranges(distribution: str = "tfctr") -> dict[str, SpecifierSet]:
    """`{package: versions}` of what a distribution needs, without extras of its own, but with those that it asks of others.

    A package that is named several times has the versions that all of them allow.
    """
    needed = list(_requirements(distribution, extra=""))
    for requirement in tuple(needed):
        for extra in sorted(requirement.extras):
            needed += _requirements(requirement.name, extra, only=True)
    ranges: dict[str, SpecifierSet] = {}
    for requirement in needed:
        name = canonicalize_name(requirement.name)
        ranges[name] = ranges.get(name, SpecifierSet()) & requirement.specifier
    return ranges


def _requirements(distribution: str, extra: str, only: bool = False) -> Iterator[Requirement]:
    """Those that hold here with an extra; `only` those that it adds."""
    try:
        texts = metadata.requires(distribution) or ()
    except metadata.PackageNotFoundError:
        if not only:
            raise
        return  # it is missing, which is told of it
    for requirement in map(Requirement, texts):
        holds = requirement.marker is None or requirement.marker.evaluate({"extra": extra})
        always = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if holds and not (only and always):
            yield requirement


def judged(name: str, version: str | None, allowed: SpecifierSet, installed_as: str | None = None) -> Finding:
    """The finding of one package.

    >>> judged("keras", "3.1.0", SpecifierSet(">=3.15.1,<4")).fix
    "pip install 'keras<4,>=3.15.1'"
    """
    fix = f"pip install '{name}{allowed}'" if name != "python" else f"use a Python {allowed}"
    if version is None:
        return Finding(_GROUP, name, "not installed", fix=fix, error=StorageError)
    of = f", as {installed_as}" if installed_as else ""
    if allowed.contains(version, prereleases=True):
        return Finding(_GROUP, name, f"{version}{of} ({allowed})" if allowed else f"{version}{of}")
    return Finding(_GROUP, name, f"{version}{of}, outside of {allowed}", fix=fix)


def _installed(name: str) -> tuple[str | None, str | None]:
    """The version of a package, None if there is none, and the name that it is installed under if that is another one."""
    for known in (name, *_OTHER_NAMES.get(name, ())):
        if (version := _version(known)) is not None:
            return version, known if known != name else None
    return None, None


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _clash() -> Iterator[Finding]:
    """A warning where TensorFlow is installed twice: the later one overwrote files of the other."""
    for name, others in _OTHER_NAMES.items():
        there = [known for known in (name, *others) if _version(known) is not None]
        if len(there) > 1:
            fix = f"pip uninstall {' '.join(there)}; then install one of them"
            yield Finding(_GROUP, f"{name} twice", " and ".join(there), fix=fix)
