"""What a training step, noise and normalization do on two logical CPUs, as JSON: `python mirrored_step.py`.

Run as a process of its own: logical devices can only be made before TensorFlow starts.
"""

import collections
import json

import keras
import numpy as np
import tensorflow as tf

from tfctr import Categorical, Schema, layers, models
from tfctr.errors import ConfigError
from tfctr.replicas import write_rows

ROWS = 100_003  # of the table: a size that nothing else has
SCHEMA = Schema(features=[Categorical("user", size=ROWS - 3), Categorical("item", size=3)], label="click")


def operations(graph):
    yield from graph.get_operations()
    for function in graph._functions.values():
        yield from operations(function.graph)


def on_both(strategy, function, *of_replica):
    """What `function` gives on each of two devices, of which each gets its entry of each pair."""
    pairs = [
        strategy.experimental_distribute_values_from_function(lambda c, p=p: p[c.replica_id_in_sync_group]) for p in of_replica
    ]
    found = tf.function(lambda *pair: strategy.run(function, args=pair), autograph=False)(*pairs)
    return [part.numpy() for part in strategy.experimental_local_results(found)]


def step(strategy, optimizer, **compiled):
    """How often gradients travel in one step, and what is as large as the table in it."""
    with strategy.scope():
        model = models.DNN(SCHEMA, embedding_dim=4, hidden_units=[8])
        model.compile(optimizer, **compiled)
    batch = [tf.zeros((331, 2), tf.int32), tf.zeros((331, 1))]
    batch = [strategy.experimental_distribute_values_from_function(lambda _, part=part: part) for part in batch]
    run = tf.function(lambda *data: strategy.run(model.train_step, args=(data,)), autograph=False)
    found = list(operations(run.get_concrete_function(*batch).graph))
    kinds = collections.Counter(operation.type for operation in found)
    whole = [
        tensor.op.name for operation in found for tensor in operation.outputs if tensor.shape.rank and tensor.shape[0] == ROWS
    ]
    return {"travels": {kind: number for kind, number in kinds.items() if "Collective" in kind}, "whole": whole}


def normalized(strategy):
    """Batch normalization and Dice of four rows on one device, and of two on each of two."""
    rows = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    found = {}
    for name, make in {"norm": lambda: layers.normalization.batch_normalization(), "dice": layers.Dice}.items():
        alone = make()
        one = alone(rows, training=True).numpy()
        with strategy.scope():
            shared = make()
            shared.build((None, 3))
        two = on_both(strategy, lambda x, layer=shared: layer(x, training=True), (rows[:1], rows[1:]))
        moving = [[value.numpy().tolist() for value in layer.non_trainable_variables] for layer in (alone, shared)]
        found[name] = [one.tolist(), np.concatenate(two).tolist(), moving]
    return found


def noise(strategy):
    """What each of two devices draws for the same rows."""
    with strategy.scope():
        keras.utils.set_random_seed(1)
        drawing = {
            "dropout": layers.Dropout(0.5),
            "noise_shape": layers.Dropout(0.5, (None, 1)),
            "perturbation": layers.Perturbation(1.0),
        }
    ones = tf.ones((64, 3))
    found = {name: on_both(strategy, lambda x, d=d: d(x, training=True), (ones, ones)) for name, d in drawing.items()}
    return {name: [part.tolist() for part in parts] for name, parts in found.items()}


def written(strategy):
    """What each of two devices has of a table of which a row was set."""
    with strategy.scope():
        table = keras.Variable(np.zeros((3, 1), "float32"))
    write_rows(table, tf.constant([1]), tf.constant([[5.0]]))
    return [copy.numpy().ravel().tolist() for copy in table.value.values]


def refusal(strategy):
    with strategy.scope():
        model = models.LR(SCHEMA)
    try:
        model.compile(steps_per_execution=4)
    except ConfigError as error:
        return error.problem


def main():
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    steps = {
        f"{optimizer}, {clip_norm}": step(strategy, optimizer, clip_norm=clip_norm)
        for optimizer in ("lazy_adam", "exact_lazy_adam")
        for clip_norm in (None, 1.0)
    }
    found = {"norms": normalized(strategy), "noise": noise(strategy), "written": written(strategy)}
    print(json.dumps({"steps": steps, **found, "refusal": refusal(strategy)}))


if __name__ == "__main__":
    main()
