"""Which columns to suspect when a validation AUC is too good to be true: the answer may be among the features."""

import numpy as np

from tfctr.features import Numeric
from tfctr.metrics import auc

TOO_GOOD = 0.995
_SUSPECT = 0.95
_ROWS = 100_000  # of each split


def suspicion(valid_auc, dataset):
    """A sentence about a validation AUC above .995, else None: which features alone have .95, with rates learnt of train rows.

    >>> suspicion(0.8, None)
    """
    if valid_auc is None or not valid_auc > TOO_GOOD:
        return None
    alone = auc_alone(dataset)
    names = [f"{name} ({value:.3f})" for name, value in sorted(alone.items(), key=lambda item: -item[1]) if value >= _SUSPECT]
    which = f"suspect {', '.join(names)}, each with its AUC alone" if names else "no feature is it alone; look at pairs of them"
    return f"valid AUC {valid_auc:.4f} is too good to be true, unless the answer is among the features: {which}"


def auc_alone(dataset):
    """`{feature: AUC}` on valid rows: of the click rates of its ids among train rows; of `"scaled"` numbers in their order."""
    train, valid = ([part.numpy() for part in _rows(split)] for split in (dataset.train, dataset.valid))
    found = {}
    for field in dataset.schema.fields:
        score = _order if isinstance(field.feature, Numeric) and field.feature.transform == "scaled" else _rates
        value = auc(valid[1], score(field, train, valid[0][:, field.column]))
        found[field.feature.name] = max(value, 1 - value) if score is _order else value
    return found


def _rows(split):
    return next(iter(split.batches(min(_ROWS, split.rows), shuffle=True)))[:2]


def _order(field, train, bits):
    return np.nan_to_num(np.ascontiguousarray(bits).view(np.float32), nan=-np.inf)


def _rates(field, train, ids):
    """The click rate of each id, one row of the mean rate added."""
    seen, clicks = train[0][:, field.column] - field.offset, train[1].ravel()
    rows = np.bincount(seen, minlength=field.feature.size)
    rates = (np.bincount(seen, clicks, minlength=field.feature.size) + clicks.mean()) / (rows + 1)
    return rates[ids - field.offset]
