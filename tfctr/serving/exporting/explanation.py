"""Why a model answers as it does: its named logits, what its gates and its fusion weigh, and how hard the sample is."""

from typing import Any

import keras
import tensorflow as tf

from tfctr.errors import ExportError
from tfctr.models._base import CTRModel
from tfctr.types import Tensor

# Of the probability that the model gives to the true class: below the first misclassified, below the second poorly classified.
DIFFICULTY_THRESHOLDS = (0.3, 0.6)
DIFFICULTY_CLASSES = ("hard", "challenging", "easy")

_OURS = ("probability", "gate", "fusion_weights", "difficulty_if_click", "difficulty_if_no_click")


class Explanation:
    """From ids to all that explains a model's prediction.

    | output | shape | |
    |---|---|---|
    | the name of each logit: `logit`, `simple`, `complex` | `(batch,)` | every output of the model that is `(batch, 1)` |
    | `gate` | `(batch, 1)`, `(batch, 2, 2)` | in models with a selection that has a gate |
    | `fusion_weights` | `(batch, encoders)` | in models whose fusion weighs encoders, experts or semantic spaces |
    | `difficulty_if_click`, `difficulty_if_no_click` | `(batch,)` text | `difficulty` for each label that the sample may have |

    A layer says by its attribute `explains` which of the two it gives, and gives it by `weigh`: a selection (`"gate"`) of the
    fields of its first embedding, a fusion (`"fusion_weights"`) of its inputs. So does a layer of yours.

    Args:
        model: a `CTRModel`.

    Raises:
        ExportError: an output of the model has the name of one of the others.

    >>> from tfctr import Categorical, Schema, models
    >>> schema = Schema(features=[Categorical("user", size=5), Categorical("item", size=7)], label="click")
    >>> explained = Explanation(models.TF4CTR(schema, embedding_dim=4))(tf.constant([[3, 5 + 6]]))
    >>> sorted(explained)
    ['complex', 'difficulty_if_click', 'difficulty_if_no_click', 'fusion_weights', 'logit', 'simple']
    >>> explained["fusion_weights"].numpy().tolist()
    [[0.5, 0.5]]
    """

    def __init__(self, model: CTRModel) -> None:
        outputs: Any = model.output
        logits = {name: output for name, output in outputs.items() if tuple(output.shape) == (None, 1)}
        for name in logits:
            if name in _OURS:
                raise ExportError(
                    f"the model has an output {name!r}, which `explain` has too.", fix="rename the model's output"
                )
        self.gate = _layer_that_explains(model, "gate")
        self.fusion = _layer_that_explains(model, "fusion_weights")
        self.graph = keras.Model(model.input, {"logits": logits, "fused": [] if self.fusion is None else self.fusion.input})

    def __call__(self, ids: Tensor) -> dict[str, Tensor]:
        outputs = self.graph(ids, training=False)
        explained = {name: tf.cast(logit, tf.float32)[:, 0] for name, logit in outputs["logits"].items()}
        if self.gate is not None:
            explained["gate"] = tf.cast(self.gate.weigh(self.gate.embeddings[0](ids)), tf.float32)
        if self.fusion is not None:
            explained["fusion_weights"] = tf.cast(self.fusion.weigh(outputs["fused"]), tf.float32)
        click = tf.sigmoid(explained["logit"])
        return {**explained, "difficulty_if_click": difficulty(click), "difficulty_if_no_click": difficulty(1.0 - click)}


def difficulty(true_class: Tensor) -> Tensor:
    """TF4CTR's class of samples, from the probability that the model gives to a sample's label.

    Below 0.3 (misclassified) hard, below 0.6 (poorly classified) challenging, else (well-classified) easy; text for what is not
    a number is "".

    Shapes:
        `(batch,)` float32 `-> (batch,)` text

    >>> difficulty(tf.constant([0.1, 0.3, 0.6])).numpy().tolist()
    [b'hard', b'challenging', b'easy']

    Reference: [Li et al., 2024](https://arxiv.org/abs/2405.03167), sections 2.2 and 4.4.1.
    """
    reached = [tf.cast(true_class >= threshold, tf.int32) for threshold in DIFFICULTY_THRESHOLDS]
    classes = tf.gather(tf.constant(DIFFICULTY_CLASSES), sum(reached))
    return tf.where(tf.math.is_nan(true_class), "", classes)


def _layer_that_explains(model, what):
    return next((layer for layer in model.layers if getattr(layer, "explains", None) == what), None)
