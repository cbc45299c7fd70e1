import numpy as np
import pytest
from kit.encoder_contract import check_encoder
from kit.randomized import dense, draw, normalize, numbers, randomize, softmax

from tfctr.errors import ConfigError
from tfctr.layers import FieldTransformer

VIEW = draw(5, 3, 4)


def test_encoder_contract():
    check_encoder(FieldTransformer(num_layers=2, num_heads=2, hidden_dim=6), 12)


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


def test_against_a_loop_over_fields_and_heads():
    layer = FieldTransformer(num_layers=2, num_heads=2, hidden_dim=6)
    layer.build(VIEW.shape)
    randomize(layer)
    expected = []
    for x in VIEW.astype("float64"):
        for number, (attention, network) in enumerate(zip(layer.attentions, layer.networks, strict=True)):
            x = normalize(x + attend(attention, x), layer.norms[2 * number])
            hidden = np.maximum(dense(network.layers[0], x), 0)
            x = normalize(x + dense(network.layers[2], hidden), layer.norms[2 * number + 1])
        expected.append(x.ravel())
    np.testing.assert_allclose(layer(VIEW), expected, rtol=1e-5, atol=1e-5)


def test_rows_do_not_see_each_other():
    """The first code of CL4CTR's authors attends over the batch, since its layer takes the first axis for the sequence."""
    layer = FieldTransformer(num_layers=1)
    together = numbers(layer(VIEW))
    np.testing.assert_allclose(layer(VIEW[:1]), together[:1], rtol=1e-5, atol=1e-6)


def test_dropout_is_for_training_only():
    layer = FieldTransformer(num_layers=1, dropout=0.5)
    np.testing.assert_array_equal(layer(VIEW), layer(VIEW))
    assert (numbers(layer(VIEW, training=True)) != numbers(layer(VIEW))).any()


@pytest.mark.parametrize("arguments", [{"num_layers": 0}, {"hidden_dim": 0}, {"num_heads": 0}])
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(ConfigError, match="use at least 1"):
        FieldTransformer(**arguments)


def test_heads_must_divide_the_fields():
    with pytest.raises(ConfigError, match="3 heads do not divide 4"):
        FieldTransformer(num_heads=3)(VIEW)
