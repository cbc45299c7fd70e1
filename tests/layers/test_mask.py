import numpy as np
import pytest
from kit.encoder_contract import check_encoder
from kit.randomized import dense, draw, normalize, randomize

from tfctr.errors import ConfigError
from tfctr.layers import MaskBlocks

VIEW = draw(5, 4, 3)


@pytest.mark.parametrize("field_norms", [False, True])
@pytest.mark.parametrize(("arrangement", "units"), [("serial", 5), ("parallel", 13)])
def test_encoder_contract(arrangement, units, field_norms):
    check_encoder(MaskBlocks((8, 5), arrangement, dropout=0.5, field_norms=field_norms), units)


def mask_block(block, instance, hidden):
    mask = dense(block.project, np.maximum(dense(block.aggregate, instance), 0))
    return np.maximum(normalize(dense(block.feed_forward, mask * hidden), block.norm), 0)


def normalize_fields(view, norm):
    """Each field by itself; its gain and bias are those of all fields, or row `i` of a matrix."""
    normal = (view - view.mean(-1, keepdims=True)) / np.sqrt(view.var(-1, keepdims=True) + 1e-5)
    gain, bias = (weight.astype("float64") for weight in norm.get_weights())
    return np.stack(
        [normal[:, i] * (gain[i] if gain.ndim > 1 else gain) + (bias[i] if bias.ndim > 1 else bias) for i in range(4)], axis=1
    )


@pytest.mark.parametrize("field_norms", [False, True])
@pytest.mark.parametrize("arrangement", ["serial", "parallel"])
def test_against_numpy(arrangement, field_norms):
    layer = MaskBlocks((6, 7), arrangement, field_norms=field_norms)
    layer.build(VIEW.shape)
    randomize(layer)
    instance = VIEW.reshape(5, 12).astype("float64")
    fields = normalize_fields(VIEW.astype("float64"), layer.norm).reshape(5, 12)
    first = mask_block(layer.blocks[0], instance, fields)
    second = mask_block(layer.blocks[1], instance, first if arrangement == "serial" else fields)
    expected = second if arrangement == "serial" else np.concatenate([first, second], axis=1)
    np.testing.assert_allclose(layer(VIEW), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("field_norms", "parameters"), [(False, 2 * 3), (True, 2 * 4 * 3)])
def test_parameters_of_the_norm_of_4_fields_of_3(field_norms, parameters):
    layer = MaskBlocks((6,), field_norms=field_norms)
    layer.build(VIEW.shape)
    assert layer.norm.count_params() == parameters


def test_the_mask_is_made_from_the_fields_as_they_are():
    """Twice the fields is the same to a normalization, not to the mask."""
    layer = MaskBlocks((6,))
    layer.build(VIEW.shape)
    block = randomize(layer).blocks[0]
    block.feed_forward.set_weights([np.eye(12, 6)])
    assert np.abs(layer(2 * VIEW) - layer(VIEW)).max() > 0.1


@pytest.mark.parametrize(("ratio", "widths"), [(2.0, [24, 16]), (0.5, [6, 4]), (0.01, [1, 1])])
def test_reduction_ratio_is_of_the_mask_and_not_of_the_instance(ratio, widths):
    layer = MaskBlocks((8, 5), reduction_ratio=ratio)
    layer.build(VIEW.shape)
    assert [block.aggregate.units for block in layer.blocks] == widths
    assert [block.project.units for block in layer.blocks] == [12, 8]


@pytest.mark.parametrize(
    "arguments", [{"hidden_units": ()}, {"hidden_units": (4, 0)}, {"hidden_units": (4,), "reduction_ratio": 0}]
)
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(ConfigError, match="`hidden_units` is"):
        MaskBlocks(**arguments)


def test_unknown_arrangement_gives_the_closest_name():
    with pytest.raises(ConfigError, match="Did you mean 'parallel'"):
        MaskBlocks((4,), "paralel")
