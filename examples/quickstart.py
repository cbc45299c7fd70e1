"""From a raw table to a served probability in twelve lines, on a synthetic table whose best possible AUC is known.

python examples/quickstart.py
"""

import tempfile
from pathlib import Path

import tfctr
from tfctr.data.synthetic import best_possible, synthetic, synthetic_schema
from tfctr.serving import LocalServer

folder = Path(tempfile.mkdtemp())
table = synthetic(rows=20_000)
train, valid, test = table.slice(0, 16_000), table.slice(16_000, 2_000), table.slice(18_000)

dataset = tfctr.prepare(synthetic_schema(), train=train, valid=valid, test=test, out=folder / "data")
model = tfctr.models.TF4CTR(dataset.schema, embedding_dim=8)
model.compile(optimizer="adam")
batches, callbacks = dataset.train.batches(500), tfctr.training.paper_callbacks()
model.fit(batches, validation_data=dataset.valid.batches(2_000), epochs=12, callbacks=callbacks, verbose=2)
print(tfctr.evaluation.evaluate(model, dataset.test))
print("best possible:", best_possible(test))

rows = test.select([feature.name for feature in dataset.schema.features]).slice(0, 5).to_pylist()
tfctr.serving.export(model, folder / "clicks")
with LocalServer(folder / "clicks", port=0) as server, tfctr.serving.PredictionClient(server.target, model="clicks") as client:
    print("served: ", client.predict(rows))
print("offline:", model.predict(dataset.test.ids[:5], verbose=0)[:, 0])
