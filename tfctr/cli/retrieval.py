"""`tfctr retrieve ...`: commands about a retriever, two towers that find the candidates which a model then ranks."""

from pathlib import Path
from typing import Annotated

import typer

from tfctr.cli.console import Json, Moved, Prepared, Versions, say_next, show

RetrieverFolder = Annotated[Path, typer.Argument(metavar="RETRIEVER", help="The --out folder of `tfctr retrieve train`.")]
Retrieved = Annotated[int, typer.Option(min=1, help="How many items are retrieved for a user.")]


def train(
    data: Prepared,
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    item: Annotated[
        list[str],
        typer.Option(
            metavar="FEATURE", help="Of the item, first the one that names it; others are the user's. May be repeated."
        ),
    ],
    epochs: Annotated[int | None, typer.Option(help="Passes over the clicks, at most.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Clicks of one step.")] = None,
    uniform_items: Annotated[int | None, typer.Option(help="Items drawn for each step as further negatives.")] = None,
    embedding_dim: Annotated[int | None, typer.Option(help="Width of the embeddings.")] = None,
    vector_dim: Annotated[int | None, typer.Option(help="Length of the vectors of users and items.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Of the softmax.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of Adam.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the weights, the order of rows and the drawn items.")] = None,
    json: Json = False,
) -> None:
    """Train a tower for users and one for items on the clicks of a prepared dataset; needs the extra `retrieval`.

    Example: tfctr retrieve train --data runs/data --out runs/retriever --item movie_id --item genres
    """
    from tfctr import retrieval

    options = {
        "epochs": epochs,
        "batch_size": batch_size,
        "uniform_items": uniform_items,
        "embedding_dim": embedding_dim,
        "vector_dim": vector_dim,
        "temperature": temperature,
        "learning_rate": learning_rate,
        "seed": seed,
    }
    given = {name: value for name, value in options.items() if value is not None}
    found = retrieval.train(data, out, item=item, **given)
    best = max(found.history, key=lambda epoch: epoch.get("recall_at_50", 0.0)) if found.history else {}
    show({"folder": str(out), "items": len(found.items), "epochs": len(found.history), **best}, json)
    say_next(f"tfctr retrieve evaluate {out}; then: tfctr export RUN DIR --retriever {out}")


def evaluate(
    retriever: RetrieverFolder,
    split: Annotated[str, typer.Option(help="train, valid or test.")] = "test",
    k: Annotated[list[int] | None, typer.Option(metavar="K", help="Of recall at K; may be repeated. [default: 10, 50]")] = None,
    all_items: Annotated[bool, typer.Option("--all-items", help="Do not pass over what was clicked on in training.")] = False,
    data: Moved = None,
    json: Json = False,
) -> None:
    """Print how often the clicked item is among the first K for its row; and among the most clicked ones, for comparison.

    Example: tfctr retrieve evaluate runs/retriever --split test --k 10 --k 50
    """
    from tfctr import retrieval

    show(retrieval.evaluate(retriever, split, ks=k or (10, 50), all_items=all_items, data=data), json)


def export(
    retriever: RetrieverFolder,
    folder: Versions,
    retrieved: Retrieved = 100,
    data: Moved = None,
    json: Json = False,
) -> None:
    """Export a retriever alone as the next SavedModel version, after a strict check; `tfctr export` can add it to a ranker.

    Example: tfctr retrieve export runs/retriever serving/candidates --retrieved 200
    """
    from tfctr import retrieval, serving

    found = retrieval.load_retriever(retriever, data)
    show({"folder": str(serving.export_retriever(found, folder, retrieved=retrieved))}, json)
    say_next(f"tfctr serve {folder}")


COMMANDS = (train, evaluate, export)
