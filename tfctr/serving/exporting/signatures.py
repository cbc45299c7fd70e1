"""The functions of a served model, and the answers that each of them must give."""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from tfctr.errors import ConfigError, ExportError, StorageError
from tfctr.models._base import CTRModel
from tfctr.schema import Schema
from tfctr.serving.exporting.explanation import Explanation
from tfctr.serving.exporting.golden import Golden, RawColumns
from tfctr.serving.exporting.options import SPARED, ExportOptions
from tfctr.serving.exporting.raw_features import MISSING_VALUES, RawFeatures, in_range, some_features
from tfctr.serving.exporting.retrieving import ServedRetriever
from tfctr.serving.exporting.tf_examples import make_tf_examples, parse_tf_examples
from tfctr.serving.exporting.unseen import UnseenTokens
from tfctr.serving.wire import token_rules
from tfctr.types import StrPath

_CLASSES = ("0", "1")  # no click, click
Endpoints: TypeAlias = dict[str, tuple[Callable[..., Any], list[Any]]]  # signature -> (function, its input specs)
_CONTEXTS = 2  # golden requests of `rank` for each batch, one for each context


class ServedGraph:
    """All signatures of one model.

    `endpoints` has the function and the input specs of each; `golden` gives requests with the answers of `model.predict`, or
    of the same computation traced once more where `predict` has no such answer.

    Args:
        model: a `CTRModel`.
        schema: its fitted `Schema`.
        options: an `ExportOptions`: its candidates, optional features, calibration and the signatures to leave out.

    Raises:
        ConfigError: a name that is no feature of the schema, or `rank` would have no candidate that is required.
        ExportError: the answer to a row without values is not finite.
    """

    def __init__(self, model: CTRModel, schema: Schema, options: ExportOptions | None = None) -> None:
        options = options or ExportOptions()
        self.model, self.schema, self.calibration = model, schema, options.served_calibration
        self.raw = RawFeatures(schema, options.optional)
        self.spared = [name for name in SPARED if name not in options.without]
        candidates = options.candidates
        self.candidates = None if candidates is None else some_features(schema, "candidates", candidates)
        if self.candidates is not None and set(self.candidates) <= set(self.raw.optional):
            fix = "name a feature that every request has: it tells how many candidates there are"
            raise ConfigError(f"`candidates` is {list(self.candidates)}: none of them is required.", fix=fix)
        self.retriever = None
        if options.retriever is not None:
            schema.require_fit(options.retriever.schema.digest, "the retriever", "train it on the dataset of the model")
            self.retriever = ServedRetriever(options.retriever, self.raw, options.retrieved)
        self.explanation, self.unseen = Explanation(model), UnseenTokens(schema)
        self._ids_spec = tf.TensorSpec((None, schema.width), tf.int32, name="ids")
        # Signatures share these, so that each is traced and written once. Not called by `golden`: they must know no device.
        self._encode = tf.function(self.raw, input_signature=[self.raw.signature], autograph=False)
        self._probability = self._traced(self._answer)
        self._offline = {
            name: self._traced(function)
            for name, function in (("probability", self._predict), ("explain", self._explain), ("embedding", self._embed))
        }
        self.fallback = math.nan
        self.fallback = self._answer_without_values()

    def write(self, folder: StrPath) -> None:
        """Write the SavedModel: of the model's variables, those that a signature reads. Raises `StorageError` if it cannot."""
        write_saved_model(folder, self.endpoints, [self.raw, *([self.retriever] if self.retriever else [])])

    @property
    def endpoints(self) -> Endpoints:
        """Signature -> (function, its input specs)."""
        columns = self._column_specs(self.raw.signature)
        examples = [tf.TensorSpec((None,), tf.string, name="inputs")]
        endpoints = {
            "serving_default": (self._from_columns(self._probability), columns),
            "ids": (self._from_ids, [self._ids_spec]),
            "classify": (self._from_examples(_as_classes), examples),
            "regress": (self._from_examples(_as_outputs), examples),
            **token_rules_endpoint(self.schema),
        }
        answers = {"explain": self._explain, "embedding": self._embed}
        endpoints |= {name: (self._from_columns(answers[name]), columns) for name in self.spared}
        if self.unseen.fields:
            endpoints["unseen"] = (self._from_columns(self.unseen), columns)
        if self.candidates is not None:
            context = {name: tf.TensorSpec((1,), spec.dtype, name=name) for name, spec in self.raw.signature.items()}
            items = {name: self.raw.signature[name] for name in (*self.candidates, *self.raw.optional)}
            endpoints["rank"] = (self._rank(self.candidates), self._column_specs(context | items))
        if self.retriever is not None:
            endpoints |= {
                **self.retriever.endpoints,
                "recommend": (self._recommend(self.retriever), self.retriever.specs(rows=1)),
            }
        return endpoints

    def golden(self, columns: RawColumns, sizes: Iterable[int]) -> Iterator[Golden]:
        """Requests for every signature, made of the first rows of `columns` at these batch sizes, with their answers."""
        for size in sizes:
            inputs = {name: column[:size] for name, column in columns.items()}
            ids = self.raw(inputs).numpy()
            answers = self.predicted(ids)
            yield _batch("serving_default", inputs, answers)
            yield _batch("ids", {"ids": ids}, answers)
            for name in self.spared:
                yield _batch(name, inputs, _arrays(self._computed(name, ids)))
            if self.unseen.fields:
                yield _batch("unseen", inputs, _arrays(self.unseen(tf.constant(ids))))
            yield from self._golden_examples(inputs)
            yield from self._golden_ranks(inputs)
            if self.retriever is not None:
                yield from self.retriever.golden(inputs)
                yield from self._golden_recommendations(self.retriever, inputs)

    def golden_probabilities(self, inputs: RawColumns) -> Golden:
        """A request for `serving_default`, with its answers."""
        return _batch("serving_default", inputs, self.predicted(self.raw(inputs).numpy()))

    def golden_without_optional(self, columns: RawColumns, rows: int = 3) -> Iterator[Golden]:
        """Requests that leave the optional features out."""
        if self.raw.optional:
            inputs = {name: column[:rows] for name, column in columns.items()}
            given = {name: column for name, column in inputs.items() if name not in self.raw.optional}
            yield _batch("serving_default", given, self.predicted(self.raw(inputs | self._absent).numpy()))

    def foreign_ids(self) -> Golden:
        """A request with ids that belong to no feature, or to another one."""
        ids = np.array([[number] * self.schema.width for number in (-1, 0, self.schema.table_rows, 2**31 - 1)], np.int32)
        return _batch("ids", {"ids": ids}, self.predicted(in_range(self.schema, ids).numpy()))

    def predicted(self, ids: np.ndarray) -> dict[str, np.ndarray]:
        """What `model.predict` gives for `ids` at this batch size, calibrated, except for what is not a number."""
        if self.calibration is None:
            probability = self.model.predict(ids, batch_size=len(ids), verbose=0)[:, 0].astype("float32")
        else:
            probability = self._computed("probability", ids).numpy()
        return {"probability": np.where(np.isnan(probability), self.fallback, probability)}

    def _golden_examples(self, inputs):
        """For Classify and Regress, whose numbers are float32."""
        serialized = np.array(make_tf_examples(self.schema, inputs), object)
        ids = self.raw(parse_tf_examples(self.schema, tf.constant(serialized))).numpy()
        click = self.predicted(ids)["probability"]
        classes = np.array([[name.encode() for name in _CLASSES]] * len(click), object)
        scores = np.stack([np.float32(1) - click, click], axis=1)
        yield _batch("classify", {"inputs": serialized}, {"classes": classes, "scores": scores})
        yield _batch("regress", {"inputs": serialized}, {"outputs": click})

    def _golden_ranks(self, inputs):
        """The first rows as contexts, each for the candidates of all rows."""
        rows = len(next(iter(inputs.values())))
        for context in range(min(rows, _CONTEXTS) if self.candidates else 0):
            columns = {name: c if name in self.candidates else c[context : context + 1] for name, c in inputs.items()}
            tiled = {name: c if name in self.candidates else np.repeat(c, rows) for name, c in columns.items()}
            yield _batch("rank", columns, self.predicted(self.raw(tiled).numpy()))

    def _golden_recommendations(self, retriever, inputs):
        """The first rows as users: what `predict` gives for the items that are retrieved, the most probable first."""
        for row in range(min(len(next(iter(inputs.values()))), _CONTEXTS)):
            columns = {name: inputs[name][row : row + 1] for name in retriever.context}
            ids = retriever.user_ids(columns).numpy()
            best = retriever.computed("best", ids)
            ranked = {**best, **self.predicted(ids + retriever.items.numpy()[best["place"][0]])}
            order = np.argsort(-ranked["probability"], kind="stable")
            answers = {name: np.reshape(ranked[name], -1)[None, order] for name in ("item", "probability", "score")}
            yield _batch("recommend", columns, answers)

    def _computed(self, name, ids):
        # Not by a call of the function itself: TensorFlow would count the traces of several models as of one, and warn.
        return self._offline[name].get_concrete_function()(tf.constant(ids))

    def _answer_without_values(self):
        missing = {name: tf.constant([MISSING_VALUES[spec.dtype]], spec.dtype) for name, spec in self.raw.signature.items()}
        answer = float(self.predicted(self.raw(missing).numpy())["probability"][0])
        if not math.isfinite(answer):
            raise ExportError(f"the model answers {answer} to a row without values.", fix="train the model again")
        return answer

    # endpoints

    @property
    def _absent(self):
        """What TensorFlow Serving takes for an input that a request leaves out: a column without rows."""
        return {name: tf.constant([], self.raw.signature[name].dtype) for name in self.raw.optional}

    def _column_specs(self, specs):
        optional = {name: specs[name] for name in self.raw.optional}
        return [{name: spec for name, spec in specs.items() if name not in optional}, optional]

    def _from_columns(self, answer):
        def endpoint(required, optional=self._absent):
            return answer(self._encode({**required, **optional}))

        return endpoint

    def _rank(self, candidates):
        context = set(self.raw.signature).difference(candidates)

        def endpoint(required, optional=self._absent):
            ids = self.raw.rank({**required, **optional}, candidates)
            return self._ranked(ids, context)

        return endpoint

    def _recommend(self, retriever):
        def endpoint(required, optional=retriever.absent):
            ids = _of_any_number(retriever.user_ids({**required, **optional}))  # (1, width), 0 in the columns of the item
            best = retriever.best(ids)  # (1, retrieved)
            rows = _of_any_number(ids + tf.gather(retriever.items, best["place"][0]))  # (retrieved, width)
            probability = self._ranked(rows, retriever.context)["probability"]
            probability, order = tf.math.top_k(probability, k=retriever.retrieved)  # (retrieved,)
            found = {name: tf.gather(best[name], order, axis=1) for name in ("item", "score")}
            return {"probability": probability[None], **found}

        return endpoint

    def _ranked(self, ids, context):
        """The answer to rows that have all features in `context` in common."""
        with contextlib.ExitStack() as stack:
            for embedding in self.model.embeddings:
                stack.enter_context(embedding.sharing(context))
            return self._answer(ids)

    def _from_ids(self, ids):
        return self._probability(in_range(self.schema, tf.ensure_shape(ids, self._ids_spec.shape)))

    def _from_examples(self, form):
        def endpoint(inputs):
            return form(self._probability(self._encode(parse_tf_examples(self.schema, inputs)))["probability"])

        return endpoint

    # from ids to answers

    def _traced(self, function):
        return tf.function(function, input_signature=[self._ids_spec], autograph=False)

    def _answer(self, ids):
        probability = self._predict(ids)
        return {"probability": tf.where(tf.math.is_nan(probability), self.fallback, probability)}

    def _predict(self, ids):
        if self.calibration is None:
            return tf.cast(self.model.predict_step(ids), tf.float32)[:, 0]
        return self.calibration(tf.cast(self.model(ids, training=False)["logit"], tf.float32)[:, 0])

    def _explain(self, ids):
        return {**self._answer(ids), **self.explanation(ids)}

    def _embed(self, ids):
        tables = keras.tree.flatten([embedding(ids) for embedding in self.model.embeddings])  # (batch, fields, dim) each
        flat = [tf.reshape(tf.cast(fields, tf.float32), (-1, fields.shape[1] * fields.shape[2])) for fields in tables]
        return {"embedding": tf.concat(flat, axis=1)}


def write_saved_model(folder: StrPath, endpoints: Endpoints, tracked: Iterable[Any]) -> None:
    """Write a SavedModel of these endpoints, and of what they need of `tracked`. Raises `StorageError` if it cannot."""
    archive: Any = keras.export.ExportArchive()
    for resource in tracked:
        archive.track(resource)
    for name, (function, specs) in endpoints.items():
        archive.add_endpoint(name, function, input_signature=specs)
    try:
        archive.write_out(folder, verbose=False)
    except tf.errors.OpError as error:
        fix = "check the path, its permissions and the space on its disk"
        raise StorageError(f"cannot write {folder}: {error.message.rpartition('; ')[2]}.", fix=fix) from error


def token_rules_endpoint(schema: Schema) -> Endpoints:
    """The signature that tells clients what they must know of tokens."""

    def endpoint(rows):
        return {token_rules.OUTPUT: tf.fill(tf.shape(tf.ensure_shape(rows, (None,))), token_rules.written_rules(schema))}

    return {token_rules.SIGNATURE: (endpoint, [tf.TensorSpec((None,), tf.int32, name=token_rules.INPUT)])}


def golden_token_rules(schema: Schema, rows: int = 2) -> Golden:
    """A request for it, with the answer."""
    texts = np.array([token_rules.written_rules(schema).encode()] * rows, object)
    return _batch(token_rules.SIGNATURE, {token_rules.INPUT: np.zeros(rows, np.int32)}, {token_rules.OUTPUT: texts})


def _of_any_number(rows):
    """The rows, whose number TensorFlow cannot know in advance: where it does, it has other kernels, with other last bits."""
    return tf.raw_ops.PlaceholderWithDefault(input=rows, shape=(None, rows.shape[1]))


def _as_classes(click):
    classes = tf.tile([_CLASSES], [tf.shape(click)[0], 1])
    return {"classes": classes, "scores": tf.stack([1.0 - click, click], axis=1)}


def _as_outputs(click):
    return {"outputs": click}


def _batch(signature: str, inputs: RawColumns, outputs: RawColumns) -> Golden:
    return {"signature": signature, "inputs": inputs, "outputs": outputs}


def _arrays(tensors):
    return {name: tensor.numpy() for name, tensor in tensors.items()}
