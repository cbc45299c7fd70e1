"""What counts as a click, where the column does not hold 0 and 1."""

import json

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

import tfctr
from tfctr import cli
from tfctr.data.preparing import prepare
from tfctr.errors import ConfigError, DataError
from tfctr.features import Categorical
from tfctr.schema import Label, Schema


def source(folder, kind, values):
    table = {"user": ["a"] * len(values), "y": values}
    if kind == "table":
        return table
    file = folder / f"train.{kind}"
    if kind == "csv":
        file.write_text("user,y\n" + "".join(f"a,{'' if value is None else value}\n" for value in values))
    else:
        file.write_text("".join(json.dumps({"user": "a", "y": value}) + "\n" for value in values))
    return file


def labels(folder, label, values, kind="table", **splits):
    schema = Schema([Categorical("user")], label=label)
    out = folder / f"data{len(list(folder.iterdir()))}"
    return prepare(schema, train=source(folder, kind, values), out=out, **splits).train.labels.tolist()


@pytest.mark.sampled(12)
@pytest.mark.parametrize("kind", ["table", "csv", "jsonl"])
@pytest.mark.parametrize(
    ("label", "values", "expected"),
    [
        (Label("y", positive="yes"), ["yes", "no", " yes "], [1, 0, 1]),
        (Label("y", positive=">50K"), [" >50K", "<=50K", ">50K"], [1, 0, 1]),
        (Label("y", positive=["a", "b"]), ["a", "b", "c"], [1, 1, 0]),
        (Label("y", positive=2), [1, 2, 2], [0, 1, 1]),
        (Label("y", positive="1"), [-1, 1, -1], [0, 1, 0]),
        (Label("y", positive=1), ["1.0", "-1", "+1"], [1, 0, 1]),
        (Label("y", positive=1), [True, False, True], [1, 0, 1]),
        (Label("y", positive=False), [True, False, True], [0, 1, 0]),
        (Label("y", positive="TRUE"), ["true", "False", "True"], [1, 0, 1]),
        (Label("y", positive=["x", 3]), ["3.0", "x", "4"], [1, 1, 0]),
        (Label("y", threshold=4), [5, 3, 4], [1, 0, 1]),
        (Label("y", threshold=3.5), [3.5, 3.0, 4.5], [1, 0, 1]),
        (Label("y", threshold=0), ["-1", " 0 ", "1e2"], [0, 1, 1]),
        ("y", ["1", "0.0", "true"], [1, 0, 1]),
    ],
)
def test_labels_by_value_and_by_threshold(tmp_path, kind, label, values, expected):
    assert labels(tmp_path, label, values, kind) == expected


@pytest.mark.parametrize("kind", ["table", "csv", "jsonl"])
@pytest.mark.parametrize(
    ("label", "values"),
    [
        (Label("y", positive="yes"), ["yes", None, "no"]),
        (Label("y", positive="yes"), ["yes", " ", "no"]),
        (Label("y", threshold=1), [1, None, 0]),
        (Label("y", threshold=1), ["1", "many", "0"]),
        (Label("y", threshold=1), ["1", "nan", "0"]),
    ],
)
def test_labels_that_are_missing_or_no_number_are_refused_with_their_row(tmp_path, kind, label, values):
    with pytest.raises(DataError, match=r"column 'y', row 2: found .*the label takes"):
        labels(tmp_path, label, values, kind)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("kind", ["table", "csv", "jsonl"])
@pytest.mark.parametrize("splits", [{}, {"valid": 0.5}])
def test_a_value_that_never_occurs_lists_those_that_do(tmp_path, kind, splits):
    values = ["no", "no", "yes"]
    with pytest.raises(DataError, match=r"nowhere is 'Yes'(.|\n)*'no' \(2 rows\), 'yes' \(1 row\)"):
        labels(tmp_path, Label("y", positive="Yes"), values, kind, **splits)
    with pytest.raises(DataError, match=r"nowhere is 'maybe'"):
        labels(tmp_path, Label("y", positive=["yes", "maybe"]), values, kind, **splits)
    with pytest.raises(DataError, match=r'nowhere is True(.|\n)*positive: "yes"'):  # what YAML makes of a bare yes
        labels(tmp_path, Label("y", positive=True), values, kind, **splits)
    with pytest.raises(DataError, match="nowhere is 'Yes'"):
        Schema.infer(source(tmp_path, kind, values), label=Label("y", positive="Yes"))


@pytest.mark.sampled(4)
@pytest.mark.parametrize("kind", ["table", "csv", "jsonl"])
@pytest.mark.parametrize("positive", [2**53 + 1, str(2**53 + 1), f" {2**53 + 1}.0", [2**53 + 1, 2**64 + 1]])
def test_large_whole_numbers_are_compared_to_the_last_digit(tmp_path, kind, positive):
    values = [2**53, 2**53 + 1, 2**53 + 2, *([2**64 + 1, 2**64] if isinstance(positive, list) else [])]
    expected = [0, 1, 0, 1, 0][: len(values)]
    assert labels(tmp_path, Label("y", positive=positive), values, kind) == expected
    with pytest.raises(DataError, match="nowhere is 9007199254740997"):
        labels(tmp_path, Label("y", positive=2**53 + 5), [2**53 + 4, 0], kind)


def test_only_the_training_table_must_have_every_value(tmp_path):
    train = {"user": ["a"] * 3, "y": ["x", "z", "n"]}
    valid = {"user": ["a"] * 2, "y": ["x", "n"]}
    schema = Schema([Categorical("user")], label=Label("y", positive=["x", "z"]))
    assert prepare(schema, train=train, valid=valid, out=tmp_path / "data").valid.labels.tolist() == [1, 0]


# labels that are not 0 and 1, and nothing says what they mean


@pytest.mark.sampled(6)
@pytest.mark.parametrize("kind", ["table", "csv", "jsonl"])
@pytest.mark.parametrize(
    ("values", "entry", "option"),
    [
        (["yes", "no", "no"], 'label: {column: y, positive: "yes"}', "--positive yes"),
        (["<=50K", ">50K", ">50K"], 'label: {column: y, positive: ">50K"}', "--positive '>50K'"),
        (["b", "s", "b"], 'label: {column: y, positive: "s"}', "--positive s"),
        ([1, 2, 1], "label: {column: y, positive: 2}", "--positive 2"),
        ([-1, 1, 1], "label: {column: y, positive: 1}", "--positive 1"),
        ([1, 2, 3, 4, 5], "label: {column: y, threshold: 4}", "--threshold 4"),
        ([0.5, 3.5, 0, 1], "label: {column: y, threshold: 1}", "--threshold 1"),
    ],
)
def test_the_entry_for_other_labels_is_written_out(tmp_path, kind, values, entry, option):
    with pytest.raises(DataError) as caught:
        labels(tmp_path, "y", values, kind)
    assert entry in caught.value.fix
    assert option in caught.value.fix
    assert all(f"'{value}' (" in caught.value.fix for value in values)
    with pytest.raises(DataError) as inferred:
        Schema.infer(source(tmp_path, kind, values), label="y")
    assert entry in inferred.value.fix
    written = yaml.safe_load(entry)["label"]
    assert 0 < sum(labels(tmp_path, Label(**written), values, kind)) < len(values)


@pytest.mark.parametrize("values", [["0", "1", "x", "1"], [0, 1, 2, 1], ["0", "1", None, "1"], [None, None]])
def test_a_mistake_among_0_and_1_is_to_be_corrected(tmp_path, values):
    with pytest.raises(DataError) as caught:
        labels(tmp_path, "y", values)
    assert caught.value.fix == "correct these rows, or drop them"


# the schema


@pytest.mark.parametrize("suffix", ["yaml", "json"])
@pytest.mark.parametrize(
    ("label", "plain"),
    [
        (Label("y", positive=">50K"), {"column": "y", "positive": ">50K"}),
        (Label("y", positive=["a", 2]), {"column": "y", "positive": ["a", 2]}),
        (Label("y", positive="yes"), {"column": "y", "positive": "yes"}),
        (Label("y", threshold=4), {"column": "y", "threshold": 4}),
        ("y", "y"),
    ],
)
def test_a_label_is_saved_and_loaded(tmp_path, suffix, label, plain):
    schema = Schema([Categorical("user")], label=label)
    schema.save(tmp_path / f"schema.{suffix}")
    loaded = Schema.load(tmp_path / f"schema.{suffix}")
    assert (loaded.label, loaded.label_column) == (label, "y")
    assert schema.to_dict()["label"] == plain
    assert json.loads(json.dumps(schema.get_config()))["label"] == plain
    assert Schema.from_config(schema.get_config()) == schema


def test_a_prepared_dataset_keeps_its_label(tmp_path):
    labels(tmp_path, Label("y", threshold=4), [3, 4])
    assert tfctr.Dataset.load(tmp_path / "data0").schema.label == tfctr.Label("y", threshold=4)


@pytest.mark.parametrize(
    ("label", "plain", "expected"),
    [
        (Label("y", threshold=np.float32(4)), {"threshold": 4.0}, [1, 0, 0]),
        (Label("y", threshold=np.float32(0.7)), {"threshold": 0.7}, [1, 1, 0]),
        (Label("y", threshold=np.int64(4)), {"threshold": 4}, [1, 0, 0]),
        (Label("y", positive=np.int64(4)), {"positive": 4}, [1, 0, 0]),
        (Label("y", positive=[np.float16(0.7), "4"]), {"positive": [0.7, "4"]}, [1, 1, 0]),
    ],
)
def test_a_number_of_numpy_is_one_of_python(tmp_path, label, plain, expected):
    assert json.loads(json.dumps(label.to_dict())) == {"column": "y", **plain}
    assert labels(tmp_path, label, [4, 0.7, 0.5]) == expected


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({}, "`positive` None and `threshold` None"),
        ({"positive": 1, "threshold": 1}, "`positive` 1 and `threshold` 1"),
        ({"positive": []}, "`positive` is"),
        ({"positive": ""}, "`positive` is ''"),
        ({"positive": {"a": 1}}, "`positive` is"),
        ({"positive": float("nan")}, "`positive` is nan"),
        ({"threshold": "4"}, "`threshold` is '4'"),
        ({"threshold": float("nan")}, "`threshold` is nan"),
    ],
)
def test_labels_that_say_nothing(arguments, problem):
    with pytest.raises(ConfigError, match=problem):
        Label("y", **arguments)


def test_the_column_of_a_label_has_one_role():
    for roles in ({"features": [Categorical("y")]}, {"group": "y"}, {"weight": "y"}):
        with pytest.raises(ConfigError, match="'y' has two roles"):
            Schema(**{"features": [Categorical("user")], "label": Label("y", threshold=4), **roles})
    for column in ("", None, 7):
        with pytest.raises(ConfigError, match="`label` is"):
            Schema([Categorical("user")], label=Label(column, threshold=4))


@pytest.mark.parametrize(
    ("label", "problem"),
    [
        ("{column: y, positve: 1}", "unknown key 'positve'(.|\n)*'positive'"),
        ("{positive: 1}", "the label has no `column`"),
        ("[y]", "`label` is"),
    ],
)
def test_a_label_in_a_file_that_cannot_be_used(tmp_path, label, problem):
    (tmp_path / "s.yaml").write_text(f"label: {label}\nfeatures: [{{name: user, type: categorical}}]\n")
    with pytest.raises(ConfigError, match=problem):
        Schema.load(tmp_path / "s.yaml")


@pytest.mark.parametrize(
    ("options", "label"),
    [
        (["--positive", "4"], {"column": "y", "positive": "4"}),
        (["--positive", "4", "--positive", "5"], {"column": "y", "positive": ["4", "5"]}),
        (["--threshold", "4"], {"column": "y", "threshold": 4}),
        (["--threshold", "3.5"], {"column": "y", "threshold": 3.5}),
    ],
)
def test_infer_on_the_command_line(tmp_path, options, label):
    file = source(tmp_path, "csv", [3, 4, 5])
    file.write_text(file.read_text().replace("a,3", "b,3"))
    run = CliRunner().invoke(cli.app, ["infer", str(file), "--label", "y", *options])
    assert run.exit_code == 0, run.stderr
    assert yaml.safe_load(run.stdout)["label"] == label
    (tmp_path / "s.yaml").write_text(run.stdout)
    dataset = prepare(Schema.load(tmp_path / "s.yaml"), train=file, out=tmp_path / "data")
    assert dataset.train.labels.tolist() == [0, 1, float(options != ["--positive", "4"])]
