"""Training on several devices: where Keras' `fit` does not know `tf.distribute`, or not several workers."""

from typing import Any

import keras
import tensorflow as tf

from tfctr.replicas import has_workers


class Distributed(keras.Model):
    """A `keras.Model` that is built already, and trains under `MirroredStrategy` and `MultiWorkerMirroredStrategy`."""

    def _maybe_symbolic_build(self, *args: Any, **kwargs: Any) -> None:
        # Private to Keras, and held by a test: it would try a batch that is the mean of the devices' batches, where ids are
        # fractions, and fails to make it of several workers.
        if self._distribute_strategy is not None:
            with self.distribute_strategy.scope():
                self._symbolic_build()

    def _symbolic_build(self, *args: Any, **kwargs: Any) -> None:
        if self._compile_metrics is not None and not self._compile_metrics.built:
            self._compile_metrics.build(keras.KerasTensor((None, 1)), keras.KerasTensor((None, 1)))

    def make_train_function(self, force: bool = False) -> None:
        """Keras' own; of several workers one that does not average the logs of each step, which Keras cannot do.

        The logs of a step are then those of this worker's rows; those of an epoch are of all rows, as everywhere.
        """
        strategy = self.distribute_strategy
        if not has_workers(strategy):
            super().make_train_function(force)
        elif self.train_function is None or force:

            def step(batches: Any) -> Any:
                logs = strategy.run(self.train_step, args=(next(batches),))
                return {name: strategy.experimental_local_results(value)[0] for name, value in logs.items()}

            self.train_function = step if self.run_eagerly else tf.function(step, autograph=False, reduce_retracing=True)


def own_part(model: keras.Model, x: Any) -> Any:
    """Batches of a split so that each worker reads only its rows of each; anything else as it is, for TensorFlow to divide."""
    strategy = model.distribute_strategy
    if not has_workers(strategy) or not hasattr(x, "part"):
        return x

    def part(context: tf.distribute.InputContext) -> Any:
        return x.part(context.input_pipeline_id, context.num_input_pipelines)

    # Nothing may read ahead of the model, so that an iteration that Keras drops does not end an epoch.
    return strategy.distribute_datasets_from_function(part, tf.distribute.InputOptions(experimental_fetch_to_device=False))
