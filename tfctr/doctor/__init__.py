"""What this machine has, and whether TensorFlow computes on each of its devices what it must: behind `tfctr doctor`.

Facts come first and need no TensorFlow, so that they are there where importing it ends the process. The checks train and serve
a tiny model, and compare with the same arithmetic in NumPy's float64.
"""

from collections.abc import Iterator

from tfctr.doctor.findings import Finding, exit_code

__all__ = ["Finding", "examine", "exit_code"]


def examine() -> Iterator[Finding]:
    """All findings, each as soon as it is known: facts, then those of TensorFlow, then the checks."""
    from tfctr.doctor.packages import package_findings
    from tfctr.doctor.processor import processor_findings
    from tfctr.doctor.programs import program_findings
    from tfctr.doctor.resources import resource_findings

    missing = False
    for finding in package_findings():
        missing = missing or finding.status == "failed"
        yield finding
    for findings in (processor_findings, resource_findings, program_findings):
        yield from findings()
    if missing:  # what follows needs all of them
        return
    from tfctr.doctor.checks import check_findings
    from tfctr.doctor.devices import device_findings

    yield from device_findings()
    yield from check_findings()
