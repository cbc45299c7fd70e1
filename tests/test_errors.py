"""Every expected error says what is wrong and what to do, and has its exit code."""

import subprocess
import sys

import pytest

from tfctr import errors


def test_problem_and_fix_are_one_text():
    error = errors.DataError("column 'click', row 7: the label is 2.", fix="map labels to 0 and 1")
    assert str(error) == "column 'click', row 7: the label is 2.\n  fix: map labels to 0 and 1"
    assert (error.problem, error.fix) == ("column 'click', row 7: the label is 2.", "map labels to 0 and 1")
    assert str(errors.DataError("no fix is known")) == "no fix is known"


@pytest.mark.parametrize(
    ("cls", "exit_code", "base"),
    [
        (errors.ConfigError, 2, ValueError),
        (errors.DataError, 3, ValueError),
        (errors.TrainingError, 4, ArithmeticError),
        (errors.ExportError, 5, RuntimeError),
        (errors.StorageError, 6, OSError),
        (errors.WorkerError, 7, RuntimeError),
    ],
)
def test_exit_codes_and_built_in_bases(cls, exit_code, base):
    assert cls.exit_code == exit_code
    assert issubclass(cls, errors.TfctrError)
    assert issubclass(cls, base)
    assert str(cls("what", fix="how")) == "what\n  fix: how"


def test_the_table_of_exit_codes_is_the_truth():
    for cls in errors.TfctrError.__subclasses__():
        assert f"| {cls.exit_code} | `{cls.__name__}` |" in errors.__doc__


def test_suggest_names_the_closest_and_all():
    assert errors.did_you_mean("pooing", ["name", "pooling"]) == "Did you mean 'pooling'? Expected one of: name, pooling."
    assert errors.did_you_mean("x", ["pooling"]) == "Expected one of: pooling."
    assert errors.did_you_mean(3, ["pooling"]) == "Expected one of: pooling."


def test_choose_gives_the_option_or_the_choices():
    options = {"sum": 1, "weighted_sum": 2}
    assert errors.choose(options, "sum", "fusion") == 1
    with pytest.raises(errors.ConfigError, match="Unknown fusion 'weigthed_sum'") as caught:
        errors.choose(options, "weigthed_sum", "fusion")
    assert caught.value.fix == "Did you mean 'weighted_sum'? Expected one of: sum, weighted_sum."


@pytest.mark.parametrize("name", [None, 3, ["sum"], {"sum": 1}])
def test_choose_takes_any_wrong_value(name):
    with pytest.raises(errors.ConfigError, match="Unknown fusion"):
        errors.choose({"sum": 1}, name, "fusion")


@pytest.mark.parametrize(
    "statement",
    [
        "import tfctr",
        "from tfctr import Schema, Categorical, Numeric, Sequence",
        "from tfctr import metrics; metrics.auc([0, 1], [0.1, 0.2])",
        "from tfctr import Dataset; from tfctr.data import Split; Split.from_arrays([[3]], [1])",
        "from tfctr.data.synthetic import synthetic; synthetic(10)",
        "from tfctr.serving import PredictionClient, versions",
    ],
)
def test_neither_tensorflow_nor_keras_is_imported(statement):
    code = f"import sys; {statement}; sys.exit(', '.join({{'tensorflow', 'keras'}} & set(sys.modules)) or 0)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stderr) == (0, "")


def test_public_names_exist():
    import tfctr

    assert set(tfctr.__all__) <= set(dir(tfctr))
    with pytest.raises(AttributeError, match="no attribute 'Shcema'"):
        _ = tfctr.Shcema
