"""The ids that `prepare` must write, found the slow way: one Python loop over rows, without Ibis, DuckDB or NumPy's search."""

import bisect
import collections
import math
from fractions import Fraction

import numpy as np

import tfctr
from tfctr.features import FIRST_KNOWN, MISSING, OUT_OF_VOCABULARY, Categorical, Numeric, Sequence
from tfctr.schema import Schema

SCHEMA = Schema(
    features=[
        Categorical("user", min_count=2),
        Categorical("city", hash_buckets=50),
        Sequence("genres", max_length=3, min_count=2),
        Sequence("tags", max_length=2, separator=" ", hash_buckets=7, keep="last"),
        Numeric("clicks", min_count=3),
        Numeric("price", "quantile", buckets=5),
        Numeric("age", "edges", edges=[18, 30.5, 65]),
        Numeric("score", "scaled"),
    ],
    label="click",
    group="user",
    weight="weight",
)


def table(rows=500, seed=0):
    """A table `{column: list}` for `SCHEMA`, with missing values, rare tokens and ties of counts."""
    rng = np.random.default_rng(seed)

    def sometimes(values, missing=None):
        return [missing if rng.random() < 0.15 else value for value in values]

    def several(options, separator):
        return [separator.join(rng.choice(options, rng.integers(0, 5))) for _ in range(rows)]

    return {
        "user": [f"{number:03d}" for number in rng.zipf(1.6, rows) % 200],
        "city": sometimes(rng.choice(["Zürich", "東京", "Paris", "x y"], rows).tolist()),
        "genres": sometimes(several(["Comedy", "Drama", "Film-Noir", "Sci-Fi", ""], "|")),
        "tags": sometimes(several(["a", "b", "c"], " ")),
        "clicks": sometimes((rng.integers(-4, 400, rows) + rng.choice([0.0, 0.5], rows)).tolist()),
        "price": sometimes(np.round(rng.exponential(10, rows), 1).tolist()),
        "age": sometimes(rng.integers(10, 90, rows).tolist()),
        "score": sometimes(rng.normal(size=rows).tolist()),
        "click": rng.integers(0, 2, rows).tolist(),
        "weight": rng.random(rows).tolist(),
    }


def prepare(folder, schema=SCHEMA, **arguments):
    return tfctr.prepare(schema, out=folder / f"data{len(list(folder.iterdir()))}", **arguments)


def expected_ids(schema, train, rows):
    """The prepared matrix (rows, width) of `rows`, learnt from `train`; both are `{column: list of values}`."""
    blocks, offset = [], 0
    for feature in schema.features:
        block, size = _column(feature, train[feature.name], rows[feature.name])
        scaled = isinstance(feature, Numeric) and feature.transform == "scaled"
        blocks.append(block if scaled else block + offset)
        offset += size
    return np.concatenate(blocks, axis=1)


def text(value):
    """A raw value as a token, or None where it is missing."""
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) else str(value)


def canonical(tokens):
    """How a column with these training tokens writes a token: here they are all whole numbers, or text."""
    return (lambda token: str(int(token)) if token.isdigit() else token) if all(map(str.isdigit, tokens)) else str


def tokens_of(feature, value):
    if not isinstance(feature, Sequence):
        return [] if text(value) is None else [text(value)]
    parts = [text(part) for part in value] if isinstance(value, list) else (text(value) or "").split(feature.separator)
    parts = [part for part in parts if part]
    return parts[: feature.max_length] if feature.keep == "first" else parts[max(len(parts) - feature.max_length, 0) :]


def vocabulary(feature, values):
    tokens = [token for value in values for token in tokens_of(feature, value)]
    counts = collections.Counter(map(canonical(tokens), tokens))
    known = [token for token, count in counts.items() if count >= feature.min_count and not {"\n", "\r"} & set(token)]
    return sorted(known, key=lambda token: (-counts[token], token.encode()))


def log2_floor(x):
    return math.floor(math.log(x) ** 2) if x > 2 else int(x)


def _column(feature, train, values):
    if isinstance(feature, Numeric):
        block, size = _numbers(feature, [_number(value) for value in train], [_number(value) for value in values])
        return np.array(block, np.int32)[:, None], size
    block = np.zeros((len(values), feature.width), np.int32)
    ids, size = _token_ids(feature, train)
    for row, value in enumerate(values):
        found = [ids(token) for token in tokens_of(feature, value)] or [MISSING]
        block[row, : len(found)] = found
    return block, size


def _token_ids(feature, train):
    if feature.hash_buckets is not None:
        import tensorflow as tf

        buckets = feature.hash_buckets
        return (lambda token: FIRST_KNOWN + int(tf.strings.to_hash_bucket_fast(token, buckets))), FIRST_KNOWN + buckets
    known = {token: FIRST_KNOWN + rank for rank, token in enumerate(vocabulary(feature, train))}
    write = canonical(token for value in train for token in tokens_of(feature, value))
    return (lambda token: known.get(write(token), OUT_OF_VOCABULARY)), FIRST_KNOWN + len(known)


def _number(value):
    return math.nan if value is None or value == "" else float(value)


def _numbers(feature, train, values):
    finite = sorted(value for value in train if math.isfinite(value))
    if feature.transform == "scaled":
        return _scaled(finite, values), FIRST_KNOWN + 1
    if feature.transform == "log2_floor":
        counts = collections.Counter(map(log2_floor, finite))
        known = sorted((b for b, count in counts.items() if count >= feature.min_count), key=lambda b: (-counts[b], b))
        ids = {bucket: FIRST_KNOWN + rank for rank, bucket in enumerate(known)}
        found = [
            ids.get(log2_floor(value), OUT_OF_VOCABULARY) if math.isfinite(value) else OUT_OF_VOCABULARY for value in values
        ]
        size = FIRST_KNOWN + len(known)
    else:
        edges = _quantiles(finite, feature.buckets) if feature.transform == "quantile" else feature.edges
        found = [FIRST_KNOWN + bisect.bisect_right(edges, value) for value in values]
        size = FIRST_KNOWN + len(edges) + 1
    return [MISSING if math.isnan(value) else id for value, id in zip(values, found, strict=True)], size


def quantile_runs(counts, buckets):
    """Runs of values, each [the values, its intervals, whether it is a frequent value alone]; `counts` is `{value: rows}`."""
    buckets = min(buckets, len(counts))
    frequent, rows, alone = sorted(counts, key=lambda value: (-counts[value], value)), sum(counts.values()), []
    while len(alone) < buckets and counts[frequent[len(alone)]] * (buckets - len(alone)) >= rows:
        rows -= counts[frequent[len(alone)]]
        alone.append(frequent[len(alone)])
    while True:
        runs = []
        for value in sorted(counts):
            if value in alone or not runs or runs[-1][2]:
                runs.append([[], 1, value in alone])
            runs[-1][0].append(value)
        if len(runs) <= buckets:
            break
        alone.pop()
    while sum(run[1] for run in runs) < buckets:
        open_runs = [run for run in runs if run[1] < len(run[0])]
        max(open_runs, key=lambda run: Fraction(sum(counts[value] for value in run[0]), run[1]))[1] += 1
    return runs


def _quantiles(ascending, buckets):
    counts, edges = collections.Counter(ascending), []
    for values, share, _ in quantile_runs(counts, buckets):
        edges.append(values[0])
        for left in range(share, 1, -1):
            rows = sum(counts[value] for value in values)
            ends = range(1, len(values) - left + 2)
            end = min(ends, key=lambda end: abs(Fraction(rows, left) - sum(counts[value] for value in values[:end])))
            values = values[end:]
            edges.append(values[0])
    return edges[1:]


def _scaled(finite, values):
    mean = math.fsum(finite) / len(finite)
    scale = math.sqrt(math.fsum((x - mean) ** 2 for x in finite) / len(finite)) or 1.0
    scaled = [np.float32((x - mean) / scale if math.isfinite(x) else math.nan) for x in values]
    return np.array(scaled).view(np.int32)
