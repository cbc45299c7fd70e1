"""`tfctr.training.paper_callbacks`: sequences of validation metrics, worked by hand."""

import keras
import numpy as np
import pytest

from tfctr.errors import ConfigError
from tfctr.training import paper_callbacks

NAN = float("nan")


def follow(aucs, losses=None, learning_rate=1e-3, **options):
    """Play epochs with these validation metrics; return each epoch's learning rate, and the epoch whose weights are left."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(keras.optimizers.SGD(learning_rate))
    model.stop_training = False
    (schedule,) = paper_callbacks(**options)
    schedule.set_model(model)
    schedule.on_train_begin()
    rates = []
    for epoch, value in enumerate(aucs):
        model.set_weights([np.array([[epoch + 1.0]])])
        logs = {"val_auc": value, "val_log_loss": losses[epoch] if losses else 0.5}
        schedule.on_epoch_end(epoch, logs)
        rates.append(logs["learning_rate"])
        if model.stop_training:
            break
    schedule.on_train_end()
    return pytest.approx(rates, rel=1e-6), int(model.get_weights()[0][0, 0])


def test_each_epoch_without_improvement_drops_the_rate_and_two_in_a_row_stop():
    # Epoch 3 drops for epoch 4, which improves; 5 and 6 do not: stop, and the weights of 4 come back.
    assert follow([0.6, 0.7, 0.69, 0.71, 0.70, 0.71, 0.9]) == ([1e-3, 1e-3, 1e-3, 1e-4, 1e-4, 1e-5], 4)


def test_an_improvement_sets_the_count_back():
    aucs = [0.60, 0.59, 0.61, 0.60, 0.62, 0.61, 0.63]
    assert follow(aucs) == ([1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5, 1e-6], 7)


def test_an_improvement_of_min_delta_or_less_does_not_count_and_does_not_move_the_best():
    # Against the best, 0.6: +5e-7 is none, +9e-7 is none.
    assert follow([0.6, 0.6 + 5e-7, 0.6 + 9e-7]) == ([1e-3, 1e-3, 1e-4], 1)
    # +5e-7 is none, +1.5e-6 is one.
    assert follow([0.6, 0.6 + 5e-7, 0.6 + 1.5e-6, 0.7]) == ([1e-3, 1e-3, 1e-4, 1e-4], 4)


def test_log_loss_decides_where_it_is_the_monitor():
    # AUC rises all the time; log loss is least in epoch 2.
    aucs, losses = [0.6, 0.7, 0.8, 0.9], [0.50, 0.40, 0.45, 0.41]
    assert follow(aucs, losses, monitor="log_loss") == ([1e-3, 1e-3, 1e-3, 1e-4], 2)


def test_the_rate_has_a_floor():
    assert follow([0.6, 0.5, 0.5, 0.5], patience=4, min_learning_rate=3e-4) == ([1e-3, 1e-3, 3e-4, 3e-4], 1)
    # A rate that starts below the floor is not raised.
    assert follow([0.6, 0.5, 0.5], learning_rate=1e-7, patience=4) == ([1e-7, 1e-7, 1e-7], 1)


def test_patience_and_factor():
    assert follow([0.6, 0.5, 0.5, 0.5, 0.7], patience=3, factor=0.5) == ([1e-3, 1e-3, 5e-4, 2.5e-4], 1)
    assert follow([0.6, 0.5, 0.7], patience=1) == ([1e-3, 1e-3], 1)


def test_nan_is_never_the_best():
    assert follow([NAN, 0.5, NAN, NAN, 0.9]) == ([1e-3, 1e-4, 1e-4, 1e-5], 2)
    # Never defined: the last weights stay.
    assert follow([NAN, NAN, 0.9]) == ([1e-3, 1e-4], 2)


def test_before_patience_from_nothing_is_counted_but_the_best_is_kept():
    # Without it: the released CETN settings would stop at epoch 3.
    assert follow([0.91, 0.76, 0.75, 0.95]) == ([1e-3, 1e-3, 1e-4], 1)
    # Epochs 1 to 3 are free; 4 and 5 count.
    assert follow([0.91, 0.76, 0.75, 0.90, 0.90, 0.95], patience_from=4) == ([1e-3] * 4 + [1e-4], 1)
    # A plateau that began in a free epoch counts from the first epoch that is not.
    assert follow([0.9, 0.8, 0.8, 0.92, 0.8, 0.8], patience_from=3) == ([1e-3, 1e-3, 1e-3, 1e-4, 1e-4, 1e-5], 4)
    # `patience_from` of 0 and 1 are the rule of the papers.
    assert follow([0.9, 0.8, 0.8, 0.95]) == ([1e-3, 1e-3, 1e-4], 1)
    assert follow([0.9, 0.8, 0.8, 0.95], patience_from=1) == ([1e-3, 1e-3, 1e-4], 1)


def test_auc_minus_log_loss():
    # 0.6 - 0.5 = 0.1;  0.7 - 0.7 = 0.0;  0.65 - 0.4 = 0.25: best, though its AUC is not.
    aucs, losses = [0.6, 0.7, 0.65], [0.5, 0.7, 0.4]
    assert follow(aucs, losses, monitor="auc_minus_log_loss") == ([1e-3, 1e-3, 1e-4], 3)
    assert follow(aucs, losses) == ([1e-3, 1e-3, 1e-3], 2)


def test_wrong_use_of_the_schedule():
    with pytest.raises(ConfigError, match="Did you mean 'auc'"):
        paper_callbacks(monitor="acu")
    (schedule,) = paper_callbacks()
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd")
    schedule.set_model(model)
    schedule.on_train_begin()
    with pytest.raises(ConfigError, match="validation_data"):
        schedule.on_epoch_end(0, {"loss": 0.5})


DECAY = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)


@pytest.mark.parametrize(
    "optimizer",
    [
        keras.optimizers.SGD(DECAY),
        keras.optimizers.SGD(lambda: 0.1),
        keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(DECAY)),
    ],
)
def test_an_optimizer_with_a_schedule_of_its_own_is_refused_at_once(optimizer):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(optimizer)
    (schedule,) = paper_callbacks()
    schedule.set_model(model)
    with pytest.raises(ConfigError, match=r"schedule of its own(?s:.*)learning_rate=0\.001"):
        schedule.on_train_begin()
