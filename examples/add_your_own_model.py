"""A model from outside the package: an encoder, a registered model, then training, export and a served answer as for any other.

python examples/add_your_own_model.py
"""

import tempfile
from pathlib import Path
from typing import Unpack

import keras
from keras import ops

import tfctr
from tfctr.data.synthetic import synthetic, synthetic_schema
from tfctr.layers import MLP, FeatureEmbedding, linear
from tfctr.models import CTRModel, ModelOptions, ids_input, register
from tfctr.serving import LocalServer


@keras.saving.register_keras_serializable("mine")
class WeightedPairs(keras.layers.Layer):
    """The inner product of each pair of fields, times a learned weight (FwFM).

    `sum_{i<j} r_ij <e_i, e_j>`. Shapes: `(batch, fields, dim) -> (batch, 1)`.

    Reference: [Pan et al., 2018](https://arxiv.org/abs/1806.03514), eq. 5.
    """

    def build(self, input_shape):
        fields = input_shape[1]
        self.weights_of_pairs = self.add_weight(name="pairs", shape=(fields, fields), initializer="glorot_normal")

    def call(self, fields):
        weights = ops.triu(self.weights_of_pairs, k=1)
        mixed = ops.einsum("ij,bjd->bid", weights, fields)  # (batch, fields, dim)
        return ops.sum(fields * mixed, axis=(1, 2))[:, None]  # (batch, 1)


@register
class FwFM(CTRModel):
    """A factorization machine whose pairs of fields have weights, beside an MLP.

    `logit = sum_{i<j} r_ij <e_i, e_j> + w . MLP(fields) + b`
    """

    def __init__(self, schema, embedding_dim=8, hidden_units=(64, 32), **options: Unpack[ModelOptions]):
        ids = ids_input(schema)  # (batch, columns)
        embedding = FeatureEmbedding(schema, embedding_dim)
        fields = embedding(ids)  # (batch, fields, dim)
        logit = WeightedPairs()(fields) + linear(1)(MLP(hidden_units)(fields))  # (batch, 1)
        super().__init__(schema, ids, {"logit": logit}, [embedding], **options)


folder = Path(tempfile.mkdtemp())
table = synthetic(rows=20_000)
train, valid, test = table.slice(0, 16_000), table.slice(16_000, 2_000), table.slice(18_000)
dataset = tfctr.prepare(synthetic_schema(), train=train, valid=valid, test=test, out=folder / "data")

# By name, as a configuration file does it; the encoder also goes inside TF4CTR.
models = {
    "FwFM": tfctr.models.build("FwFM", dataset.schema, embedding_dim=8),
    "TF4CTR around it": tfctr.models.TF4CTR(dataset.schema, 8, simple_encoder=WeightedPairs(), complex_encoder=MLP([64, 32])),
}
rows = test.select([feature.name for feature in dataset.schema.features]).slice(0, 3).to_pylist()
for name, model in models.items():
    model.compile(optimizer="adam")
    model.fit(dataset.train.batches(500), validation_data=dataset.valid.batches(2_000), epochs=12, verbose=0)
    print(name, tfctr.evaluation.evaluate(model, dataset.test))
    model.save(folder / "model.keras")
    tfctr.serving.export(tfctr.load_model(folder / "model.keras"), folder / "mine")
    with LocalServer(folder / "mine", port=0) as server, tfctr.serving.PredictionClient(server.target, model="mine") as client:
        print("served: ", client.predict(rows))
        print("offline:", model.predict(dataset.test.ids[:3], verbose=0)[:, 0])
