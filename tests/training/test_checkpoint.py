"""`tfctr.training.Checkpoint`: a `fit` that breaks off anywhere goes on with the bits of one that did not."""

import logging
import signal

import keras
import pytest
from kit.breaking_off import (
    EPOCHS,
    SCHEMA,
    STEPS,
    TRAIN,
    BreakOff,
    BrokenOff,
    broken_off,
    dnn,
    ending_by_error,
    fit,
    rows,
    same_bits,
    whole,
)

from tfctr import layers, models
from tfctr.errors import ConfigError
from tfctr.models import CTRModel, ids_input
from tfctr.training import Checkpoint


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("optimizer", "steps"),
    [("adam", 4), ("adam", STEPS), ("lazy_adam", STEPS + 9), ("exact_lazy_adam", 3 * STEPS - 1), ("adagrad", 12), ("ftrl", 12)],
)
def test_the_same_bits_and_the_same_history(optimizer, steps, tmp_path):
    expected, history = whole(optimizer)
    broken_off(dnn(optimizer), tmp_path / "folder", steps=steps)
    again = dnn(optimizer)
    assert fit(again, Checkpoint(tmp_path / "folder", every=5)).history == history
    assert same_bits(again, expected)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.sampled(1)
@pytest.mark.parametrize("validation", [1, 2, EPOCHS])
def test_broken_off_in_validation(validation, tmp_path):
    expected, history = whole("exact_lazy_adam")
    broken_off(dnn("exact_lazy_adam"), tmp_path, validations=validation)
    again = dnn("exact_lazy_adam")
    assert fit(again, Checkpoint(tmp_path)).history == history
    assert same_bits(again, expected)


def test_twice_in_one_epoch(tmp_path):
    expected, history = whole("adam")
    broken_off(dnn(), tmp_path, steps=7)
    broken_off(dnn(), tmp_path, steps=11)  # of which 5 are passed over
    again = dnn()
    assert fit(again, Checkpoint(tmp_path)).history == history
    assert same_bits(again, expected)


def test_it_goes_on_and_does_not_begin_anew(tmp_path, caplog):
    caplog.set_level(logging.INFO, "tfctr")
    broken_off(dnn(), tmp_path, steps=STEPS + 12)
    assert sorted(file.name for file in tmp_path.glob("*.zip")) == [f"checkpoint-000001-00000000{n}.zip" for n in (5,)] + [
        "checkpoint-000001-000000010.zip"
    ]
    made = []
    fit(dnn(), keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: made.append(batch)), Checkpoint(tmp_path))
    assert "epoch 2, after 10 of its steps" in caplog.text
    assert made == [*range(STEPS), *range(STEPS)], "steps have the numbers that they would have had"


def test_after_the_last_epoch_nothing_is_trained(tmp_path):
    model = dnn()

    class Last(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            raise BrokenOff

    with pytest.raises(BrokenOff):
        fit(model, Last(), Checkpoint(tmp_path))
    again = dnn()
    history = fit(again, Checkpoint(tmp_path))
    assert len(history.history["loss"]) == EPOCHS == len(history.epoch)
    assert int(again.optimizer.iterations.numpy()) == EPOCHS * STEPS


@pytest.mark.slow
def test_early_stopping_is_remembered(tmp_path):
    expected = dnn("sgd")
    history = fit(expected, patience=2, epochs=9).history
    stopped = len(history["loss"])
    assert stopped < 9
    broken_off(dnn("sgd"), tmp_path, steps=STEPS * stopped - 3, patience=2, epochs=9)
    again = dnn("sgd")
    assert fit(again, Checkpoint(tmp_path), patience=2, epochs=9).history == history
    assert same_bits(again, expected)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("moment", ["on_test_begin", "on_test_end"])
def test_the_logs_of_an_epoch_that_ends_in_its_validation(moment, tmp_path):
    """Validation counts in the sums of compiled metrics, too: those of training are kept."""
    expected = dnn(metrics=["AUC", "accuracy"])
    history = fit(expected).history

    class Terminate(keras.callbacks.Callback):
        epoch = 0

        def notice(self, logs=None):
            Terminate.epoch += 1
            if Terminate.epoch == 2:
                signal.raise_signal(signal.SIGTERM)

    setattr(Terminate, moment, Terminate.notice)
    with ending_by_error(), pytest.raises(BrokenOff):
        fit(dnn(metrics=["AUC", "accuracy"]), Terminate(), Checkpoint(tmp_path))
    again = dnn(metrics=["AUC", "accuracy"])
    assert fit(again, Checkpoint(tmp_path)).history == history
    assert same_bits(again, expected)


def test_a_sigterm_at_the_very_end_is_not_swallowed(tmp_path):
    late = keras.callbacks.LambdaCallback(on_train_end=lambda logs: signal.raise_signal(signal.SIGTERM))
    with ending_by_error(), pytest.raises(BrokenOff):
        fit(dnn(), late, Checkpoint(tmp_path / "folder"), epochs=1)
    assert list(tmp_path.iterdir()) == [], "all is done"


@pytest.mark.slow
def test_steps_per_execution(tmp_path):
    expected = dnn(steps_per_execution=3)
    history = fit(expected).history
    broken_off(dnn(steps_per_execution=3), tmp_path, every=6, steps=STEPS // 3 + 4)
    again = dnn(steps_per_execution=3)
    assert fit(again, Checkpoint(tmp_path)).history == history
    assert same_bits(again, expected)


@pytest.mark.slow
def test_loss_scaling_metrics_and_added_losses(tmp_path):
    def model():
        keras.utils.set_random_seed(1)
        ids = ids_input(SCHEMA)
        fields = keras.layers.Flatten()(layers.FeatureEmbedding(SCHEMA, 4)(ids))
        hidden = keras.layers.Dense(8, activation="relu", activity_regularizer="l2")(keras.layers.GaussianNoise(0.1)(fields))
        made = CTRModel(SCHEMA, ids, {"logit": keras.layers.Dense(1)(hidden)})
        made.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam()), metrics=["accuracy"])
        return made

    expected = model()
    history = fit(expected).history
    assert {"added", "accuracy"} <= history.keys()
    for broken in ({"steps": STEPS + 9}, {"validations": 2}):
        broken_off(model(), tmp_path, every=1, **broken)
        again = model()
        assert fit(again, Checkpoint(tmp_path)).history == history
        assert same_bits(again, expected)


def test_weights_of_sixteen_bits_and_rows_in_windows(tmp_path):
    def model():
        keras.utils.set_random_seed(1)
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy("bfloat16")
        try:
            made = models.DNN(SCHEMA, embedding_dim=4, hidden_units=[8], dropout=0.1)
        finally:
            keras.config.set_dtype_policy(before)
        made.compile("sgd")
        return made

    def batches():
        split = rows(1000, 1, "train")
        split.memory_limit = 0
        return split.batches(64, seed=3)

    expected = model()
    fit(expected, batches=batches())
    broken_off(model(), tmp_path, steps=STEPS + 9, batches=batches())
    again = model()
    fit(again, Checkpoint(tmp_path), batches=batches())
    assert same_bits(again, expected)


@pytest.mark.slow
def test_arrays_go_on_at_the_end_of_an_epoch(tmp_path):
    ids, labels = TRAIN.ids, TRAIN.labels
    given = {"batch_size": 64, "shuffle": False, "verbose": 0}
    expected = dnn()
    expected.fit(ids, labels, epochs=3, **given)
    with pytest.raises(BrokenOff):
        dnn().fit(ids, labels, epochs=3, callbacks=[BreakOff(STEPS + 9), Checkpoint(tmp_path)], **given)
    again = dnn()
    again.fit(ids, labels, epochs=3, callbacks=[Checkpoint(tmp_path)], **given)
    assert same_bits(again, expected)
    with pytest.raises(ConfigError, match="`every` is 10, and within an epoch of these data no place can be found again"):
        dnn().fit(ids, labels, callbacks=[Checkpoint(tmp_path, every=10)], **given)
