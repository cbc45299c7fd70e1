"""What the client learns of a model's tokens: once, when lists, fractions or the caller's separator need it."""

import asyncio

import numpy as np
import pandas
import pyarrow
import pytest
from kit.fake_serving import DOUBLE, TEXT, FakeServing, answer_price, prices

from tfctr.errors import ConfigError, DataError
from tfctr.features import Categorical, Numeric, Sequence
from tfctr.schema import Schema
from tfctr.serving.client.asynchronous import AsyncPredictionClient
from tfctr.serving.client.blocking import PredictionClient
from tfctr.serving.wire import protocol
from tfctr.serving.wire.token_rules import written_rules

INT32 = 3
SIGNATURES = {
    "serving_default": ({"user": TEXT, "genres": TEXT, "price": DOUBLE}, ["probability"]),
    "schema": ({"rows": INT32}, ["schema"]),
}
SCHEMA = Schema(
    [Categorical("user", token_type="number"), Sequence("genres", 3, separator=" ", token_type="whole"), Numeric("price")],
    label="click",
)
ROWS = {"user": [0.5, "x"], "genres": [["1", 2], []], "price": [1, 2]}


def model(signatures=SIGNATURES, schema=SCHEMA):
    def answer(request, context):
        if request.model_spec.signature_name != "schema":
            return answer_price(request, context)
        rows = protocol.from_tensor(request.inputs["rows"])
        texts = np.array([written_rules(schema).encode()] * len(rows), object)
        return protocol.PredictResponse(outputs={"schema": protocol.to_tensor(texts)})

    return FakeServing(answer, signatures)


def asked(fake):
    return [request.model_spec.signature_name for request in fake.requests]


def sent(fake, column):
    return list(fake.requests[-1].inputs[column].string_val)


def test_lists_and_fractions_just_work():
    fake = model()
    with fake.serving() as target, PredictionClient(target, model="m") as client:
        assert [prices(client.predict(ROWS)) for _ in range(2)] == [[1, 2]] * 2
    assert asked(fake) == ["schema", "serving_default", "serving_default"]
    assert (sent(fake, "user"), sent(fake, "genres")) == ([b"0.5", b"x"], [b"1 2", b""])


def test_the_asyncio_client_and_rows_as_dicts_too():
    fake = model()

    async def predict(target):
        async with AsyncPredictionClient(target, model="m") as client:
            return await client.predict([dict(zip(ROWS, row, strict=True)) for row in zip(*ROWS.values(), strict=True)])

    with fake.serving() as target:
        assert prices(asyncio.run(predict(target))) == [1, 2]
    assert (sent(fake, "user"), sent(fake, "genres")) == ([b"0.5", b"x"], [b"1 2", b""])


def test_rows_of_text_ask_for_nothing():
    fake = model()
    with fake.serving() as target, PredictionClient(target, model="m") as client:
        client.predict({"user": ["0.5", 7], "genres": ["1 2", None], "price": [1, 2]})
    assert asked(fake) == ["serving_default"]


@pytest.mark.parametrize("separator", ["|", {"genres": ","}])
def test_another_separator_than_the_models_is_refused(separator):
    with model().serving() as target, PredictionClient(target, model="m", separator=separator) as client:
        for rows in (ROWS, {**ROWS, "genres": ["1|2", ""]}):
            with pytest.raises(ConfigError, match=r"`separator` is '.' for 'genres', whose tokens the model separates by ' '"):
                client.predict(rows)


@pytest.mark.parametrize("separator", [" ", {"genres": " "}, {"other": "|"}])
def test_the_models_own_separator_may_be_given(separator):
    fake = model()
    with fake.serving() as target, PredictionClient(target, model="m", separator=separator) as client:
        client.predict(ROWS)
    assert sent(fake, "genres") == [b"1 2", b""]


def test_a_fraction_is_refused_where_tokens_are_whole_numbers():
    refused = pytest.raises(DataError, match=r"column 'genres', row 1: .*1\.5.* is neither text nor a whole number")
    with model().serving() as target, PredictionClient(target, model="m") as client, refused:
        client.predict({**ROWS, "genres": [[1], [1.5]]})


def test_a_list_is_refused_where_tokens_are_no_sequence():
    refused = pytest.raises(DataError, match=r"column 'user', row 0: .* is a list")
    with model().serving() as target, PredictionClient(target, model="m") as client, refused:
        client.predict({**ROWS, "user": [["a"], "b"]})


def test_a_newer_version_is_asked_anew():
    fake = model()
    with fake.serving() as target, PredictionClient(target, model="m") as client:
        client.predict(ROWS)
        client._signatures = client._rules = None  # as when a newer version has answered
        client.predict(ROWS)
    assert asked(fake) == ["schema", "serving_default"] * 2


def test_a_model_that_says_nothing_of_tokens_is_served_as_before():
    fake = model({"serving_default": SIGNATURES["serving_default"]})
    with fake.serving() as target:
        with PredictionClient(target, model="m") as client, pytest.raises(DataError, match=r"is a list|whole number"):
            client.predict(ROWS)
        with PredictionClient(target, model="m", separator="|") as client:
            client.predict({**ROWS, "user": [1.0, "x"]})
            assert sent(fake, "genres") == [b"1|2", b""]
            with pytest.raises(DataError, match=r"0\.5 is neither text nor a whole number"):
                client.predict(ROWS)


NAMED = Schema([Categorical("user", column="User id"), Numeric("price", column="price (EUR)")], label="click")
NAMED_SIGNATURES = {
    "serving_default": ({"user": TEXT, "price": DOUBLE}, ["probability"]),
    "schema": ({"rows": INT32}, ["schema"]),
}
RAW = {"User id": ["a", "b"], "price (EUR)": [1.0, 2.0], "click": [0, 1]}


@pytest.mark.parametrize(
    "form", [dict, pandas.DataFrame, pyarrow.table, lambda rows: pandas.DataFrame(rows).to_dict("records")]
)
def test_the_names_of_the_raw_table_are_known(form):
    fake = model(NAMED_SIGNATURES, NAMED)
    with fake.serving() as target, PredictionClient(target, model="m") as client:
        assert [prices(client.predict(form(RAW))) for _ in range(2)] == [[1, 2]] * 2
    assert asked(fake) == ["schema", "serving_default", "serving_default"]
    assert sent(fake, "user") == [b"a", b"b"]


def test_a_file_with_the_names_of_the_raw_table(tmp_path):
    pandas.DataFrame(RAW).to_csv(tmp_path / "raw.csv", index=False)
    with model(NAMED_SIGNATURES, NAMED).serving() as target, PredictionClient(target, model="m") as client:
        assert prices(client.predict_file(tmp_path / "raw.csv")) == [1, 2]


def test_the_inputs_own_name_comes_first():
    fake = model(NAMED_SIGNATURES, NAMED)
    with fake.serving() as target, PredictionClient(target, model="m") as client:
        client.predict({**RAW, "user": ["x", "y"]})
    assert sent(fake, "user") == [b"x", b"y"]


def test_a_column_under_neither_name_is_named_by_both():
    with model(NAMED_SIGNATURES, NAMED).serving() as target, PredictionClient(target, model="m") as client:
        with pytest.raises(DataError, match="column 'user' is missing") as caught:
            client.predict({"price": [1.0]})
        with pytest.raises(DataError, match="column 'User id' is in the table twice"):
            client.predict(pandas.DataFrame([["a", "b", 1.0]], columns=["User id", "User id", "price (EUR)"]))
    assert "or 'User id' as in the raw table" in caught.value.fix


def test_what_may_be_left_out_is_looked_for_by_both_names():
    fake = model(NAMED_SIGNATURES, NAMED)
    with fake.serving() as target, PredictionClient(target, model="m", strict=False) as client:
        client.predict(RAW)
    assert sent(fake, "user") == [b"a", b"b"]
