"""A table with a feature of every kind, and any value that its columns can hold."""

import math

import pyarrow
from hypothesis import strategies as st

from tfctr import Categorical, Numeric, Schema, Sequence

EDGES = (-1e300, -1.5, -5e-324, 0.0, 5e-324, 1e-300, 0.1, 2.0, 1e16, 1e300)
TOKENS = ["60", "a", "A", " a", "a ", "Zoë", "Zoe\u0308", "東京", "🎬", "–", "a|b", "0.1", "null"]
TOKENS += ["x\0y", "\0", "\u2028", "\ufeff60"]
SCHEMA = Schema(
    features=[
        Numeric("scaled", "scaled"),
        Categorical("token"),
        Numeric("count", "log2_floor", min_count=2),
        Sequence("genres", max_length=3),
        Categorical("hashed", hash_buckets=11),
        Numeric("edges", "edges", edges=EDGES),
        Sequence("dashed", max_length=2, separator="–", min_count=2, keep="last"),
        Sequence("hashes", max_length=4, separator=" ", hash_buckets=5, keep="last"),
        Numeric("quantile", "quantile", buckets=6),
        Categorical("year", min_count=2),
        Categorical("rare", min_count=1000),
        Sequence("tags", max_length=2, separator=","),
        Sequence("history", max_length=3, separator=" ", keep="last", vocabulary_of="token"),
        Categorical("other_year", vocabulary_of="year"),
        Categorical("other_hash", vocabulary_of="hashed"),
        Sequence("weighted", max_length=3, separator=";", weight_separator=":", pooling="sqrtn", keep="last"),
    ],
    label="click",
)
TRAIN = {
    "scaled": [0.1 * row for row in range(40)],
    "token": [TOKENS[row % len(TOKENS)] for row in range(40)],
    "count": [(-3.0, 0.0, 1.0, 5.0, 5.0, 70.0, 1e5, None)[row % 8] for row in range(40)],
    "genres": ["|".join(TOKENS[row % 15 : row % 15 + row % 4]) for row in range(40)],
    "hashed": ["any"] * 40,
    "edges": [0.0] * 40,
    "dashed": ["–".join(["a", "60", "東京"][: row % 4]) for row in range(40)],
    "hashes": ["any"] * 40,
    "quantile": [math.exp(row / 3 - 5) for row in range(40)],
    "year": [1900 + row % 25 for row in range(40)],
    "rare": ["60"] * 40,
    "tags": [["a", "60", None][: row % 4] for row in range(40)],
    "history": [" ".join(TOKENS[row % 11 : row % 11 + row % 5]) for row in range(40)],
    "other_year": [1920 + row % 7 for row in range(40)],
    "other_hash": ["any"] * 40,
    "weighted": [";".join(f"{token}:{row / 7}" for token in TOKENS[row % 9 : row % 9 + row % 4]) for row in range(40)],
    "click": [row % 2 for row in range(40)],
}

texts = st.none() | st.text(max_size=20) | st.sampled_from(TOKENS) | st.integers().map(str)
texts |= st.builds(str.__add__, st.sampled_from(TOKENS), st.sampled_from(["\r", "\n", "\r\n", " ", "\0", "\t", "|"]))
texts |= st.sampled_from(["é" * 500, "|" * 500, "NaN", "", "\x85"])
edges = (*EDGES, math.e, math.exp(math.sqrt(2.0)))
NEAR = [math.nextafter(edge, side) for edge in edges for side in (-math.inf, edge, math.inf)]
numbers = st.none() | st.floats() | st.sampled_from([*NEAR, *TRAIN["quantile"]]) | st.integers(-(2**70), 2**70).map(float)
weights = st.just("") | st.floats(0, 1e15).map(":{!r}".format) | st.sampled_from([":0", ":00.50", ":.3e-7", ":1E+2", ":7."])
COLUMNS = {
    "scaled": numbers,
    "token": texts,
    "count": numbers,
    "genres": texts | st.lists(st.sampled_from([*TOKENS, ""]), max_size=6).map("|".join),
    "hashed": texts,
    "edges": numbers,
    "dashed": texts | st.lists(st.sampled_from([*TOKENS, ""]), max_size=6).map("–".join),
    "hashes": texts | st.lists(st.sampled_from([*TOKENS, ""]), max_size=6).map(" ".join),
    "quantile": numbers,
    "year": st.none() | st.integers(-(2**63), 2**63 - 1) | st.integers(1890, 1930),
    "rare": texts,
    "tags": st.none() | st.lists(texts, max_size=4),
    "history": texts | st.lists(st.sampled_from([*TOKENS, ""]), max_size=6).map(" ".join),
    "other_year": st.none() | st.integers(-(2**63), 2**63 - 1) | st.integers(1890, 1930),
    "other_hash": texts,
    "weighted": st.none() | st.lists(st.builds(str.__add__, st.sampled_from(TOKENS), weights), max_size=5).map(";".join),
}
TYPES = {
    **dict.fromkeys(["scaled", "count", "edges", "quantile"], pyarrow.float64()),
    **dict.fromkeys(["token", "genres", "hashed", "dashed", "hashes", "rare", "history", "other_hash"], pyarrow.string()),
    "weighted": pyarrow.string(),
    **dict.fromkeys(["year", "other_year"], pyarrow.int64()),
    **{"tags": pyarrow.list_(pyarrow.string()), "click": pyarrow.int8()},
}


def table(columns):
    return pyarrow.table({name: pyarrow.array(values, TYPES[name]) for name, values in columns.items()})
