"""`Schema.infer`: the draft for a new table, column by column, from a table and from a file."""

import re
import tempfile

import ibis
import numpy as np
import pandas as pd
import pytest

import tfctr
from tfctr.data.drafting import propose
from tfctr.data.engine import Engine, quiet
from tfctr.data.evidence import collect
from tfctr.data.first_schema import draft, served_names
from tfctr.errors import DataError, StorageError
from tfctr.features import Categorical, Numeric, Sequence
from tfctr.schema import Schema

ROWS = 400
RNG = np.random.default_rng(0)
TABLE = {
    "row": list(range(ROWS)),
    "source": ["web"] * ROWS,
    "User": [f"u{number}" for number in RNG.integers(0, 50, ROWS)],
    "code": [f"{number:04d}" for number in RNG.integers(0, 300, ROWS)],
    "age": RNG.integers(18, 80, ROWS).tolist(),
    "item": RNG.integers(10_000, 10_300, ROWS).tolist(),
    "genres": ["|".join(["Drama", "Comedy", "War"][: number % 4]) for number in range(ROWS)],
    "views": np.floor(RNG.lognormal(5, 2, ROWS)).tolist(),
    "price": [None if number % 5 == 0 else number / 4 for number in range(ROWS)],
    "weight": [1.0] * ROWS,
    "click": [row // 4 % 2 for row in range(ROWS)],
}
EXPECTED = (
    Categorical("User"),
    Categorical("code"),
    Numeric("age", "quantile", buckets=7),  # sqrt(400) / 3
    Categorical("item"),
    Sequence("genres", max_length=3),
    Numeric("views", "log2_floor"),
    Numeric("price", "quantile", buckets=7),
)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("kind", ["dictionary", "csv", "parquet", "jsonl"])
def test_a_draft_by_rule(tmp_path, kind):
    file = tmp_path / f"train.{kind}"
    frame = pd.DataFrame(TABLE)
    writers = {"csv": lambda: frame.to_csv(file, index=False), "parquet": lambda: frame.to_parquet(file)}
    writers["jsonl"] = lambda: frame.to_json(file, orient="records", lines=True)
    if kind != "dictionary":
        writers[kind]()
    schema = Schema.infer(TABLE if kind == "dictionary" else file, label="click", weight="weight")
    assert schema.features == EXPECTED
    assert (schema.label, schema.group, schema.weight) == ("click", "User", "weight")


def test_a_draft_is_saved_and_prepared(tmp_path):
    Schema.infer(TABLE, label="click").save(tmp_path / "schema.yaml")
    dataset = tfctr.prepare(Schema.load(tmp_path / "schema.yaml"), train=TABLE, valid=0.2, out=tmp_path / "data")
    assert dataset.train.width == 9  # three columns of genres


def test_lists_and_other_types():
    table = {
        "tags": [["a", "b"], [], ["c"]],
        "time": pd.to_datetime(["2024-01-01"] * 3),
        "none": [None] * 3,
        "click": [0, 1, 0],
    }
    assert Schema.infer(pd.DataFrame(table), label="click").features == (Sequence("tags", max_length=2),)


def test_columns_that_are_left_out_are_logged_with_the_reason(caplog):
    many = {"row": list(range(100)), "web page": ["a", "b"] * 50, "time": pd.to_datetime(["2024-01-01"] * 100)}
    table = {**many, "source": ["web"] * 100, "user": ["a", "b"] * 49 + ["b", "a"], "click": [0, 1] * 50}
    table["web page"] = table["user"]
    with caplog.at_level("INFO", "tfctr"):
        schema = Schema.infer(pd.DataFrame(table), label="click")
    assert schema.features == (Categorical("web_page", column="web page"), Categorical("user"))
    expected = [
        "'row', since each row",
        "'time', since .* timestamp.*: add its hour and weekday",
        "'source', since .* constant",
    ]
    for message, pattern in zip([text for text in caplog.messages if "left out" in text], expected, strict=True):
        assert re.search(f"left out: column {pattern}", message)


def drafted(name, values, label=None):
    """(the feature, the reason why there is none, all notes) for one column."""
    rows = len(values)
    label = [row // 2 % 2 for row in range(rows)] if label is None else label
    with tempfile.TemporaryDirectory() as folder, quiet(), Engine(folder) as engine:
        engine.create("table", ibis.memtable({"c": values, "label": np.asarray(label, float)}))
        found = propose(collect(engine, engine.table("table"), "c", name), served_names([name])[name], "click")
    return found.feature, found.reason or "", " ".join([*found.notes, found.warning or ""])


def whole(low, high, rows=1000):
    return RNG.integers(low, high, rows).tolist()


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("item_id", whole(0, 40)),
        ("app", whole(0, 700)),
        ("os", whole(0, 99)),
        ("zip code", whole(10_000, 10_099)),
        ("price_type", whole(0, 50)),
        ("deviceChannel", whole(0, 500)),
        ("C14", whole(375, 400)),
        ("is_price", whole(0, 90)),
        ("unknown", whole(0, 50)),
        ("unknown", np.minimum(RNG.zipf(1.5, 1000), 300).tolist()),
        ("unknown", [str(10**19 + number) for number in whole(0, 50)]),
        ("token", [["1e999999", "7e091613", "00000001", "e4"][number] for number in whole(0, 4)]),
    ],
)
def test_codes_are_categorical(name, values):
    feature, _, notes = drafted(name, values)
    assert isinstance(feature, Categorical), notes


@pytest.mark.parametrize(
    "name", ["age", "item_count", "num_devices", "hoursPerWeek", "days_since_user", "capital gain", "avg_zip", "price2"]
)
def test_names_of_amounts_are_numeric(name):
    feature, _, notes = drafted(name, whole(0, 60))
    assert (type(feature), feature.transform) == (Numeric, "quantile")
    assert "its name says an amount" in notes


def test_whole_numbers_whose_order_tells_are_numeric():
    values = np.array(whole(0, 60, 2000))
    feature, _, notes = drafted("x", values, label=(RNG.random(2000) < values / 60).astype(int))
    assert isinstance(feature, Numeric)
    assert "the click rate follows its order" in notes
    feature, _, notes = drafted("x", values, label=(RNG.random(2000) < values % 7 / 7).astype(int))
    assert isinstance(feature, Categorical)
    assert "in doubt categorical" in notes


@pytest.mark.parametrize(
    ("values", "reason", "advice"),
    [
        (
            ["NA", *map(str, whole(0, 5000, 999))],
            "it holds numbers, but 1 of 1,000 values are no numbers: 'NA'",
            "--missing NA",
        ),
        (
            ["?"] * 90 + [f"{number / 7:.3f}" for number in whole(0, 5000, 910)],
            "90 of 1,000 values are no numbers",
            "--missing '?'",
        ),
        ([f"{number / 8:.3f}".replace(".", ",") for number in whole(0, 900)], "written as text, such as '", "1234.5"),
        ([f"{number:,}" for number in whole(1000, 9000)], "written as text, such as '", "1234.5"),
        ([f"{number} %" for number in whole(1, 90)], "written as text, such as '", "1234.5"),
        ([f"${number}.50" for number in whole(1, 90)], "written as text, such as '", "1234.5"),
    ],
)
def test_numbers_that_are_not_quite_numbers(values, reason, advice):
    feature, found, notes = drafted("x", values)
    assert feature is None
    assert reason in found
    assert advice in notes


def test_a_warning_of_such_numbers_says_what_to_do(tmp_path, caplog):
    rows = "".join(f"{number or 'NA'},{'abc'[number % 3]},{number % 2}\n" for number in range(1000))
    (tmp_path / "t.csv").write_text(f"x,user,click\n{rows}")
    tfctr.Schema.infer(tmp_path / "t.csv", label="click")
    ways = "--missing NA, in Python missing=['NA']; in a DataFrame table = table.replace({'NA': None})"
    assert f"or name them to infer and prepare ({ways}), and it can be numeric" in caplog.text


def test_few_numbers_with_a_placeholder_are_categorical_and_say_so():
    feature, _, notes = drafted("children", [["0", "1", "2", "NA"][number] for number in np.minimum(whole(0, 40), 39) % 4])
    assert isinstance(feature, Categorical)
    feature, _, notes = drafted("children", ["0", "1", "2"] * 330 + ["NA"] * 10)
    assert isinstance(feature, Categorical)
    assert "10 of 1,000 values are no numbers: 'NA'" in notes


@pytest.mark.parametrize(
    ("name", "values", "how"),
    [
        ("x", ["2024-01-31", "2024-02-01"] * 50, "table['x_weekday'] = time.dt.day_of_week"),
        ("x", ["2024-01-31 10:00:00", "2024-02-01T11:30"] * 50, "table['x_hour'] = time.dt.hour"),
        ("x", ["31.12.2023", "01.01.2024"] * 50, "weekday"),
        ("hour", ["14102100", "14102101", "14103023"] * 33, "format='%y%m%d%H'"),
        ("x", [f"202401{day:02d}" for day in range(1, 31)] * 4, "format='%Y%m%d'"),
        ("timestamp", whole(874724710, 893286638), "unit='s'"),
        ("created_at", [1_500_000_000_000 + number for number in whole(0, 10**9)], "unit='ms'"),
    ],
)
def test_times_are_left_out_with_advice(name, values, how):
    feature, reason, notes = drafted(name, values)
    assert feature is None
    assert "it holds times" in reason
    assert how in notes


def test_hours_and_epochs_that_are_none():
    assert isinstance(drafted("hour", whole(0, 24))[0], Categorical)
    assert isinstance(drafted("user", whole(874724710, 874724760))[0], Categorical)  # ids of ten digits
    assert isinstance(drafted("version", ["10.2.14", "10.3.1"] * 50)[0], Categorical)


ANSWERS = {
    "rating": lambda click, rng: np.where(click == 1, rng.integers(4, 6, len(click)), rng.integers(1, 4, len(click))),
    "not_it": lambda click, rng: 1 - click,
    "word": lambda click, rng: np.where(click == 1, "yes", "no"),
    "paid_at": lambda click, rng: [
        f"2024-01-0{day} 10:00:00" if one else None for one, day in zip(click, rng.integers(1, 9, len(click)), strict=False)
    ],
    "refund": lambda click, rng: [
        None if one else float(value) for one, value in zip(click, rng.random(len(click)), strict=True)
    ],
    "money": lambda click, rng: click * (1 + rng.random(len(click))),
    "middle": lambda click, rng: np.where(click == 1, 3, rng.choice([1, 2, 4, 5], len(click))),
    "key": lambda click, rng: [
        f"u{number * 2 + one}" for one, number in zip(click, rng.integers(0, 30, len(click)), strict=True)
    ],
}


@pytest.mark.parametrize("name", list(ANSWERS))
def test_columns_that_are_the_answer_are_left_out(name):
    rng = np.random.default_rng(1)
    click = (rng.random(3000) < 0.1).astype(int)
    feature, reason, _ = drafted(name, ANSWERS[name](click, rng), label=click)
    assert feature is None
    assert "it is the answer, or was made from it" in reason


def test_nearly_the_answer_is_said_and_chance_is_not():
    rng = np.random.default_rng(2)
    click = rng.integers(0, 2, 3000)
    noisy = np.where(rng.random(3000) < 0.04, 1 - click, click)  # AUC .96
    assert "it tells much alone" in drafted("guess", noisy, label=click)[2]
    assert "it tells" not in drafted("guess", np.where(rng.random(3000) < 0.08, 1 - click, click), label=click)[2]
    noisy = np.where(rng.random(3000) < 0.015, 1 - click, click)  # AUC .985
    feature, _, notes = drafted("guess", noisy, label=click)
    assert isinstance(feature, Categorical)
    assert "it tells nearly everything alone" in notes
    assert drafted("clicked", noisy, label=click)[0] is None  # and its name is like the label's
    feature, _, notes = drafted("unique", [f"t{number}" for number in range(0, 3000, 2)] * 2, label=click)
    assert isinstance(feature, Categorical)  # each value twice: its own rows tell nothing out of fold
    feature, _, notes = drafted("few", ["a", "b"] * 5, label=[0, 1] * 5)
    assert isinstance(feature, Categorical)  # five of a class are no evidence


TAGS = ["sql", "python", "java", "go", "rust", "c"]
WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "and", "then", "it", "sleeps", "well"]


def several(mark, length=3):
    return [mark.join(RNG.choice(TAGS, length, replace=False)) for _ in range(500)]


@pytest.mark.parametrize(("values", "mark"), [(several(mark), mark) for mark in "|;^~,/ "])
def test_lists_by_their_mark(values, mark):
    feature, _, notes = drafted("skills", values)
    assert feature == Sequence("skills", max_length=3, separator=mark), notes


def test_lists_written_as_text():
    feature, _, notes = drafted("skills", [str(RNG.choice(TAGS, 2, replace=False).tolist()) for _ in range(60)] + ["[]"])
    assert feature == Sequence("skills", max_length=2, separator=",")
    assert "6 distinct tokens" in notes


@pytest.mark.parametrize("name", ["recent_items", "clickHistory"])
def test_the_newest_of_a_history_are_kept(name):
    feature, _, notes = drafted(name, several("|"))
    assert (feature.keep, feature.max_length) == ("last", 3)
    assert "`keep: last`, since its name says a history" in notes


@pytest.mark.parametrize(
    "values",
    [
        RNG.choice(["New York", "Los Angeles", "San Jose"], 500),
        RNG.choice(["text/html", "image/png", "text/css"], 500),
        RNG.choice(["Smith, John", "Doe, Jane"], 500),
    ],
)
def test_names_with_marks_are_no_lists(values):
    assert isinstance(drafted("x", values)[0], Categorical)


@pytest.mark.parametrize("mark", ["; ", ", ", " "])
def test_free_text_is_no_list(mark):
    texts = [mark.join(" ".join(RNG.choice(WORDS, 5)) for _ in range(2)) for _ in range(500)]
    feature, reason, _ = drafted("review", texts)
    assert feature is None
    assert "free text" in reason


@pytest.mark.parametrize("form", ["[{}]", "{}"])
@pytest.mark.parametrize("mark", [", ", "|", " "])
def test_lists_of_fractions_are_left_out(form, mark):
    texts = [form.format(mark.join(f"{value:.3f}" for value in RNG.normal(size=4))) for _ in range(200)]
    feature, reason, _ = drafted("vector", texts)
    assert feature is None
    assert "fractions (an embedding?)" in reason
    typed = RNG.normal(size=(200, 4)).tolist()
    assert "fractions (an embedding?)" in drafted("vector", typed)[1]


def test_a_group_has_no_missing_values():
    table = {"user": ["a", None, "b"] * 10, "city": ["x", "y"] * 15, "click": [0, 1, 1] * 10}
    assert Schema.infer(table, label="click").group is None
    table["user"] = ["a", "c", "b"] * 10
    assert Schema.infer(table, label="click").group == "user"


def test_what_a_person_should_look_at_is_a_warning(caplog):
    click = RNG.integers(0, 2, 2000)
    guess = np.where(RNG.random(2000) < 0.015, 1 - click, click)
    with caplog.at_level("WARNING", "tfctr"):
        draft({"paid": click * 2, "guess": guess, "price": ["NA", *map(str, range(1999))], "click": click}, label="click")
    for start in (
        "left out: column 'paid', since it is the answer",
        "column 'guess': it tells nearly",
        "left out: column 'price'",
    ):
        assert any(message.startswith(start) for message in caplog.messages)


def test_the_text_of_a_draft_holds_what_was_seen(tmp_path):
    table = {
        "a\nb": ["x\ny", "z"] * 20,
        "web page": ["p", "q", "q", "p"] * 10,
        "none": [""] * 40,
        "click": [0, 0, 1, 1] * 10,
    }
    found = draft(table, label="click")
    text = found.to_yaml()
    assert "# 'a\\nb': text such as 'x\\ny', 'z'; 2 distinct in 40 rows, 0.0% missing; AUC alone" in text
    assert "# 'none': left out, since it is empty" in text
    assert "    column: web page\n" in text
    for name in ("schema.yaml", "schema.json"):
        found.save(tmp_path / name)
        assert Schema.load(tmp_path / name).features == found.schema.features
    notes = found.to_dict()["notes"]
    assert notes["left_out"] == {"none": "it is empty"}
    assert notes["seen"]["web page"][0].startswith("text such as 'p', 'q'")


@pytest.mark.parametrize(("roles", "bad"), [({}, "click"), ({"weight": "weight"}, "weight"), ({"group": "user"}, "user")])
def test_columns_that_have_another_role_hold_what_it_takes(roles, bad):
    table = {"user": ["a", "b", "c"], "weight": ["1", "2", "0"], "click": ["0", "True", "false"]}
    assert Schema.infer(table, label="click", **roles).label == "click"
    table[bad] = [*table[bad][:2], {"click": "2", "weight": "-1", "user": ""}[bad]]
    with pytest.raises(DataError, match=f"the table: column '{bad}', row 3: found"):
        Schema.infer(table, label="click", **roles)


def test_the_first_of_several_files(tmp_path):
    pd.DataFrame(TABLE).to_csv(tmp_path / "a.csv", index=False)
    (tmp_path / "b.csv").write_text("click,other\n1,2\n")
    assert Schema.infer(str(tmp_path / "*.csv"), label="click", weight="weight").features == EXPECTED


def test_what_cannot_be_inferred(tmp_path):
    with pytest.raises(DataError, match=r"no column 'clik'.*\n.*'click'"):
        Schema.infer(TABLE, label="clik")
    with pytest.raises(DataError, match="no column 'visitor'"):
        Schema.infer(TABLE, label="click", group="visitor")
    with pytest.raises(DataError, match="no column that can be a feature"):
        Schema.infer({"source": ["web", "web"], "click": [0, 1]}, label="click")
    with pytest.raises(StorageError, match="does not exist"):
        Schema.infer(tmp_path / "no.csv", label="click")
