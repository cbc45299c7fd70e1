"""How deep may a network be? Plain MLPs of 3, 20 and 32 layers, and one of 32 beside, or behind, a shallow one.

    python examples/depth_study.py [--data runs/ml1m/data] [--epochs 3] [--units 400] [--embedding-l2 0.01]

Without `--data` it learns from made clicks. On sparse data a plain deep network can collapse to an AUC of 0.5; a through
connection keeps it alive, and so does a residual one.

Reference: [CETN](https://arxiv.org/abs/2312.09715), section 4.7, figures 12 and 13.
"""

import argparse
import tempfile
from pathlib import Path

import keras

import tfctr
from tfctr.data.synthetic import synthetic_schema, write_synthetic
from tfctr.layers import MLP, FeatureEmbedding, ThroughNetwork, linear
from tfctr.models import CTRModel, ids_input, register


@register
class OneEncoder(CTRModel):
    """`logit = w . encoder(fields) + b`"""

    def __init__(self, schema, encoder, embedding_dim=16, embedding_l2=0.0, l2_scope="table", name=None):
        ids = ids_input(schema)  # (batch, columns)
        embedding = FeatureEmbedding(schema, embedding_dim)
        logit = linear(1, dtype="float32")(encoder(embedding(ids)))  # (batch, 1)
        super().__init__(schema, ids, {"logit": logit}, [embedding], embedding_l2=embedding_l2, l2_scope=l2_scope, name=name)


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", help="a folder that `tfctr prepare` wrote")
parser.add_argument("--epochs", type=int, default=5)
parser.add_argument("--units", type=int, default=64, help="width of each layer")
parser.add_argument("--embedding-l2", type=float, default=0.01)
arguments = parser.parse_args()

if arguments.data:
    dataset = tfctr.Dataset.load(arguments.data)
else:
    folder = Path(tempfile.mkdtemp())
    dataset = tfctr.prepare(synthetic_schema(), **write_synthetic(folder, rows=20_000), out=folder / "data")

shallow, deep = [arguments.units] * 3, [arguments.units] * 32
encoders = {
    "3 layers": MLP(shallow),
    "20 layers": MLP(deep[:20]),
    "32 layers": MLP(deep),
    "32 layers, through connection": ThroughNetwork(deep, shallow),
    "32 layers, residual connection": ThroughNetwork(deep, shallow, residual=True),
}
for name, encoder in encoders.items():
    keras.utils.set_random_seed(1)
    model = OneEncoder(dataset.schema, encoder, embedding_l2=arguments.embedding_l2)
    model.compile(optimizer="adam")
    model.fit(dataset.train.batches(min(10_000, dataset.train.rows // 50)), epochs=arguments.epochs, verbose=0)
    scores = model.evaluate(dataset.valid.batches(10_000), return_dict=True)
    print(f"{name:<32}AUC {scores['auc']:.5f}  log loss {scores['log_loss']:.5f}", flush=True)
