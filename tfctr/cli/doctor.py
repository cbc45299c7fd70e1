"""The command about the machine itself."""

from collections.abc import Iterable

import typer

from tfctr.cli.console import Json, print_json
from tfctr.doctor.findings import Finding, exit_code

_WIDTH = 31  # of names


def doctor(json: Json = False) -> None:
    """Say what this machine has, and check on each of its devices that models train and answer as they must.

    Warnings leave the exit code 0. What fails has that of what it spoils: 4 training, 5 serving, 6 something is missing.
    Example: tfctr doctor
    """
    from tfctr.doctor import examine

    findings, group = [], None
    for finding in examine():
        if not json and finding.group != group:
            typer.echo(finding.group)
        group = finding.group
        if not json:
            typer.echo(_line(finding))
        findings.append(finding)
    code = exit_code(findings)
    if json:
        print_json(as_dict(findings))
    else:
        typer.echo(_summary(findings), err=True)
    raise typer.Exit(code)


def as_dict(findings: Iterable[Finding]) -> dict[str, object]:
    """`{group: {name: {"found", "status", "fix"}}}`, beside the exit code."""
    groups: dict[str, dict[str, object]] = {}
    for finding in findings:
        told = {"found": finding.found, "status": finding.status, "fix": finding.fix}
        groups.setdefault(finding.group, {})[finding.name] = told
    return {"exit_code": exit_code(findings), **groups}


def _line(finding: Finding) -> str:
    found = "none" if finding.found is None else finding.found
    line = f"  {finding.status:<7}  {finding.name:<{_WIDTH}}  {found}"
    return line if finding.fix is None else f"{line}\n           fix: {finding.fix}"


def _summary(findings: Iterable[Finding]) -> str:
    counts = {status: sum(finding.status == status for finding in findings) for status in ("failed", "warning")}
    said = [f"{count} {word}" for count, word in zip(counts.values(), ("failed", "to be warned of"), strict=True) if count]
    return ", ".join(said) or "all is well"


COMMANDS = (doctor,)
