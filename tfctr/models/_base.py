"""The one form that all models have: a functional graph from ids to named logits, and named loss terms."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Self

import keras
import tensorflow as tf
from keras import ops

from tfctr.errors import ConfigError, require_number
from tfctr.layers import FeatureEmbedding
from tfctr.layers.hidden import usual_batches
from tfctr.layers.nested import remember
from tfctr.models._batches import column, known_labels, refused_labels, the_ids, the_labels, unpack, weighted_mean
from tfctr.models._compiling import (
    loss_on_logits,
    metrics_on_probabilities,
    require_compile_arguments,
    require_one_step,
    require_optimizer,
)
from tfctr.models._distributed import Distributed, own_part
from tfctr.models._graph import PREDICTION, embeddings_of, freeze, ids_input, is_low, require_graph, way_to_wrap
from tfctr.models._ids import ReadsIds, surfacing
from tfctr.models._options import ModelOptions, show_options
from tfctr.models._saving import Saved
from tfctr.models._scoring import AsTest, Scorer, results_of
from tfctr.models._start import start_at
from tfctr.optimizers import ExactLazyAdam, minimize, optimizer_named, stop_on_non_finite, unwrap_loss_scaling
from tfctr.schema import Schema
from tfctr.types import Tensor

__all__ = ["PREDICTION", "CTRModel", "ModelOptions", "ids_input", "require_model"]


@keras.saving.register_keras_serializable("tfctr")
class CTRModel(ReadsIds, Distributed, Saved):
    """A graph of ids to named logits that trains on the sum of named loss terms.

    `loss = ctr + sum of auxiliary terms + l2 + added`, where `ctr` is the compiled loss of the prediction, each auxiliary term
    reads the labels and all named outputs, `l2 = embedding_l2 / 2 * sum of squares` of the embedding tables, and `added` is
    what layers add by themselves: `add_loss` and regularizers. Each term is logged by its name. Validation knows the loss of
    the prediction only.

    A subclass builds its graph in `__init__` and hands it to `super().__init__`; its constructor arguments (plain values, a
    `Schema`, Keras layers) are its config. Any other graph is a model as it is: see the example.

    Args:
        schema: the fitted `Schema`.
        ids: the input made by `ids_input`.
        outputs: `{"logit": (batch, 1), ...}`: `"logit"` is the prediction, the others feed auxiliary losses.
        embeddings: the `FeatureEmbedding` layers that `embedding_l2` holds small; None for all of the graph.
        auxiliary: `{name: keras.losses.Loss}`, each called with `(labels, outputs)`.
        embedding_l2: lambda of the L2 term.
        l2_scope: `"table"` (every row at every step, as the papers) or `"batch"` (the distinct rows of the batch).
        frozen: names of features whose vectors no step moves: those of tables of several columns, and of all features that
            share their vocabulary; weights of the first order, one number each, are trained all the same.

    Shapes:
        `(batch, schema.width)` int32 `-> {name: (batch, 1)}` float32; `predict` gives probabilities `(rows, 1)`

    Raises:
        ConfigError: an argument out of range, an input that is not the schema's ids, or outputs without a logit.

    >>> from tfctr import Categorical, Schema, layers
    >>> schema = Schema(features=[Categorical("user", size=5), Categorical("item", size=7)], label="click")
    >>> ids = ids_input(schema)
    >>> fields = keras.layers.Flatten()(layers.FeatureEmbedding(schema, 4)(ids))
    >>> model = CTRModel(schema, ids, {"logit": keras.layers.Dense(1)(fields), "like": keras.layers.Dense(1)(fields)})
    >>> sorted(model.output), len(model.embeddings)
    (['like', 'logit'], 1)
    """

    ctr_loss: keras.losses.Loss  # of the prediction
    _score: Callable[..., dict[str, Any]]  # what `evaluate` asks for every row's loss and probability
    _settled_at: int | None  # step

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        show_options(cls.__init__, CTRModel.__init__)

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        model = super().__new__(cls, *args, **kwargs)
        signature = inspect.signature(cls.__init__)
        bound = signature.bind_partial(model, *args, **kwargs)
        bound.apply_defaults()
        arguments = dict(bound.arguments)
        for parameter in signature.parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                arguments |= arguments.pop(parameter.name)
        vars(model)["_arguments"] = {key: value for key, value in arguments.items() if key not in ("self", "name")}
        return model

    def __init__(
        self,
        schema: Schema,
        ids: Tensor,
        outputs: Mapping[str, Tensor],
        embeddings: Sequence[FeatureEmbedding] | None = None,
        auxiliary: Mapping[str, keras.losses.Loss] | None = None,
        embedding_l2: float = 0.0,
        l2_scope: Literal["table", "batch"] = "table",
        name: str | None = None,
        frozen: Sequence[str] = (),
    ) -> None:
        require_graph(schema, ids, outputs)
        super().__init__(inputs=ids, outputs=outputs, name=name)
        require_number("embedding_l2", embedding_l2, least=0)
        if l2_scope not in ("table", "batch"):
            raise ConfigError(f"Unknown l2_scope {l2_scope!r}.", fix="Expected one of: table, batch.")
        self.schema = schema
        self.auxiliary = dict(auxiliary or {})
        self.embeddings = embeddings_of(self) if embeddings is None else list(embeddings)
        self.embedding_l2 = embedding_l2
        self.l2_scope = l2_scope
        freeze(self, frozen)
        self._l2_made = {"embedding_l2": embedding_l2, "l2_scope": l2_scope}
        names = ["loss", "ctr", *self.auxiliary, *(["l2"] if embedding_l2 else [])]
        self.trackers = [keras.metrics.Mean(name=term) for term in names]
        self.added = keras.metrics.Mean(name="added")
        self._adds = False  # it is known in training whether layers add a loss
        remember(self)

    def call(
        self, inputs: Tensor, training: bool | None = None, mask: Tensor | None = None, **kwargs: Any
    ) -> dict[str, Tensor]:
        outputs = super().call(inputs, training=training, mask=mask, **kwargs)
        return {name: ops.cast(value, "float32") if is_low(value) else value for name, value in outputs.items()}

    # training

    def compile(
        self,
        optimizer: Any = "adam",
        loss: Any = "log_loss",
        clip_norm: float | None = 10.0,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: bool | str | None = False,
        metrics: Any = None,
        weighted_metrics: Any = None,
        loss_weights: Any = None,
        auto_scale_loss: bool = True,
    ) -> None:
        """Keras' `compile` with the defaults of the papers' training loop.

        Args:
            optimizer: a Keras optimizer, a name in `tfctr.optimizers.OPTIMIZERS`, any name of Keras', or `"auto"`: see
                `optimizer_named`.
            loss: a name in `tfctr.losses.LOSSES`, or a `keras.losses.Loss` on `(labels, logits)`; `"binary_crossentropy"` is
                `"log_loss"`.
            clip_norm: the gradient's global norm is scaled down to this; `None` for no clipping.
            metrics, weighted_metrics: of Keras, by name or object, on `(labels, probabilities)`, logged in training and in
                validation beside the exact `auc` and `log_loss` of `evaluate`, which keep their names there.
            auto_scale_loss: as in Keras.

        Raises:
            ConfigError: an unknown name, a loss that does not read logits, a metric that does not read probabilities or whose
                name is taken, `loss_weights` (auxiliary losses have weights of their own), a row-sparse optimizer beside an L2
                term that moves every row at every step, an optimizer that moves frozen rows, `jit_compile`: XLA cannot merge
                duplicate ids; or, under a `tf.distribute` strategy of several devices, `steps_per_execution` above 1.
        """
        require_compile_arguments(clip_norm, jit_compile, loss_weights)
        require_one_step(steps_per_execution, self.distribute_strategy)
        terms = ["added", *(tracker.name for tracker in self.trackers)]
        self._metrics_given = [metrics_on_probabilities(given, terms) for given in (metrics, weighted_metrics)]
        optimizer = optimizer_named(optimizer, table_l2=self.table_l2 > 0)
        require_optimizer(self, optimizer)
        self.ctr_loss = loss_on_logits(loss)
        self._compile_metrics = None  # Keras would keep those of an earlier call
        super().compile(
            optimizer=optimizer,
            metrics=self._metrics_given[0],
            weighted_metrics=self._metrics_given[1],
            jit_compile=False,
            run_eagerly=run_eagerly,
            steps_per_execution=steps_per_execution,
            auto_scale_loss=auto_scale_loss,
        )
        self.clip_norm = clip_norm
        self._make_ready()

    def _make_ready(self) -> None:
        """What `compile` leaves for the first step, the first evaluation and the first file."""
        if not self.optimizer.built:  # now, so that a model saved before its first step can be loaded
            self.optimizer.build(self.trainable_variables)
        self._settled_at = None
        self.loss = self.ctr_loss  # where Keras' own tools look for one
        with self.distribute_strategy.scope():
            self._score = Scorer(self).predict  # only the method: Keras would save a model kept here as a part of this one

    def start_at(self, click_rate: float) -> None:
        """Let all logits of a fresh model start at this rate, not at one half: see `tfctr.models._start.start_at`."""
        start_at(self, click_rate)

    def fit(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """Keras' `fit`; arrays are shuffled, a dataset comes in its own order. Labels and weights are `(rows,)` or `(rows, 1)`.

        Ids may also be `{"ids": ids}`, labels `{"logit": labels}`.

        Raises:
            DataError: a label that is neither 0 nor 1, or ids that cannot be the schema's, with the row: see `IdsCheck`.
            ConfigError: batches of another dataset's fit.
            TrainingError: a loss term or the gradient became non-finite, with the step; it has changed no trained weight.
        """
        x = the_ids(self, x)
        y = known_labels(y)
        kwargs.setdefault("shuffle", y is not None)  # Keras warns of any other value beside a dataset
        with stop_on_non_finite():
            history = super().fit(x, y, *args, **kwargs)
        self.settle()
        return history

    def train_on_batch(self, x: Any, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Keras' `train_on_batch`; the errors are those of `fit`."""
        with stop_on_non_finite():
            return super().train_on_batch(x, known_labels(y), *args, **kwargs)

    def test_on_batch(self, x: Any, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Keras' `test_on_batch`; the errors are those of `evaluate`."""
        return super().test_on_batch(x, known_labels(y), *args, **kwargs)

    def loss_terms(
        self, ids: Tensor, labels: Tensor, weights: Tensor | None = None, training: bool = True
    ) -> dict[str, Tensor]:
        """`{name: mean over the rows}` of every term; `l2` where it covers whole tables."""
        return self._terms(self(ids, training=training), labels, weights)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Tensor:
        """Keras' `compute_loss`: the sum of the terms, for `y_pred` that the model has just given."""
        return sum(self._terms(y_pred, the_labels(y), the_labels(sample_weight, "sample weights")).values())

    def _terms(self, outputs: Mapping[str, Tensor], labels: Tensor, weights: Tensor | None = None) -> dict[str, Tensor]:
        rows = ops.shape(outputs[PREDICTION])[0]
        labels = column("labels", labels, rows, "float32")
        terms = {"ctr": weighted_mean(self.ctr_loss.call(labels, outputs[PREDICTION]), weights, rows)}
        for name, loss in self.auxiliary.items():
            terms[name] = weighted_mean(loss.call(labels, outputs), weights, rows)
        if self.table_l2:
            trained = [embedding for embedding in self.embeddings if embedding.table.trainable]  # as with Keras' regularizers
            terms["l2"] = self.table_l2 / 2 * sum(embedding.squared_norm() for embedding in trained)
        if self.losses:
            terms["added"] = sum(ops.cast(ops.sum(loss), "float32") for loss in self.losses)
        return {name: ops.cast(term, "float32") for name, term in terms.items()}

    def train_step(self, data: Any) -> dict[str, Tensor]:
        ids, labels, weights = unpack(self, data)
        terms, outputs = self.descend(ids, labels, weights)
        self._track({"loss": sum(terms.values()), **terms}, ops.shape(ids)[0])
        self._update_metrics(labels, outputs, weights)
        return self.get_metrics_result()

    def descend(self, ids: Tensor, labels: Tensor, weights: Tensor | None = None) -> tuple[dict[str, Tensor], ...]:
        """One gradient step, of which nothing is logged: the terms of the loss, and the outputs."""
        if self._exact_lazy_adam:
            read = {}  # features of a table: the rows that the batch reads
            for embedding in embeddings_of(self):
                if embedding.features not in read:
                    read[embedding.features] = embedding.distinct_rows(ids)
                self._exact_lazy_adam.catch_up(embedding.table, read[embedding.features])
        outputs = {}

        def compute_terms():
            refused = refused_labels(self.ctr_loss, labels, self.optimizer.iterations)
            with tf.control_dependencies(refused), usual_batches(self.usual_rows):
                outputs.update(self(ids, training=True))
            return self._terms(outputs, labels, weights)

        terms = minimize(
            self.optimizer,
            compute_terms,
            self.trainable_variables,
            self.clip_norm,
            ops.shape(ids)[0],
            row_l2=self.embedding_l2 if self.l2_scope == "batch" else 0.0,
            tables=self.tables,
            labels=labels,
        )
        return terms, outputs

    def test_step(self, data: Any) -> dict[str, Tensor]:
        ids, labels, weights = unpack(self, data)
        outputs = self(ids, training=False)
        self._update_metrics(labels, outputs, weights)
        metrics = {} if self._compile_metrics is None else self._compile_metrics.result()
        return {"loss": self._terms(outputs, labels, weights)["ctr"], **metrics}

    def _update_metrics(self, labels: Tensor, outputs: Mapping[str, Tensor], weights: Tensor | None) -> None:
        if self._compile_metrics is not None:
            rows = ops.shape(outputs[PREDICTION])[0]
            labels = column("labels", labels, rows, "float32")
            weights = None if weights is None else column("sample weights", weights, rows, "float32")[:, 0]
            self._compile_metrics.update_state(labels, ops.sigmoid(outputs[PREDICTION]), weights)

    def make_predict_function(self, force: bool = False) -> None:
        """One graph for all batch sizes: TensorFlow regroups the sums of a graph whose batch size it knows."""
        if self.predict_function is not None and not force:
            return
        super().make_predict_function(force)
        if not self.run_eagerly:
            graph: Any = self.predict_function
            graph.get_concrete_function([(tf.TensorSpec((None, self.schema.width), "int32"),)] * self.steps_per_execution)
            self.predict_function = lambda batches: graph([unpack(self, batch)[:1] for batch in batches])

    def predict_step(self, data: Any) -> Tensor:
        ids, _, _ = unpack(self, data)
        return ops.sigmoid(self(ids, training=False)[PREDICTION])

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """Keras' `predict`: probabilities `(rows, 1)`. Raises `DataError` for what cannot be ids of the schema."""
        self.settle()
        return super().predict(*args, **kwargs)

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: int | str = 0,
        sample_weight: Any = None,
        steps: int | None = None,
        callbacks: Any = None,
        return_dict: bool = False,
        _use_cached_eval_dataset: bool = False,
    ) -> Any:
        """`{"loss": ..., "log_loss": ..., "auc": ...}` over all rows, exact, then the compiled metrics; or a list.

        `loss` is the compiled loss of the prediction. AUC is NaN where there is one class. The arguments are those of Keras'
        `evaluate`.
        """
        if not self.compiled:
            raise ConfigError("the model is not compiled, so it has no loss.", fix="call model.compile() first")
        x = the_ids(self, x)
        y = known_labels(y)
        self.settle()
        if not isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks = keras.callbacks.CallbackList(callbacks, model=self)
        x = x if _use_cached_eval_dataset else self.ids_check.checked(x)  # within `fit`, it was checked before the first epoch
        x = own_part(self, x) if y is None else (x, y) if sample_weight is None else (x, y, sample_weight)
        with surfacing():
            scored = self._score(x, batch_size=batch_size, steps=steps, verbose=verbose, callbacks=[AsTest(callbacks)])
        results = results_of(scored, self._compile_metrics)
        callbacks.on_test_end(results)
        return results if return_dict else list(results.values())

    @property
    def metrics(self) -> list[Any]:
        added = [self.added] if self._adds else []
        return [*self.trackers, *added, *([self._compile_metrics] if self._compile_metrics is not None else [])]

    @property
    def tables(self) -> list[keras.Variable]:
        """The variables of the embeddings."""
        return [table for embedding in self.embeddings for table in embedding.tables]

    @property
    def table_l2(self) -> float:
        """Lambda of the L2 term over whole tables; 0 where there is none."""
        return self.embedding_l2 if self.l2_scope == "table" else 0.0

    def settle(self) -> None:
        """Bring all rows up to date where the optimizer puts off those that are not read: see `ExactLazyAdam`.

        `fit` at its end, `evaluate`, `predict`, `get_weights`, `save` and `save_weights` do so by themselves. It reads whole
        tables, and so only once a step.
        """
        optimizer = self._exact_lazy_adam
        if optimizer:
            iterations: Any = optimizer.iterations
            step = int(iterations.numpy())
            if step != self._settled_at:
                self.distribute_strategy.run(optimizer.settle)
                self._settled_at = step

    @property
    def _exact_lazy_adam(self) -> ExactLazyAdam | None:
        optimizer = unwrap_loss_scaling(self.optimizer) if self.compiled else None
        return optimizer if isinstance(optimizer, ExactLazyAdam) else None

    def _track(self, values: Mapping[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
        self._adds = self._adds or "added" in values
        trackers = {tracker.name: tracker for tracker in (*self.trackers, self.added)}
        for name, value in values.items():
            trackers[name].update_state(value, sample_weight=rows)
        return {name: trackers[name].result() for name in values}


def require_model(model: Any) -> None:
    """Raise `ConfigError` unless `model` is a `CTRModel`."""
    if not isinstance(model, CTRModel):
        fix = way_to_wrap(model) if isinstance(model, keras.Model) else "give a model of tfctr.models, or of its kind"
        raise ConfigError(f"{type(model).__name__} is no `CTRModel`.", fix=fix)
