import numpy as np
import pytest
from kit.encoder_contract import round_trip
from kit.randomized import dense, draw, numbers, randomize

from tfctr.errors import ConfigError
from tfctr.layers import BilinearFusion

SIMPLE, COMPLEX = draw(5, 6), draw(5, 4, seed=1)


def test_by_hand():
    layer = BilinearFusion()
    layer.build([(None, 2), (None, 2)])
    head = [np.array([[1.0], [0.0]]), np.array([0.5])]
    for part in layer.heads:
        part.set_weights(head)
    layer.products.assign([[[0.0, 1.0], [2.0, 0.0]]])
    # s = [3, 5], c = [7, 11]: heads 3.5 and 7.5, products 3 * 11 + 2 * 5 * 7
    logits = layer([np.array([[3.0, 5.0]]), np.array([[7.0, 11.0]])])
    np.testing.assert_allclose(logits["simple"], [[3.5]])
    np.testing.assert_allclose(logits["complex"], [[7.5]])
    np.testing.assert_allclose(logits["logit"], [[3.5 + 7.5 + 33 + 70]])


@pytest.mark.parametrize("num_heads", [1, 2])
def test_against_a_loop_over_heads_and_units(num_heads):
    layer = BilinearFusion(num_heads)
    layer.build([SIMPLE.shape, COMPLEX.shape])
    randomize(layer)
    expected = dense(layer.heads[0], SIMPLE) + dense(layer.heads[1], COMPLEX)
    for head, weights in enumerate(numbers(layer.products)):
        rows, columns = weights.shape
        for i in range(rows):
            for j in range(columns):
                product = SIMPLE[:, head * rows + i] * COMPLEX[:, head * columns + j]
                expected[:, 0] += weights[i, j] * product
    np.testing.assert_allclose(layer([SIMPLE, COMPLEX])["logit"], expected, rtol=1e-5, atol=1e-5)


def test_heads_divide_the_parameters():
    def count(num_heads):
        layer = BilinearFusion(num_heads)
        layer.build([(None, 40), (None, 20)])
        return int(np.prod(layer.products.shape))

    assert (count(1), count(10)) == (800, 80)


def test_heads_must_divide_both():
    with pytest.raises(ConfigError, match="3 heads do not divide"):
        BilinearFusion(num_heads=3)([SIMPLE, COMPLEX])


def test_config_round_trip():
    assert round_trip(BilinearFusion(num_heads=2)).num_heads == 2
