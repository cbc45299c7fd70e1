"""`tfctr.CTRClassifier` in scikit-learn's tools, and by its checks of estimators."""

import functools

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from kit.answers import X_NEW, Y_NEW, X, Y
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import estimator_checks_generator

from tfctr import Categorical, CTRClassifier, Numeric, Schema

# scikit-learn's tools


@pytest.mark.slow
def test_weights_count_in_training_and_rows_of_weight_zero_do_not():
    schema = Schema([Categorical("user"), Numeric("price", "scaled")], label="click")
    make = functools.partial(CTRClassifier, "LR", schema=schema, epochs=1)
    valid = {"X_val": X_NEW, "y_val": Y_NEW}
    weights = np.arange(600) % 3
    kept = weights > 0
    some = make().fit(X[kept], Y[kept], weights[kept], **valid).predict_proba(X_NEW)
    np.testing.assert_array_equal(make().fit(X, Y, weights, **valid).predict_proba(X_NEW), some)
    assert not np.allclose(make().fit(X[kept], Y[kept], **valid).predict_proba(X_NEW), some, atol=1e-4)


@pytest.mark.slow
def test_arrays_have_columns_by_number():
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=(300, 3))
    numbers[:, 1] = rng.integers(0, 9, 300)
    labels = np.where(numbers[:, 0] + rng.normal(size=300) > 0, 1, -1)
    schema = Schema([Numeric("x0"), Numeric("x2")], label="y")
    classifier = CTRClassifier("LR", epochs=9, learning_rate=0.1, group="x1", schema=schema)
    expected = classifier.fit(numbers, labels).predict_proba(numbers)
    assert not hasattr(classifier, "feature_names_in_")
    numbered = clone(classifier).fit(pd.DataFrame(numbers), labels)  # names that are no text are none
    np.testing.assert_array_equal(numbered.predict_proba(numbers.tolist()), expected)
    assert classifier.score(numbers, labels) > 0.6
    assert classifier.evaluate(numbers, labels)["groups_used"] == 9


@pytest.mark.slow
def test_a_table_of_arrow_is_learnt_as_one_of_pandas():
    X_arrow = pa.Table.from_pandas(X, preserve_index=False)
    models = [CTRClassifier("LR", epochs=1).fit(frame, Y) for frame in (X, X_arrow)]
    assert [model.n_features_in_ for model in models] == [5, 5]
    np.testing.assert_array_equal(models[0].feature_names_in_, models[1].feature_names_in_)
    assert models[0].schema_ == models[1].schema_
    np.testing.assert_array_equal(models[0].predict_proba(X_NEW), models[1].predict_proba(X_NEW))


@pytest.mark.slow
def test_pipelines_folds_and_grids():
    schema = Schema([Categorical("user"), Numeric("price", "scaled")], label="click")
    classifier = CTRClassifier("LR", schema=schema, epochs=3)
    pipeline = make_pipeline(FunctionTransformer(lambda frame: frame[["user", "price"]]), classifier)
    scores = cross_val_score(pipeline, X, Y, cv=2, scoring="roc_auc")
    assert (scores > 0.65).all()
    grid = {"learning_rate": [1e-9, 0.01], "training__monitor": ["auc"]}
    search = GridSearchCV(classifier, grid, cv=2, scoring="neg_log_loss").fit(X, Y)
    assert search.best_params_ == {"learning_rate": 0.01, "training__monitor": "auc"}
    assert search.best_estimator_.config_.training.monitor == "auc"
    assert search.score(X_NEW, Y_NEW) < 0


@pytest.mark.slow
def test_folds_in_processes_of_their_own():
    schema = Schema([Categorical("user")], label="click")
    classifier = CTRClassifier("LR", schema=schema, epochs=1)
    apart = cross_val_score(classifier, X, Y, cv=2, n_jobs=2, scoring="roc_auc")
    np.testing.assert_allclose(apart, cross_val_score(classifier, X, Y, cv=2, scoring="roc_auc"), rtol=1e-6)


# scikit-learn's checks

ESTIMATOR = CTRClassifier("LR", epochs=2)
_LAST_BIT = "in float32 the place of a row in its batch may decide its last bit, and the check allows less than one"
EXPECTED_TO_FAIL = {  # {check: (reason, whether it fails on every machine)}
    "check_sample_weight_equivalence_on_dense_data": (
        "a gradient step reads so many rows, whatever they weigh: a row that stands twice makes more steps than one of weight "
        "2; quantiles and vocabularies count rows; and here one class has one weighted row, none for validation",
        True,
    ),
    "check_pipeline_consistency": (
        "each of its columns tells the classes apart alone: `Schema.infer` takes that for the answer, and leaves them out",
        True,
    ),
    "check_methods_sample_order_invariance": (_LAST_BIT, False),
    "check_methods_subset_invariance": (_LAST_BIT, False),
}
WITHOUT_FIT = {
    "check_estimator_cloneable",
    "check_no_attributes_set_in_init",
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_parameters_default_constructible",
    "check_get_params_invariance",
    "check_set_params",
    "check_estimator_repr",
    "check_valid_tag_types",
    "check_mixin_order",
    "check_all_zero_sample_weights_error",
    "check_complex_data",
    "check_supervised_y_no_nan",
    "check_classifiers_regression_target",
    "check_classifier_not_supporting_multiclass",
    "check_classifiers_one_label_sample_weights",
    "check_requires_y_none",
    "check_fit1d",
}


def checks():
    for number, (estimator, check) in enumerate(estimator_checks_generator(ESTIMATOR)):
        name = check.func.__name__
        marks = [] if name in WITHOUT_FIT else [pytest.mark.every]
        if name in EXPECTED_TO_FAIL:
            reason, strict = EXPECTED_TO_FAIL[name]
            marks.append(pytest.mark.xfail(reason=reason, strict=strict))
        yield pytest.param(estimator, check, id=f"{number}-{name}", marks=marks)


@pytest.mark.parametrize(("estimator", "check"), [*checks()])
def test_the_checks_of_scikit_learn(estimator, check):
    check(estimator)


def test_the_checks_are_there():
    names = {check.func.__name__ for _, check in estimator_checks_generator(ESTIMATOR)}
    assert names >= WITHOUT_FIT | set(EXPECTED_TO_FAIL)
    assert len(names) > 50
