"""Commands of the program, run in this process, and the options that name the tables of a folder."""

from typer.testing import CliRunner

from tfctr import cli


def tfctr_(*arguments):
    """Run the program in this process."""
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def done(*arguments):
    """Its standard output, when it ends well."""
    result = tfctr_(*arguments)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def tables(folder):
    return [argument for name in ("train", "valid", "test") for argument in (f"--{name}", folder / f"{name}.parquet")]
