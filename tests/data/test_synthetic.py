"""Synthetic tables: the probabilities are the true ones, and only a model with interactions comes near them."""

import numpy as np
import pyarrow.parquet as parquet
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import OneHotEncoder

from tfctr.data import synthetic as module
from tfctr.data.synthetic import (
    best_possible,
    synthetic,
    synthetic_histories,
    synthetic_histories_schema,
    synthetic_schema,
    write_synthetic,
)
from tfctr.errors import ConfigError
from tfctr.metrics import auc, log_loss
from tfctr.schema import Schema


@pytest.fixture(scope="module")
def table():
    return synthetic(60_000, seed=1)


def column(table, name):
    return table[name].to_numpy(zero_copy_only=False)


def test_equal_seeds_give_equal_tables():
    assert synthetic(500, seed=3).equals(synthetic(500, seed=3))
    assert not synthetic(500, seed=3).equals(synthetic(500, seed=4))


def test_clicks_follow_the_probabilities(table):
    clicks, probability = column(table, "click"), column(table, "probability")
    deciles = np.array_split(np.argsort(probability), 10)
    for rows in deciles:
        expected, deviation = probability[rows].sum(), np.sqrt((probability[rows] * (1 - probability[rows])).sum())
        assert abs(clicks[rows].sum() - expected) < 5 * deviation + 1
    assert 0.2 < clicks.mean() < 0.5


def test_probability_is_the_documented_formula():
    # each hidden number is a table; solve for all of them in the logits, given the columns that carry no unknown
    table = synthetic(3_000, seed=2)
    probability = column(table, "probability")
    logit = np.log(probability / (1 - probability))
    sharpness = np.vectorize({"top": 4.0, "middle": 1.5, "footer": 0.4}.get)(column(table, "slot"))
    signal = (logit + 0.6) / sharpness + 0.8
    price = column(table, "price")
    signal -= 0.5 * np.where(np.isnan(price), 0, np.exp(-(np.log(price / 20) ** 2) / 2))
    plus = {"device": "phone", "daypart": "morning", "weekend": "yes"}
    signal -= np.prod([np.where(column(table, name) == token, 1, -1) for name, token in plus.items()], axis=0)
    genres = [set(text.split("|")) - {""} for text in column(table, "genres")]
    share = np.array([[(genre in row) / max(len(row), 1) for genre in module.GENRES] for row in genres])
    city = column(table, "city")[:, None] == module.CITIES
    user, item = column(table, "user"), column(table, "item")
    # rows of one (user, item) pair differ by genres and city only, and those linearly
    pairs, pair = np.unique([f"{a} {b}" for a, b in zip(user, item, strict=True)], return_inverse=True)
    design = np.concatenate([share, city], axis=1)
    counts = np.bincount(pair)

    def centred(values):
        means = np.stack([np.bincount(pair, column) / counts for column in values.T], axis=1)
        return (values - means[pair])[counts[pair] > 1]

    solution, _, _, _ = np.linalg.lstsq(centred(design), centred(signal[:, None]), rcond=None)
    np.testing.assert_allclose(centred(design) @ solution, centred(signal[:, None]), atol=1e-6)
    assert 0 < len(pairs) < len(pair)
    assert np.abs(solution).max() > 0.3


def test_no_two_of_the_three_sides_say_anything(table):
    clicks = column(table, "click")
    three = [column(table, name) == tokens[1] for name, tokens in module.SIDES.items()]
    parity = three[0] ^ three[1] ^ three[2]
    assert clicks[parity].mean() - clicks[~parity].mean() > 0.15
    for first, second in ((0, 1), (0, 2), (1, 2)):
        rates = [clicks[(three[first] == a) & (three[second] == b)].mean() for a in (False, True) for b in (False, True)]
        assert np.ptp(rates) < 0.03  # 15,000 rows each: a standard error of 0.004


def test_slots_hold_easy_and_hard_rows(table):
    probability, slot = column(table, "probability"), column(table, "slot")
    certain = {name: np.mean(np.abs(probability[slot == name] - 0.5) > 0.4) for name in module.SHARPNESS}
    assert certain["top"] > 0.7
    assert certain["footer"] < 0.05


def test_columns_are_what_tables_are_like(table):
    user, counts = np.unique(column(table, "user"), return_counts=True)
    assert len(user) == module.USERS
    assert user[np.argsort(-counts)][:3].tolist() == [1, 2, 3]
    assert counts[0] > 20 * counts[-1]
    assert 0.09 < table["price"].null_count / len(table) < 0.11
    lengths = np.array([len(text.split("|")) if text else 0 for text in column(table, "genres")])
    assert set(lengths) == {0, 1, 2, 3}
    assert {feature.name for feature in synthetic_schema().features} == set(table.column_names) - {"probability", "click"}


def test_nothing_beats_the_true_probabilities(table):
    best = best_possible(table)
    clicks, probability = column(table, "click"), column(table, "probability")
    rng = np.random.default_rng(0)
    for noise in (0.2, 1.0):
        logit = np.log(probability / (1 - probability)) + rng.normal(scale=noise, size=len(clicks))
        assert auc(clicks, logit) < best["auc"]
        assert log_loss(clicks, 1 / (1 + np.exp(-logit))) > best["log_loss"]
    assert 0.8 < best["group_auc"] < best["auc"] < 0.95


@pytest.mark.slow
def test_only_interactions_come_near_the_best(table):
    import keras

    schema = synthetic_schema()
    price = column(table, "price")
    columns = [column(table, feature.name) for feature in schema.features if feature.name != "price"]
    columns.append(
        np.where(np.isnan(price), "", np.digitize(price, np.nanquantile(price, np.linspace(0.1, 0.9, 9))).astype(str))
    )
    codes = np.stack([np.unique(values.astype(str), return_inverse=True)[1] for values in columns], axis=1)
    clicks, train = column(table, "click"), 50_000

    one_hot = OneHotEncoder(handle_unknown="ignore").fit(codes[:train])
    linear = LogisticRegression(max_iter=300).fit(one_hot.transform(codes[:train]), clicks[:train])
    linear = auc(clicks[train:], linear.predict_proba(one_hot.transform(codes[train:]))[:, 1])

    offsets = np.cumsum([0, *codes.max(axis=0)[:-1] + 1])
    ids = (codes + offsets).astype(np.int32)
    keras.utils.set_random_seed(0)
    deep = keras.Sequential(
        [
            keras.Input((ids.shape[1],), dtype="int32"),
            keras.layers.Embedding(int(ids.max()) + 1, 8),
            keras.layers.Flatten(),
            keras.layers.Dense(64, "relu"),
            keras.layers.Dense(64, "relu"),
            keras.layers.Dense(1, "sigmoid"),
        ]
    )
    deep.compile(keras.optimizers.Adam(2e-3), "binary_crossentropy")
    deep.fit(ids[:train], clicks[:train].astype("float32"), batch_size=512, epochs=6, verbose=0)
    deep = auc(clicks[train:], deep.predict(ids[train:], batch_size=4096, verbose=0))

    best = best_possible(table.slice(train))["auc"]
    assert 0.6 < linear < 0.72
    assert linear + 0.1 < deep < best < linear + 0.25


def test_written_tables_are_one_table_in_three(tmp_path):
    paths = write_synthetic(tmp_path, rows=200, seed=5)
    tables = [parquet.read_table(path) for path in paths.values()]
    assert [len(table) for table in tables] == [160, 20, 20]
    expected = synthetic(200, seed=5)
    assert tables[1].equals(expected.slice(160, 20))
    assert Schema.load(tmp_path / "schema.yaml").features == synthetic_schema().features
    assert sorted(path.name for path in tmp_path.iterdir()) == ["schema.yaml", "test.parquet", "train.parquet", "valid.parquet"]


def test_too_few_rows_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="`rows` must be at least 1"):
        synthetic(0)
    with pytest.raises(ConfigError, match="`rows` must be at least 10"):
        write_synthetic(tmp_path, rows=9)


# histories


def test_only_a_history_and_its_item_together_say_something():
    table = synthetic_histories(40_000, seed=2)
    clicks, item = column(table, "click"), column(table, "item")
    histories = [text.split("|") for text in table["history"].to_pylist()]
    assert {len(history) for history in histories} == set(range(1, module.LONGEST + 1))
    found = np.array([history.count(shown) for history, shown in zip(histories, item, strict=True)])
    assert set(found) == {0, 1}
    np.testing.assert_allclose(column(table, "probability"), 1 / (1 + np.exp(2 - 4 * found)), rtol=1e-12)
    assert abs(clicks[found == 1].mean() - 0.881) < 0.01
    alone = [item, np.array([len(history) for history in histories])]
    alone += [np.array([token in history for history in histories]) for token in ("item 1", "item 2")]
    for values in alone:  # what item, length, and two tokens of the history say
        rates = [(clicks[values == value].mean(), (values == value).sum()) for value in np.unique(values)]
        assert all(abs(rate - clicks.mean()) < 5 * 0.5 / np.sqrt(rows) for rate, rows in rates)


def test_histories_are_reproducible_and_have_a_schema(tmp_path):
    assert synthetic_histories(300, seed=3).equals(synthetic_histories(300, seed=3))
    assert 0.85 < best_possible(synthetic_histories(20_000))["auc"] < 0.91
    schema = synthetic_histories_schema()
    assert [feature.owner for feature in schema.features] == ["item", "item"]
    assert all(feature.source in synthetic_histories(10).schema.names for feature in schema.features)
    with pytest.raises(ConfigError, match="`rows` must be at least 1"):
        synthetic_histories(0)
