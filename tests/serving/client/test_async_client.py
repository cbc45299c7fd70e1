"""The asyncio client: what it answers and refuses is the blocking client's; here is that it awaits."""

import asyncio
import inspect
import threading

import grpc
import pytest
from kit.fake_serving import DOUBLE, TEXT, FakeServing, answer_price, prices, rows

from tfctr.errors import ConfigError, DataError, StorageError
from tfctr.serving.client.asynchronous import AsyncPredictionClient
from tfctr.serving.client.blocking import PredictionClient


def test_it_has_the_methods_and_arguments_of_the_blocking_client():
    def public(client):
        members = inspect.getmembers(client, inspect.isfunction)
        return {name: inspect.signature(member) for name, member in members if not name.startswith("_") or name == "__init__"}

    assert public(AsyncPredictionClient) == public(PredictionClient)


def ask(fake, call, **options):
    """What `call` gives for a client of `fake`."""

    async def run(target):
        async with AsyncPredictionClient(target, model="m", **options) as client:
            return await call(client)

    with fake.serving() as target:
        return asyncio.run(run(target))


def test_every_method_gives_what_the_blocking_one_gives(tmp_path):
    (tmp_path / "rows").write_text('{"user": "60", "price": "0.5"}\n')
    calls = [
        ("predict", (rows(5),)),
        ("predict_file", (tmp_path / "rows",)),
        ("rank", ({"user": 7}, {"price": [1, 2, 3]})),
        ("answer", (rows(3),)),
        ("metadata", ()),
        ("status", ()),
    ]
    inputs = {"user": TEXT, "price": DOUBLE}
    fake = FakeServing(answer_price, dict.fromkeys(["serving_default", "rank"], (inputs, ["probability"])), context=("user",))
    fake.signatures["serving_default"] = ({"price": DOUBLE}, ["probability"])

    async def call_all(client):
        return [await getattr(client, name)(*arguments) for name, arguments in calls]

    answers = ask(fake, call_all, max_rows=2)
    with fake.serving() as target, PredictionClient(target, model="m", max_rows=2) as client:
        for (name, arguments), answer in zip(calls, answers, strict=True):
            assert repr(answer) == repr(getattr(client, name)(*arguments)), name
    half = len(fake.requests) // 2
    assert fake.requests[:half] == fake.requests[half:]


def test_calls_run_at_the_same_time():
    together = threading.Barrier(4, timeout=60)

    def answer(request, context):
        together.wait()
        return answer_price(request, context)

    async def four(client):
        return await asyncio.gather(*(client.predict(rows(count)) for count in (1, 2, 3, 4)))

    answers = ask(FakeServing(answer), four)
    assert [prices(answer) for answer in answers] == [list(range(count)) for count in (1, 2, 3, 4)]


@pytest.mark.parametrize(
    ("code", "attempts", "error"),
    [("UNAVAILABLE", 3, StorageError), ("INVALID_ARGUMENT", 1, DataError), ("INTERNAL", 1, StorageError)],
)
def test_only_unavailable_is_retried(code, attempts, error):
    fake = FakeServing(lambda request, context: context.abort(grpc.StatusCode[code], "the server's words"))
    with pytest.raises(error, match="the server's words"):
        ask(fake, lambda client: client.predict(rows(1)))
    assert len(fake.requests) == attempts


def test_the_deadline_holds_against_a_slow_server():
    release = threading.Event()
    fake = FakeServing(lambda request, context: (release.wait(60), answer_price(request, context))[1])
    try:
        with pytest.raises(StorageError, match=r"did not answer within 0\.5 s"):
            ask(fake, lambda client: client.predict(rows(1)), timeout=0.5)
    finally:
        release.set()


def test_a_call_can_be_cancelled():
    release = threading.Event()

    async def give_up(client):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.predict(rows(1)), 0.2)
        release.set()
        return await client.predict(rows(2))

    fake = FakeServing(lambda request, context: (release.wait(60), answer_price(request, context))[1])
    assert prices(ask(fake, give_up)) == [0.0, 1.0]


def test_bad_rows_are_never_sent():
    fake = FakeServing(answer_price)
    with pytest.raises(DataError, match="column 'price' is missing"):
        ask(fake, lambda client: client.predict({"user": ["60"]}))
    assert fake.requests == []


def test_a_client_belongs_to_one_event_loop():
    fake = FakeServing(answer_price)
    with fake.serving() as target:
        client = AsyncPredictionClient(target, model="m")  # no loop runs here, and none is needed

        async def use():
            return prices(await client.predict(rows(1)))

        async def use_and_close():
            answer = await use()
            await client.close()
            return answer

        assert asyncio.run(use_and_close()) == [0.0]
        with pytest.raises(ConfigError, match="belongs to another event loop"):
            asyncio.run(use())


def test_a_client_that_is_closed():
    async def use(client):
        await client.close()
        return await client.predict(rows(1))

    with pytest.raises(ConfigError, match="the client is closed"):
        ask(FakeServing(answer_price), use)


def test_a_client_that_is_closed_while_it_is_used():
    asked, release = threading.Event(), threading.Event()

    def answer(request, context):
        asked.set()
        release.wait(60)
        return answer_price(request, context)

    async def use(client):
        call = asyncio.ensure_future(client.predict(rows(1)))
        await asyncio.to_thread(asked.wait, 60)
        await client.close()
        release.set()
        return await call

    with pytest.raises(ConfigError, match="the client is closed"):
        ask(FakeServing(answer), use, timeout=60)
