"""What `prepare` finds of a split before anything is trained on it, and that `train` and `evaluate` say it again."""

import json
import logging

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

import tfctr
from tfctr import Categorical, Numeric, Schema, Sequence
from tfctr.cli import app
from tfctr.config import Config
from tfctr.data.profile import Histogram, Profile, moved, number_codes
from tfctr.evaluation import evaluate
from tfctr.training import train

SCHEMA = Schema([Categorical("user"), Categorical("hour"), Numeric("price", "scaled")], label="click")
HOURS = np.array([0.5, 0.25, 0.15, 0.1])


def table(rows, seed, hours=HOURS, shift=0.0):
    rng = np.random.default_rng(seed)
    return {
        "user": rng.integers(0, 300, rows).astype(str),
        "hour": rng.choice(4, rows, p=hours).astype(str),
        "price": rng.normal(10 + shift, 1, rows),
        "click": rng.integers(0, 2, rows),
    }


def warned(caplog):
    ours = [record for record in caplog.records if record.name.startswith("tfctr")]  # TensorFlow tells of retracing
    found = [record.message for record in ours if record.levelno == logging.WARNING]
    caplog.clear()
    return [message for message in found if "worse than a constant" not in message]


# distances


@pytest.mark.parametrize("seed", range(3))
def test_the_distance_of_numbers_is_that_of_kolmogorov_and_smirnov(seed, tmp_path):
    """Of numbers that 6 bits hold exactly, the same; of others, no larger, and by no more than one code's share less."""
    rng = np.random.default_rng(seed)
    for draw, difference in ((lambda rows: rng.integers(-60, 60, rows).astype(float), 1e-12), (rng.standard_cauchy, 0.03)):
        before, after = draw(400), draw(300) * 1.25
        before, after = (np.round(values) if difference < 1e-6 else values for values in (before, after))
        schema = Schema([Numeric("x", "scaled")], label="click")
        tables = {
            name: {"x": [*values, None], "click": np.arange(len(values) + 1) % 2}
            for name, values in (("a", before), ("b", after))
        }
        dataset = tfctr.prepare(schema, train=tables["a"], test=tables["b"], out=tmp_path / str(difference))
        found = dataset.test.profile["x"]["distance"]
        exact = stats.ks_2samp(before, after).statistic
        assert exact - difference <= found <= exact + 1e-12


def test_the_distance_of_tokens_by_hand(tmp_path):
    schema = Schema([Categorical("user"), Sequence("tags", max_length=3), Categorical("city", hash_buckets=4)], label="click")
    before = {
        "user": [*"aabbbc", ""],
        "tags": ["x|y", "x", "", "z|z|z", "", "", ""],
        "city": ["p"] * 7,
        "click": [0, 1] * 3 + [1],
    }
    after = {"user": [*"bbb", "new"], "tags": ["x", "x|y", "u", ""], "city": ["p", "p", "p", ""], "click": [0, 1, 0, 1]}
    profile = tfctr.prepare(schema, train=before, test=after, out=tmp_path / "data").test.profile
    # user: b 3/6 and 3/4, a 2/6 and 0; tags of 6 tokens: x 2/6 and 2/4, z 3/6 and 0.
    expected = {"user": (1 / 3, "a", 0.0, 1 / 3), "tags": (1 / 2, "z", 0.0, 1 / 2)}
    for name, (distance, token, share, in_training) in expected.items():
        found = profile[name]
        assert (found["token"], found["share"]) == (token, share)
        assert (found["distance"], found["in_training"]) == pytest.approx((distance, in_training))
    assert profile["user"]["frequent"] == {"b": 0.75}
    assert profile["tags"]["frequent"] == {"x": 0.5, "y": 0.25}
    assert profile["city"]["distance"] == 0.0


def test_quantiles_are_those_of_the_column(tmp_path):
    values = [*range(100), None, float("inf")]
    rows = {"x": np.array(values, float), "none": [None] * 102, "click": np.arange(102) % 2}
    schema = Schema([Numeric("x", "scaled"), Numeric("none", "scaled")], label="click")
    profile = tfctr.prepare(schema, train=rows, valid=rows, out=tmp_path / "data").train.profile
    assert profile["x"]["quantiles"] == {"least": 0, "5%": 4, "median": 49, "95%": 94, "greatest": 99}
    assert profile["none"]["quantiles"] == {}


def test_codes_keep_the_order_of_any_numbers():
    rng = np.random.default_rng(0)
    values = np.sort(np.concatenate([rng.integers(-(2**62), 2**62, 5000).view(np.float64), [0.0, -0.0, 1e308, -1e308, 5e-324]]))
    values = values[np.isfinite(values)]
    codes = number_codes(values)
    assert (np.diff(codes) >= 0).all()
    assert codes.min() >= 0
    assert codes.max() < 2**18


def test_histograms_add_up():
    rng = np.random.default_rng(0)
    parts = [rng.integers(0, 50, rows) for rows in (0, 10, 1000, 3)]
    histogram = Histogram()
    for part in parts:
        histogram.add(part)
    codes, counts = np.unique(np.concatenate(parts), return_counts=True)
    np.testing.assert_array_equal(histogram.codes, codes)
    np.testing.assert_array_equal(histogram.counts, counts)


# what is found, and what is not


@pytest.mark.sampled(5)
@pytest.mark.parametrize("seed", range(20))
def test_a_shift_is_found_where_there_is_one(seed, tmp_path):
    """5 % of one category, and .2 standard deviations of a mean: 20 of 20."""
    before = table(20_000, seed)
    after = table(20_000, 100 + seed, hours=HOURS + np.array([-0.05, 0.05, 0, 0]), shift=0.2)
    split = tfctr.prepare(SCHEMA, train=before, test=after, out=tmp_path / "data").test
    assert moved(split.profile).keys() == {"hour", "price"}
    assert not split.findings


@pytest.mark.sampled(1)
@pytest.mark.parametrize("rows", [40, 400, 4000])
def test_chance_is_no_shift(rows, tmp_path):
    """Of 100 tables like training's, none is told of; and of 8 whole ones nothing else."""
    for number in range(4):
        tables = {name: table(rows, (number, place)) for place, name in enumerate(("train", "valid", "test"))}
        dataset = tfctr.prepare(SCHEMA, **tables, out=tmp_path / str(number))
        assert not dataset.valid.findings + dataset.test.findings
    features = {feature.name: feature for feature in dataset.schema.features}
    for seed in range(100):
        profiles = []
        for place in range(2):
            found, profile = table(rows, (seed, place)), Profile()
            profile.add_numbers(features["price"], found["price"])
            profile.add_tokens(features["hour"], found["hour"].astype(int)[:, None] + 3)
            profile.add_tokens(features["user"], np.minimum(found["user"].astype(int)[:, None] + 2, features["user"].size - 1))
            profiles.append(profile)
        assert not moved(profiles[1].describe(dataset.schema, profiles[0]))


def test_a_price_in_other_units(tmp_path, caplog):
    before, after = table(2000, 0), table(1000, 1)
    after["price"] = after["price"] * 100
    dataset = tfctr.prepare(SCHEMA, train=before, test=after, out=tmp_path / "data")
    (found,) = warned(caplog)
    assert found.startswith(
        "the test split: 'price' has another distribution than in training (distance 1.00): its median is 99"
    )
    evaluate(tfctr.models.LR(dataset.schema), dataset.test)
    assert warned(caplog) == [found]
    assert tfctr.prepare(SCHEMA, train=before, test=table(1000, 1), out=tmp_path / "equal").test.findings == ()


@pytest.mark.parametrize("transform", [{"transform": "log2_floor"}, {"transform": "quantile", "buckets": 9}])
def test_a_price_in_other_units_of_other_transforms(transform, tmp_path):
    schema = Schema([Numeric("price", **transform)], label="click")
    before, after = table(2000, 0), table(1000, 1)
    after["price"] = after["price"] * 100
    split = tfctr.prepare(schema, train=before, test=after, out=tmp_path / "data").test
    assert split.profile["price"]["distance"] == 1.0
    assert split.findings


def test_the_same_rows_in_train_and_test(tmp_path, caplog):
    before, after = table(2000, 0), table(1000, 1)
    for name, column in after.items():
        after[name] = np.concatenate([column[:700], before[name][:300]])
    dataset = tfctr.prepare(SCHEMA, train=before, valid=table(1000, 2), test=after, out=tmp_path / "data")
    assert dataset.test.copies == {"share": 0.3, "expected": 0.0}
    assert dataset.valid.copies == {"share": 0.0, "expected": 0.0}
    (found,) = warned(caplog)
    assert found == "the test split: 30.0% of its rows are also in training; of rows like training's 0.0% would be."


def test_rows_that_are_often_equal_by_nature(tmp_path, caplog):
    """Of 6 possible rows all are in training, as nearly every row of training is there twice."""
    schema = Schema([Categorical("color")], label="click", group="color", weight="weight")

    def drawn(rows, seed):
        rng = np.random.default_rng(seed)
        return {"color": rng.choice(["r", "g", "b"], rows), "click": rng.integers(0, 2, rows), "weight": rng.random(rows)}

    dataset = tfctr.prepare(schema, train=drawn(200, 0), valid=0.2, test=drawn(90, 1), out=tmp_path / "data")
    assert dataset.test.copies == {"share": 1.0, "expected": 1.0}
    assert not warned(caplog)


def test_copies_are_those_of_a_loop(tmp_path):
    schema = Schema([Categorical("color"), Numeric("x", "scaled")], label="click")
    rng = np.random.default_rng(0)

    def drawn(rows):
        x = rng.choice([1.0, 2.0, None], rows).tolist()
        return {"color": rng.choice([*"rgb", None], rows).tolist(), "x": x, "click": rng.integers(0, 2, rows).tolist()}

    tables = {"train": drawn(30), "test": drawn(20)}
    dataset = tfctr.prepare(schema, **tables, out=tmp_path / "data")
    rows = {name: list(zip(*found.values(), strict=True)) for name, found in tables.items()}
    assert dataset.test.copies == {
        "share": sum(row in rows["train"] for row in rows["test"]) / 20,
        "expected": sum(rows["train"].count(row) > 1 for row in rows["train"]) / 30,
    }


@pytest.mark.parametrize("kind", ["token", "number", "list"])
def test_a_feature_that_holds_the_answer(kind, tmp_path, caplog):
    rows = table(1000, 0)
    answers = {
        "token": (np.where(rows["click"], "bought", "seen"), Categorical("leak")),
        "number": (np.where(rows["click"], 1.0, 2.0) + rows["price"] / 1000, Numeric("leak", "scaled")),
        "list": (np.where(rows["click"], "a|bought", "a|seen"), Sequence("leak", max_length=2)),
    }
    rows["leak"], feature = answers[kind]
    dataset = tfctr.prepare(Schema([feature, Categorical("hour")], label="click"), train=rows, valid=0.2, out=tmp_path / "data")
    assert dataset.alone["leak"] == 1.0
    assert 0.4 < dataset.alone["hour"] < 0.6
    (found,) = warned(caplog)
    assert found.startswith("the feature 'leak' alone ranks the clicks of training with an AUC of 1.0000: leave it out")
    config = {"model": {"name": "LR"}, "training": {"batch_size": 500, "epochs": 1}}
    run = train(Config.from_dict(config), dataset, tmp_path / "run")
    assert warned(caplog) == [found]
    evaluate(run, "valid")
    assert warned(caplog) == [found]


def test_few_clicks_hold_no_answer(tmp_path, caplog):
    """Of 30 clicks, each with a user of its own, nobody can tell."""
    rows = {"user": np.arange(600).astype(str), "click": np.arange(600) % 20 == 0}
    dataset = tfctr.prepare(Schema([Categorical("user")], label="click"), train=rows, valid=rows, out=tmp_path / "data")
    assert dataset.alone is None
    assert "alone" not in caplog.text


def test_the_command_line_says_it(tmp_path):
    before, after = table(2000, 0), table(1000, 1)
    after["price"] = after["price"] * 100
    for name, rows in (("train", before), ("test", after)):
        lines = ["user,hour,price,click", *(",".join(map(str, row)) for row in zip(*rows.values(), strict=True))]
        (tmp_path / f"{name}.csv").write_text("\n".join(lines), encoding="utf-8")
    SCHEMA.save(tmp_path / "schema.yaml")
    arguments = [
        "prepare",
        tmp_path / "schema.yaml",
        "--train",
        tmp_path / "train.csv",
        "--test",
        tmp_path / "test.csv",
        "--out",
    ]
    result = CliRunner().invoke(app, [str(argument) for argument in [*arguments, tmp_path / "data", "--json"]])
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said["profiles"]["test"]["features"]["price"]["distance"] == 1.0
    assert said["profiles"]["train"]["click_rate"] == pytest.approx(before["click"].mean())
    assert said["alone"].keys() == {"user", "hour", "price"}
    assert f"train: {before['click'].mean():.2%} clicks\n" in result.stderr
    assert "also in training (0.00% expected); distributed otherwise than in training: price 1.00 (PSI " in result.stderr
