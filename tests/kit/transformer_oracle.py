"""The transformer encoder by loops over fields and heads, in NumPy."""

import numpy as np

from kit.randomized import dense, normalize, numbers, softmax


def transformed(layer, x):
    """What a `FieldTransformer` makes of one row's fields `(fields, dim)`, before it makes them flat."""
    for number, (attention, network) in enumerate(zip(layer.attentions, layer.networks, strict=True)):
        x = normalize(x + attend(attention, x), layer.norms[2 * number])
        hidden = np.maximum(dense(network.layers[0], x), 0)
        x = normalize(x + dense(network.layers[2], hidden), layer.norms[2 * number + 1])
    return x


def attend(attention, x):
    """Multi-head attention of one row's fields, field by field."""
    query, key, value, output = (
        (numbers(part.kernel), numbers(part.bias))
        for part in (attention._query_dense, attention._key_dense, attention._value_dense, attention._output_dense)
    )
    rows = []
    for field in x:
        mixed = []
        for head in range(attention.num_heads):
            asked = field @ query[0][:, head] + query[1][head]
            keys = [other @ key[0][:, head] + key[1][head] for other in x]
            weights = softmax(np.array([asked @ k for k in keys]) / np.sqrt(attention.key_dim))
            mixed.append(sum(w * (other @ value[0][:, head] + value[1][head]) for w, other in zip(weights, x, strict=True)))
        rows.append(sum(part @ output[0][head] for head, part in enumerate(mixed)) + output[1])
    return np.array(rows)
