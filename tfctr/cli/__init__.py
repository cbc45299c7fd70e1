"""The command line, one file a family of commands."""

from tfctr.cli.program import app, main

__all__ = ["app", "main"]
