"""What is released for a test, and how versions are looked at."""

import numpy as np

import tfctr
from tfctr.serving.exporting.golden import read_golden
from tfctr.serving.runtime.saved_model import SavedModel
from tfctr.storage import sha256

GOOD = {"valid_auc": 0.8, "valid_log_loss": 0.4}


def model(schema, seed=0, bias=0.0):
    """A model that tells rows apart; `bias` moves all of its scores."""
    model = tfctr.models.LR(schema)
    rng = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(size=variable.shape, scale=0.5) + (bias if variable.name == "bias" else 0))
    return model


def tree(folder):
    """Every file under a folder, with its content; hidden folders that are empty count as none."""
    return {str(path.relative_to(folder)): sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def replay(version):
    served = SavedModel(version)
    for batch in read_golden(version / "assets.extra" / "golden.json"):
        answers = served.run(batch["signature"], batch["inputs"])
        for name, golden in batch["outputs"].items():
            np.testing.assert_array_equal(answers[name], golden)
