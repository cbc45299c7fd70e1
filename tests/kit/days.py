"""Two days of clicks, of which the second has other users."""

import numpy as np

import tfctr
from tfctr import Categorical, Numeric, Schema, Sequence

FEATURES = [
    Categorical("user"),
    Sequence("tags", 3),
    Numeric("price", "quantile", buckets=4),
    Numeric("age", "scaled"),
    Categorical("page", hash_buckets=5),
]
USERS = {"monday": "abcde", "tuesday": "cdefgh"}


def table(day, rows=400, seed=0):
    rng = np.random.default_rng(seed)
    users = rng.choice(list(USERS[day]), rows)
    return {
        "user": users.tolist(),
        "tags": ["|".join(rng.choice(list("xyz" if day == "monday" else "yzw"), rng.integers(0, 4))) for _ in range(rows)],
        "price": rng.normal(size=rows).tolist(),
        "age": rng.integers(18, 80, rows).tolist(),
        "page": rng.choice(["p", "q", "r"], rows).tolist(),
        "click": (rng.random(rows) < np.where(np.isin(users, list("ace")), 0.8, 0.2)).astype(int).tolist(),
    }


def prepared(folder):
    """Datasets below a folder: monday; and tuesday, which extends it."""
    schema = Schema(features=FEATURES, label="click")
    monday = tfctr.prepare(schema, train=table("monday"), valid=0.2, out=folder / "monday")
    tuesday = tfctr.prepare(extend=monday, train=table("tuesday", seed=1), valid=0.2, out=folder / "tuesday")
    return {"monday": monday, "tuesday": tuesday}


def tokens(dataset, name):
    """`{token: row of the shared table}` of one feature, the reserved ids by their number."""
    field = next(field for field in dataset.schema.fields if field.feature.name == name)
    known = range(3, field.size)
    if getattr(field.feature, "vocabulary_sha256", None):
        known = dataset.schema.vocabulary_file(field.feature).read_text().splitlines()
    return {token: field.offset + place for place, token in enumerate([0, 1, 2, *known])}
