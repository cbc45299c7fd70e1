"""A click table whose true probabilities are known, so that the best possible AUC and log loss are known too.

The click of a row depends on its columns in this way; every hidden number is drawn once from the seed:

    signal = 1.5 cos(taste[user] - style[item])                    two fields that match or not
           + 1.0 side[device] side[daypart] side[weekend]          -1 or 1 each: no two of the three say anything
           + 0.5 mean(appeal[genre] for genre in genres)           a multi-valued field; 0 where it is empty
           + 0.5 exp(-ln(price / 20)^2 / 2)                        a number, neither cheap nor dear; 0 where it is null
           + 0.6 habit[user] + 0.6 charm[item] + 0.3 mood[city]    fields that say something alone
    logit  = sharpness[slot] (signal - 0.8) - 0.6

The slot decides how hard a row is: its sharpness is 4 where the click is almost certain either way, 1.5, and 0.4 where it is
almost a coin. Users and items follow Zipf's law, so a few are frequent and most are rare.

In a second table, of histories, neither the item shown nor the history says anything alone: `logit` is 2 where the history has
the item shown, once, as in half of the rows, and else -2.
"""

import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from tfctr.errors import ConfigError
from tfctr.features import Categorical, Numeric, Sequence
from tfctr.metrics import auc, group_auc, log_loss
from tfctr.schema import Schema
from tfctr.storage import atomic_file
from tfctr.types import StrPath

USERS = 400
ITEMS = 200
GENRES = np.array(["action", "comedy", "drama", "documentary", "family", "film noir", "science fiction", "театр"])
CITIES = np.array(["Köln", "Lagos", "São Paulo", "Zürich", "東京", "القاهرة"])
SIDES = {"device": ["desktop", "phone"], "daypart": ["evening", "morning"], "weekend": ["no", "yes"]}
SHARPNESS = {"top": 4.0, "middle": 1.5, "footer": 0.4}
LONGEST = 20  # history


def synthetic(rows: int, seed: int = 0) -> pa.Table:
    """A `pyarrow.Table` of raw columns with the label `click`, and the true `probability`, which is no feature.

    The seed draws the hidden numbers too: tables of two seeds are two worlds. To split one world, slice one table.

    >>> synthetic(1000).schema.names
    ['user', 'item', 'city', 'device', 'daypart', 'weekend', 'slot', 'genres', 'price', 'click', 'probability']
    """
    if rows < 1:
        raise ConfigError(f"`rows` must be at least 1. Received: {rows}.")
    rng = np.random.default_rng(seed)
    taste, style = (rng.uniform(0, 2 * np.pi, size) for size in (USERS, ITEMS))
    habit, charm, mood, appeal = (rng.normal(size=size) for size in (USERS, ITEMS, len(CITIES), len(GENRES)))

    user = _draw_zipf(rng, USERS, rows)
    item = _draw_zipf(rng, ITEMS, rows)
    city = rng.integers(len(CITIES), size=rows)
    slot = rng.integers(len(SHARPNESS), size=rows)
    sides = rng.integers(2, size=(len(SIDES), rows))
    genres = _draw_subsets(rng, len(GENRES), rows)
    price = np.round(20 * np.exp(rng.normal(size=rows)), 2)
    price[rng.random(rows) < 0.1] = np.nan

    signal = (
        1.5 * np.cos(taste[user] - style[item])
        + 1.0 * np.prod(2 * sides - 1, axis=0)
        + 0.5 * (genres @ appeal) / np.maximum(genres.sum(axis=1), 1)
        + 0.5 * np.nan_to_num(np.exp(-(np.log(price / 20) ** 2) / 2))
        + 0.6 * habit[user]
        + 0.6 * charm[item]
        + 0.3 * mood[city]
    )
    logit = np.array([*SHARPNESS.values()])[slot] * (signal - 0.8) - 0.6
    probability = 1 / (1 + np.exp(-logit))
    return pa.table(
        {
            "user": user + 1,
            "item": np.array([f"item {number}" for number in range(1, ITEMS + 1)])[item],
            "city": CITIES[city],
            **{name: np.array(tokens)[side] for (name, tokens), side in zip(SIDES.items(), sides, strict=True)},
            "slot": np.array([*SHARPNESS])[slot],
            "genres": ["|".join(GENRES[chosen]) for chosen in genres],
            "price": pa.array(price, from_pandas=True),  # NaN becomes null
            "click": (rng.random(rows) < probability).astype(np.int8),
            "probability": probability,
        }
    )


def synthetic_schema() -> Schema:
    """The schema of `synthetic` tables, one feature of each kind; gAUC groups by user."""
    tokens = [Categorical(name) for name in ("user", "item", "city", *SIDES, "slot")]
    features = [*tokens, Sequence("genres", max_length=3), Numeric("price", "quantile", buckets=10)]
    return Schema(features=features, label="click", group="user")


def synthetic_histories(rows: int, seed: int = 0) -> pa.Table:
    """A `pyarrow.Table` of `user`, `history`, `item`, the label `click`, and the true `probability`, as in `synthetic`.

    A history has 1 to 20 items. The user groups rows and says nothing.

    >>> synthetic_histories(1000).schema.names
    ['user', 'history', 'item', 'click', 'probability']
    """
    if rows < 1:
        raise ConfigError(f"`rows` must be at least 1. Received: {rows}.")
    rng = np.random.default_rng(seed)
    user, item = _draw_zipf(rng, USERS, rows), rng.integers(ITEMS, size=rows)
    others = (item[:, None] + rng.integers(1, ITEMS, size=(rows, LONGEST))) % ITEMS  # any item but the one shown
    length = rng.integers(1, LONGEST + 1, size=rows)
    is_there = np.arange(LONGEST) < length[:, None]
    seen = rng.random(rows) < 0.5
    place = (rng.random(rows) * length).astype(int)
    history = np.where(seen[:, None] & (np.arange(LONGEST) == place[:, None]), item[:, None], others)
    probability = 1 / (1 + np.exp(np.where(seen, -2.0, 2.0)))
    names = np.array([f"item {number}" for number in range(1, ITEMS + 1)])
    return pa.table(
        {
            "user": user + 1,
            "history": ["|".join(tokens[there]) for tokens, there in zip(names[history], is_there, strict=True)],
            "item": names[item],
            "click": (rng.random(rows) < probability).astype(np.int8),
            "probability": probability,
        }
    )


def synthetic_histories_schema() -> Schema:
    """The schema of `synthetic_histories` tables: a history of the items' vocabulary, and the item; gAUC groups by user."""
    history = Sequence("history", max_length=LONGEST, keep="last", vocabulary_of="item")
    return Schema(features=[history, Categorical("item")], label="click", group="user")


def best_possible(table: pa.Table) -> dict[str, float]:
    """What a model that knows the true probabilities gets on these rows: `auc`, `group_auc` and `log_loss`.

    No model can do better, but for the luck of the rows.

    >>> sorted(best_possible(synthetic(1000)))
    ['auc', 'group_auc', 'log_loss']
    """
    labels, probability, users = (table[name].to_numpy() for name in ("click", "probability", "user"))
    return {
        "auc": auc(labels, probability),
        "group_auc": group_auc(labels, probability, users),
        "log_loss": log_loss(labels, probability),
    }


def write_synthetic(folder: StrPath, rows: int, seed: int = 0) -> dict[str, Path]:
    """Write `train.parquet`, `valid.parquet` and `test.parquet` (8 : 1 : 1 of one table) and `schema.yaml` into `folder`.

    Each file is written atomically. Returns `{"train": path, "valid": path, "test": path}`.
    """
    if rows < 10:
        raise ConfigError(f"`rows` must be at least 10, so that each table has some. Received: {rows}.")
    table = synthetic(rows, seed)
    folder = Path(folder)
    edges = [0, rows * 8 // 10, rows * 9 // 10, rows]
    paths = {name: folder / f"{name}.parquet" for name in ("train", "valid", "test")}
    for path, (start, stop) in zip(paths.values(), itertools.pairwise(edges), strict=True):
        with atomic_file(path, "wb") as file:
            parquet.write_table(table.slice(start, stop - start), file)
    synthetic_schema().save(folder / "schema.yaml")
    return paths


def _draw_zipf(rng: np.random.Generator, number: int, rows: int) -> np.ndarray:
    """`rows` of 0 .. number - 1, the k-th as often as 1 / (k + 5)."""
    frequency = 1 / (np.arange(number) + 5)
    return rng.choice(number, size=rows, p=frequency / frequency.sum())


def _draw_subsets(rng: np.random.Generator, number: int, rows: int) -> np.ndarray:
    """Boolean `(rows, number)`: none, one, two or three of `number`, each set of a size equally likely."""
    sizes = rng.choice(4, size=(rows, 1), p=[0.05, 0.35, 0.35, 0.25])
    return rng.random((rows, number)).argsort(axis=1) < sizes
