"""The one form that all models have: a functional graph from ids to named logits, and named loss terms."""

import inspect

import keras
from keras import ops

from tfctr.errors import ConfigError
from tfctr.losses import LogLoss
from tfctr.metrics import auc, log_loss
from tfctr.optimizers import Adam, minimize, stop_on_non_finite
from tfctr.schema import Schema

PREDICTION = "logit"


def ids_input(schema):
    """The one input of every model: `(batch, schema.width)` int32, named `ids`."""
    return keras.Input((schema.width,), dtype="int32", name="ids")


class CTRModel(keras.Model):
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
        if l2_scope not in ("table", "batch"):
            raise ConfigError(f"Unknown l2_scope {l2_scope!r}.", fix="Expected one of: table, batch.")
        self.schema, self.embeddings, self.auxiliary = schema, list(embeddings), dict(auxiliary or {})
        self.embedding_l2, self.l2_scope = embedding_l2, l2_scope
        names = ["loss", "ctr", *self.auxiliary, *(["l2"] if embedding_l2 else [])]
        self.trackers = [keras.metrics.Mean(name=term) for term in names]

    # training

    def compile(self, optimizer="adam", loss=None, clip_norm=10.0, jit_compile=False, run_eagerly=False, steps_per_execution=1):
        """Keras' `compile` with the defaults of the papers' training loop.

        Args:
            optimizer: a Keras optimizer, or `"adam"` for `tfctr.optimizers.Adam`.
            loss: a Keras loss on `(labels, logits)`; log loss by default.
            clip_norm: the gradient's global norm is scaled down to this; `None` for no clipping.
        """
        super().compile(
            optimizer=Adam() if optimizer == "adam" else optimizer,
            jit_compile=jit_compile,
            run_eagerly=run_eagerly,
            steps_per_execution=steps_per_execution,
        )
        self.ctr_loss = loss or LogLoss()
        self.clip_norm = clip_norm
        self._score = _Scorer(self).predict  # only the method: Keras would save a model kept here as a part of this one

    def fit(self, x=None, y=None, **kwargs):
        """Keras' `fit`; arrays are shuffled, a dataset comes in its own order.

        Raises `TrainingError`, naming term and step, before a non-finite loss reaches a weight.
        """
        kwargs.setdefault("shuffle", y is not None)  # Keras warns of any other value beside a dataset
        with stop_on_non_finite():
            return super().fit(x, y, **kwargs)

    def loss_terms(self, ids, labels, weights=None, training=True):
        """`{name: mean over the rows}` of every term, `l2` included."""
        outputs = self(ids, training=training)
        terms = {"ctr": _weighted_mean(self.ctr_loss.call(labels, outputs[PREDICTION]), weights)}
        for name, loss in self.auxiliary.items():
            terms[name] = _weighted_mean(loss.call(labels, outputs), weights)
        if self.embedding_l2:
            rows = ids if self.l2_scope == "batch" else None
            terms["l2"] = self.embedding_l2 / 2 * sum(table.squared_norm(rows) for table in self.embeddings)
        return terms

    def train_step(self, data):
        ids, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
        terms = minimize(
            self.optimizer, lambda: self.loss_terms(ids, labels, weights), self.trainable_variables, self.clip_norm
        )
        return self._track({"loss": sum(terms.values()), **terms}, ids)

    def predict_step(self, data):
        ids, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        return ops.sigmoid(self(ids, training=False)[PREDICTION])

    def evaluate(self, x=None, y=None, batch_size=None, verbose=0, sample_weight=None, steps=None, return_dict=False, **kwargs):
        """`{"loss": ..., "log_loss": ..., "auc": ...}` over all rows, exact; or a list of the three.

        `loss` is the compiled loss of the prediction. Takes what Keras' `evaluate` takes. AUC is NaN where there is one class.
        """
        x = x if y is None else (x, y) if sample_weight is None else (x, y, sample_weight)
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

    def _track(self, values, ids):
        trackers = {tracker.name: tracker for tracker in self.trackers}
        for name, value in values.items():
            trackers[name].update_state(value, sample_weight=ops.shape(ids)[0])
        return {name: trackers[name].result() for name in values}

    # saving

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
        }

    def compile_from_config(self, config):
        optimizer, loss = keras.optimizers.deserialize(config["optimizer"]), keras.losses.deserialize(config["loss"])
        self.compile(optimizer=optimizer, loss=loss, clip_norm=config["clip_norm"])
        self.optimizer.build(self.trainable_variables)


class _Scorer(keras.Model):
    """A model whose `predict` keeps labels and weights beside the probabilities, batch by batch, on every device."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def predict_step(self, data):
        ids, labels, weights = keras.utils.unpack_x_y_sample_weight(data[0] if isinstance(data[0], tuple) else data)
        logits = self.model(ids, training=False)[PREDICTION]
        losses = self.model.ctr_loss.call(labels, logits)
        scored = {"labels": labels, "losses": losses, "probabilities": ops.sigmoid(logits)}
        return scored if weights is None else {**scored, "weights": weights}


def _weighted_mean(values, weights):
    """`sum(weight * value) / rows`, for values `(batch, 1)`."""
    return ops.mean(values if weights is None else values * ops.cast(weights, values.dtype))


def _serialize(value):
    if isinstance(value, Schema):
        return value.get_config()
    return keras.saving.serialize_keras_object(value)


def _deserialize(value):
    return keras.saving.deserialize_keras_object(value)
