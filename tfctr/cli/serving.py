"""Commands about a server and its clients."""

import contextlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from tfctr.cli.console import Columns, Encoding, Json, MissingTexts, Versions, layout, parse_labels, print_json, say_shares
from tfctr.errors import ConfigError


def serve(
    folder: Versions,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on.")] = 8500,
    stand_in: Annotated[bool, typer.Option("--stand-in", help="Even if tensorflow_model_server is on PATH.")] = False,
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="LABEL=VERSION", help="Serve this version under a name, not the highest. May be repeated."),
    ] = None,
    certificate: Annotated[Path | None, typer.Option(metavar="SERVER.pem", help="Answer over TLS only; with --key.")] = None,
    key: Annotated[Path | None, typer.Option(metavar="KEY.pem", help="The key of --certificate.")] = None,
    root_certificates: Annotated[
        Path | None, typer.Option(metavar="CA.pem", help="Clients must show a certificate of these authorities.")
    ] = None,
    rest_port: Annotated[
        int | None, typer.Option(min=0, max=65535, metavar="PORT", help="Answer REST as well, as JSON, on this port.")
    ] = None,
) -> None:
    """Answer gRPC requests on this machine, until Ctrl-C.

    A local stand-in, unless tensorflow_model_server is on PATH. Example: tfctr serve serving/frappe --port 8500
    """
    from tfctr import serving
    from tfctr.serving.publishing.labels import require_labels

    labels = require_labels(folder, parse_labels(label or ()))
    serving.serve(
        folder,
        port=port,
        stand_in=stand_in,
        versions=sorted({*labels.values()}) or None,
        labels=labels,
        certificate=certificate,
        key=key,
        root_certificates=root_certificates,
        rest_port=rest_port,
    )


def predict(
    target: Annotated[str, typer.Argument(metavar="TARGET", help="host:port of the server.")],
    rows: Annotated[Path, typer.Argument(metavar="ROWS", help="JSON lines, CSV or Parquet, or a glob; - for stdin.")],
    model: Annotated[str, typer.Option(help="The model's name on the server.")],
    version: Annotated[int | None, typer.Option(min=1, help="One version, not the highest.")] = None,
    label: Annotated[str | None, typer.Option(help="A version by its label on the server, such as stable.")] = None,
    signature: Annotated[str, typer.Option(help="serving_default for raw values, ids for prepared ones.")] = "serving_default",
    separator: Annotated[
        list[str] | None,
        typer.Option(metavar="[COLUMN=]C", help="What joins the tokens of lists, if the model does not say; may be repeated."),
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds for each request.")] = 5.0,
    tls: Annotated[bool, typer.Option("--tls", help="Encrypt the connection.")] = False,
    root_certificates: Annotated[
        Path | None, typer.Option(metavar="CA.pem", help="Certificate authorities to trust, with --tls or without.")
    ] = None,
    token: Annotated[str | None, typer.Option(envvar="TFCTR_TOKEN", help="A bearer token; only over TLS.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="The file to write, whole or not at all.")] = None,
    cell_separator: Annotated[
        str | None, typer.Option(metavar="C", help="Between the cells of text files, --separator of prepare.")
    ] = None,
    columns: Columns = None,
    missing: MissingTexts = None,
    encoding: Encoding = None,
    json: Json = False,
) -> None:
    """Print the click probability of each row, one a line. What the model does not take, such as the label, is left out.

    Example: tfctr predict localhost:8500 --model frappe rows.csv --out probabilities.txt
    """
    from tfctr.serving import PredictionClient
    from tfctr.storage import atomic_file, require_free

    which = {"version": version, "label": label, "signature": signature}
    connection = {"timeout": timeout, "tls": tls, "root_certificates": root_certificates, "token": token}
    given = layout(cell_separator, columns, missing, encoding)
    if out is not None:
        require_free(out)
    with PredictionClient(target, model=model, separator=_separator(separator), **which, **connection) as client:
        probabilities = client.predict_file(rows, **{name: value for name, value in given.items() if value})
        say_shares("the first rows", client.shares)
    with atomic_file(out) if out else contextlib.nullcontext(sys.stdout) as file:
        if json:
            print_json({"probabilities": probabilities.tolist()}, file)
        else:
            typer.echo("\n".join(map(str, probabilities)), file)


def _separator(texts):
    """One character for all columns, or `{column: character}`."""
    if not texts or texts == [texts[0][:1]]:
        return texts[0] if texts else None
    for text in texts:
        if text[-2:-1] != "=":
            raise ConfigError(f"`--separator` is {text!r}.", fix="give one character, or COLUMN=CHARACTER")
    return {text[:-2]: text[-1] for text in texts}


COMMANDS = (serve, predict)
