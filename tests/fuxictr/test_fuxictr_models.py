"""The tables of models and of training keys: each beside our constructors, and the arguments that make both one function."""

import inspect
import math
import re
import sys

import pytest
from kit.fuxictr_files import imported, table, texts
from kit.places import BENCHMARKS, ROOT

import tfctr
from tfctr import Categorical, Schema
from tfctr.config import Config
from tfctr.errors import ConfigError
from tfctr.fuxictr import MODELS
from tfctr.fuxictr.models import Choice, matches_of

SCHEMA = Schema([Categorical(name, size=9) for name in ("shop", "device", "price", "seen")], label="bought")
ALL = [(name, match) for name, found in MODELS.items() for match in matches_of(found)]
SAID = ("hidden_units", "num_layers", "dropout")


def arguments_of(name):
    return set(inspect.signature(tfctr.models.MODELS[name]).parameters) - {"schema"}


@pytest.fixture
def matches(monkeypatch):
    """What the benchmarks give both libraries so that they compute one function."""
    monkeypatch.syspath_prepend(str(BENCHMARKS / "contenders"))
    import matched

    yield matched
    sys.modules.pop("matched", None)


def test_every_model_that_both_have_is_known(matches):
    other_versions = {"FCN", "QNNAlpha"}  # FuxiCTR's zoo has the one no longer, and the other for its version 2.0.1 only
    assert {match.name for _, match in ALL} == {*matches.MATCHES, "DualMLP", *other_versions}


@pytest.mark.sampled(8)
@pytest.mark.parametrize(("name", "match"), ALL)
def test_every_argument_is_one_of_our_constructor(name, match):
    """With FuxiCTR's defaults, but hidden layers where there are none by default."""
    values = {key: argument.default for key, argument in match.arguments.items()}
    values |= {key: [8, 8] for key, value in values.items() if value == [] and key.endswith("hidden_units")}
    given = dict(match.fixed)
    for key, argument in match.arguments.items():
        given |= argument.read(values[key], values)
    assert set(given) <= arguments_of(match.name)
    assert set(match.fixed) <= arguments_of(match.name)
    model = tfctr.models.build(match.name, SCHEMA, **given)
    assert model.output["logit"].shape == (None, 1)


def test_what_the_benchmarks_compare_is_what_is_read(matches, tmp_path):
    for ours, match in matches.MATCHES.items():
        theirs = matches.given(match.theirs, fields=4)
        found = imported(tmp_path, experiment={"model": match.name, "hidden_units": None, **theirs}).run["model"]
        expected = matches.given(match.ours, fields=4)
        assert found["name"] == ours
        assert {key: value for key, value in found.items() if key in expected} == expected


def run_of(folder, **experiment):
    return imported(folder, experiment={"hidden_units": None, **experiment}).run["model"]


def test_arguments_that_choose_another_table(tmp_path):
    found = run_of(tmp_path, model="DCNv2", model_structure="stacked", stacked_dnn_hidden_units=[7], use_low_rank_mixture=True)
    assert (found["structure"], found["hidden_units"], found["rank"], found["num_experts"]) == ("stacked", [7], 32, 4)
    assert "rank" not in run_of(tmp_path, model="DCNv2", parallel_dnn_hidden_units=[7])
    found = run_of(tmp_path, model="MaskNet", model_type="ParallelMaskNet", parallel_num_blocks=3, parallel_block_dim=5)
    assert (found["arrangement"], found["block_units"], found["hidden_units"]) == ("parallel", [5, 5, 5], [64, 64, 64])
    found = run_of(tmp_path, model="AFN", ensemble_dnn=False, dnn_dropout=0.5)
    assert (found["hidden_units"], found["dropout"], found["neurons"]) == (None, 0, 5)
    found = run_of(tmp_path, model="FinalMLP", use_fs=False, num_heads=2, mlp1_hidden_units=[4], mlp2_hidden_units=[6])
    assert (found["name"], found["fusion"]) == ("DualMLP", {"type": "bilinear", "num_heads": 2})
    assert tfctr.models.build("DualMLP", SCHEMA, **{key: value for key, value in found.items() if key != "name"})
    found = run_of(tmp_path, model="EulerNet", shape=[5, 5], net_ex_dropout=0.1)
    assert (found["num_layers"], found["num_orders"], found["explicit_dropout"]) == (2, 5, 0.1)
    found = run_of(tmp_path, model="DCNv3", num_heads=3, deep_net_dropout=0)
    assert (found["name"], found["embedding_dim"], found["linear_dropout"], found["exponential_dropout"]) == ("FCN", 12, 0.3, 0)
    found = run_of(tmp_path, model="QNN_alpha", num_row=5)
    assert (found["name"], found["num_products"], found["dropout"]) == ("QNNAlpha", 5, 0)
    assert run_of(tmp_path, model="AutoInt", dnn_hidden_units=[])["hidden_units"] is None
    assert run_of(tmp_path, model="AFM", attention_dropout=[0, 0.2])["dropout"] == 0.2
    assert run_of(tmp_path, model="DNN", hidden_activations="LeakyReLU")["activation"] == "leaky_relu"
    assert run_of(tmp_path, model="DNN", hidden_activations=["tanh", "Tanh"], hidden_units=[4, 4])["activation"] == "tanh"
    assert run_of(tmp_path, model="DNN", net_dropout=[0.1, 0.1, 0.1])["dropout"] == 0.1
    assert run_of(tmp_path, model="FinalNet")["activation"] == "linear"


@pytest.mark.parametrize(
    ("experiment", "lost"),
    [
        ({"model": "DCN"}, r"dnn_hidden_units \[\]: ours has at least one hidden layer"),
        ({"model": "DCNv2", "model_structure": "crossnet_only"}, "model_structure 'crossnet_only': ours are parallel, stacked"),
        ({"model": "AutoInt", "use_wide": True}, "use_wide True: ours has no linear terms"),
        ({"model": "AFM", "attention_dropout": [0.1, 0]}, "attention_dropout"),
        ({"model": "EulerNet", "shape": [4, 5]}, "ours has one for all layers"),
        ({"model": "EDCN", "hidden_activations": "tanh"}, "hidden_activations 'tanh': ours has ReLU there"),
        ({"model": "FinalNet", "block_type": "1B"}, "block_type '1B': ours has two blocks"),
        ({"model": "DualMLP", "mlp1_dropout": 0.1}, "mlp2_dropout 0: ours has one dropout for both: 0.1 is taken"),
        ({"model": "DNN", "net_dropout": [0.1, 0.2, 0.1]}, "ours has one for all layers"),
        ({"model": "DNN", "hidden_activations": "softmax"}, "hidden_activations 'softmax': ours are dice, elu"),
        ({"model": "PNN", "product_type": "outer"}, "ours has inner products"),
        ({"model": "DNN", "accumulation_steps": 4}, "accumulation_steps 4: a gradient step is of one batch"),
        ({"model": "WideDeep", "wide_learning_rate": 1e-4}, "wide_learning_rate 0.0001: one optimizer moves all"),
    ],
)
def test_what_ours_does_not_have_is_lost(tmp_path, experiment, lost):
    with pytest.raises(ConfigError, match=lost):
        imported(tmp_path, experiment={"hidden_units": None, **experiment})
    found = imported(tmp_path, experiment={"hidden_units": None, **experiment}, force=True)
    assert Config.from_dict(found.run).model.name == found.run["model"]["name"]


def test_a_choice_of_the_wrong_kind_is_lost_too(tmp_path):
    assert isinstance(MODELS["AFN"], Choice)
    with pytest.raises(ConfigError, match="ensemble_dnn"):
        run_of(tmp_path, model="AFN", ensemble_dnn=[1])
    with pytest.raises(ConfigError, match="bridge"):
        run_of(tmp_path, model="EDCN", bridge_type="none")


# training


@pytest.mark.parametrize(
    ("monitor", "mode", "expected"),
    [
        ("AUC", "max", "auc"),
        ("logloss", "min", "log_loss"),
        ({"AUC": 1, "logloss": -1}, "max", "auc_minus_log_loss"),
        ({"AUC": 2, "logloss": -2}, "max", "auc_minus_log_loss"),
        ({"AUC": -1, "logloss": 1}, "min", "auc_minus_log_loss"),
        ({"AUC": 1, "logloss": 0}, "max", "auc"),
        ({"logloss": -1}, "max", "log_loss"),
    ],
)
def test_monitors(tmp_path, monitor, mode, expected):
    found = imported(tmp_path, experiment={"monitor": monitor, "monitor_mode": mode})
    assert found.config.training.monitor == expected


@pytest.mark.parametrize(
    ("monitor", "mode"),
    [("AUC", "min"), ("logloss", "max"), ("gAUC", "max"), ({"AUC": 2, "logloss": -1}, "max"), ({"AUC": 1, "gAUC": 1}, "max")],
)
def test_other_monitors_are_lost(tmp_path, monitor, mode):
    with pytest.raises(ConfigError, match="monitors are the AUC, the log loss"):
        imported(tmp_path, experiment={"monitor": monitor, "monitor_mode": mode})


@pytest.mark.parametrize(
    ("value", "expected"), [(0, None), (None, None), (0.0, None), (1e-5, 1e-5), ("l2(1.e-6)", 1e-6), ("l1_l2(0, 1e-3)", 1e-3)]
)
def test_regularizers(tmp_path, value, expected):
    assert imported(tmp_path, experiment={"embedding_regularizer": value}).run["model"].get("embedding_l2") == expected
    found = imported(tmp_path, experiment={"model": "FM", "hidden_units": None, "regularizer": value})
    assert found.run["model"].get("embedding_l2") == expected
    assert any("not of the bias" in text for text in texts(found)) == bool(expected)


def test_regularizers_that_are_none(tmp_path):
    for value in ("l1(1e-3)", "l1_l2(1e-3, 1e-3)"):
        with pytest.raises(ConfigError, match="there is no L1 term"):
            imported(tmp_path, experiment={"embedding_regularizer": value})
    with pytest.raises(ConfigError, match=r"`embedding_regularizer` is 'l3\(1\)'"):
        imported(tmp_path, experiment={"embedding_regularizer": "l3(1)"})
    with pytest.raises(ConfigError, match="'x', which is no number"):
        imported(tmp_path, experiment={"embedding_regularizer": "l2(x)"})
    assert any("no whole number" in text for text in texts(imported(tmp_path, experiment={"embedding_regularizer": 1})))


def test_training_keys(tmp_path):
    found = imported(
        tmp_path,
        experiment={
            "optimizer": "Adagrad",
            "learning_rate": 0.01,
            "early_stop_patience": 3,
            "max_gradient_norm": 1.0,
            "reduce_lr_on_plateau": False,
            "eval_steps": 100,
            "loss": "bce",
            "seed": None,
        },
    )
    training = found.config.training
    assert (training.optimizer, training.learning_rate, training.patience, training.clip_norm) == ("adagrad", 0.01, 3, 1.0)
    assert (training.learning_rate_factor, training.loss, training.seed) == (1.0, "log_loss", 1)
    assert "differs: eval_steps 100: a model is validated once an epoch" in texts(found)
    defaults = imported(tmp_path, experiment=dict.fromkeys(("optimizer", "batch_size", "epochs", "embedding_dim")))
    assert (defaults.config.training.batch_size, defaults.config.training.epochs) == (32, 1)  # FuxiCTR's, not ours
    assert defaults.run["model"]["embedding_dim"] == 10
    for lost in ({"optimizer": "SGD"}, {"loss": "mse"}, {"shuffle": False}):
        with pytest.raises(ConfigError, match=next(iter(lost))):
            imported(tmp_path, experiment=lost)


def test_tables(tmp_path):
    found = imported(tmp_path, {"train_data": "a.csv", "valid_size": 0.2, "test_size": 500, "split_type": "sequential"})
    assert found.tables == {"train": "a.csv", "valid": 0.2}
    said = texts(found)
    assert "differs: test_size 500: give `prepare` this share of the rows, or a file" in said
    assert any(text.startswith("differs: split_type 'sequential'") for text in said)
    said = texts(imported(tmp_path, {"data_format": "npz", "rebuild_dataset": False, "n_rows": 5}))
    assert {"data_format", "rebuild_dataset", "n_rows"} <= {text.split()[1] for text in said}


@pytest.mark.every
@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_model_is_trained_for_an_epoch(tmp_path, name):
    hidden = {key: [8, 8] for found in matches_of(MODELS[name]) for key in found.arguments if key.endswith("hidden_units")}
    found = imported(tmp_path, experiment={"model": name, "hidden_units": None, **hidden})
    dataset = tfctr.prepare(found.schema, train=table(300, 0), valid=table(200, 1), out=tmp_path / "data")
    run = tfctr.training.train(found.config, dataset, tmp_path / "run")
    assert math.isfinite(run.metrics["valid"]["log_loss"])


def test_the_page_names_every_model():
    page = (ROOT / "docs" / "coming_from.md").read_text(encoding="utf-8")
    named = page.partition("Its models that are here: ")[2].partition(", each with a line")[0]
    assert set(re.findall(r"\w+", named)) - {"and"} == set(MODELS)
