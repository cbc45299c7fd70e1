"""What every public layer takes and gives: one error for all else, and shapes that are known before there are rows."""

import keras
import numpy as np
import pytest
from keras import ops
from kit.public_layers import (
    DIM,
    FIELDS,
    OF_ANY_SIZE,
    OF_IDS,
    OF_ONE_VIEW,
    OF_UNITS_TOO,
    PUBLIC,
    SCHEMA,
    make,
    of_shapes,
    rows_for,
    shapes_for,
)

from tfctr import layers
from tfctr.errors import ConfigError


def shapes(tree):
    return keras.tree.map_structure(lambda tensor: tuple(tensor.shape), tree)


def types(tree):
    return keras.tree.map_structure(lambda tensor: keras.backend.standardize_dtype(tensor.dtype), tree)


@pytest.mark.sampled(20)
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("name", PUBLIC)
def test_shapes_and_types_are_known_before_the_first_row(name, policy):
    options = {} if policy == "float32" else {"dtype": policy}
    given = make(name, **options)(*rows_for(name))
    for batch in (8, None):
        expected = keras.tree.map_structure(lambda tensor, batch=batch: (batch, *tensor.shape[1:]), given)
        assert make(name).compute_output_shape(*shapes_for(name, batch)) == expected  # not built yet
    dtype = "int32" if name in OF_IDS else "float32"
    inputs = of_shapes(lambda shape: keras.KerasTensor(shape, dtype), shapes_for(name, None))
    symbolic = make(name, **options)(*inputs)
    assert shapes(symbolic) == expected
    assert types(symbolic) == types(given)


@pytest.mark.parametrize("name", sorted({*OF_ONE_VIEW, "FeatureEmbedding"} - {"KeyValueBlock", "Regulation"}))  # of one output
def test_time_distributed_gives_each_step_its_rows(name):
    layer = make(name)
    rows = np.stack([rows_for(name)[0] + (step if name != "FeatureEmbedding" else 0) for step in range(2)], axis=1)
    distributed = keras.layers.TimeDistributed(layer)
    expected = np.stack([layer(rows[:, step]) for step in range(2)], axis=1)
    np.testing.assert_allclose(distributed(rows), expected, rtol=1e-5, atol=1e-6)
    assert distributed(keras.Input(rows.shape[1:], dtype=str(rows.dtype))).shape == (None, *expected.shape[1:])


@pytest.mark.parametrize("name", OF_ONE_VIEW)
class TestEveryLayerOverOneView:
    """Refused when called, when built by another layer, and when only asked for its shape."""

    def refuses(self, name, shape, match):
        message = f"^{name} '.+' takes .*{match}"
        for use in (lambda layer: layer(np.ones(shape, "float32")), lambda layer: layer(keras.KerasTensor((None, *shape[1:])))):
            with pytest.raises(ConfigError, match=message) as refused:
                use(make(name))
            assert refused.value.fix
        built = make(name)
        built(*rows_for(name))
        with pytest.raises(ConfigError, match=message):
            built(np.ones(shape, "float32"))
        if len(shape) > 1:  # else it is Keras that refuses
            with pytest.raises(ConfigError, match=message):
                keras.layers.TimeDistributed(make(name)).build((shape[0], 5, *shape[1:]))
        with pytest.raises(ConfigError, match=message):
            make(name).compute_output_shape(shape)

    @pytest.mark.sampled(8)
    def test_another_rank_is_refused(self, name):
        if name == "Perturbation":
            pytest.skip("takes any shape")
        ranks = {1, 2, 3, 4} - ({2} if name == "AttentiveScore" else {3}) - ({2} if name in OF_UNITS_TOO else set())
        for rank in ranks:
            self.refuses(name, (4, 6, 2, 2)[:rank], r"\(batch, .*Received the shape \((4|None),")

    def test_a_flat_view_is_taken_where_it_is_documented(self, name):
        if name in OF_UNITS_TOO:
            flat = make(name)(np.ones((4, 6), "float32"))
            assert {tensor.shape[0] for tensor in keras.tree.flatten(flat)} == {4}
            assert make(name).compute_output_shape((4, 6)) == keras.tree.map_structure(lambda tensor: tuple(tensor.shape), flat)

    def test_nothing_is_no_view(self, name):
        if name == "AttentiveScore":
            self.refuses(name, (4, 0), "without units")
        elif name != "Perturbation":
            self.refuses(name, (4, 0, 5), "without fields")
            self.refuses(name, (4, 3, 0), "without dim")

    def test_a_size_that_it_needs_must_be_known(self, name):
        needed = {"fields": (None, None, 4), "dim": (None, 3, None), "units": (None, None)}
        if name == "AttentiveScore":
            needed = {"units": (None, None)}
        elif name not in OF_UNITS_TOO:
            del needed["units"]
        for size, shape in needed.items():
            if size not in make(name).needs or name in OF_ANY_SIZE:
                make(name)(keras.KerasTensor(shape))
            else:
                with pytest.raises(ConfigError, match=f"^{name} '.+' takes .* must know `{size}`"):
                    make(name)(keras.KerasTensor(shape))

    @pytest.mark.parametrize("dtype", ["int32", "int64", "bool"])
    def test_ids_are_no_view(self, name, dtype):
        rows = np.ones(rows_for(name)[0].shape, dtype)
        for view in (rows, ops.convert_to_tensor(rows), keras.KerasTensor(rows.shape, dtype)):
            with pytest.raises(ConfigError, match=f"^{name} '.+' takes floats. Received a tensor of {dtype}"):
                make(name)(view)

    def test_no_rows_are_no_fault(self, name):
        empty = make(name)(np.ones((0, *rows_for(name)[0].shape[1:]), "float32"))
        assert {tensor.shape[0] for tensor in keras.tree.flatten(empty)} == {0}


@pytest.mark.parametrize("name", sorted(OF_IDS))
class TestEveryLayerOverIds:
    @pytest.mark.parametrize("shape", [(3,), (4, 2), (4, 4), (4, 3, 1)])
    def test_another_shape_is_refused(self, name, shape):
        for ids in (np.ones(shape, "int32"), keras.KerasTensor(shape, "int32")):
            with pytest.raises(ConfigError, match=f"^{name} '.+' takes"):
                make(name)(ids)

    def test_floats_are_no_ids(self, name):
        for ids in (np.full((4, 3), 3.9), keras.Input((3,))):
            with pytest.raises(ConfigError, match=r"takes ids of int32. Received a tensor of float(32|64)"):
                make(name)(ids)

    def test_all_whole_numbers_are_ids(self, name):
        layer, (ids,) = make(name), rows_for(name)
        expected = keras.tree.flatten(layer(ids))
        for dtype in ("int64", "uint8"):
            for view, other in zip(keras.tree.flatten(layer(ids.astype(dtype))), expected, strict=True):
                np.testing.assert_array_equal(view, other)


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_scaled_numbers_are_read_from_wider_ids(tiny_schema, tiny_ids, dtype):
    layer = layers.FeatureEmbedding(tiny_schema, 4)
    np.testing.assert_array_equal(layer(tiny_ids(5).astype(dtype)), layer(tiny_ids(5)))


def test_tables_of_contexts_are_no_views():
    gating = layers.FeatureGating(SCHEMA, DIM, simple_context=["a"], complex_context=["a", "b"])
    symbolic = gating(keras.KerasTensor((None, 3), "int32"))
    assert shapes(symbolic) == ((None, FIELDS, DIM), (None, FIELDS, DIM))
    assert shapes(gating(*rows_for("FeatureGating"))) == ((8, FIELDS, DIM), (8, FIELDS, DIM))


@pytest.mark.parametrize("name", sorted(layers.FUSIONS))
@pytest.mark.parametrize(
    ("given", "match"),
    [
        ([(2, 4)], "two representations"),
        ([(2, 4)] * 3, "two representations"),
        ((2, 4), "two representations"),
        ([(2, 4), (2, 3, 4)], "two representations"),
        ([(2, 4), (2, 0)], "without units"),
        ([(2, 4), (3, 4)], r"batches of \[2, 3\] rows"),
        ([(1, 4), (3, 4)], r"batches of \[1, 3\] rows"),
        ([(2, 4), (None, None)], "must know `units`"),
    ],
)
def test_fusions_take_two_representations(name, given, match):
    fusion = layers.FUSIONS[name]
    inputs = [keras.KerasTensor(shape) for shape in given] if isinstance(given, list) else keras.KerasTensor(given)
    with pytest.raises(ConfigError, match=f"^{fusion.__name__} '.+' takes .*{match}"):
        fusion()(inputs)
    with pytest.raises(ConfigError, match=match):
        fusion().compute_output_shape(given)
    built = fusion()
    built([np.ones((2, 4), "float32")] * 2)
    if match != "must know `units`":
        with pytest.raises(ConfigError, match=match):
            built(inputs)


def test_ids_are_no_representation():
    for layer, inputs in [
        (layers.SumFusion(), [[np.ones((2, 1), "int32"), np.ones((2, 1), "float32")]]),
        (layers.ThroughConnection(), [np.ones((2, 1), "int32"), np.ones((2, 1), "float32")]),
        (layers.SpaceFusion(), [[np.ones((2, 1), "int32")]]),
    ]:
        with pytest.raises(ConfigError, match=r"takes floats\. Received a tensor of int32"):
            layer(*inputs)


@pytest.mark.parametrize(
    ("values", "weights", "match"),
    [
        ([], None, "a list of representations"),
        ([(2, 3, 4)], None, "a list of representations"),
        ([(2, 3)], [(2, 3)], "a weight is 3 units wide"),
        ([(2, 3)], [], "1 spaces and 0 weights"),
        ([(2, 3), (2, 3)], [(2, 1)], "2 spaces and 1 weights"),
        ([(2, 3), (4, 3)], None, "batches of"),
    ],
)
def test_space_fusion_takes_one_weight_a_space(values, weights, match):
    tensors = [part and [keras.KerasTensor(shape) for shape in part] for part in (values, weights)]
    with pytest.raises(ConfigError, match=match):
        layers.SpaceFusion()(*tensors)
    with pytest.raises(ConfigError, match=match):
        layers.SpaceFusion().compute_output_shape(values, weights)


def test_a_through_connection_does_not_broadcast():
    for given in ([(2, 4), (2, 1)], [(1, 4), (2, 4)], [(2, 4), (4,)]):
        with pytest.raises(ConfigError):
            layers.ThroughConnection()(*map(keras.KerasTensor, given))


def test_nodes_must_divide_the_states():
    with pytest.raises(ConfigError, match="7 units are no 3 nodes"):
        layers.AttentiveScore(3)(keras.Input((7,)))
    with pytest.raises(ConfigError, match="num_fields"):
        layers.AttentiveScore(0)
