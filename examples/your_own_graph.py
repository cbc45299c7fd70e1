"""A graph of plain Keras with two heads and a layer that adds a loss: trained, wrapped in one line, saved, exported and served.

python examples/your_own_graph.py
"""

import tempfile
from pathlib import Path

import keras
import numpy as np
from keras import ops

import tfctr
from tfctr.data.synthetic import synthetic, synthetic_schema
from tfctr.layers import MLP, FeatureEmbedding
from tfctr.models import CTRModel, ids_input
from tfctr.serving import LocalServer


@keras.saving.register_keras_serializable("mine")
class Small(keras.layers.Layer):
    """Passes its input through, and adds `weight * mean square` to the loss: so does any auxiliary loss without labels."""

    def __init__(self, weight=0.01, **kwargs):
        super().__init__(**kwargs)
        self.weight = weight

    def call(self, values):
        self.add_loss(self.weight * ops.mean(ops.square(values)))
        return values  # use it: a layer whose output nobody reads leaves the graph


def graph(schema):
    """A plain `keras.Model` from ids to the logits of the heads `click` and `shallow`."""
    ids = ids_input(schema)  # (batch, columns)
    fields = FeatureEmbedding(schema, 8)(ids)  # (batch, fields, dim)
    flat = keras.layers.Flatten()(fields)  # (batch, fields * dim)
    deep = Small()(MLP([32, 16])(fields))  # (batch, 16)
    return keras.Model(ids, {"click": keras.layers.Dense(1)(deep), "shallow": keras.layers.Dense(1)(flat)})


folder = Path(tempfile.mkdtemp())
table = synthetic(rows=6_000)
train, test = table.slice(0, 5_000), table.slice(5_000)
dataset = tfctr.prepare(synthetic_schema(), train=train, test=test, out=folder / "data")
schema = dataset.schema
ids, labels = dataset.train.ids[:], dataset.train.labels[:]

# Trained by plain Keras, each head by its own loss on logits; then wrapped: the head `click` is the prediction.
plain = graph(schema)
plain.compile("adam", loss=tfctr.losses.LogLoss())
plain.fit(ids, {"click": labels, "shallow": labels}, batch_size=200, epochs=3, verbose=0)
wrapped = CTRModel(schema, plain.input, {**plain.output, "logit": plain.output["click"]})

# Or trained by tfctr: the loss of the prediction, what layers add, and losses of several outputs, each logged by its name.
whole = graph(schema)
outputs = {"logit": whole.output["click"], "simple": whole.output["shallow"], "complex": whole.output["click"]}
trained = CTRModel(schema, whole.input, outputs, auxiliary={"twin_focus": tfctr.losses.TwinFocusLoss()})
trained.compile(metrics=["AUC"])
logs = trained.fit(dataset.train.batches(200), validation_data=dataset.test.batches(500), epochs=3, verbose=0).history
print({name: round(float(values[-1]), 4) for name, values in logs.items()})

rows = test.select([feature.name for feature in schema.features]).slice(0, 3).to_pylist()
for name, model in {"wrapped": wrapped, "trained": trained}.items():
    model.save(folder / f"{name}.keras")
    restored = tfctr.load_model(folder / f"{name}.keras")
    tfctr.serving.export(restored, folder / name)
    with LocalServer(folder / name, port=0) as server, tfctr.serving.PredictionClient(server.target, model=name) as client:
        served = client.predict(rows)
        heads = sorted(client.answer(rows, "explain").outputs)
    offline = model.predict(dataset.test.ids[:3], verbose=0)[:, 0]
    print(name, "served", served, "offline", offline, "explained by", heads)
    assert np.array_equal(served, offline)
