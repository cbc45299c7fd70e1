"""How near to the best possible AUC models come where only a history and its target together say something.

    python benchmarks/histories.py [--models DNN DIN BST TF4CTR TF4CTR-attended] [--rows 66000] [--epochs 8]
        [--seeds 1 2 3 4 5] [--json FILE]

The clicks are those of `tfctr.data.synthetic.synthetic_histories`, a tenth of the rows for validation and a tenth for the test.
DNN and TF4CTR read the mean of a history, TF4CTR-attended in its simple encoder alone. All have MLPs of the same widths and one
learning rate; the epoch with the best AUC on valid is tested. `best` is the AUC of the true probabilities on the same rows.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
from kit import results

import tfctr
from tfctr.data.synthetic import best_possible, synthetic_histories, synthetic_histories_schema

UNITS = [200, 80]
_ENCODER = {"type": "MLP", "hidden_units": UNITS}
_TWIN = {"simple_encoder": _ENCODER, "complex_encoder": _ENCODER}
MODELS = {
    "DNN": ("DNN", {"hidden_units": UNITS}),
    "DIN": ("DIN", {"hidden_units": UNITS}),
    "BST": ("BST", {"hidden_units": UNITS}),
    "TF4CTR": ("TF4CTR", _TWIN),
    "TF4CTR-attended": ("TF4CTR", {"selection": "attended", **_TWIN}),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--rows", type=int, default=66_000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--embedding-dim", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=0.004)
    results.add_option(parser)
    arguments = parser.parse_args()
    table = synthetic_histories(arguments.rows)
    valid, test = arguments.rows * 8 // 10, arguments.rows * 9 // 10
    best = best_possible(table[test:])["auc"]
    print(f"best {best:.4f}\n{'model':<16}{'AUC':>8}{'sd':>8}{'below best':>12}{'seconds':>9}")
    figures = {"best": best}
    with tempfile.TemporaryDirectory() as folder:
        parts = {"train": table[:valid], "valid": table[valid:test], "test": table[test:]}
        dataset = tfctr.prepare(synthetic_histories_schema(), **parts, out=Path(folder) / "data")
        for name in arguments.models:
            runs = figures[name] = [measure(name, dataset, seed, arguments) for seed in arguments.seeds]
            auc, seconds = ([run[key] for run in runs] for key in ("auc", "seconds"))
            spread = statistics.stdev(auc) if len(auc) > 1 else float("nan")
            mean = statistics.mean(auc)
            print(f"{name:<16}{mean:>8.4f}{spread:>8.4f}{best - mean:>12.4f}{statistics.mean(seconds):>9.1f}", flush=True)
    results.keep(figures, arguments)


def measure(name, dataset, seed, arguments):
    """The test AUC of one training."""
    start = time.perf_counter()
    keras.utils.set_random_seed(seed)
    kind, options = MODELS[name]
    model = tfctr.models.build(kind, dataset.schema, embedding_dim=arguments.embedding_dim, **options)
    model.compile(keras.optimizers.Adam(arguments.learning_rate))
    restore = keras.callbacks.EarlyStopping("val_auc", mode="max", patience=arguments.epochs, restore_best_weights=True)
    valid = dataset.valid.batches(5_000, shuffle=False)
    model.fit(
        dataset.train.batches(500, seed=seed),
        validation_data=valid,
        epochs=arguments.epochs,
        callbacks=[restore],
        verbose=0,
    )
    scores = model.evaluate(dataset.test.batches(5_000, shuffle=False), return_dict=True, verbose=0)
    return {"seed": seed, "auc": scores["auc"], "seconds": time.perf_counter() - start}


if __name__ == "__main__":
    main()
