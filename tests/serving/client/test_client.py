"""What the client sends, and how it behaves towards servers that are away or wrong."""

import math
from concurrent import futures

import grpc
import numpy as np
import pytest
from kit.fake_serving import DOUBLE, TEXT, FakeServing, answer_price, prices, rows

from tfctr.errors import ConfigError, DataError, StorageError
from tfctr.serving.client.blocking import PredictionClient
from tfctr.serving.wire import protocol


@pytest.mark.parametrize(("count", "expected"), [(1, [1]), (7, [7]), (8, [7, 1]), (20, [7, 7, 6]), (0, [])])
def test_large_inputs_are_split_and_rejoined_in_order(count, expected):
    fake = FakeServing(answer_price)
    with fake.serving() as target, PredictionClient(target, model="m", max_rows=7) as client:
        answer = client.predict(rows(count))
    assert [len(request.inputs["user"].string_val) for request in fake.requests] == expected
    assert answer.dtype == np.float32
    assert prices(answer) == list(range(count))


def answer_version(versions):
    """Answers that name a version each, as TensorFlow Serving does; None is one that is no longer served."""

    def answer(request, context):
        version = next(versions)
        if version is None:
            context.abort(grpc.StatusCode.NOT_FOUND, "Servable not found")
        response = answer_price(request, context)
        response.model_spec.version.value = version
        return response

    return answer


@pytest.mark.parametrize(
    ("answered", "asked"),
    [([4, 4, 4], [0, 4, 4]), ([4, 4, None, 5, 5, 5], [0, 4, 4, 0, 5, 5])],
    ids=["one version", "a version that goes meanwhile"],
)
def test_all_parts_are_answered_by_one_version(answered, asked):
    fake = FakeServing(answer_version(iter(answered)))
    with fake.serving() as target, PredictionClient(target, model="m", max_rows=2) as client:
        assert prices(client.predict(rows(6))) == [0, 1, 2, 3, 4, 5]
    assert [request.model_spec.version.value for request in fake.requests] == asked


def test_versions_that_keep_going_end_in_an_error():
    fake = FakeServing(answer_version(iter([4, None, 5, None])))
    with fake.serving() as target, pytest.raises(StorageError, match="Servable not found"):
        PredictionClient(target, model="m", max_rows=2).predict(rows(6))
    assert len(fake.requests) == 4


def test_requests_stay_below_the_bytes_asked_for():
    fake = FakeServing(answer_price)
    table = {"user": ["x" * 1000] * 100, "price": np.arange(100.0)}
    with fake.serving() as target, PredictionClient(target, model="m", max_bytes=10_000) as client:
        assert prices(client.predict(table)) == list(range(100))
    assert len(fake.requests) == 12  # nine rows of 1011 bytes fit into 10,000
    assert max(request.ByteSize() for request in fake.requests) < 10_000 + 200


def test_the_default_limits():
    fake = FakeServing(answer_price)
    with fake.serving() as target, PredictionClient(target, model="m") as client:
        client.predict(rows(2500))
        client.predict({"user": ["x" * 2**20, "x" * 2**20, ""], "price": [0, 1, 2]})
    assert [len(request.inputs["user"].string_val) for request in fake.requests] == [1000, 1000, 500, 1, 1, 1]


def test_no_rows_need_no_server():
    assert PredictionClient("127.0.0.1:1", model="m").predict([]).shape == (0,)


def test_lists_are_joined_by_the_separator():
    fake = FakeServing(answer_price)
    with fake.serving() as target, PredictionClient(target, model="m", separator={"user": ","}) as client:
        client.predict({"user": [["a", 7]], "price": [1]})
        with pytest.raises(DataError, match="is a list"):
            PredictionClient(target, model="m").predict({"user": [["a", 7]], "price": [1]})
    assert [list(request.inputs["user"].string_val) for request in fake.requests] == [[b"a,7"]]


def test_a_file_of_rows(tmp_path):
    (tmp_path / "rows").write_text('{"user": "60", "price": "0.5", "click": 1}\n\n{"user": 7, "price": 0.25, "group": "x"}\n')
    with FakeServing(answer_price).serving() as target, PredictionClient(target, model="m") as client:
        assert prices(client.predict_file(tmp_path / "rows")) == [0.5, 0.25]
        (tmp_path / "rows").write_text('\n{"user": "60", "price": 1}\n\n{"user": "7", "price": "cheap"}\n')
        with pytest.raises(DataError, match=r"rows, line 4, column 'price': 'cheap' is not a number"):
            client.predict_file(tmp_path / "rows")


def versioned(served):
    """Answers of the version `served()`, and NOT_FOUND for any other one that is asked for."""

    def answer(request, context):
        version, asked = served(), request.model_spec.version.value
        if asked not in (0, version):
            context.abort(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: Specific(m, {asked})")
        response = answer_price(request, context)
        response.model_spec.version.value = version
        return response

    return answer


def test_one_version_answers_a_long_file(tmp_path):
    (tmp_path / "rows").write_text("".join(f'{{"user": "60", "price": {price}}}\n' for price in range(10_500)))
    fake = FakeServing(versioned(lambda: 4))
    with fake.serving() as target, PredictionClient(target, model="m", label="stable") as client:
        assert prices(client.predict_file(tmp_path / "rows")) == list(range(10_500))
    assert [request.model_spec.version_label for request in fake.requests] == ["stable"] + 10 * [""]
    assert [request.model_spec.version.value for request in fake.requests] == [0] + 10 * [4]


def test_a_version_that_goes_while_a_file_is_read(tmp_path):
    (tmp_path / "rows").write_text("\n" + '{"user": "60", "price": 1}\n' * 10_500)
    fake = FakeServing(versioned(lambda: 4 if len(fake.requests) <= 10 else 5))
    with fake.serving() as target, PredictionClient(target, model="m") as client:
        with pytest.raises(StorageError, match=r"no longer has version 4, which answered the lines before 10002\."):
            client.predict_file(tmp_path / "rows")
        assert prices(client.predict_file(tmp_path / "rows")) == [1] * 10_500


def test_what_is_sent():
    fake = FakeServing(answer_price, {"explain": ({"user": TEXT, "price": DOUBLE}, ["probability", "simple"])})
    with fake.serving() as target, PredictionClient(target, model="m", signature="explain", version=3) as client:
        client.predict({"price": [1, None], "user": [60, None]})
    (request,) = fake.requests
    assert (request.model_spec.name, request.model_spec.version.value, request.model_spec.signature_name) == ("m", 3, "explain")
    assert list(request.output_filter) == ["probability"]
    assert list(request.inputs["user"].string_val) == [b"60", b""]
    assert request.inputs["price"].dtype == DOUBLE
    np.testing.assert_array_equal(np.frombuffer(request.inputs["price"].tensor_content), [1.0, np.nan])


@pytest.mark.parametrize("form", ["float_val", "tensor_content", "column"])
def test_forms_of_answers(form):
    def answer(request, context):
        tensor = protocol.to_tensor(np.array([[0.25], [0.5]] if form == "column" else [0.25, 0.5], np.float32))
        if form == "float_val":
            tensor.float_val.extend([0.25, 0.5])
            tensor.tensor_content = b""
        return protocol.PredictResponse(outputs={"probability": tensor})

    with FakeServing(answer).serving() as target, PredictionClient(target, model="m") as client:
        assert client.predict(rows(2)).tolist() == [0.25, 0.5]


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, -1e-45, np.nextafter(np.float32(1), np.float32(2))])
def test_what_is_no_probability_is_refused(wrong):
    def answer(request, context):
        count = protocol.from_tensor(request.inputs["price"]).size
        found = np.float32([0.0, 1.0, wrong, wrong])[:count]
        return protocol.PredictResponse(outputs={"probability": protocol.to_tensor(found)})

    with FakeServing(answer).serving() as target, PredictionClient(target, model="m") as client:
        assert client.predict(rows(2)).tolist() == [0.0, 1.0]
        with pytest.raises(StorageError, match=r"for row 2, which is no probability \(2 of 4 rows\)"):
            client.predict(rows(4))


@pytest.mark.parametrize("values", [np.zeros(3, np.float32), np.zeros(2), np.zeros(0, np.float32)])
def test_answers_that_do_not_fit_the_rows(values):
    def answer(request, context):
        return protocol.PredictResponse(outputs={"probability": protocol.to_tensor(values)})

    problem = f"answered {len(values)} {values.dtype} values for 2 rows"
    with FakeServing(answer).serving() as target, pytest.raises(StorageError, match=problem):
        PredictionClient(target, model="m").predict(rows(2))


@pytest.mark.parametrize("tensor", [{}, {"dtype": 1, "tensor_shape": {"dim": [{"size": 2}]}, "tensor_content": b"123"}])
def test_broken_answers(tensor):
    def answer(request, context):
        return protocol.PredictResponse(outputs={"probability": tensor})

    with FakeServing(answer).serving() as target, pytest.raises(StorageError, match="answered with a broken tensor"):
        PredictionClient(target, model="m").predict(rows(2))


@pytest.mark.parametrize(
    ("code", "attempts", "error"),
    [
        (grpc.StatusCode.UNAVAILABLE, 3, StorageError),
        (grpc.StatusCode.INVALID_ARGUMENT, 1, DataError),
        (grpc.StatusCode.FAILED_PRECONDITION, 1, ConfigError),
        (grpc.StatusCode.NOT_FOUND, 1, StorageError),
        (grpc.StatusCode.INTERNAL, 1, StorageError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, 1, StorageError),
    ],
)
def test_only_unavailable_is_retried(code, attempts, error):
    fake = FakeServing(lambda request, context: context.abort(code, "the server's words"))
    with fake.serving() as target, pytest.raises(error, match="the server's words"):
        PredictionClient(target, model="m").predict(rows(1))
    assert len(fake.requests) == attempts


def test_a_retry_that_succeeds_is_not_seen():
    def answer(request, context):
        if len(fake.requests) < 3:
            context.abort(grpc.StatusCode.UNAVAILABLE, "restarting")
        return answer_price(request, context)

    fake = FakeServing(answer)
    with fake.serving() as target, PredictionClient(target, model="m") as client:
        assert prices(client.predict(rows(2))) == [0.0, 1.0]
    assert len(fake.requests) == 3


def test_metadata_is_asked_once_and_again_after_a_refusal():
    def answer(request, context):
        if len(fake.requests) == 3:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "input size does not match signature")
        return answer_price(request, context)

    fake = FakeServing(answer)
    with fake.serving() as target, PredictionClient(target, model="m") as client:
        client.predict(rows(1))
        client.predict(rows(1))
        assert len(fake.metadata_requests) == 1
        with pytest.raises(DataError):
            client.predict(rows(1))
        client.predict(rows(1))
    assert len(fake.metadata_requests) == 2


def test_signatures_that_a_newer_version_has_changed_are_asked_again():
    fake = FakeServing(answer_price)
    with fake.serving() as target, PredictionClient(target, model="m") as client:
        client.predict(rows(1))
        fake.signatures["another"] = fake.signatures["serving_default"]
        assert prices(client.answer(rows(1), "another").outputs["probability"]) == prices(client.predict(rows(1)))
        asked = len(fake.metadata_requests)
        for _ in range(2):
            with pytest.raises(DataError, match="column 'price' is missing"):
                client.predict({"user": ["60"]})
        assert len(fake.metadata_requests) == asked + 2
        assert client.predict(rows(1)).shape == (1,)


def test_a_column_that_a_newer_version_takes_is_sent_from_then_on():
    fake = FakeServing(versioned(lambda: fake.version), {"serving_default": ({"price": DOUBLE}, ["probability"])})
    fake.version = 1
    with fake.serving() as target, PredictionClient(target, model="m") as client:
        client.predict(rows(1))
        fake.version, fake.signatures = 2, {"serving_default": ({"price": DOUBLE, "user": TEXT}, ["probability"])}
        for _ in range(3):
            client.predict(rows(1))
    assert [sorted(request.inputs) for request in fake.requests] == [["price"], ["price"], ["price", "user"], ["price", "user"]]
    assert len(fake.metadata_requests) == 2


def test_metadata_is_what_the_server_has_now(tmp_path):
    (tmp_path / "rows").write_text('{"price": 1}\n')
    fake = FakeServing(answer_price)
    with fake.serving() as target, PredictionClient(target, model="m") as client:
        client.predict(rows(1))
        fake.signatures = {"serving_default": ({"price": DOUBLE}, ["probability"])}
        assert [*client.metadata()["serving_default"]["inputs"]] == ["price"]
        fake.signatures = {"serving_default": ({"price": DOUBLE, "user": TEXT}, ["probability"])}
        with pytest.raises(DataError, match="column 'user' is missing"):
            client.predict_file(tmp_path / "rows")


def test_a_server_that_is_slow_is_not_asked_more():
    fake = FakeServing(lambda request, context: context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, ""))
    with fake.serving() as target, PredictionClient(target, model="m") as client:
        for _ in range(3):
            with pytest.raises(StorageError, match="did not answer"):
                client.predict(rows(1))
    assert len(fake.metadata_requests) == 1


def test_bad_rows_are_never_sent():
    fake = FakeServing(answer_price)
    with fake.serving() as target, pytest.raises(DataError, match="column 'price' is missing"):
        PredictionClient(target, model="m").predict({"user": ["60"], "prise": [1.0]})
    assert fake.requests == []


def test_signatures_and_outputs_that_are_not_there():
    fake = FakeServing(answer_price, {"explain": ({"user": TEXT, "price": DOUBLE}, ["simple", "complex"])})
    with fake.serving() as target:
        with pytest.raises(ConfigError, match=r"Unknown signature 'serving_default'\.\n.*explain"):
            PredictionClient(target, model="m").predict(rows(1))
        with pytest.raises(ConfigError, match="Unknown output 'probability'"):
            PredictionClient(target, model="m", signature="explain").predict(rows(1))


def test_no_server():
    with pytest.raises(StorageError, match=r"no server answers at 127.0.0.1:1: .*(?s:.*)tfctr serve"):
        PredictionClient("127.0.0.1:1", model="m").predict(rows(1))


def test_another_server():
    server = grpc.server(futures.ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with pytest.raises(StorageError, match="UNIMPLEMENTED"):
        PredictionClient(f"127.0.0.1:{port}", model="m").predict(rows(1))
    server.stop(None)


def test_a_web_proxy_is_not_asked(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with FakeServing(answer_price).serving() as target, PredictionClient(target, model="m") as client:
        assert prices(client.predict(rows(1))) == [0.0]


@pytest.mark.parametrize(
    "options",
    [
        {"target": "localhost"},
        {"target": 8500},
        {"model": ""},
        {"model": "\udcff"},
        {"strict": "no"},
        {"version": True},
        {"timeout": 0},
        {"timeout": math.nan},
        {"max_rows": 0},
        {"max_bytes": 0},
        {"version": -1},
        {"version": "3"},
        {"separator": ""},
        {"separator": {"genres": "||"}},
    ],
)
def test_options_that_cannot_be_used(options):
    with pytest.raises(ConfigError, match=f"`.*{next(iter(options))}.*` is"):
        PredictionClient(**{"target": "localhost:8500", "model": "m", **options})
