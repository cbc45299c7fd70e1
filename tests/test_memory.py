"""What is done again and again holds no more memory than after its first times."""

import json
import os
import subprocess
import sys

import pytest
from kit.places import TESTS

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]

TABLE = """
import json, sys
import numpy as np
from kit.memory_of import resident
import tfctr

folder, held = sys.argv[1], []
draw = np.random.default_rng(0)
table = {"user": draw.integers(0, 50, 512), "item": draw.integers(0, 50, 512), "click": draw.integers(0, 2, 512)}
schema = tfctr.Schema([tfctr.Categorical("user"), tfctr.Categorical("item")], label="click")
dataset = tfctr.prepare(schema, train=table, valid=table, out=f"{folder}/data")
"""
EPOCHS = """
from tfctr.config import Config
from tfctr.training import train
from tfctr.training.recorder import RunRecorder

def record(self, *arguments, record=RunRecorder.on_epoch_end, **options):
    record(self, *arguments, **options)
    held.append(resident())

RunRecorder.on_epoch_end = record
training = {"batch_size": 64, "epochs": 100, "patience": 100, "learning_rate": 1e-4}
config = Config.from_dict({"model": {"name": "DNN", "hidden_units": [16]}, "training": training})
run = train(config, dataset, f"{folder}/run")
print(json.dumps({"held": held, "epochs": run.metrics["epochs"]}))
"""
PREDICT = """
from tfctr.models import DNN

traces = []

class Traced(DNN):
    def predict_step(self, data):
        traces.append(1)
        return super().predict_step(data)

model = Traced(dataset.schema, embedding_dim=4, hidden_units=[16])
model.compile()
for call in range(300):
    model.predict(dataset.train.ids[: 1 + call % 40], batch_size=32, verbose=0)
    held.append(resident())
print(json.dumps({"held": held, "traces": len(traces)}))
"""
SERVE = """
from tfctr.serving import LocalServer, PredictionClient, export

export(tfctr.models.DNN(dataset.schema, embedding_dim=4, hidden_units=[16]), f"{folder}/served")
with LocalServer(f"{folder}/served") as server:
    client = PredictionClient(server.target, model=server.name, timeout=60)
    for call in range(3000):
        rows = 1 + call % 40
        probabilities = client.predict({"user": ["7"] * rows, "item": [str(call % 60)] * rows})
        assert len(probabilities) == rows
        held.append(resident())
print(json.dumps({"held": held}))
"""


def measured(folder, work):
    """What a process of its own finds: tests before it do not matter."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}
    command = [sys.executable, "-c", TABLE + work, folder]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def test_a_hundred_epochs(tmp_path):
    found = measured(tmp_path, EPOCHS)
    assert found["epochs"] == len(found["held"]) == 100
    assert found["held"][-1] - found["held"][4] <= 20  # MiB


def test_three_hundred_predictions_of_a_model(tmp_path):
    found = measured(tmp_path, PREDICT)
    assert found["traces"] <= 2
    assert found["held"][-1] - found["held"][99] <= 5


def test_three_thousand_requests_to_a_server(tmp_path):
    held = measured(tmp_path, SERVE)["held"]
    assert held[-1] - held[299] <= 10
