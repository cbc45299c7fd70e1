"""A made table of Frappe's shape, for a benchmark that is given no data."""

import numpy as np
import pyarrow as pa

import tfctr

FRAPPE_SIZES = (942, 4084, 9, 9, 4, 5, 4, 11, 82, 233)  # tokens a field, as in the authors' logs
# Distinct tokens of Criteo's 26 token fields, in thousands, rounded.
CRITEO_THOUSANDS = (0.01, 0.02, 0.05, 0.1, 0.1, 0.3, 0.5, 1, 1, 2, 5, 5, 10, 10, 20, 50, 100, 100)
CRITEO_THOUSANDS += (200, 300, 400, 500, 600, 800, 900, 1000)


def criteo_sizes(tokens):
    """The sizes of 39 fields of Criteo's shape with about so many tokens in all: 13 bucketed counts, and tokens.

    >>> sizes = criteo_sizes(1_000_000)
    >>> len(sizes), sizes[0], sizes[-1], sum(sizes)
    (39, 50, 199667, 999988)
    """
    scale = (tokens - 13 * 50) / sum(CRITEO_THOUSANDS)
    return [50] * 13 + [max(4, int(thousands * scale)) for thousands in CRITEO_THOUSANDS]


def clicks(rows, sizes=FRAPPE_SIZES, seed=0, history=0):
    """Tokens `t0`, `t1`, ... of each field `f0`, `f1`, ..., the smaller the more frequent, and `label`.

    With `history`, each row has a column of that name with so many tokens of `f1`. The log-odds of a click are a sum of effects
    drawn for each token and for each pair of tokens of the first two fields.
    """
    rng = np.random.default_rng(seed)
    ids = [np.floor(size ** rng.random(rows)).astype("int64") - 1 for size in sizes]
    effects = sum(rng.normal(size=size)[column] for size, column in zip(sizes, ids, strict=True))
    left, right = (rng.normal(size=(size, 4))[column] for size, column in zip(sizes, ids[:2], strict=False))
    labels = rng.random(rows) < 1 / (1 + np.exp(-effects - (left * right).sum(axis=1)))
    columns = {f"f{number}": np.char.add("t", column.astype(str)) for number, column in enumerate(ids)}
    if history:
        tokens = np.char.add("t", rng.integers(sizes[1], size=(rows, history)).astype(str))
        columns = {"history": ["|".join(row) for row in tokens.tolist()], **columns}
    return pa.table({**columns, "label": labels.astype("int8")})


def dataset(folder, rows=200_000, history=0):
    """`clicks` as a prepared dataset, a tenth of it for validation and a tenth for the test."""
    features = [tfctr.Sequence("history", max_length=history)] if history else []
    features += [tfctr.Categorical(f"f{number}") for number in range(len(FRAPPE_SIZES))]
    schema = tfctr.Schema(features=features, label="label")
    return tfctr.prepare(schema, train=clicks(rows, history=history), valid=0.1, test=0.1, out=folder)


def load_or_make(data, folder):
    """The prepared dataset in the folder `data`, or a made one in `folder`."""
    return dataset(folder) if data is None else tfctr.Dataset.load(data)
