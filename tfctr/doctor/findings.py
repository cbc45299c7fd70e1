"""One line of what the doctor says."""

import dataclasses
from collections.abc import Iterable

from tfctr.errors import TfctrError


@dataclasses.dataclass(frozen=True)
class Finding:
    """What was looked at, what was found, and what to do about it.

    Args:
        group: what it is about, such as "memory".
        name: what was looked at.
        found: a text, a number, or None where there is none.
        fix: what to do; None where all is well.
        error: the class whose exit code it has, if something does not work; without one, a fix is a warning.

    >>> Finding("memory", "free GiB", 0.5, fix="close other programs").status
    'warning'
    """

    group: str
    name: str
    found: str | float | None
    fix: str | None = None
    error: type[TfctrError] | None = None

    @property
    def status(self) -> str:
        """`"ok"`, `"warning"` or `"failed"`."""
        return "failed" if self.error else "warning" if self.fix else "ok"


def exit_code(findings: Iterable[Finding]) -> int:
    """That of the first finding that failed; 0 if none did.

    >>> exit_code([Finding("memory", "free GiB", 0.5, fix="close other programs")])
    0
    """
    return next((finding.error.exit_code for finding in findings if finding.error), 0)
