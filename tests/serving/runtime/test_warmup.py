"""Warm-up records: what is in them, and that a server replays them before it serves a version, as the real one does."""

import shutil

import numpy as np
import pytest
import tensorflow as tf
from kit.saved_models import check, client_of, export_examples, put, texts

import tfctr
from tfctr.errors import ExportError, StorageError
from tfctr.features import Categorical, Numeric
from tfctr.schema import Schema
from tfctr.serving.exporting.golden import read_golden
from tfctr.serving.runtime.saved_model import SavedModel, StatusError, read_signatures
from tfctr.serving.runtime.stand_in import LocalServer
from tfctr.serving.runtime.warmup import read_warmup, replay, write_warmup
from tfctr.serving.wire.protocol import PredictionLog
from tfctr.serving.wire.tfrecord import write_records
from tfctr.storage import write_json

FILE = "assets.extra/tf_serving_warmup_requests"
GOOD = {
    "signature": "serving_default",
    "inputs": {"user": texts("60"), "price": np.array([0.0])},
    "outputs": {"probability": np.float32([0.5])},
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A version with every kind of signature, and with a feature that requests may leave out."""
    features = [Categorical("user", hash_buckets=9, size=12), Numeric("age", "scaled", mean=40.0, scale=10.0, size=4)]
    model = tfctr.models.LR(Schema(features=features, label="click"))
    for number, weight in enumerate(model.trainable_variables):
        weight.assign(np.linspace(-1, 1, weight.value.shape.num_elements() or 1).reshape(weight.shape) + number)
    return tfctr.serving.export(model, tmp_path_factory.mktemp("warm") / "ctr", candidates=["user"], optional=["age"])


def logs(version):
    """What TensorFlow reads in the file."""
    return [PredictionLog.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(version / FILE))]


def test_every_signature_is_asked_in_its_own_way(exported):
    asked = {}
    for log in logs(exported):
        kind = log.WhichOneof("log_type")
        spec = getattr(log, kind).request.model_spec
        assert spec.name == "ctr"
        assert spec.WhichOneof("version_choice") is None
        asked.setdefault(kind, set()).add(spec.signature_name)
    assert asked.pop("classify_log") == {"classify"}
    assert asked.pop("regress_log") == {"regress"}
    assert asked.pop("predict_log") == set(read_signatures(exported)) - {"classify", "regress"}
    assert asked == {}


def test_the_records_are_the_golden_rows(exported):
    golden, records = read_golden(exported / "assets.extra" / "golden.json"), list(read_warmup(exported))
    assert len(golden) == len(records) < 1000
    for batch, record, log in zip(golden, records, logs(exported), strict=True):
        assert record.signature == batch["signature"]
        assert record.outputs.keys() == batch["outputs"].keys()
        for name, array in batch["outputs"].items():
            assert record.outputs[name].dtype == array.dtype
            np.testing.assert_array_equal(record.outputs[name], array)
        if log.HasField("classify_log"):
            examples = log.classify_log.request.input.example_list.examples
            theirs = [tf.train.Example.FromString(text) for text in batch["inputs"]["inputs"]]
            assert [tf.train.Example.FromString(example.SerializeToString()) for example in examples] == theirs
            answers = log.classify_log.response.result.classifications
            assert [[known.label for known in answer.classes] for answer in answers] == [["0", "1"]] * len(theirs)
            assert [answer.classes[1].score for answer in answers] == batch["outputs"]["scores"][:, 1].tolist()
        if log.HasField("regress_log"):
            answers = log.regress_log.response.result.regressions
            assert [answer.value for answer in answers] == batch["outputs"]["outputs"].tolist()


def test_requests_without_what_is_optional_are_among_them(exported):
    without = [log for log in logs(exported) if set(log.predict_log.request.inputs) == {"user"}]
    assert [log.predict_log.request.model_spec.signature_name for log in without] == ["serving_default"]
    replay(exported, SavedModel(exported))


def test_a_server_replays_them_before_it_serves(exported):
    with LocalServer(exported.parent, port=0) as server, client_of(server) as client:
        assert client.predict({"user": ["60"]}).shape == (1,)


def changed(signature=None, **arrays):
    """The good batch with another signature, or other inputs."""
    return {**GOOD, "signature": signature or GOOD["signature"], "inputs": {**GOOD["inputs"], **arrays}}


BAD = {
    "no such signature": (changed("rank"), 'Serving signature key "rank" not found.'),
    "an input too many": (changed(more=np.zeros(1)), "Sent extra: {more}."),
    "other rows": (changed(price=np.zeros(2)), "the inputs differ in rows"),
    "another type": (changed(price=np.zeros(1, np.float32)), "Expects arg"),
}


@pytest.fixture
def scorer(models, tmp_path):
    return shutil.copytree(models / "light", tmp_path / "scorer")


def write_raw(version, contents):
    (version / FILE).parent.mkdir(exist_ok=True)
    write_records(version / FILE, contents)


@pytest.mark.parametrize(("batch", "words"), BAD.values(), ids=BAD)
def test_a_request_that_fails(batch, words, scorer):
    model = SavedModel(scorer)
    write_warmup(scorer, [GOOD, GOOD], "m")
    replay(scorer, model)
    write_warmup(scorer, [GOOD, batch, GOOD], "m")
    with pytest.raises(StatusError) as raised:
        replay(scorer, model)
    assert words in raised.value.problem


def answered(probability):
    return {**GOOD, "outputs": {"probability": np.float32([probability])}}


def test_a_wrong_answer_stops_the_check_and_the_server(scorer):
    wrong = answered(0.25)
    write_warmup(scorer, [GOOD, wrong], "m")
    with pytest.raises(ExportError, match="1 of 2 golden answers differ"):
        replay(scorer, SavedModel(scorer))
    with pytest.raises(ExportError, match=r"'probability', row 0: 0.25 offline, 0.5 served \(1 of 1 rows differ\)"):
        check(scorer, [GOOD, wrong])


@pytest.mark.parametrize(
    ("precision", "units"), [(None, 2**-24), ("float32", 2**-24), ("float16", 2**-11), ("bfloat16", 2**-8)]
)
def test_the_last_bits_may_be_those_of_another_processor(precision, units, scorer):
    """Where a probability is near one half, the unit in the last place of the precision is the half of its epsilon."""
    model = SavedModel(scorer)
    if precision:
        write_json(scorer / "assets.extra" / "model_card.json", {"precision": precision})
    write_warmup(scorer, [answered(0.5 + 2 * units)], "m")
    assert replay(scorer, model) == 1
    for wrong in (0.5 + 20 * units, 0.5 - 20 * units, np.nan):
        write_warmup(scorer, [GOOD, answered(wrong)], "m")
        with pytest.raises(ExportError, match="1 of 2 golden answers differ"):
            replay(scorer, model)


def test_no_file_is_no_warm_up(scorer):
    assert not (scorer / FILE).exists()
    assert replay(scorer, SavedModel(scorer)) == 0


def test_at_most_1000_records(scorer):
    model = SavedModel(scorer)
    write_warmup(scorer, [GOOD] * 1000, "m")
    replay(scorer, model)
    write_warmup(scorer, [GOOD] * 1001, "m")
    with pytest.raises(StatusError, match=rf"^Number of warmup records exceeds the maximum \(1000\) at {scorer / FILE}"):
        replay(scorer, model)


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (PredictionLog(session_run_log={}), "Unsupported log_type for warmup: session_run_log"),
        (PredictionLog(multi_inference_log={}), "Unsupported log_type for warmup: multi_inference_log"),
        (PredictionLog(classify_log={"request": {"model_spec": {"signature_name": "ids"}}}), "Input is empty"),
        (PredictionLog(regress_log={"request": {"model_spec": {"signature_name": "no"}}}), "No signature was found"),
    ],
)
def test_logs_that_cannot_be_replayed(log, words, scorer):
    write_raw(scorer, [log.SerializeToString()])
    with pytest.raises(StatusError, match=words):
        replay(scorer, SavedModel(scorer))


def test_garbage(scorer):
    write_raw(scorer, [b"\xff\xff no message"])
    with pytest.raises(StatusError, match=r"^Failed to parse warmup record: "):
        replay(scorer, SavedModel(scorer))
    (scorer / FILE).write_bytes(b"no TFRecord file at all")
    with pytest.raises(StatusError, match=r"Please verify your warmup data is in TFRecord format\.$") as raised:
        replay(scorer, SavedModel(scorer))
    assert raised.value.code == 15  # DATA_LOSS


def test_examples_are_sent_as_examples(tmp_path):
    """Classify and Regress of a hand-written model, whose numbers are known."""
    export_examples(tmp_path / "1")
    prices = np.float32([1.5, -2.0])
    inputs = {"inputs": np.array([tf.train.Example(features=price(value)).SerializeToString() for value in prices], object)}
    classes = np.array([[b"no", b"yes"]] * 2, object)
    classified = {
        "signature": "classify",
        "inputs": inputs,
        "outputs": {"classes": classes, "scores": np.outer(prices, [-1, 1])},
    }
    regressed = {"signature": "regress", "inputs": inputs, "outputs": {"outputs": prices}}
    write_warmup(tmp_path / "1", [classified, regressed], "m")
    model = SavedModel(tmp_path / "1")
    for record, batch in zip(read_warmup(tmp_path / "1"), [classified, regressed], strict=True):
        for name, found in record.answer(model).items():
            np.testing.assert_array_equal(found, batch["outputs"][name])
            np.testing.assert_array_equal(found, record.outputs[name])


def price(value):
    return tf.train.Features(feature={"price": tf.train.Feature(float_list=tf.train.FloatList(value=[value]))})


def test_a_version_that_fails_its_records_leaves_the_old_one(base, scorer):
    with LocalServer(base, port=0, poll_seconds=3600) as server, client_of(server) as client:
        write_warmup(scorer, [changed("rank")], "m")
        put(base, scorer)
        server._model.refresh()
        bad, old = client.status()
        assert (bad["version"], bad["state"], bad["error"]) == (2, "END", 'Serving signature key "rank" not found.')
        assert (old["version"], old["state"]) == (1, "AVAILABLE")
        write_warmup(scorer, [GOOD], "m")
        put(base, scorer)
        server._model.refresh()
        assert server.version == 3


def test_a_first_version_that_fails_its_records_is_refused(tmp_path, scorer):
    (scorer / "assets.extra").mkdir()
    (scorer / FILE).write_bytes(b"garbage" * 9)
    put(tmp_path / "ctr", scorer)
    with (
        pytest.raises(StorageError, match=r"ctr/1 cannot be loaded: .*corrupted record at 0"),
        LocalServer(tmp_path / "ctr", 0),
    ):
        pass
