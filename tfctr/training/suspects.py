"""Which columns to suspect when a validation AUC is too good to be true: the answer may be among the features."""

from tfctr.data.alone import auc_alone
from tfctr.data.dataset import Dataset

TOO_GOOD = 0.995
_SUSPECT = 0.95


def suspicion(valid_auc: float | None, dataset: Dataset) -> str | None:
    """A sentence about a validation AUC above .995, else None: which features alone have .95 on training rows.

    >>> suspicion(0.8, None)
    """
    if valid_auc is None or not valid_auc > TOO_GOOD:
        return None
    alone = dataset.alone or auc_alone(dataset.schema, dataset.train) or {}
    names = [f"{name} ({value:.3f})" for name, value in sorted(alone.items(), key=lambda item: -item[1]) if value >= _SUSPECT]
    which = f"suspect {', '.join(names)}, each with its AUC alone" if names else "no feature is it alone; look at pairs of them"
    return f"valid AUC {valid_auc:.4f} is too good to be true, unless the answer is among the features: {which}"
