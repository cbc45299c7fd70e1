import numpy as np
import pytest
from kit.encoder_contract import check_encoder
from kit.randomized import draw, numbers, randomize
from kit.transformer_oracle import transformed

from tfctr.errors import ConfigError
from tfctr.layers import FieldTransformer

VIEW = draw(5, 3, 4)


def test_encoder_contract():
    check_encoder(FieldTransformer(num_layers=2, num_heads=2, hidden_dim=6), 12)


def test_against_a_loop_over_fields_and_heads():
    layer = FieldTransformer(num_layers=2, num_heads=2, hidden_dim=6)
    layer.build(VIEW.shape)
    randomize(layer)
    expected = [transformed(layer, x).ravel() for x in VIEW.astype("float64")]
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
