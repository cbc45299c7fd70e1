"""Logistic regression and LightGBM on `train.csv`, `valid.csv` and `test.csv` of a folder: their test figures, as JSON.

    python tabular.py FOLDER SEED

As a person who knows both would start: text is one-hot for the one and a categorical feature for the other, numbers are
standardized for the one. The valid rows choose the strength of L2, and when boosting stops.
"""

import importlib.util
import json
import sys
import warnings
from pathlib import Path

import pandas
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

warnings.simplefilter("ignore")


def main(folder, seed):
    tables = {split: pandas.read_csv(folder / f"{split}.csv") for split in ("train", "valid", "test")}
    labels = {split: table.pop("click") for split, table in tables.items()}
    text = [name for name in tables["train"] if not pandas.api.types.is_numeric_dtype(tables["train"][name])]
    figures = {"logistic regression": logistic_regression(tables, labels, text)}
    if importlib.util.find_spec("lightgbm"):
        figures["LightGBM"] = boosted_trees(tables, labels, text, seed)
    print(json.dumps({name: scores(labels["test"], found) for name, found in figures.items()}))


def logistic_regression(tables, labels, text):
    """Its test probabilities, with the strength of L2 that is best on the valid rows."""
    numbers = [name for name in tables["train"] if name not in text]
    encode = make_column_transformer(
        (make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler()), numbers),
        (OneHotEncoder(handle_unknown="ignore"), text),
    )
    encoded = {"train": encode.fit_transform(tables["train"])}
    encoded |= {split: encode.transform(tables[split]) for split in ("valid", "test")}
    models = [LogisticRegression(C=c, max_iter=500).fit(encoded["train"], labels["train"]) for c in (0.01, 0.1, 1.0)]
    best = min(models, key=lambda model: log_loss(labels["valid"], model.predict_proba(encoded["valid"])[:, 1]))
    return best.predict_proba(encoded["test"])[:, 1]


def boosted_trees(tables, labels, text, seed):
    """Its test probabilities, with as many trees as are best on the valid rows."""
    import lightgbm

    known = {name: sorted(tables["train"][name].dropna().unique()) for name in text}
    tables = {
        split: table.assign(
            **{name: pandas.Categorical(table[name].where(table[name].isin(known[name])), known[name]) for name in text}
        )
        for split, table in tables.items()
    }
    model = lightgbm.LGBMClassifier(n_estimators=2_000, learning_rate=0.05, random_state=seed, verbose=-1)
    model.fit(
        tables["train"],
        labels["train"],
        eval_set=[(tables["valid"], labels["valid"])],
        eval_metric="binary_logloss",
        callbacks=[lightgbm.early_stopping(50, verbose=False)],
    )
    return model.predict_proba(tables["test"])[:, 1]


def scores(labels, probabilities):
    return {
        "auc": roc_auc_score(labels, probabilities),
        "log_loss": log_loss(labels, probabilities),
        "pcoc": probabilities.mean() / labels.mean(),
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
