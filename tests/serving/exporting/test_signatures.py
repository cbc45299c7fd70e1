"""The signatures beside `serving_default` and `ids`: each gives what it promises; where it predicts, the bits of `predict`."""

import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from kit.saved_models import check
from kit.served_rows import golden_of, one_row, spread, usual_rows

import tfctr
from tfctr.errors import ConfigError, DataError, ExportError
from tfctr.features import Categorical
from tfctr.models import MODELS
from tfctr.models._base import CTRModel, ids_input
from tfctr.schema import Schema
from tfctr.serving.client.blocking import PredictionClient
from tfctr.serving.exporting.check import check_saved_model
from tfctr.serving.exporting.explanation import Explanation, difficulty
from tfctr.serving.exporting.golden import golden_rows
from tfctr.serving.exporting.raw_features import RawFeatures
from tfctr.serving.exporting.signatures import ServedGraph
from tfctr.serving.exporting.tf_examples import make_tf_examples, parse_tf_examples
from tfctr.serving.runtime.saved_model import SavedModel, StatusError, read_signatures
from tfctr.serving.runtime.stand_in import LocalServer

CANDIDATES, OPTIONAL = ("item", "price", "genres"), ("genres", "age")


@pytest.fixture(scope="module")
def exported(tiny_schema, tmp_path_factory):
    """A model with a gate, and its version with every signature, some of whose inputs may be left out."""
    model = spread(MODELS["TF4CTR"](tiny_schema, selection="gated", fusion="voting"))
    folder = tmp_path_factory.mktemp("signatures") / "ctr"
    return model, tfctr.serving.export(model, folder, candidates=CANDIDATES, optional=OPTIONAL)


@pytest.fixture(scope="module")
def served(exported):
    return SavedModel(exported[1])


def bits(array):
    return np.asarray(array, np.float32).view(np.int32)


def test_every_signature_is_in_the_golden_rows_and_in_the_card(exported):
    _, version = exported
    names = ["classify", "embedding", "explain", "ids", "rank", "regress", "schema", "serving_default"]
    assert sorted(read_signatures(version)) == sorted({batch["signature"] for batch in golden_of(version)}) == names
    card = json.loads((version / "assets.extra" / "model_card.json").read_text())
    assert card["signatures"] == names
    assert (card["candidates"], card["optional"]) == (list(CANDIDATES), list(OPTIONAL))
    assert (card["calibration"], card["negatives_kept"]) == (None, 1.0)


@pytest.mark.slow
def test_many_models_in_one_process_are_exported_without_a_warning(tiny_schema, caplog):
    for _ in range(6):
        graph = ServedGraph(MODELS["LR"](tiny_schema), tiny_schema)
        list(graph.golden(golden_rows(tiny_schema), (1, 3, 64)))
    assert [record.getMessage() for record in caplog.records] == []


@pytest.mark.sampled(1)
@pytest.mark.parametrize("output", ["scores", "gate", "difficulty_if_click"])
def test_a_wrong_answer_of_any_signature_fails_the_check(exported, output, tmp_path):
    version = shutil.copytree(exported[1], tmp_path / "1")
    golden = golden_of(version)
    batch = next(batch for batch in golden if output in batch["outputs"] and len(batch["outputs"][output]) == 64)
    answers = batch["outputs"][output].copy()
    answers[7] = b"simple" if answers.dtype == object else np.nextafter(answers[7], np.float32(2))
    batch["outputs"][output] = answers
    with pytest.raises(ExportError, match=rf"signature '{batch['signature']}', output '{output}', row 7"):
        check(version, golden)


# classify and regress


@pytest.mark.parametrize("rows", [1, 7, 64])
def test_examples_are_answered_as_the_columns_that_they_hold(exported, served, tiny_schema, rows):
    model, _ = exported
    raw = usual_rows(tiny_schema, rows)
    raw |= {name: np.float64(np.float32(column)) for name, column in raw.items() if column.dtype == np.float64}
    click = model.predict(RawFeatures(tiny_schema)(raw).numpy(), batch_size=rows, verbose=0)[:, 0]
    examples = np.array(make_tf_examples(tiny_schema, raw), object)
    classified = served.run("classify", {"inputs": examples})
    np.testing.assert_array_equal(bits(classified["scores"]), bits(np.stack([1 - click, click], axis=1)))
    assert classified["classes"].tolist() == [[b"0", b"1"]] * rows
    np.testing.assert_array_equal(bits(served.run("regress", {"inputs": examples})["outputs"]), bits(click))


def example(**features):
    kinds = {bytes: "bytes_list", float: "float_list", int: "int64_list"}
    message = tf.train.Example()
    for name, values in features.items():
        getattr(message.features.feature[name], kinds[type(values[0])]).value.extend(values)
    return message.SerializeToString()


def test_what_an_example_lacks_is_missing(served, tiny_schema):
    missing = served.run("serving_default", one_row(tiny_schema))["probability"]
    np.testing.assert_array_equal(served.run("regress", {"inputs": np.array([b""], object)})["outputs"], missing)


def test_a_sequence_is_one_text_or_its_tokens(tiny_schema):
    examples = [example(genres=[b"Drama|Comedy"]), example(genres=[b"Drama", b"Comedy"]), example(age=[0.1])]
    columns = parse_tf_examples(tiny_schema, tf.constant(examples))
    assert columns["genres"].numpy().tolist() == [b"Drama|Comedy", b"Drama|Comedy", b""]
    assert columns["age"].numpy().tolist()[2] == np.float32(0.1)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"no example", "Could not parse example input"),
        (example(age=[40]), "age.*Data types don't match"),
        (example(user=[b"60", b"7"]), "Key: user, Index: 0"),
    ],
)
def test_an_example_that_does_not_fit_is_refused(served, text, problem):
    with pytest.raises(StatusError, match=problem) as error:
        served.run("classify", {"inputs": np.array([text], object)})
    assert error.value.code == 3  # invalid argument


def test_signatures_take_no_other_rank(served):
    with pytest.raises(StatusError, match="is not compatible with expected shape"):
        served.run("regress", {"inputs": np.array([[b""]], object)})


# explain and embedding


def test_explanations_are_those_of_the_model(exported, served, tiny_schema):
    model, _ = exported
    raw = usual_rows(tiny_schema, 64)
    ids = RawFeatures(tiny_schema)(raw).numpy()
    explained, outputs = served.run("explain", raw), model(ids)
    answer = served.run("serving_default", raw)["probability"]
    np.testing.assert_array_equal(bits(explained["probability"]), bits(answer))
    for name in ("logit", "simple", "complex"):
        np.testing.assert_allclose(explained[name], outputs[name][:, 0], rtol=1e-4, atol=1e-5)
    weights, heads = explained["fusion_weights"], np.stack([explained["simple"], explained["complex"]], axis=1)
    np.testing.assert_allclose((weights * heads).sum(axis=1), explained["logit"], rtol=1e-4, atol=1e-5)  # eq. 9
    gate = next(layer for layer in model.layers if hasattr(layer, "easiness"))
    easy, hard = gate(ids)
    np.testing.assert_allclose(np.asarray(easy), explained["gate"][:, :, None] * np.asarray(easy + hard), rtol=1e-4, atol=1e-6)


def test_difficulty_has_the_thresholds_of_the_paper(served, tiny_schema):
    explained = served.run("explain", usual_rows(tiny_schema, 64))
    click = explained["probability"]
    for name, truth in (("difficulty_if_click", click), ("difficulty_if_no_click", np.float32(1) - click)):
        expected = np.where(truth < np.float32(0.3), b"hard", np.where(truth < np.float32(0.6), b"challenging", b"easy"))
        assert explained[name].tolist() == expected.tolist()


def test_difficulty_by_hand():
    below = [float(np.nextafter(np.float32(threshold), np.float32(0))) for threshold in (0.3, 0.6)]
    classes = difficulty(tf.constant([0.0, below[0], 0.3, below[1], 0.6, 1.0, np.nan])).numpy().tolist()
    assert classes == [b"hard", b"hard", b"challenging", b"challenging", b"easy", b"easy", b""]


def test_a_mixture_of_experts_explains_its_gates(tiny_schema, tiny_ids):
    model = spread(MODELS["TF4CTR"](tiny_schema, selection="experts", fusion="experts"))
    explained = Explanation(model)(tiny_ids(9))
    assert explained["gate"].shape == (9, 2, 2)
    np.testing.assert_allclose(explained["gate"].numpy().sum(axis=2), 1.0, rtol=1e-6)
    np.testing.assert_allclose(explained["fusion_weights"].numpy().sum(axis=1), 1.0, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("CETN", {"fusion_weights": (9, 3)}),
        ("CL4CTR", {}),
        ("FinalNet", {"first": (9,), "second": (9,)}),
        ("LR", {}),
        ("WideDeep", {"simple": (9,), "complex": (9,)}),
    ],
)
def test_outputs_that_are_no_logits_are_left_out(name, more, tiny_schema, tiny_ids):
    explained = Explanation(MODELS[name](tiny_schema))(tiny_ids(9))
    own = {"logit": (9,), "difficulty_if_click": (9,), "difficulty_if_no_click": (9,)}
    assert {output: tuple(tensor.shape) for output, tensor in explained.items()} == {**own, **more}


def test_the_spaces_of_cetn_are_weighed_as_its_fusion_does(tiny_schema, tiny_ids):
    model = spread(MODELS["CETN"](tiny_schema))
    fusion = next(layer for layer in model.layers if hasattr(layer, "shared_projection"))
    weights, outputs = Explanation(model)(tiny_ids(9))["fusion_weights"].numpy(), model(tiny_ids(9))
    logits = np.concatenate([head(outputs[f"value_{space}"]) for space, head in enumerate(fusion.heads)], axis=1)
    np.testing.assert_allclose((logits * weights).sum(axis=1, keepdims=True), outputs["logit"], rtol=1e-4, atol=1e-5)


def test_an_output_with_a_name_of_ours_is_refused(tiny_schema):
    ids = ids_input(tiny_schema)
    logit = keras.layers.Dense(1)(keras.ops.cast(ids, "float32"))

    class Named(CTRModel):
        def __init__(self, schema):
            super().__init__(schema, ids, {"logit": logit, "gate": logit})

    with pytest.raises(ExportError, match="an output 'gate', which `explain` has too"):
        Explanation(Named(tiny_schema))


def test_the_embedding_is_all_fields_of_all_tables(served, exported, tiny_schema, tmp_path):
    raw = usual_rows(tiny_schema, 5)
    ids = RawFeatures(tiny_schema)(raw)
    embedding = served.run("embedding", raw)["embedding"]
    np.testing.assert_array_equal(embedding.reshape(5, 5, 16), exported[0].embeddings[0](ids))
    two = spread(MODELS["FM"](tiny_schema, embedding_dim=4))
    weights, vectors = two.embeddings
    embedding = SavedModel(tfctr.serving.export(two, tmp_path / "fm", check=False)).run("embedding", raw)["embedding"]
    np.testing.assert_array_equal(embedding[:, :5].reshape(5, 5, 1), weights(ids))
    np.testing.assert_array_equal(embedding[:, 5:].reshape(5, 5, 4), vectors(ids))


# rank


@pytest.mark.parametrize("rows", [1, 7, 64, 500])
def test_a_rank_has_the_bits_of_its_tiled_rows(served, tiny_schema, rows):
    raw = usual_rows(tiny_schema, rows)
    request = {name: column if name in CANDIDATES else column[:1] for name, column in raw.items()}
    tiled = {name: column if name in CANDIDATES else np.repeat(column[:1], rows) for name, column in raw.items()}
    ranked = served.run("rank", request)["probability"]
    np.testing.assert_array_equal(bits(ranked), bits(served.run("serving_default", tiled)["probability"]))
    assert rows == 1 or len(np.unique(ranked)) > 5


def test_a_context_is_looked_up_once(exported):
    """The tokens of the user are looked up in a graph that has one row of them, before anything is tiled."""
    raw = RawFeatures(exported[0].schema)
    spec = {n: tf.TensorSpec((None,) if n in CANDIDATES else (1,), s.dtype, name=n) for n, s in raw.signature.items()}
    graph = tf.function(lambda columns: raw.rank(columns, CANDIDATES), autograph=False).get_concrete_function(spec).graph
    lookups = [op for op in graph.get_operations() if op.type == "LookupTableFindV2"]
    assert sorted(op.inputs[1].shape[0] or 0 for op in lookups) == [0, 0, 1]


def test_no_candidates_have_no_ranks(served, tiny_schema):
    row = one_row(tiny_schema)
    request = {name: column[:0] if name in CANDIDATES else column for name, column in row.items()}
    assert served.run("rank", request)["probability"].shape == (0,)


@pytest.mark.parametrize(("name", "rows"), [("user", 2), ("user", 0), ("item", 3), ("price", 1)])
def test_a_rank_takes_one_context_and_candidates_of_one_length(served, tiny_schema, name, rows):
    row = one_row(tiny_schema)
    request = {other: np.repeat(column, 4) if other in CANDIDATES else column for other, column in row.items()}
    with pytest.raises(StatusError, match=r"same number of rows|is not compatible with expected shape") as error:
        served.run("rank", {**request, name: np.repeat(row[name], rows)})
    assert error.value.code == 3


@pytest.mark.parametrize(
    ("candidates", "problem"),
    [
        ("item", r"`candidates` is 'item'"),
        (["itm"], r"Unknown feature in `candidates` 'itm'\.\n.*'item'"),
        (["item", "item"], "each once"),
        (["user", "item", "genres", "age", "price"], "not of all 5"),
        ([], r"`candidates` is \[\]: none of them is required"),
    ],
)
def test_wrong_candidates_are_refused(candidates, problem, tiny_schema, tmp_path):
    with pytest.raises(ConfigError, match=problem):
        tfctr.serving.export(MODELS["LR"](tiny_schema), tmp_path / "ctr", candidates=candidates)
    assert not (tmp_path / "ctr").exists()


# optional inputs


@pytest.mark.sampled(1)
@pytest.mark.parametrize("left_out", [("age",), ("genres",), OPTIONAL])
def test_an_input_left_out_is_missing_in_every_row(served, tiny_schema, left_out):
    raw = usual_rows(tiny_schema, 7)
    missing = {name: np.repeat(one_row(tiny_schema)[name], 7) if name in left_out else raw[name] for name in raw}
    given = {name: column for name, column in raw.items() if name not in left_out}
    expected = served.run("serving_default", missing)["probability"]
    np.testing.assert_array_equal(bits(served.run("serving_default", given)["probability"]), bits(expected))
    context = {name: column if name in CANDIDATES else column[:1] for name, column in given.items()}
    same_context = {name: column if name in CANDIDATES else np.repeat(column[:1], 7) for name, column in missing.items()}
    expected = served.run("serving_default", same_context)["probability"]
    np.testing.assert_array_equal(bits(served.run("rank", context)["probability"]), bits(expected))


def test_the_defaults_are_in_the_signatures(exported):
    signatures = read_signatures(exported[1])
    with_defaults = {name: sorted(signature.defaults) for name, signature in signatures.items() if signature.defaults}
    assert with_defaults == {name: ["age", "genres"] for name in ("serving_default", "rank", "explain", "embedding")}


@pytest.mark.parametrize("rows", [1, 3])
def test_an_optional_column_is_never_broadcast(served, tiny_schema, rows):
    request = {name: np.repeat(column, rows if name == "age" else 4) for name, column in one_row(tiny_schema).items()}
    with pytest.raises(StatusError, match="same number of rows"):
        served.run("serving_default", request)


@pytest.mark.slow
def test_names_with_punctuation_may_be_left_out(tmp_path):
    schema = Schema(features=[Categorical(name, hash_buckets=2, size=5) for name in ("1st", "a/b", "x-y")], label="click")
    version = tfctr.serving.export(spread(MODELS["LR"](schema)), tmp_path / "ctr", optional=["a/b", "1st"])
    assert set(read_signatures(version)["serving_default"].defaults) == {"a/b", "1st"}
    assert check_saved_model(version)["serving_default"] == 71


def test_a_model_needs_one_input_that_is_not_optional(tiny_schema, tmp_path):
    with pytest.raises(ConfigError, match="not of all 5"):
        tfctr.serving.export(MODELS["LR"](tiny_schema), tmp_path, optional=[f.name for f in tiny_schema.features])


# through the client


@pytest.fixture(scope="module")
def server(exported):
    with LocalServer(exported[1].parent, port=0, name="ctr") as server:
        yield server


def test_the_client_ranks_with_the_bits_of_predict(server, tiny_schema):
    rows = {name: column[16:36] for name, column in golden_rows(tiny_schema).items()}
    context = {name: rows[name][0] for name in rows if name not in CANDIDATES}
    candidates = {name: rows[name] for name in CANDIDATES}
    tiled = candidates | {name: np.array([value] * 20, rows[name].dtype) for name, value in context.items()}
    with PredictionClient(server.target, model="ctr", separator="|") as client:
        np.testing.assert_array_equal(bits(client.rank(context, candidates)), bits(client.predict(tiled)))
        # An optional feature counts on either side, and may be absent from both.
        older = {name: value for name, value in context.items() if name != "age"}
        np.testing.assert_array_equal(
            bits(client.rank(older, candidates)), bits(client.predict({name: tiled[name] for name in tiled if name != "age"}))
        )
        assert (client.rank(older, candidates) != client.rank(context, candidates)).any()


@pytest.mark.parametrize("strict", [True, False])
def test_a_client_may_leave_out_what_is_optional_and_no_more(strict, server, tiny_schema):
    rows = {name: column[16:20] for name, column in golden_rows(tiny_schema).items()}
    missing = rows | {"age": np.full(4, np.nan), "genres": np.array([b""] * 4, object)}
    with PredictionClient(server.target, model="ctr", separator="|", strict=strict) as client:
        answer = client.predict({name: rows[name] for name in rows if name not in OPTIONAL})
        np.testing.assert_array_equal(bits(answer), bits(client.predict(missing)))
        problem = "column 'user' is missing" if strict else "refused the rows: .*user"
        with pytest.raises(DataError, match=problem):
            client.predict({name: rows[name] for name in rows if name != "user"})


def test_the_client_takes_no_embedding_for_a_probability(server, tiny_schema):
    rows = {name: column[16:20] for name, column in golden_rows(tiny_schema).items()}
    with PredictionClient(server.target, model="ctr", signature="embedding", separator="|") as client:
        with pytest.raises(ConfigError, match=r"the output 'embedding' is no probability\.\n  fix: use `answer`"):
            client.predict(rows)
        assert client.answer(rows).outputs["embedding"].shape[0] == 4
