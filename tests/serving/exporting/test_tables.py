"""Compressed tables: the numbers by hand, the same bits offline and served, and refused where they would do harm."""

import itertools
import json
import math

import numpy as np
import pytest
import tensorflow as tf
from kit.at_length import at_length
from kit.every_model import OF_EACH_KIND, made
from kit.served_rows import golden_of, mixed, spread, usual_rows
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import saved_model_pb2

import tfctr
from tfctr.data import Split
from tfctr.errors import ConfigError, DataError, ExportError
from tfctr.features import Categorical
from tfctr.models import MODELS, CTRModel, ids_input
from tfctr.schema import Schema
from tfctr.serving.exporting import compression as tables_module
from tfctr.serving.exporting.calibration import IsotonicCalibration, SigmoidCalibration
from tfctr.serving.exporting.compression import FORMS, Float16Table, Int8Table, compress_tables, quantize
from tfctr.serving.exporting.golden import golden_rows
from tfctr.serving.exporting.raw_features import RawFeatures
from tfctr.serving.runtime.saved_model import SavedModel

UNSEEN = 2**-11  # 1 + UNSEEN is 1 in float16


def read(rows, form):
    """Oracle: what is left of rows once they were stored."""
    if form == "float16" or rows.shape[1] <= 4:
        return rows.astype(np.float16).astype(np.float32)
    codes, scales = quantize(rows)
    return codes.astype(np.float32) * scales


def compressed_copy(model, form):
    """Oracle: a model of the usual kind, in whose float32 tables the stored numbers lie."""
    copy = type(model).from_config(model.get_config())
    copy.set_weights(model.get_weights())
    for table in copy.tables:
        table.assign(read(table.numpy(), form))
    return copy


@pytest.fixture(scope="module")
def model(tiny_schema):
    return spread(MODELS["TF4CTR"](tiny_schema))


@pytest.fixture(scope="module")
def valid(tiny_ids, tiny_labels):
    return Split.from_arrays(tiny_ids(300), tiny_labels(300), name="valid")


EVERY_FORM = [*zip(sorted(MODELS), itertools.cycle(FORMS), strict=False)]


@pytest.fixture(scope="module", params=at_length(FORMS, "int8"))
def compressed(request, model, valid):
    return compress_tables(model, valid, request.param, max_auc_drop=1)


@pytest.fixture(scope="module")
def version(compressed, model, tmp_path_factory):
    folder = tmp_path_factory.mktemp(compressed.form) / "ctr"
    return tfctr.serving.export(model, folder, tables=compressed, candidates=["item"], optional=["price"])


# what is stored


def test_int8_by_hand():
    tiny = np.finfo(np.float32).tiny
    rows = [[127, -63.5, 0.5, 1.5], [-254, 2, 3, 0], [0, 0, 0, -0.0], [0, -3, 0, 0], [100 * tiny, 0, 0, 0], [3e38, 0, -3e38, 1]]
    codes, scales = quantize(np.float32(rows))
    assert codes.dtype == np.int8
    expected = [[127, -64, 0, 2], [-127, 1, 2, 0], [0] * 4, [0, -127, 0, 0], [0] * 4, [127, 0, -127, 0]]
    np.testing.assert_array_equal(codes, expected)
    np.testing.assert_array_equal(scales[:, 0], np.float32([1, 2, 0, 3, 0, 3e38]) / np.float32([1, 1, 1, 127, 1, 127]))


def test_int8_is_at_most_half_a_step_away():
    rng = np.random.default_rng(0)
    rows = (rng.normal(size=(5000, 16)) * 10.0 ** rng.uniform(-30, 30, (5000, 1))).astype(np.float32)
    codes, scales = quantize(rows)
    assert (np.abs(codes).max(axis=1) == 127).all()
    steps = rows / scales.astype(np.float64)
    assert np.abs(codes - steps).max() <= 0.5 + 1e-5


@pytest.mark.parametrize("form", [Float16Table, Int8Table])
def test_tables_are_read_in_chunks(form, model, monkeypatch):
    monkeypatch.setattr(tables_module, "_CHUNK", 16 * 7)  # 7 rows of 16 numbers, and a rest
    table = model.tables[1]
    assert table.shape[0] % 7
    ids = np.arange(table.shape[0])[::-1].reshape(1, -1)
    expected = read(table.numpy(), "float16" if form is Float16Table else "int8")[ids]
    np.testing.assert_array_equal(form(table)(ids).numpy().view(np.int32), expected.view(np.int32))


def test_narrow_tables_are_float16_under_int8(tiny_schema, valid):
    model = spread(MODELS["DeepFM"](tiny_schema, embedding_dim=5))
    found = compress_tables(model, valid, "int8", max_auc_drop=1)
    rows = tiny_schema.table_rows
    assert (found.figures["before"]["bytes"], found.bytes) == (4 * rows * (1 + 5), rows * 2 + rows * (5 + 4))


# what is served


def test_the_served_bits_are_those_of_a_model_with_the_stored_numbers(version, compressed, model, tiny_schema):
    copy, served = compressed_copy(model, compressed.form), SavedModel(version)
    for size in (1, 7, 512):
        raw = usual_rows(tiny_schema, size)
        ids = RawFeatures(tiny_schema)(raw).numpy()
        expected = copy.predict(ids, batch_size=size, verbose=0)[:, 0]
        for signature, inputs in (("serving_default", raw), ("ids", {"ids": ids})):
            answers = served.run(signature, inputs)["probability"]
            np.testing.assert_array_equal(answers.view(np.int32), expected.view(np.int32))
        fields = [embedding(ids).numpy().reshape(size, -1) for embedding in copy.embeddings]
        np.testing.assert_array_equal(served.run("embedding", raw)["embedding"], np.concatenate(fields, axis=1))
    assert (expected != model.predict(ids, batch_size=512, verbose=0)[:, 0]).mean() > 0.5


def test_every_signature_was_checked(version):
    signatures = {"serving_default", "ids", "rank", "classify", "regress", "explain", "embedding", "schema"}
    assert {batch["signature"] for batch in golden_of(version)} == signatures == set(SavedModel(version).signatures)


def test_the_model_is_left_as_it_was(version, model, tiny_ids):
    fresh = type(model).from_config(model.get_config())
    fresh.set_weights(model.get_weights())
    np.testing.assert_array_equal(fresh.predict(tiny_ids(64), verbose=0), model.predict(tiny_ids(64), verbose=0))


def test_the_model_card(version, compressed, model, valid, tiny_schema):
    card = json.loads((version / "assets.extra" / "model_card.json").read_text())["tables"]
    rows = tiny_schema.table_rows
    after = {"float16": 2 * rows * (8 + 16), "int8": rows * (8 + 4) + rows * (16 + 4)}[compressed.form]
    assert (card["form"], card["rows"]) == (compressed.form, valid.rows)
    assert (card["before"]["bytes"], card["after"]["bytes"]) == (4 * rows * (8 + 16), after)
    models = {"before": model, "after": compressed_copy(model, compressed.form)}
    before, after = (m.predict(valid.ids, verbose=0) for m in models.values())
    assert card["max_difference"] == pytest.approx(np.abs(before - after).max(), abs=1e-6)
    for face, model in models.items():
        logits = tables_module._scorer(model)(tf.constant(valid.ids))[:, 0]  # two of them may have one float32 probability
        assert card[face]["auc"] == pytest.approx(tfctr.metrics.auc(valid.labels, logits), abs=1e-6)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("form", [None, *FORMS])
def test_only_the_stored_tables_are_on_disk(form, tmp_path):
    schema = Schema(features=[Categorical("user", hash_buckets=20_000, size=20_003)], label="click")
    model = spread(MODELS["DNN"](schema, embedding_dim=16, hidden_units=(4,)))
    model.compile()
    ids, labels = np.arange(20_000, dtype=np.int32)[:, None], np.arange(20_000) % 2
    model.fit(ids, labels, batch_size=10_000, verbose=0)  # the optimizer has two more numbers for each of a table
    tables = form and compress_tables(model, Split.from_arrays(ids, labels), form, max_auc_drop=1)
    variables = tfctr.serving.export(model, tmp_path / "ctr", tables=tables, check=False) / "variables"
    checkpoint = tf.train.load_checkpoint(str(variables / "variables"))
    types = checkpoint.get_variable_to_dtype_map()
    found = {(types[name].name, *shape) for name, shape in checkpoint.get_variable_to_shape_map().items() if 20_003 in shape}
    codes = {("int8", 20_003, 16), ("float32", 20_003, 1)}
    assert found == {None: {("float32", 20_003, 16)}, "float16": {("float16", 20_003, 16)}, "int8": codes}[form]
    share = {None: 1, "float16": 1 / 2, "int8": 1 / 4 + 1 / 16}[form]
    assert sum(file.stat().st_size for file in variables.iterdir()) == pytest.approx(20_003 * 64 * share, rel=0.02)


def test_only_rows_of_the_batch_become_float32(version, compressed):
    """The stored tables are gathered from, and read as a whole only to be saved."""
    graph = saved_model_pb2.SavedModel.FromString((version / "saved_model.pb").read_bytes()).meta_graphs[0].graph_def
    served = [function for function in graph.library.function if "traced_save" not in function.signature.name]
    types = {
        op: {node.attr["dtype"].type for function in served for node in function.node_def if node.op == op}
        for op in ("ResourceGather", "ReadVariableOp")
    }
    gathered = {"float16": {tf.float16}, "int8": {tf.int8, tf.float32}}[compressed.form]
    assert types == {"ResourceGather": {dtype.as_datatype_enum for dtype in gathered}, "ReadVariableOp": {types_pb2.DT_FLOAT}}


@pytest.mark.slow
def test_calibrated_probabilities_come_from_the_stored_numbers(model, valid, tiny_schema, tmp_path):
    tables = compress_tables(model, valid, "int8", max_auc_drop=1)
    served = {"tables": tables, "calibration": SigmoidCalibration(2.0, 0.5), "negatives_kept": 0.1}
    version = tfctr.serving.export(model, tmp_path / "ctr", check=False, **served)
    raw = usual_rows(tiny_schema, 100)
    logits = compressed_copy(model, "int8")(RawFeatures(tiny_schema)(raw))["logit"].numpy()[:, 0]
    answers = SavedModel(version).run("serving_default", raw)["probability"]
    np.testing.assert_allclose(answers, 1 / (1 + np.exp(-(2.0 * logits + 0.5 + math.log(0.1)))), rtol=1e-5)


@pytest.mark.slow
def test_a_model_with_a_narrow_table(tiny_schema, valid, tmp_path):
    model = spread(MODELS["FM"](tiny_schema))
    tables = compress_tables(model, valid, "int8", max_difference=0.2, max_auc_drop=1)
    version = tfctr.serving.export(model, tmp_path / "ctr", tables=tables, candidates=["item"])
    ids = valid.ids[:64]
    expected = compressed_copy(model, "int8").predict(ids, batch_size=64, verbose=0)[:, 0]
    np.testing.assert_array_equal(SavedModel(version).run("ids", {"ids": ids})["probability"], expected)


@pytest.mark.parametrize(("name", "form"), at_length(EVERY_FORM, then=[pair for pair in EVERY_FORM if pair[0] in OF_EACH_KIND]))
def test_every_model_reads_the_stored_numbers(name, form, tiny_schema, valid):
    model = spread(made(name, tiny_schema))
    tables = compress_tables(model, valid, form, max_difference=0.2, max_auc_drop=1)
    ids = tf.constant(valid.ids[:64])
    expected = tables_module._scorer(compressed_copy(model, form))(ids).numpy()
    with tables.in_place():
        np.testing.assert_array_equal(tables_module._scorer(model)(ids), expected)
    assert (tables_module._scorer(model)(ids).numpy() != expected).any()


@pytest.mark.slow
@pytest.mark.parametrize("selection", ["shared", "separate", "gated", "experts"])
def test_every_selection(selection, tiny_schema, valid, tmp_path):
    model = spread(MODELS["TF4CTR"](tiny_schema, selection=selection))
    tables = compress_tables(model, valid, "int8", max_auc_drop=1)
    assert tfctr.serving.export(model, tmp_path / "ctr", tables=tables).name == "1"


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(policy, form, tiny_schema, valid, tmp_path):
    model = mixed(policy, tiny_schema)
    tables = compress_tables(model, valid, form, max_auc_drop=1)
    assert tfctr.serving.export(model, tmp_path / "ctr", tables=tables).name == "1"


# what is refused

USERS = Schema(features=[Categorical("user", hash_buckets=997, size=1000)], label="click")


def linear(weights):
    """Logistic regression whose logit for an id is its weight."""
    model = MODELS["LR"](USERS)
    table = np.zeros((1000, 1), np.float32)
    table[[*weights], 0] = [*weights.values()]
    model.tables[0].assign(table)
    return model


def split(*ids, labels=None, weights=None):
    labels = np.arange(len(ids)) % 2 if labels is None else labels
    return Split.from_arrays(np.int32(ids)[:, None], labels, weights=weights, name="valid")


def test_a_fallen_auc_is_refused():
    model = linear({3: 1 + UNSEEN, 4: 1.0, 5: -1.0})
    rows = split(3, 4, 5, labels=[1, 0, 0], weights=[1, 1, 3])
    message = r"float16 tables: the AUC of valid falls from 1 to 0\.875, by more than 0\.0002\.\n  fix: use the model's own"
    with pytest.raises(ExportError, match=message):
        compress_tables(model, rows, "float16")
    figures = compress_tables(model, rows, "float16", max_auc_drop=0.125).figures
    assert (figures["before"]["auc"], figures["after"]["auc"]) == (1.0, 0.875)


def test_a_moved_probability_is_refused():
    model = linear({3: 1 + UNSEEN, 4: 0.0})
    moved = 1 / (1 + math.exp(-1 - UNSEEN)) - 1 / (1 + math.exp(-1))
    message = r"float16 tables: the probability of valid row 1 moves the most, from 0\.731155 to 0\.731059, by more than 9\.5e"
    with pytest.raises(ExportError, match=message):
        compress_tables(model, split(4, 3), "float16", max_difference=9.5e-5)
    found = compress_tables(model, split(4, 3), "float16", max_difference=1e-4)
    assert found.figures["max_difference"] == pytest.approx(moved, abs=1e-7)


def test_probabilities_are_compared_as_they_will_be_served():
    model, kept = linear({3: 5 + 2**-9, 4: 0.0}), math.exp(-5)  # 5 in float16: sure of a click, but for the dropped non-clicks
    assert compress_tables(model, split(4, 3), "float16", max_difference=1e-4).figures["max_difference"] < 2e-5
    with pytest.raises(ExportError, match=r"valid row 1 moves the most, from 0\.500488 to 0\.5, by more than 0\.0001"):
        compress_tables(model, split(4, 3), "float16", max_difference=1e-4, negatives_kept=kept)


@pytest.mark.parametrize(("what", "user"), [("golden row", ""), ("example", "no golden token")])
def test_rows_that_the_split_lacks_are_held_to_the_bound(what, user, tmp_path):
    raw = RawFeatures(USERS)
    (moved,) = raw({"user": np.array([user.encode()], object)}).numpy()[0]
    assert (moved in raw(golden_rows(USERS)).numpy()) == (what == "golden row")
    model = linear({moved: 1 + UNSEEN})
    tables = compress_tables(model, split(11, 12), "float16", max_difference=9e-5)
    with pytest.raises(ExportError, match=rf"the probability of {what} \d+ moves the most, from 0\.731155 to 0\.731059"):
        tfctr.serving.export(model, tmp_path / "ctr", tables=tables, examples={"user": [user]})
    assert not (tmp_path / "ctr").exists()


@pytest.mark.parametrize("weight", [65520.0, -1e30])
@pytest.mark.parametrize("form", FORMS)
def test_numbers_beyond_float16_are_refused(weight, form):
    message = rf"table 'feature_embedding.*/table', row 7: {weight:g} is beyond float16".replace("+", r"\+")
    with pytest.raises(ExportError, match=message):
        compress_tables(linear({7: weight}), split(3, 4), form)
    assert compress_tables(linear({7: 65519.0}), split(3, 4), form).bytes == 2000


@pytest.mark.parametrize("weight", [math.nan, -math.inf])
@pytest.mark.parametrize("form", FORMS)
def test_tables_that_are_not_finite_are_refused(weight, form, tiny_schema, valid):
    model = MODELS["DNN"](tiny_schema)
    table = model.tables[0].numpy()
    table[3, 5] = weight
    model.tables[0].assign(table)
    with pytest.raises(ExportError, match=r"the table '.*table' is not finite"):
        compress_tables(model, valid, form)


def test_answers_that_are_no_number_may_stay_so_but_not_become_so(model):
    tables = compress_tables(linear({}), split(3, 4), "int8")
    nan, number = np.array([0.5, math.nan]), np.array([0.5, 0.5])
    assert tables.require_alike(nan, nan, "row") == 0.0
    assert tables.require_alike(nan[:0], nan[:0], "row") == 0.0
    for before, after in ((nan, number), (number, nan)):
        with pytest.raises(ExportError, match=r"int8 tables: .* row 1 moves .*\n  fix: use float16, or the model's own"):
            tables.require_alike(before, after, "row")


@pytest.mark.parametrize(
    ("arguments", "error", "problem"),
    [
        ({"form": "int4"}, ConfigError, r"Unknown form of tables 'int4'\.\n.*float16, int8"),
        ({"model": "m"}, ConfigError, "str is no `CTRModel`"),
        ({"split": None}, ConfigError, "`split` is None: there are no rows"),
        ({"split": "valid"}, ConfigError, "`split` is 'valid': there are no rows"),
        ({"split": split(3, 4, labels=[1, 1])}, DataError, "valid: all rows have one label"),
        ({"max_difference": -1}, ConfigError, "`max_difference` is -1"),
        ({"max_auc_drop": math.nan}, ConfigError, "`max_auc_drop` is nan"),
    ],
)
def test_arguments_that_cannot_be_used(arguments, error, problem):
    with pytest.raises(error, match=problem):
        compress_tables(**{"model": linear({}), "split": split(3, 4), "form": "int8", **arguments})


def test_tables_are_those_of_the_model(tmp_path):
    model = linear({})
    for tables in ("int8", compress_tables(linear({}), split(3, 4), "int8")):
        with pytest.raises(ConfigError, match=r"not made of this model\.\n  fix: pass compress_tables\("):
            tfctr.serving.export(model, tmp_path / "ctr", tables=tables)
    assert not (tmp_path / "ctr").exists()


@pytest.mark.parametrize("changed", ["dense kernel", "table"])
def test_tables_are_those_of_the_model_as_it_is(changed, tiny_schema, valid, tmp_path):
    model = MODELS["DNN"](tiny_schema)
    tables = compress_tables(model, valid, "float16", max_auc_drop=1)
    weight = model.tables[0] if changed == "table" else model.trainable_weights[-1]
    weight.assign(weight.numpy() + np.float32(1e-6))
    with pytest.raises(ConfigError, match=r"the model has changed since its `tables` were made\.\n  fix: compress"):
        tfctr.serving.export(model, tmp_path / "ctr", tables=tables)
    assert not (tmp_path / "ctr").exists()


@pytest.mark.parametrize("where", ["valid row", "golden row"])
def test_what_counts_is_the_probability_that_is_served(where, tmp_path):
    """A map that jumps between the two numbers that a weight was and is."""
    steep = IsotonicCalibration((-2.0, 1.0, 1 + UNSEEN, 2.0), (0.1, 0.1, 0.9, 0.9))
    (golden,) = RawFeatures(USERS)({"user": np.array([b""], object)}).numpy()[0]
    model = linear({3 if where == "valid row" else golden: 1 + UNSEEN})

    def publish():
        tables = compress_tables(model, split(3, 4), "float16", calibration=steep)
        tfctr.serving.export(model, tmp_path / "ctr", calibration=steep, tables=tables)

    with pytest.raises(ExportError, match=rf"of {where} \d+ moves the most, from 0\.9 to 0\.1, by more than 0\.005"):
        publish()


def test_a_table_that_the_model_does_not_name_is_refused():
    class Forgetful(CTRModel):
        def __init__(self, schema, name=None):
            ids = ids_input(schema)
            embedding = tfctr.layers.FeatureEmbedding(schema, 1)
            super().__init__(schema, ids, {"logit": tfctr.layers.LinearTerms()(embedding(ids))}, embeddings=[], name=name)

    with pytest.raises(ConfigError, match=r"the table '.*table' is of none of `Forgetful\.embeddings`"):
        compress_tables(Forgetful(USERS), split(3, 4), "int8")
