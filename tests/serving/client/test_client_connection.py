"""How a client connects: TLS, tokens, several servers, labels; and what it refuses before it does."""

import subprocess
import sys
import threading

import grpc
import pytest
from kit.fake_serving import FakeServing, answer_price, prices, rows

from tfctr.errors import ConfigError, StorageError
from tfctr.serving.client.blocking import PredictionClient
from tfctr.serving.client.connection import _OPTIONS


def credentials(certificate, ask_client=False):
    key, chain = (path.read_bytes() for path in certificate)
    return grpc.ssl_server_credentials([(key, chain)], chain if ask_client else None, ask_client)


def test_tls_with_an_authority_of_our_own(certificate):
    fake = FakeServing(answer_price)
    with fake.serving(credentials(certificate)) as target:
        with PredictionClient(target, model="m", root_certificates=certificate[1]) as client:
            assert prices(client.predict(rows(2))) == [0.0, 1.0]
        for options in ({}, {"tls": True}):  # plain text, and authorities that do not know this server
            with (
                PredictionClient(target, model="m", **options) as client,
                pytest.raises(StorageError, match="no server answers"),
            ):
                client.predict(rows(2))
    assert len(fake.requests) == 1


def test_a_client_that_must_show_a_certificate(certificate):
    key, chain = certificate
    with FakeServing(answer_price).serving(credentials(certificate, ask_client=True)) as target:
        options = {"client_certificate": chain, "client_key": key}
        with PredictionClient(target, model="m", root_certificates=chain, **options) as client:
            assert prices(client.predict(rows(1))) == [0.0]
        with PredictionClient(target, model="m", root_certificates=chain) as client, pytest.raises(StorageError):
            client.predict(rows(1))


def test_tokens_are_sent_with_each_request(certificate):
    tokens = iter(["first", "second", "third"])
    fake = FakeServing(answer_price)
    with fake.serving(credentials(certificate)) as target:
        with PredictionClient(target, model="m", root_certificates=certificate[1], token="secret") as client:
            client.predict(rows(1))
        # The first goes with the question for the model's inputs.
        with PredictionClient(target, model="m", root_certificates=certificate[1], token=lambda: next(tokens)) as client:
            client.predict(rows(1))
            client.predict(rows(1))
    assert [headers["authorization"] for headers in fake.headers] == ["Bearer secret", "Bearer second", "Bearer third"]


def test_a_function_that_gives_no_token(certificate):
    options = {"root_certificates": certificate[1], "token": lambda: b"secret"}
    with (
        PredictionClient("localhost:1", model="m", **options) as client,
        pytest.raises(ConfigError, match="`token` is not text"),
    ):
        client.predict(rows(1))


@pytest.mark.parametrize("code", ["UNAUTHENTICATED", "PERMISSION_DENIED"])
def test_a_server_that_refuses_the_caller(code):
    fake = FakeServing(lambda request, context: context.abort(grpc.StatusCode[code], "no token"))
    with fake.serving() as target, pytest.raises(ConfigError, match=r"(?s)refused the caller: no token.*check `token`"):
        PredictionClient(target, model="m").predict(rows(1))
    assert len(fake.requests) == 1


def test_servers_take_turns_and_one_that_is_away_is_left_out():
    one, two = FakeServing(answer_price), FakeServing(answer_price)
    with one.serving() as first:
        with two.serving() as second, PredictionClient(f"ipv4:{first},{second}", model="m") as client:
            for _ in range(40):
                client.predict(rows(1))
            assert min(len(one.requests), len(two.requests)) >= 10
        with PredictionClient(f"ipv4:{first},{second}", model="m") as client:
            assert [prices(client.predict(rows(2))) for _ in range(10)] == [[0.0, 1.0]] * 10


def test_a_name_is_asked_for_all_its_addresses():
    fake = FakeServing(answer_price)
    with fake.serving() as target, PredictionClient(f"dns:///localhost:{target.split(':')[1]}", model="m") as client:
        assert prices(client.predict(rows(2))) == [0.0, 1.0]


def test_a_label_chooses_the_version_of_all_parts():
    def answer(request, context):
        response = answer_price(request, context)
        response.model_spec.version.value = 7
        return response

    fake = FakeServing(answer)
    with fake.serving() as target, PredictionClient(target, model="m", label="stable", max_rows=2) as client:
        client.predict(rows(3))
    (asked,) = fake.metadata_requests
    assert asked.model_spec.version_label == "stable"
    first, second = (request.model_spec for request in fake.requests)
    assert (first.version_label, first.HasField("version")) == ("stable", False)
    assert (second.version_label, second.version.value) == ("", 7)


def test_a_label_that_is_unknown():
    refusal = "Unrecognized servable version label: stabel"
    fake = FakeServing(lambda request, context: context.abort(grpc.StatusCode.INVALID_ARGUMENT, refusal))
    with fake.serving() as target, pytest.raises(StorageError, match=f"(?s)no such label: {refusal}.*fix: check `label`"):
        PredictionClient(target, model="m", label="stabel").predict(rows(1))


def test_a_client_that_is_closed():
    with PredictionClient("localhost:1", model="m") as client:
        pass
    with pytest.raises(ConfigError, match="the client is closed"):
        client.predict(rows(1))


def test_a_client_that_is_closed_while_it_is_used():
    asked, release = threading.Event(), threading.Event()

    def answer(request, context):
        asked.set()
        release.wait(60)
        return answer_price(request, context)

    def close():
        asked.wait(60)
        client.close()

    with FakeServing(answer).serving() as target:
        client = PredictionClient(target, model="m", timeout=60)
        closing = threading.Thread(target=close)
        closing.start()
        with pytest.raises(ConfigError, match="the client is closed"):
            client.predict(rows(1))
        release.set()
        closing.join()


def test_a_channel_that_another_thread_has_closed(monkeypatch):
    def method(self, path):
        ready = method_of(self, path)
        self.close()
        return ready

    method_of = PredictionClient._method
    monkeypatch.setattr(PredictionClient, "_method", method)
    with pytest.raises(ConfigError, match="the client is closed"):
        PredictionClient("localhost:1", model="m").predict(rows(1))


def test_a_server_that_comes_back_is_asked_soon():
    assert ("grpc.max_reconnect_backoff_ms", 1000) in _OPTIONS


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"target": "http://localhost:8500"}, "`target` is 'http://localhost:8500'"),
        ({"target": "dns:///localhost"}, "`target` is"),
        ({"target": "localhost:"}, "`target` is"),
        ({"target": ":8500"}, "`target` is"),
        ({"target": "localhost:8500 "}, "`target` is"),
        ({"target": "localhost:74036"}, "`target` is 'localhost:74036'"),
        ({"target": "localhost:0"}, "`target` is"),
        ({"label": ""}, "`label` is ''"),
        ({"label": 3}, "`label` is 3"),
        ({"label": "stable", "version": 3}, "`label` is 'stable'.*`version` or `label`, not both"),
        ({"timeout": "5"}, "`timeout` is '5'"),
        ({"max_rows": 1.5}, "`max_rows` is 1.5"),
        ({"observe": "prometheus"}, "`observe` is 'prometheus'"),
        ({"tls": "yes"}, "`tls` is 'yes'"),
        ({"root_certificates": 7}, "`root_certificates` is 7"),
        ({"root_certificates": __file__}, "`root_certificates`: .* is no PEM file"),
        ({"client_key": __file__}, "`client_certificate` is None.*together"),
        ({"client_certificate": __file__}, "`client_key` is None"),
        ({"token": "secret"}, "`token` would be sent without encryption"),
        ({"tls": True, "token": ""}, "`token` is empty"),
        ({"tls": True, "token": "secret\n"}, "`token` is empty or has spaces"),
        ({"tls": True, "token": 7}, "`token` is not text"),
    ],
)
def test_connections_that_cannot_be_used(options, problem):
    with pytest.raises(ConfigError, match=f"(?s){problem}") as raised:
        PredictionClient(**{"target": "localhost:8500", "model": "m", **options})
    assert "secret" not in str(raised.value)


def test_a_certificate_that_is_not_there(tmp_path):
    with pytest.raises(StorageError, match="`root_certificates`: cannot read"):
        PredictionClient("localhost:8500", model="m", root_certificates=tmp_path / "none.pem")


def test_pem_files_that_do_not_hold_what_they_should(certificate):
    key, chain = certificate
    with pytest.raises(ConfigError, match=f"`root_certificates`: {key} holds no certificate"):
        PredictionClient("localhost:8500", model="m", root_certificates=key)
    with pytest.raises(ConfigError, match=f"`client_certificate` and `client_key` do not belong together: {key}, {chain}"):
        PredictionClient("localhost:8500", model="m", client_certificate=key, client_key=chain)


@pytest.mark.parametrize(
    "target", ["10.0.0.1:8500", "[::1]:8500", "ipv6:[::1]:1,[::1]:2", "dns:///serving.ads:8500", "unix:/run/x"]
)
def test_targets_that_can_be_used(target):
    assert PredictionClient(target, model="m").target == target


IMPORT = """
import sys
from tfctr.serving import AsyncPredictionClient, PredictionClient
from pathlib import Path
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(status["VmHWM"].split()[0], *{"tensorflow", "keras", "pandas"} & set(sys.modules))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_clients_import_little():
    run = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True)
    kilobytes, *modules = run.stdout.split()
    assert int(kilobytes) < 80_000
    assert modules == []
