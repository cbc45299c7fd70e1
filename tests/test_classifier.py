"""`tfctr.CTRClassifier` beside the library's own steps, and by the rules that scikit-learn has for estimators."""

import copy
import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from kit.answers import X_NEW, Y_NEW, X, Y
from pyarrow import parquet
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import accuracy_score, roc_auc_score

import tfctr
from tfctr import Categorical, CTRClassifier, Numeric, Schema, Sequence
from tfctr.classifier.rows import Rows, clicks_of, labels_of, two_classes
from tfctr.errors import ConfigError, DataError
from tfctr.serving import LocalServer, PredictionClient


@pytest.fixture(scope="module")
def fitted():
    return CTRClassifier("DeepFM", arguments={"hidden_units": (8,)}, epochs=3, learning_rate=0.01).fit(
        X, Y, X_val=X_NEW, y_val=Y_NEW
    )


@pytest.fixture(scope="module")
def saved(fitted, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "classifier"
    fitted.save(folder)
    return folder


# beside the library's own steps


def test_fit_is_infer_prepare_suggest_and_train(fitted, tmp_path):
    train, valid = ({**frame, "clicked": (labels == "yes").astype(int)} for frame, labels in ((X, Y), (X_NEW, Y_NEW)))
    schema = Schema.infer(train, label="clicked")
    dataset = tfctr.prepare(schema, train=train, valid=valid, out=tmp_path / "data")
    config = tfctr.training.suggest(
        dataset, "DeepFM", ["training.epochs=3", "training.learning_rate=0.01", "model.hidden_units=[8]"]
    )
    run = tfctr.training.train(config, dataset, tmp_path / "run")
    assert fitted.config_ == run.config
    assert fitted.schema_.digest == dataset.schema.digest
    assert [epoch["val_auc"] for epoch in fitted.history_] == [epoch["val_auc"] for epoch in run.history]
    for ours, theirs in zip(fitted.model_.get_weights(), run.model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    expected = run.model.predict(dataset.valid.batches(10_000, shuffle=False), verbose=0)[:, 0]
    np.testing.assert_array_equal(fitted.predict_proba(X_NEW)[:, 1], expected)


def test_what_is_saved_scores_and_encodes_the_same(fitted, saved, tmp_path):
    expected = fitted.predict_proba(X_NEW)[:, 1]
    model = tfctr.load_model(saved / "model.keras")
    tfctr.evaluation.score(model, X_NEW, out=tmp_path / "scores.parquet")
    np.testing.assert_array_equal(parquet.read_table(tmp_path / "scores.parquet")["probability"].to_numpy(), expected)
    ids = tfctr.encode(saved, X_NEW, out=tmp_path / "new").test.ids
    np.testing.assert_array_equal(model.predict(ids, batch_size=10_000, verbose=0)[:, 0], expected)
    assert set(tfctr.drift(saved, X)) == set(X.columns)
    assert tfctr.Dataset.load(saved).splits == {}


def test_evaluate_gives_the_figures_of_the_library(fitted, saved):
    model = tfctr.load_model(saved / "model.keras")
    expected = tfctr.evaluation.evaluate(model, table=X_NEW.assign(clicked=(Y_NEW == "yes").astype(int)))
    found = fitted.evaluate(X_NEW, Y_NEW)
    assert found == {name: value for name, value in expected.items() if name != "shares"}
    assert found["groups_used"] > 10
    with pytest.raises(DataError, match="column 'user', the group, is missing in row 7"):
        fitted.evaluate(X_NEW.assign(user=[*X_NEW.user[:7], None, *X_NEW.user[8:]]), Y_NEW)
    assert found["auc"] == pytest.approx(roc_auc_score(Y_NEW, fitted.predict_proba(X_NEW)[:, 1]), abs=1e-12)


@pytest.mark.slow
def test_a_server_answers_with_the_same_probabilities(fitted, saved, tmp_path):
    tfctr.serving.export(tfctr.load_model(saved / "model.keras"), tmp_path / "clicks")
    rows = {name: [None if np.ndim(v) == 0 and pd.isna(v) else v for v in X_NEW[name]] for name in X_NEW}
    with (
        LocalServer(tmp_path / "clicks", port=0) as server,
        PredictionClient(server.target, model="clicks") as client,
    ):
        np.testing.assert_allclose(client.predict(rows), fitted.predict_proba(X_NEW)[:, 1], rtol=1e-6)


# predictions


def test_predict_and_score_follow_the_probabilities(fitted):
    probabilities = fitted.predict_proba(X_NEW)
    assert probabilities.shape == (200, 2)
    np.testing.assert_array_equal(probabilities.sum(axis=1), 1)
    assert fitted.classes_.tolist() == ["no", "yes"]
    predicted = fitted.predict(X_NEW)
    np.testing.assert_array_equal(predicted, np.where(probabilities[:, 1] > 0.5, "yes", "no"))
    weights = np.arange(200.0)
    assert set(predicted) == {"no", "yes"}
    assert fitted.score(X_NEW, Y_NEW, weights) == accuracy_score(Y_NEW, predicted, sample_weight=weights)


def test_copies_need_nothing_but_themselves(fitted):
    expected = fitted.predict_proba(X_NEW)
    for twin in (pickle.loads(pickle.dumps(fitted)), copy.deepcopy(fitted)):  # noqa: S301
        np.testing.assert_array_equal(twin.predict_proba(X_NEW), expected)
        assert twin.get_params() == fitted.get_params()
    assert not hasattr(clone(fitted), "model_")


def test_every_kind_of_table_is_read_alike(fitted):
    expected = fitted.predict_proba(X_NEW)
    np.testing.assert_array_equal(fitted.predict_proba(pa.Table.from_pandas(X_NEW, preserve_index=False)), expected)
    np.testing.assert_array_equal(fitted.predict_proba(X_NEW.set_index(pd.Index(range(900, 1_100)))), expected)
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        np.testing.assert_array_equal(fitted.predict_proba(X_NEW.to_numpy()), expected)


def test_columns_must_be_those_of_fit(fitted):
    assert fitted.feature_names_in_.tolist() == list(X.columns)
    assert fitted.n_features_in_ == 5
    with pytest.raises(ValueError, match="seen at fit time, yet now missing:\n- age"):
        fitted.predict(X_NEW.drop(columns="age"))
    with pytest.raises(ValueError, match="same order"):
        fitted.predict(X_NEW[X_NEW.columns[::-1]])
    with pytest.raises(DataError, match=r"X has the shape \(0, 5\)"):
        fitted.predict(X_NEW[:0])
    with pytest.raises(DataError, match="2 columns named 'age'"):
        CTRClassifier("LR").fit(pd.concat([X, X[["age"]]], axis=1), Y)


def test_a_value_that_cannot_be_read_is_named(fitted):
    with pytest.raises(DataError, match=r"the given table: column 'price', row 3: found .*cheap"):
        fitted.predict(X_NEW.assign(price=["1", "2", "cheap"] + ["1"] * 197))


def test_what_the_fit_does_not_know_is_a_logged_warning(fitted, caplog):
    fitted.predict(X_NEW.assign(user="a stranger"))
    assert "user" in caplog.text
    assert "100.0%" in caplog.text


def test_an_unfitted_one_says_so():
    for method in ("predict", "predict_proba"):
        with pytest.raises(NotFittedError):
            getattr(CTRClassifier(), method)(X)
    with pytest.raises(NotFittedError):
        CTRClassifier().save("nowhere")


# classes and rows


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["yes", "no", "yes"], ["no", "yes"]),
        ([True, False, True], [False, True]),
        (np.array([1, -1, 1]), [-1, 1]),
        ([1.0, 0.0, 1.0], [0.0, 1.0]),
        (pd.Series([2, 1, 2], dtype="Int64"), [1, 2]),
        (pd.Series(["b", "a", "b"], dtype="category"), ["a", "b"]),
        (pd.Series([True, False, True], dtype="boolean"), [False, True]),
        (pd.Series([True, False, True], dtype=object), [False, True]),
        (pd.Series(["b", "a", "b"], dtype="string"), ["a", "b"]),
    ],
)
def test_two_classes_of_any_type(labels, classes):
    labels = labels_of(labels)
    found = two_classes(labels)
    assert found.tolist() == classes
    assert clicks_of(labels, found, "y").tolist() == [True, False, True]


def test_other_labels_are_refused():
    with pytest.raises(ValueError, match=r"Only binary classification is supported\. The type of the target is multiclass\."):
        two_classes(labels_of(["a", "b", "c"]))
    with pytest.raises(DataError, match="y has one class only: 'a'"):
        two_classes(labels_of(["a", "a"]))
    with pytest.raises(ValueError, match="continuous"):
        two_classes(labels_of([0.5, 1.5, 0.2]))
    with pytest.raises(ValueError, match="NaN"):
        labels_of([0.0, np.nan])
    for missing in (["a", None], pd.Series(["a", None], dtype="string"), pd.Series([1, None], dtype="Int64", name="y")):
        with pytest.raises(ValueError, match=r"y is missing in row 1|NaN"):
            labels_of(missing)
    for mixed in (["a", 1], [True, "a"]):
        with pytest.raises(DataError, match="several types"):
            labels_of(np.array(mixed, dtype=object))
    with pytest.raises(DataError, match=r"`y_val` has the label 'c' in row 2"):
        clicks_of(labels_of(["a", "b", "c"]), np.array(["a", "b"]), "y_val")


def test_the_draw_takes_its_share_of_each_class():
    is_click = np.array([True] * 7 + [False] * 40)
    rows = Rows({"n": np.arange(47)}, is_click, np.arange(47) + 1.0)
    train, valid = rows.drawn(0.2, seed=3)
    assert (valid.is_click.sum(), (~valid.is_click).sum()) == (1, 8)
    assert sorted([*train.columns["n"], *valid.columns["n"]]) == [*range(47)]
    for part in (train, valid):
        np.testing.assert_array_equal(part.is_click, part.columns["n"] < 7)
        np.testing.assert_array_equal(part.weights, part.columns["n"] + 1)
    assert rows.drawn(0.2, seed=3)[1].columns["n"].tolist() == valid.columns["n"].tolist()
    assert rows.drawn(0.2, seed=4)[1].columns["n"].tolist() != valid.columns["n"].tolist()
    assert rows.drawn(0.999, seed=3)[0].is_click.tolist() == [True, False]  # one of each is left to learn from
    with pytest.raises(DataError, match="a class has one row only"):
        Rows({}, np.array([True, False, False]), None).drawn(0.2, seed=3)


def test_rows_without_weight_are_left_out():
    rows = Rows({"n": np.arange(4)}, np.array([True, False, True, False]), np.array([0.0, 2.0, 3.0, 0.0]))
    kept = rows.weighted()
    assert (kept.columns["n"].tolist(), kept.weights.tolist()) == ([1, 2], [2.0, 3.0])
    with pytest.raises(DataError, match="one class only"):
        Rows({}, np.array([True, False]), np.array([1.0, 0.0])).weighted()
    with pytest.raises(DataError, match=r"`sample_weight` is -1 in row 1"):
        CTRClassifier("LR").fit(X, Y, [1.0, -1.0] + [1.0] * 598)


# parameters


def test_parameters_in_parameters():
    classifier = CTRClassifier("DeepFM", arguments={"dropout": 0.1}, training={"monitor": "auc"})
    assert classifier.get_params()["arguments__dropout"] == 0.1
    assert "arguments__dropout" not in classifier.get_params(deep=False)
    twin = clone(classifier).set_params(arguments__dropout=0.2, training__patience=3, epochs=4)
    assert (twin.arguments, twin.training, twin.epochs) == ({"dropout": 0.2}, {"monitor": "auc", "patience": 3}, 4)
    assert classifier.arguments == {"dropout": 0.1}
    assert CTRClassifier().set_params(arguments__dropout=0.2).arguments == {"dropout": 0.2}
    with pytest.raises(ValueError, match="Invalid parameter 'argument'"):
        classifier.set_params(argument__dropout=0.1)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"model": "DeepFN"}, "Did you mean 'DeepFM'"),
        ({"epochs": 0}, "training.epochs is 0"),
        ({"optimizer": "sgd"}, "training.optimizer is 'sgd'"),
        ({"training": {"patienc": 3}}, "Did you mean 'patience'"),
        ({"training": {"seed": 3}}, "the parameter `random_state`"),
        ({"training": {"epochs": 3}}, "the parameter `epochs`"),
        ({"arguments": {"name": "LR"}}, "the parameter `model`"),
        ({"arguments": "dropout"}, "`arguments` is 'dropout'"),
        ({"validation_fraction": 1.5}, "`validation_fraction` is 1.5"),
        ({"validation_fraction": 0}, "`validation_fraction` is 0"),
        ({"random_state": -1}, "`random_state` is -1"),
        ({"group": "usr"}, "'usr'"),
        ({"schema": "schema.yaml"}, "`schema` is 'schema.yaml'"),
    ],
)
def test_a_parameter_that_cannot_be_used_is_named(parameters, message):
    given = {"model": "LR", "epochs": 1, "schema": Schema([Categorical("user")], label="click"), **parameters}
    with pytest.raises((ConfigError, DataError), match=message):
        CTRClassifier(**given).fit(X, Y)


@pytest.mark.parametrize("given", [{"X_val": X}, {"y_val": Y}, {"sample_weight_val": [1]}])
def test_validation_rows_come_with_their_labels(given):
    with pytest.raises(ConfigError, match="one is missing"):
        CTRClassifier("LR").fit(X, Y, **given)


def test_a_schema_of_ones_own(tmp_path):
    features = [Categorical("user"), Sequence("genres", 2), Numeric("price", "scaled")]
    schema = Schema(features, label=tfctr.Label("answer", positive="yes"), weight="age")
    grid = {"random_state": np.random.RandomState(7), "epochs": np.int64(1), "learning_rate": np.float64(0.01)}
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    classifier = CTRClassifier("LR", schema=schema, group="user", batch_size=np.int64(100), **grid).fit(X, Y)
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002
    assert [feature.name for feature in classifier.schema_.features] == ["user", "genres", "price"]
    assert (classifier.schema_.label, classifier.schema_.group, classifier.schema_.weight) == ("answer", "user", "age")
    training = classifier.config_.training
    expected = (1, 100, 0.01, np.random.RandomState(7).randint(2**31))
    assert (training.epochs, training.batch_size, training.learning_rate, training.seed) == expected


def test_without_scikit_learn_the_fix_is_named():
    code = (
        "import sys; sys.modules['sklearn'] = None\n"
        "import tfctr\n"
        "try: tfctr.CTRClassifier\n"
        "except tfctr.errors.ConfigError as error: print(error.fix)\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8")
    assert found.stdout == 'pip install "tfctr[sklearn]"\n', found.stderr
    assert "CTRClassifier" in dir(tfctr)
    assert "CTRClassifier" not in tfctr.__all__  # `from tfctr import *` works without it
