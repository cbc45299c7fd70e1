"""Configurations in FuxiCTR's form, written for the tests, and tables that fit them."""

import numpy as np
import pandas as pd
import yaml

from tfctr.fuxictr import read

COLUMNS = [
    {"name": ["shop", "device"], "active": True, "dtype": "str", "type": "categorical"},
    {"name": "price", "active": True, "dtype": "float", "type": "numeric", "normalizer": "StandardScaler"},
    {"name": "seen", "active": True, "dtype": "str", "type": "sequence", "splitter": ",", "max_len": 3, "padding": "pre"},
    {"name": "buyer", "active": True, "dtype": "str", "type": "meta"},
]
DATASET = {
    "data_format": "csv",
    "min_categr_count": 2,
    "feature_cols": COLUMNS,
    "label_col": {"name": "bought", "dtype": "float"},
    "group_id": "buyer",
}
EXPERIMENT = {
    "model": "DeepFM",
    "dataset_id": "shop",
    "loss": "binary_crossentropy",
    "optimizer": "adam",
    "hidden_units": [8, 4],
    "embedding_dim": 4,
    "batch_size": 64,
    "epochs": 1,
    "seed": 3,
}


def write(folder, dataset=DATASET, experiment=EXPERIMENT):
    """The two files."""
    paths = folder / "dataset_config.yaml", folder / "model_config.yaml"
    for path, entry in zip(paths, ({"shop": dataset}, {"try": experiment}), strict=True):
        path.write_text(yaml.safe_dump(entry), encoding="utf-8")
    return paths


def imported(folder, dataset=None, experiment=None, force=False):
    """What is made of the files above after these changes; a key that is to be gone is None."""
    return read(*write(folder, DATASET | (dataset or {}), EXPERIMENT | (experiment or {})), force=force)


def texts(imported):
    return [str(note) for note in imported.notes]


def table(rows, seed):
    rng = np.random.default_rng(seed)
    shop = rng.integers(0, 6, rows)
    return pd.DataFrame(
        {
            "shop": shop,
            "device": rng.choice(["phone", "tablet", None], rows),
            "price": rng.normal(20, 5, rows),
            "seen": [",".join(map(str, rng.integers(0, 9, size))) for size in rng.integers(0, 6, rows)],
            "buyer": rng.integers(0, 30, rows),
            "bought": (rng.random(rows) < 0.1 + 0.8 * (shop % 2)).astype(int),
        }
    )
