"""The one form that all models have: a functional graph from ids to named logits, and named loss terms."""

import inspect

import keras
import tensorflow as tf
from keras import ops

from tfctr.errors import ConfigError, choose, require_number
from tfctr.losses import LOSSES
from tfctr.metrics import auc, is_positive, log_loss
from tfctr.models.ids import ReadsIds, surfacing
from tfctr.optimizers import (
    DENSE_FIX,
    ExactLazyAdam,
    minimize,
    optimizer_named,
    stop_on_non_finite,
    unwrap_loss_scaling,
    updated_by_rows,
)
from tfctr.schema import Schema

PREDICTION = "logit"


def ids_input(schema):
    """The one input of every model: `(batch, schema.width)` int32, named `ids`."""
    if not isinstance(schema, Schema):
        raise ConfigError(f"`schema` is {schema!r}.", fix="give the schema of a prepared dataset: `dataset.schema`")
    return keras.Input((schema.width,), dtype="int32", name="ids")


class CTRModel(ReadsIds, keras.Model):
    """A graph of ids to named logits that trains on the sum of named loss terms.

    `loss = ctr + sum of auxiliary terms + l2`, where `ctr` is the compiled loss of the prediction, each auxiliary term reads
    the labels and all named outputs, and `l2 = embedding_l2 / 2 * sum of squares` of the embedding tables. Each term is logged
    by its name. Validation knows the loss of the prediction only.

    A subclass builds its graph in `__init__` and hands it to `super().__init__`; its constructor arguments (plain values, a
    `Schema`, Keras layers) are its config.

    Args:
        schema: the fitted `Schema`.
        ids: the input made by `ids_input`.
        outputs: `{"logit": (batch, 1), ...}`: `"logit"` is the prediction, the others feed auxiliary losses.
        embeddings: the `FeatureEmbedding` layers that `embedding_l2` holds small.
        auxiliary: `{name: keras.losses.Loss}`, each called with `(labels, outputs)`.
        embedding_l2: lambda of the L2 term.
        l2_scope: `"table"` (every row at every step, as the papers) or `"batch"` (the distinct rows of the batch).

    Shapes:
        `(batch, schema.width)` int32 `-> {name: (batch, 1)}` float32; `predict` gives probabilities `(rows, 1)`
    """

    def __new__(cls, *args, **kwargs):
        model = super().__new__(cls, *args, **kwargs)
        bound = inspect.signature(cls.__init__).bind_partial(model, *args, **kwargs)
        bound.apply_defaults()
        vars(model)["_arguments"] = {key: value for key, value in bound.arguments.items() if key not in ("self", "name")}
        return model

    def __init__(self, schema, ids, outputs, embeddings=(), auxiliary=None, embedding_l2=0.0, l2_scope="table", name=None):
        super().__init__(inputs=ids, outputs=outputs, name=name)
        require_number("embedding_l2", embedding_l2, least=0)
        if l2_scope not in ("table", "batch"):
            raise ConfigError(f"Unknown l2_scope {l2_scope!r}.", fix="Expected one of: table, batch.")
        self.schema, self.embeddings, self.auxiliary = schema, list(embeddings), dict(auxiliary or {})
        self.embedding_l2, self.l2_scope = embedding_l2, l2_scope
        names = ["loss", "ctr", *self.auxiliary, *(["l2"] if embedding_l2 else [])]
        self.trackers = [keras.metrics.Mean(name=term) for term in names]

    # training

    def compile(
        self, optimizer="adam", loss="log_loss", clip_norm=10.0, run_eagerly=False, steps_per_execution=1, jit_compile=False
    ):
        """Keras' `compile` with the defaults of the papers' training loop.

        Args:
            optimizer: a Keras optimizer, a name in `tfctr.optimizers.OPTIMIZERS`, or `"auto"`: see `optimizer_named`.
            loss: a name in `tfctr.losses.LOSSES`, or a `keras.losses.Loss` on `(labels, logits)`.
            clip_norm: the gradient's global norm is scaled down to this; `None` for no clipping.

        Raises:
            ConfigError: an unknown name, a loss that does not read logits, a row-sparse optimizer beside an L2 term that moves
                every row at every step, or `jit_compile`: XLA cannot merge duplicate ids.
        """
        if clip_norm is not None:
            require_number("clip_norm", clip_norm, least=0)
        if jit_compile not in (False, "auto"):
            raise ConfigError("`jit_compile` is True: XLA cannot merge duplicate ids.", fix="leave it out")
        if isinstance(optimizer, str):
            optimizer = optimizer_named(optimizer, table_l2=self.table_l2 > 0)
        self._require_sparse_gradients(optimizer)
        super().compile(
            optimizer=optimizer,
            jit_compile=False,
            run_eagerly=run_eagerly,
            steps_per_execution=steps_per_execution,
        )
        self.optimizer.build(self.trainable_variables)  # now, so that a model saved before its first step can be loaded
        self._settled_at = None  # step
        self.ctr_loss = _loss_on_logits(loss)
        self.clip_norm = clip_norm
        self._score = _Scorer(self).predict  # only the method: Keras would save a model kept here as a part of this one

    def fit(self, x=None, y=None, *args, **kwargs):
        """Keras' `fit`; arrays are shuffled, a dataset comes in its own order. Labels and weights are `(rows,)` or `(rows, 1)`.

        Raises:
            DataError: a label of `y` that is neither 0 nor 1, or ids that cannot be the schema's, with the row: see `IdsCheck`.
            ConfigError: batches of another dataset's fit.
            TrainingError: a loss term or the gradient became non-finite, with the step; no weight has been changed by it.
        """
        if y is not None:
            is_positive(y)
        kwargs.setdefault("shuffle", y is not None)  # Keras warns of any other value beside a dataset
        with stop_on_non_finite():
            history = super().fit(x, y, *args, **kwargs)
        self.settle()
        return history

    def loss_terms(self, ids, labels, weights=None, training=True):
        """`{name: mean over the rows}` of every term; `l2` where it covers whole tables."""
        outputs = self(ids, training=training)
        labels = _column("labels", labels, "float32")
        terms = {"ctr": _weighted_mean(self.ctr_loss.call(labels, outputs[PREDICTION]), weights)}
        for name, loss in self.auxiliary.items():
            terms[name] = _weighted_mean(loss.call(labels, outputs), weights)
        if self.table_l2:
            terms["l2"] = self.table_l2 / 2 * sum(embedding.squared_norm() for embedding in self.embeddings)
        return terms

    def train_step(self, data):
        ids, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
        rows = ops.shape(ids)[0]
        if self._exact_lazy_adam:
            read = self.embeddings[0].distinct_rows(ids)  # of every table: they share one schema
            for table in self.tables:
                self._exact_lazy_adam.catch_up(table, read)
        terms = minimize(
            self.optimizer,
            lambda: self.loss_terms(ids, labels, weights),
            self.trainable_variables,
            self.clip_norm,
            rows,
            row_l2=self.embedding_l2 if self.l2_scope == "batch" else 0.0,
            tables=self.tables,
        )
        return self._track({"loss": sum(terms.values()), **terms}, rows)

    def test_step(self, data):
        return {"loss": self.loss_terms(*keras.utils.unpack_x_y_sample_weight(data), training=False)["ctr"]}

    def make_predict_function(self, force=False):
        """One graph for all batch sizes: TensorFlow regroups the sums of a graph whose batch size it knows."""
        if self.predict_function is not None and not force:
            return
        super().make_predict_function(force)
        if not self.run_eagerly:
            graph, ids = self.predict_function, tf.TensorSpec((None, self.schema.width), "int32")
            graph.get_concrete_function([(ids,)] * self.steps_per_execution)
            self.predict_function = lambda batches: graph(
                [keras.utils.unpack_x_y_sample_weight(batch)[:1] for batch in batches]
            )

    def predict_step(self, data):
        ids, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        return ops.sigmoid(self(ids, training=False)[PREDICTION])

    def predict(self, *args, **kwargs):
        """Keras' `predict`: probabilities `(rows, 1)`. Raises `DataError` for what cannot be ids of the schema."""
        self.settle()
        return super().predict(*args, **kwargs)

    def evaluate(
        self,
        x=None,
        y=None,
        batch_size=None,
        verbose=0,
        sample_weight=None,
        steps=None,
        callbacks=None,
        return_dict=False,
        _use_cached_eval_dataset=False,
    ):
        """`{"loss": ..., "log_loss": ..., "auc": ...}` over all rows, exact; or a list of the three.

        `loss` is the compiled loss of the prediction. AUC is NaN where there is one class. The arguments are those of Keras'
        `evaluate`; callbacks are not called.
        """
        if not self.compiled:
            raise ConfigError("the model is not compiled, so it has no loss.", fix="call model.compile() first")
        if y is not None:
            is_positive(y)
        self.settle()
        x = x if _use_cached_eval_dataset else self.ids_check.checked(x)  # within `fit`, it was checked before the first epoch
        x = x if y is None else (x, y) if sample_weight is None else (x, y, sample_weight)
        with surfacing():
            scored = self._score(x, batch_size=batch_size, steps=steps, verbose=verbose)
        scored = {name: column[:, 0] for name, column in scored.items()}
        weights = scored.get("weights")
        losses = scored["losses"] if weights is None else scored["losses"] * weights
        exact = {
            "loss": float(losses.mean(dtype="float64")),
            "log_loss": log_loss(scored["labels"], scored["probabilities"], weights),
            "auc": auc(scored["labels"], scored["probabilities"], weights),
        }
        return exact if return_dict else list(exact.values())

    @property
    def metrics(self):
        return self.trackers

    @property
    def tables(self):
        """The variables of the embeddings."""
        return [embedding.table for embedding in self.embeddings]

    @property
    def table_l2(self):
        """Lambda of the L2 term over whole tables; 0 where there is none."""
        return self.embedding_l2 if self.l2_scope == "table" else 0.0

    def settle(self):
        """Bring all rows up to date where the optimizer puts off those that are not read: see `ExactLazyAdam`.

        `fit` at its end, `evaluate`, `predict`, `get_weights`, `save` and `save_weights` do so by themselves. It reads whole
        tables, and so only once a step.
        """
        if self._exact_lazy_adam:
            step = int(self._exact_lazy_adam.iterations.numpy())
            if step != self._settled_at:
                self.distribute_strategy.run(self._exact_lazy_adam.settle)
                self._settled_at = step

    @property
    def _exact_lazy_adam(self):
        optimizer = unwrap_loss_scaling(self.optimizer) if self.compiled else None
        return optimizer if isinstance(optimizer, ExactLazyAdam) else None

    def _require_sparse_gradients(self, optimizer):
        if self.table_l2 and updated_by_rows(optimizer, self.tables):
            raise ConfigError(
                f"{unwrap_loss_scaling(optimizer).name} moves the rows of a batch, and embedding_l2 all rows of the tables.",
                fix=DENSE_FIX,
            )

    def _track(self, values, rows):
        trackers = {tracker.name: tracker for tracker in self.trackers}
        for name, value in values.items():
            trackers[name].update_state(value, sample_weight=rows)
        return {name: trackers[name].result() for name in values}

    # saving

    def get_weights(self):
        """Keras' `get_weights`."""
        self.settle()
        return super().get_weights()

    def save(self, *args, **kwargs):
        """Keras' `save`."""
        self.settle()
        super().save(*args, **kwargs)

    def save_weights(self, *args, **kwargs):
        """Keras' `save_weights`."""
        self.settle()
        super().save_weights(*args, **kwargs)

    def get_config(self):
        arguments = {key: _serialize(value) for key, value in self._arguments.items()}
        return {"name": self.name, "dtype": keras.dtype_policies.serialize(self.dtype_policy), **arguments}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        outside = keras.config.dtype_policy()
        keras.config.set_dtype_policy(keras.dtype_policies.deserialize(config.pop("dtype")))
        try:
            schema = Schema.from_config(config.pop("schema"))
            return cls(schema, **{key: _deserialize(value) for key, value in config.items()})
        finally:
            keras.config.set_dtype_policy(outside)

    def get_compile_config(self):
        if not self.compiled:
            return None
        return {
            "optimizer": keras.optimizers.serialize(self.optimizer),
            "loss": keras.losses.serialize(self.ctr_loss),
            "clip_norm": self.clip_norm,
            "run_eagerly": self.run_eagerly,
            "steps_per_execution": self.steps_per_execution,
        }

    def compile_from_config(self, config):
        optimizer, loss = keras.optimizers.deserialize(config["optimizer"]), keras.losses.deserialize(config["loss"])
        self.compile(**{**config, "optimizer": optimizer, "loss": loss})


class _Scorer(keras.Model):
    """A model whose `predict` keeps labels and weights beside the probabilities, batch by batch, on every device."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def make_predict_function(self, force=False):
        """Traced before it is called: TensorFlow takes several models' first calls for one function's retracing, and warns."""
        if self.predict_function is None or force:
            super().make_predict_function(force)
            graph = self.predict_function

            def traced(batches):
                graph.get_concrete_function(batches)
                return graph(batches)

            self.predict_function = graph if self.run_eagerly else traced

    def predict_step(self, data):
        ids, labels, weights = keras.utils.unpack_x_y_sample_weight(data[0] if isinstance(data[0], tuple) else data)
        logits = self.model(ids, training=False)[PREDICTION]
        labels = _column("labels", labels, "float32")
        losses = _column("the loss", self.model.ctr_loss.call(labels, logits))
        scored = {"labels": labels, "losses": losses, "probabilities": ops.sigmoid(logits)}
        return scored if weights is None else {**scored, "weights": _column("sample weights", weights, "float32")}


def _loss_on_logits(loss):
    if isinstance(loss, str):
        return choose(LOSSES, loss, "loss")()
    if not isinstance(loss, keras.losses.Loss) or not getattr(loss, "from_logits", True):
        raise ConfigError(f"`loss` is {loss!r}.", fix="give a name, or a keras.losses.Loss with `from_logits=True`")
    return loss


def _column(name, values, dtype=None):
    """`(batch,)` or `(batch, 1) -> (batch, 1)`: beside the logits, rank 1 would become (batch, batch)."""
    values = ops.convert_to_tensor(values, dtype)
    if len(values.shape) not in (1, 2) or values.shape[1:] not in ((), (1,), (None,)):
        raise ConfigError(f"{name} has the shape {tuple(values.shape)}.", fix="give one value a row: (batch,) or (batch, 1)")
    return ops.reshape(values, (-1, 1))


def _weighted_mean(values, weights):
    """`sum(weight * value) / rows`; 0 for a replica without rows."""
    values = _column("the loss", values)
    if weights is not None:
        values = values * _column("sample weights", weights, values.dtype)
    return ops.sum(values) / ops.cast(ops.maximum(ops.shape(values)[0], 1), values.dtype)


def _serialize(value):
    if isinstance(value, Schema):
        return value.get_config()
    return keras.saving.serialize_keras_object(value)


def _deserialize(value):
    return keras.saving.deserialize_keras_object(value)


def require_model(model):
    """Raise `ConfigError` unless `model` is a `CTRModel`."""
    if not isinstance(model, CTRModel):
        raise ConfigError(f"{type(model).__name__} is no `CTRModel`.", fix="give a model of tfctr.models, or of its kind")
