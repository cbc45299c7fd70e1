"""Small hand-written SavedModels, for tests that must not depend on how tfctr exports, and calls to them."""

import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfctr
from tfctr.serving.client.blocking import PredictionClient
from tfctr.serving.exporting.check import check_saved_model
from tfctr.serving.runtime.warmup import write_warmup
from tfctr.serving.store.folders import add_version

WEIGHTS = {"light": 0.5, "heavy": 0.75}
KNOWN = ["60", "2438", "café", "naïve"]
INPUTS = [tf.TensorSpec([None], "string", name="user"), tf.TensorSpec([None], "float64", name="price")]
TYPES = ("string", "float64", "float32", "int32", "int64", "bool")


class Scorer(keras.layers.Layer):
    """`sigmoid(weight * price + position of the user in KNOWN)`, position -1 when unknown."""

    def build(self, input_shape=None):
        self.weight = self.add_weight(shape=(), initializer="zeros", name="weight")
        positions = tf.lookup.KeyValueTensorInitializer(KNOWN, tf.range(len(KNOWN), dtype=tf.int64))
        self.positions = tf.lookup.StaticHashTable(positions, default_value=-1)

    def call(self, user, price):
        return tf.sigmoid(self.weight * tf.cast(price, "float32") + tf.cast(self.positions.lookup(user), "float32"))


def export_scorer(folder, weight=0.5, serving_default=None):
    """Signatures `serving_default` (user: text, price: double) and `ids` (int32, 3 columns), both to `probability`."""
    scorer = Scorer()
    scorer.build()
    scorer.weight.assign(weight)

    def score(user, price):
        rows = tf.debugging.assert_equal(tf.shape(user)[0], tf.shape(price)[0], "the inputs differ in rows")
        with tf.control_dependencies([rows]):
            return {"probability": scorer(user, tf.where(tf.math.is_nan(price), tf.zeros_like(price), price))}

    def ids(ids):
        return {"probability": tf.sigmoid(scorer.weight * tf.cast(tf.reduce_sum(ids, axis=1), "float32"))}

    archive = keras.export.ExportArchive()
    archive.track(scorer)
    archive.add_endpoint("serving_default", serving_default or score, input_signature=INPUTS)
    archive.add_endpoint("ids", ids, input_signature=[tf.TensorSpec([None, 3], "int32", name="ids")])
    archive.write_out(str(folder), verbose=False)


def export_scorers(folder):
    """Two SavedModels that differ in one weight, `light` and `heavy`, and one that is `broken`."""
    for name, weight in WEIGHTS.items():
        export_scorer(folder / name, weight)
    shutil.copytree(folder / "light", folder / "broken")
    (folder / "broken" / "saved_model.pb").write_bytes(b"no SavedModel")
    return folder


def put(base, model):
    """Publish a copy of `model` as the next version under `base`."""
    return add_version(base, lambda folder: shutil.copytree(model, folder, dirs_exist_ok=True))


def check(model, golden, **options):
    """The strict check of `model` with these golden batches as its warm-up records."""
    write_warmup(model, golden, "model")
    return check_saved_model(model, **options)


def client_of(server, **options):
    """A client whose calls end, but not too early for a machine that is slow at times."""
    return PredictionClient(server.target, model=server.name, timeout=60, **options)


def export_identities(folder):
    """One signature for each type, named after it, that gives back its input `value` as `same`."""
    archive = keras.export.ExportArchive()
    for dtype in TYPES:
        spec = tf.TensorSpec([None], dtype, name="value")
        archive.add_endpoint(dtype, lambda value: {"same": tf.identity(value)}, input_signature=[spec])
    archive.write_out(str(folder), verbose=False)


def export_examples(folder):
    """Signatures on lists of `tf.Example` with a `price`, good ones and bad ones, and `rank`.

    `regress` gives the price, `classify` the classes no and yes with -price and price. `rank` takes one `bid` and the `price`
    of each candidate, and gives their product.
    """

    def price(inputs):
        return tf.io.parse_example(inputs, {"price": tf.io.FixedLenFeature([], tf.float32)})["price"]

    def classes(inputs):
        return tf.tile([["no", "yes"]], [tf.size(inputs), 1])

    def scores(inputs):
        return tf.stack([-price(inputs), price(inputs)], axis=1)

    signatures = {
        "regress": lambda inputs: {"outputs": price(inputs)},
        "regress_column": lambda inputs: {"outputs": price(inputs)[:, None]},
        "classify": lambda inputs: {"classes": classes(inputs), "scores": scores(inputs)},
        "scores": lambda inputs: {"scores": scores(inputs)},
        "wide": lambda inputs: {"outputs": scores(inputs)},
        "short": lambda inputs: {"outputs": price(inputs)[:1]},
        "texts": lambda inputs: {"outputs": inputs},
        "flat": lambda inputs: {"scores": price(inputs)},
        "swapped": lambda inputs: {"scores": classes(inputs)},
        "few": lambda inputs: {"scores": scores(inputs)[:1]},
        "uneven": lambda inputs: {"classes": classes(inputs)[:, :1], "scores": scores(inputs)},
    }
    archive = keras.export.ExportArchive()
    for name, function in signatures.items():
        archive.add_endpoint(name, function, input_signature=[tf.TensorSpec([None], "string", name="inputs")])
    one, many = (tf.TensorSpec([size], "float32", name=name) for size, name in ((1, "bid"), (None, "price")))
    archive.add_endpoint("rank", lambda bid, price: {"probability": bid * price}, input_signature=[one, many])
    archive.write_out(str(folder), verbose=False)


def export_shared_input(folder):
    """Signatures `regress` and `classify` as in `export_examples`, of one and the same input, as TensorFlow 1 made them."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        inputs = v1.placeholder("string", [None], name="inputs")
        price = tf.io.parse_example(inputs, {"price": tf.io.FixedLenFeature([], tf.float32)})["price"]
        classes = {"classes": tf.tile([["no", "yes"]], [tf.size(inputs), 1]), "scores": tf.stack([-price, price], axis=1)}
        signatures = {
            name: v1.saved_model.signature_def_utils.predict_signature_def({"inputs": inputs}, outputs)
            for name, outputs in (("regress", {"outputs": price}), ("classify", classes))
        }
        builder = v1.saved_model.Builder(str(folder))
        builder.add_meta_graph_and_variables(session, ["serve"], signature_def_map=signatures)
        builder.save()


def probabilities(users, prices, weight=0.5):
    """What `serving_default` must answer, from its formula, in float64."""
    positions = [KNOWN.index(user) if user in KNOWN else -1 for user in users]
    return 1 / (1 + np.exp(-(weight * np.nan_to_num(prices) + positions)))


def texts(*values):
    """An `object` array of `bytes`."""
    array = np.empty(len(values), object)
    array[:] = [value.encode() if isinstance(value, str) else value for value in values]
    return array


@pytest.fixture(scope="module")
def saved(tiny_schema, tmp_path_factory):
    """A small model's `.keras` file."""
    path = tmp_path_factory.mktemp("saved") / "model.keras"
    tfctr.models.LR(tiny_schema).save(path)
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return export_scorers(tmp_path_factory.mktemp("models"))


@pytest.fixture
def base(models, tmp_path):
    """A base path named `frappe` with version 1."""
    base = tmp_path / "frappe"
    put(base, models / "light")
    return base
