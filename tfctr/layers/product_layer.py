"""The fields beside the inner products of their pairs."""

import keras
from keras import ops

from tfctr.layers.interactions import require_pairs
from tfctr.layers.views import ViewLayer
from tfctr.types import Shape, Tensor


@keras.saving.register_keras_serializable("tfctr")
class ProductLayer(ViewLayer):
    """The fields, and the inner product of every pair of fields (IPNN's product layer).

    `[e_1, ..., e_n, <e_1, e_2>, <e_1, e_3>, ..., <e_{n-1}, e_n>]`; the linear maps that the paper's layer has behind are the
    first layer of an `MLP` over this.

    Shapes:
        `(batch, fields, dim) -> (batch, fields * dim + fields * (fields - 1) / 2)`

    Raises:
        ConfigError: fewer than two fields.

    >>> ProductLayer()(ops.convert_to_tensor([[[1.0, 2.0], [3.0, 4.0]]])).numpy().tolist()  # 1 * 3 + 2 * 4
    [[1.0, 2.0, 3.0, 4.0, 11.0]]

    Reference: [Qu et al., 2016](https://arxiv.org/abs/1611.00144), section III-B.
    """

    def build(self, input_shape: Shape) -> None:
        require_pairs(self.view_shape(input_shape))
        self.flatten = keras.layers.Flatten(dtype=self.dtype_policy)

    def call(self, fields: Tensor) -> Tensor:
        products = ops.matmul(fields, ops.transpose(fields, (0, 2, 1)))  # (batch, fields, fields)
        rows = ops.unstack(products, axis=1)  # (batch, fields) each
        return ops.concatenate([self.flatten(fields), *(row[:, i + 1 :] for i, row in enumerate(rows[:-1]))], axis=-1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, fields, dim = self.view_shape(input_shape)
        return batch, fields * dim + fields * (fields - 1) // 2
