"""CL4CTR's three signals: alignment within a field, uniformity between fields, contrast of two views of a row."""

from keras import ops

from tfctr.losses.contrast import unit_vectors, widen
from tfctr.replicas import rows_of_all_replicas
from tfctr.types import Tensor


def squared_distance(left: Tensor, right: Tensor) -> Tensor:
    """The squared Euclidean distance of two representations of each row, CL4CTR's contrast: `|l - r|^2`.

    Shapes: `(batch, units), (batch, units) -> (batch, 1)`.

    >>> squared_distance([[1.0, 2.0]], [[4.0, 6.0]]).numpy()
    array([[25.]], dtype=float32)

    Reference: [CL4CTR](https://arxiv.org/abs/2212.00522), as in [CETN](https://arxiv.org/abs/2312.09715), eq. 21.
    """
    return ops.sum(ops.square(widen(left) - widen(right)), axis=-1, keepdims=True)


def feature_alignment(fields: Tensor) -> Tensor:
    """Features of the same field shall be close: the mean squared distance of all pairs of rows, field by field.

    The mean of `|e_i - e_j|^2` over pairs i < j is `2 / (n - 1) * sum_i |e_i - mean|^2`, so no pair is ever formed. As in the
    authors' faster form, the features are those of the batch.

    Shapes: `(batch, fields, dim) -> (batch, 1)`, row i's share; their mean is the loss. A batch of one row has no pair: 0.

    >>> feature_alignment([[[0.0, 0.0]], [[3.0, 4.0]]]).numpy()  # one pair, at a distance of 5
    array([[25.],
           [25.]], dtype=float32)

    Reference: [CL4CTR](https://arxiv.org/abs/2212.00522), feature alignment.
    """
    fields = widen(fields)
    everyone = rows_of_all_replicas(fields)
    distances = ops.sum(ops.square(fields - ops.mean(everyone, axis=0)), axis=-1)  # (batch, fields)
    rows = ops.cast(ops.shape(everyone)[0], fields.dtype)
    return 2.0 * rows / ops.maximum(rows - 1.0, 1.0) * ops.mean(distances, axis=-1, keepdims=True)


def field_uniformity(fields: Tensor) -> Tensor:
    """Features of different fields shall be far apart: the mean cosine of all pairs of a row's fields.

    The cosines of all pairs add up to `|sum_f u_f|^2`, with the unit vectors `u_f = e_f / |e_f|`, those of a field with itself
    to `sum_f |u_f|^2`, so no pair is ever formed. The authors' code is `released_uniformity`.

    Shapes: `(batch, fields, dim) -> (batch, 1)`. A single field has no pair: 0.

    >>> field_uniformity([[[2.0, 0.0], [0.0, 3.0], [4.0, 0.0]]]).numpy().round(4)  # one of three pairs is parallel
    array([[0.3333]], dtype=float32)

    Reference: [CL4CTR](https://arxiv.org/abs/2212.00522), field uniformity.
    """
    units = unit_vectors(fields)  # (batch, fields, dim)
    count = units.shape[1]
    with_itself = ops.sum(ops.square(units), axis=(1, 2))  # (batch,)
    with_all = ops.sum(ops.square(ops.sum(units, axis=1)), axis=-1)  # (batch,)
    return ((with_all - with_itself) / max(count * (count - 1), 1))[:, None]


def released_uniformity(fields: Tensor) -> Tensor:
    """`field_uniformity` as in its authors' faster form: the mean of `e_f . e_g / (|e_f| |e_g| + 1e-4)` of all f and g.

    The pairs of a field with itself are in the mean; and the guard takes the place of `|e_f| |e_g|` where embeddings are
    small, so that fresh ones of 1e-4 are hardly pushed apart, where `field_uniformity` does so from the first step.

    Shapes: `(batch, fields, dim) -> (batch, 1)`.

    >>> released_uniformity([[[2.0, 0.0], [0.0, 3.0]]]).numpy().round(4)  # 2 of 4 pairs, each with itself
    array([[0.5]], dtype=float32)

    Reference: the released code of [CL4CTR](https://arxiv.org/abs/2212.00522).
    """
    fields = widen(fields)
    products = ops.matmul(fields, ops.transpose(fields, (0, 2, 1)))  # (batch, fields, fields)
    squares = ops.maximum(ops.sum(ops.square(fields), axis=-1), 1e-24)  # of 0 the gradient of a root is infinite
    lengths = ops.sqrt(squares)  # (batch, fields)
    return ops.mean(products / (lengths[:, :, None] * lengths[:, None, :] + 1e-4), axis=(1, 2))[:, None]
