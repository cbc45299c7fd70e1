"""The code blocks of README.md and docs/*.md, and the lines of them that call `tfctr`."""

import re
import shlex

import typer

from kit.places import ROOT
from tfctr.cli import app

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "docker" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_FENCE = re.compile(r"^```(\S*)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PARTS = re.compile(r"""(?<!\S)\#.*|'[^']*'|"[^"]*"|[;|&()<>]+|\s+|[^\s'";|&()<>]+""")
_ASSIGNMENT = re.compile(r"[A-Z_]+=.*", re.DOTALL)


def name_of(page):
    return str(page.relative_to(ROOT))


def blocks(page, *languages):
    """`(options, line, text)` of each block of one of these languages; `line` is that of its first line of code."""
    text = page.read_text(encoding="utf-8")
    for found in _FENCE.finditer(text):
        if found[1] in languages:
            yield found[2].split(), text.count("\n", 0, found.start(3)) + 1, found[3]


def commands(text):
    """The arguments of each call of `tfctr` in a shell block; what stands behind a `#`, `|`, `&` or `;` is no part of one."""
    for line in text.replace("\\\n", " ").splitlines():
        call = ""
        for part in [*_PARTS.findall(line), ";"]:
            if part[0] in ";|&()<>":
                words = shlex.split(call)
                words = words[next((index for index, word in enumerate(words) if not _ASSIGNMENT.fullmatch(word)), 0) :]
                if words[:1] == ["tfctr"]:
                    yield words[1:]
                call = ""
            elif not part.startswith("#"):
                call += part


def parse(arguments):
    """Raise typer's `UsageError` unless this command has these arguments and options. Runs nothing."""
    program = typer.main.get_command(app)
    context = program.make_context("tfctr", [], resilient_parsing=True)
    while arguments[0] == "--import":  # of the program itself
        arguments = arguments[2:]
    command = program
    while isinstance(command, typer.core.TyperGroup):
        assert command.get_command(context, arguments[0]) is not None, f"no command {arguments[0]!r}"
        command = command.get_command(context, arguments[0])
        context = command.make_context(arguments[0], arguments[1:], parent=context)
        arguments = arguments[1:]
