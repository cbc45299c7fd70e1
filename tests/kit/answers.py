"""Rows of all kinds of columns, with labels of "yes" and "no"."""

import numpy as np
import pandas as pd


def table(rows, seed):
    """Columns of all kinds, with missing cells, and labels that follow the user and the price."""
    rng = np.random.default_rng(seed)
    user = rng.integers(0, 20, rows)
    price = rng.normal(10, 2, rows)
    frame = pd.DataFrame(
        {
            "user": user.astype(str),
            "genres": [[*map(str, rng.integers(0, 5, length))] for length in rng.integers(0, 3, rows)],
            "price": np.where(rng.random(rows) < 0.1, np.nan, price),
            "adult": pd.array(rng.random(rows) < 0.5).astype(object),
            "age": pd.array(rng.integers(18, 90, rows), dtype="Int64"),
        }
    )
    frame.loc[rng.random(rows) < 0.1, "adult"] = None
    clicked = rng.random(rows) < 0.1 + 0.5 * (user % 2) + 0.3 * (price > 10)
    return frame, pd.Series(np.where(clicked, "yes", "no"), name="clicked")


X, Y = table(600, 0)
X_NEW, Y_NEW = table(200, 1)
