"""FuxiCTR's configurations as tfctr's: a schema and a run, and a note of each key that is not the same here.

Written for FuxiCTR 2.3 (`dataset_config` and `model_config` in YAML, as its model zoo has them). Nothing of FuxiCTR is needed,
and no text of a file is run as code.
"""

from tfctr.fuxictr.imported import Imported, read
from tfctr.fuxictr.models import MODELS
from tfctr.fuxictr.notes import Note

__all__ = ["MODELS", "Imported", "Note", "read"]
