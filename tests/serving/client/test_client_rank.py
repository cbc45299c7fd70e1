"""One context and many candidates, and answers with more than a probability."""

import grpc
import numpy as np
import pandas as pd
import pytest
from kit.fake_serving import DOUBLE, TEXT, FakeServing, answer_price, prices, rows

from tfctr.errors import ConfigError, DataError, StorageError
from tfctr.serving.client.base import Answer
from tfctr.serving.client.blocking import PredictionClient
from tfctr.serving.wire import protocol

RANK = {"rank": ({"user": TEXT, "genres": TEXT, "item": TEXT, "price": DOUBLE}, ["probability"])}
CONTEXT = {"user": 60, "genres": ["Comedy", "Drama"], "item": "not looked at"}


@pytest.fixture
def fake():
    return FakeServing(answer_price, RANK, context=("user", "genres"))


def candidates(count):
    return {"item": [f"item {number}" for number in range(count)], "price": np.arange(float(count))}


@pytest.mark.parametrize("context", [CONTEXT, pd.DataFrame([CONTEXT]), [CONTEXT]], ids=["dict", "pandas", "list"])
@pytest.mark.parametrize("table", [candidates(5), pd.DataFrame(candidates(5))], ids=["dict", "pandas"])
def test_the_context_is_sent_once_a_request(fake, context, table):
    with fake.serving() as target, PredictionClient(target, model="m", separator="|", max_rows=3) as client:
        assert prices(client.rank(context, table)) == [0.0, 1.0, 2.0, 3.0, 4.0]
    for request, items in zip(fake.requests, [["item 0", "item 1", "item 2"], ["item 3", "item 4"]], strict=True):
        assert request.model_spec.signature_name == "rank"
        assert list(request.inputs["user"].string_val) == [b"60"]
        assert list(request.inputs["genres"].string_val) == [b"Comedy|Drama"]
        assert list(request.inputs["item"].string_val) == [item.encode() for item in items]
        assert [dim.size for dim in request.inputs["user"].tensor_shape.dim] == [1]
        assert set(request.inputs) == set(RANK["rank"][0])


@pytest.mark.parametrize("none", [[], (), candidates(0), pd.DataFrame(candidates(0))], ids=["list", "tuple", "dict", "pandas"])
def test_no_candidates(fake, none):
    with fake.serving() as target, PredictionClient(target, model="m", separator="|") as client:
        answer = client.rank(CONTEXT, none)
    assert (answer.shape, answer.dtype, fake.requests) == ((0,), np.float32, [])


@pytest.mark.parametrize(
    ("context", "table", "problem"),
    [
        ({"genres": []}, candidates(2), "user: column 'user' is missing"),
        ({**CONTEXT, "user": 1.5}, candidates(2), "user: column 'user', row 0: 1.5 is neither text"),
        ([CONTEXT, CONTEXT], candidates(2), "user: 2 rows, not one"),
        (pd.DataFrame([CONTEXT])[:0], candidates(2), "user: 0 rows, not one"),
        ([], candidates(2), "user: 0 rows, not one"),
        ({**CONTEXT, "item": "1", "price": 1}, {"click": [1, 0]}, "the candidates have no column that the model takes"),
        (CONTEXT, {"item": ["1"]}, "column 'price' is missing"),
        (CONTEXT, {"item": ["1"], "price": ["cheap"]}, "column 'price', row 0: 'cheap' is not a number"),
    ],
)
def test_contexts_and_candidates_that_do_not_fit(fake, context, table, problem):
    with fake.serving() as target, pytest.raises(DataError, match=problem):
        PredictionClient(target, model="m", separator="|").rank(context, table)
    assert fake.requests == []


def test_models_that_cannot_rank():
    with FakeServing(answer_price).serving() as target, pytest.raises(ConfigError, match="Unknown signature 'rank'"):
        PredictionClient(target, model="m").rank(CONTEXT, candidates(2))
    fake = FakeServing(answer_price, RANK, context=RANK["rank"][0])
    with fake.serving() as target, pytest.raises(ConfigError, match="'rank' has no input for candidates"):
        PredictionClient(target, model="m").rank(CONTEXT, candidates(2))


# all outputs

EXPLAIN = {"explain": ({"user": TEXT, "price": DOUBLE}, ["probability", "simple"])}


def answer_explain(request, context):
    response = answer_price(request, context)
    response.outputs["simple"].CopyFrom(response.outputs["probability"])
    response.model_spec.version.value = 4
    return response


def test_an_answer_has_all_outputs_and_its_version():
    fake = FakeServing(answer_explain, EXPLAIN)
    with fake.serving() as target, PredictionClient(target, model="m", max_rows=2) as client:
        answer = client.answer(rows(3), signature="explain")
        empty, none = client.answer(rows(0), "explain"), client.answer([], "explain")
    assert isinstance(answer, Answer)
    assert list(answer.outputs) == ["probability", "simple"]
    assert [prices(array) for array in answer.outputs.values()] == [[0, 1, 2], [0, 1, 2]]
    assert answer.version == 4
    assert [sorted(request.output_filter) for request in fake.requests] == [["probability", "simple"]] * 2
    assert {name: array.shape for name, array in empty.outputs.items()} == {"probability": (0,), "simple": (0,)}
    assert empty.version is None
    assert repr(none) == repr(empty)


def test_the_signature_of_an_answer_is_the_clients_own():
    with FakeServing(answer_price).serving() as target, PredictionClient(target, model="m", version=3) as client:
        answer = client.answer(rows(2))
        assert prices(answer.outputs["probability"]) == [0.0, 1.0]
        assert answer.version == 3
        with pytest.raises(ConfigError, match=r"Unknown signature 'explane'\.\n.*serving_default"):
            client.answer(rows(2), "explane")


def test_an_answer_without_an_output():
    with FakeServing(answer_price, EXPLAIN).serving() as target, pytest.raises(StorageError, match="broken tensor"):
        PredictionClient(target, model="m").answer(rows(2), "explain")


def test_a_matrix_is_no_probability():
    def answer(request, context):
        return protocol.PredictResponse(outputs={"probability": protocol.to_tensor(np.zeros((2, 2), np.float32))})

    with FakeServing(answer).serving() as target, pytest.raises(StorageError, match="4 float32 values for 2 rows"):
        PredictionClient(target, model="m").predict(rows(2))


def test_status_asks_for_the_version():
    with FakeServing(answer_price).serving() as target, PredictionClient(target, model="m", label="stable") as client:
        assert client.status() == [{"version": 3, "state": "AVAILABLE", "error": ""}]


def test_a_refusal_of_a_part_is_an_error():
    def answer(request, context):
        if len(fake.requests) == 2:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "indices are not in [0, 7)")
        return answer_price(request, context)

    fake = FakeServing(answer, RANK, context=("user", "genres"))
    with fake.serving() as target, pytest.raises(DataError, match=r"refused the rows: indices are not in"):
        PredictionClient(target, model="m", separator="|", max_rows=2).rank(CONTEXT, candidates(6))
    assert len(fake.requests) == 2
