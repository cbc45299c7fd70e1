"""The proxy of docker/, as Envoy itself runs it: who gets through, with which calls, and what the server never sees."""

import base64
import json
import subprocess
import time

import grpc
import pytest
from kit.fake_serving import prices, rows
from kit.gateway import PREDICT, Anything, make_secrets, make_token, running
from kit.places import DOCKER

from tfctr.errors import StorageError, TfctrError
from tfctr.serving.client.blocking import PredictionClient
from tfctr.serving.wire import protocol

RELOAD = f"/{protocol.MODEL_SERVICE}/HandleReloadConfigRequest"
PREDICTION_CALLS = ("Predict", "Classify", "Regress", "MultiInference", "GetModelMetadata")
ALLOWED = [
    *(f"/{protocol.PREDICTION_SERVICE}/{call}" for call in PREDICTION_CALLS),
    f"/{protocol.MODEL_SERVICE}/GetModelStatus",
]
DENIED = [
    RELOAD,
    "/tensorflow.ProfilerService/Profile",
    "/tensorflow.ProfilerService/Monitor",
    "/tensorflow.ProfileAnalysis/NewSession",
    "/tensorflow.serving.SessionService/SessionRun",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/",
    f"/{protocol.PREDICTION_SERVICE}X/Predict",
    f"/{protocol.MODEL_SERVICE}/GetModelStatus/",
    f"/{protocol.MODEL_SERVICE}/getmodelstatus/../HandleReloadConfigRequest",
    f"/{protocol.PREDICTION_SERVICE}/..{RELOAD}",
    f"/{protocol.PREDICTION_SERVICE}/.%2e{RELOAD}",
    f"/{protocol.PREDICTION_SERVICE}/..%2f{RELOAD[1:]}",
    f"/{protocol.PREDICTION_SERVICE}/..%5c{RELOAD[1:]}",
    f"/{RELOAD}",
]


@pytest.fixture(scope="module")
def secrets(tmp_path_factory):
    return make_secrets(tmp_path_factory.mktemp("gateway") / "secrets")


@pytest.fixture(scope="module")
def token(secrets):
    return make_token(secrets / "token.key", "ranker-7")


@pytest.fixture(scope="module")
def everything():
    server = Anything()
    with server.serving() as server.port:
        yield server


@pytest.fixture(scope="module")
def gateway(secrets, everything, tmp_path_factory):
    with running(tmp_path_factory.mktemp("envoy"), secrets, everything.port) as target:
        yield target


def client(target, secrets, **options):
    return PredictionClient(target, model="m", root_certificates=secrets / "ca.crt", **options)


def code(target, secrets, path, authorization, content=b""):
    """The status that one raw call gets."""
    credentials = grpc.ssl_channel_credentials((secrets / "ca.crt").read_bytes())
    with grpc.secure_channel(target, credentials) as channel:
        metadata = None if authorization is None else [("authorization", authorization)]
        call = channel.unary_unary(path).with_call
        try:
            return call(content, metadata=metadata, timeout=60)[1].code()
        except grpc.RpcError as error:
            return error.code()


def signed(key, claims, algorithm="RS256"):
    """A token with claims of our own."""
    parts = [{"alg": algorithm, "typ": "JWT"}, claims]
    text = b".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts)
    signature = b""
    if algorithm == "RS256":
        signature = subprocess.run(
            ["openssl", "dgst", "-sha256", "-sign", key], input=text, capture_output=True, check=True
        ).stdout
    return (text + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


def test_a_client_with_a_token_is_answered(gateway, secrets, token, everything):
    with client(gateway, secrets, token=lambda: token, timeout=30.0) as caller:
        assert prices(caller.predict(rows(3))) == [0.0, 1.0, 2.0]
    assert "authorization" not in everything.calls[PREDICT]
    assert 0 < everything.time_remaining < 31  # the caller's deadline, to which the server holds its model


@pytest.mark.parametrize("path", ALLOWED)
def test_these_calls_pass(gateway, secrets, token, everything, path):
    everything.calls.clear()
    content = protocol.PredictRequest(inputs={"price": protocol.to_tensor(rows(1)["price"])}).SerializeToString()
    assert code(gateway, secrets, path, f"Bearer {token}", content) is grpc.StatusCode.OK
    assert [*everything.calls] == [path]


@pytest.mark.parametrize("path", DENIED)
def test_no_other_call_reaches_the_server(gateway, secrets, token, everything, path):
    everything.calls.clear()
    refused = {grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INTERNAL}  # INTERNAL: a path that HTTP itself refuses
    assert code(gateway, secrets, path, f"Bearer {token}") in refused
    assert not everything.calls


def test_the_server_behind_would_answer_them_all(everything):
    """Without this, the test above could pass because nothing answers."""
    everything.calls.clear()
    with grpc.insecure_channel(f"127.0.0.1:{everything.port}") as channel:
        channel.unary_unary(RELOAD)(b"", timeout=60)
    assert [*everything.calls] == [RELOAD]


def test_no_token_no_answer(gateway, secrets, token, everything, tmp_path):
    now = int(time.time())
    claims = {"iss": "tfctr", "aud": "tfctr-serving", "sub": "ranker-7", "exp": now + 600}
    key, other = secrets / "token.key", tmp_path / "other.key"
    subprocess.run(["openssl", "genrsa", "-out", other, "2048"], check=True, capture_output=True)
    assert code(gateway, secrets, RELOAD, f"Bearer {signed(key, claims)}") is grpc.StatusCode.UNIMPLEMENTED  # it got in
    everything.calls.clear()
    refused = {
        "none": None,
        "empty": "",
        "without Bearer": token,
        "another scheme": f"Basic {token}",
        "no token": "Bearer nothing",
        "another key": f"Bearer {signed(other, claims)}",
        "no signature": f"Bearer {signed(key, claims, 'none')}",
        "another signature": f"Bearer {token[:-8]}AAAAAAAA",
        "expired": f"Bearer {signed(key, {**claims, 'exp': now - 600})}",
        "never expires": f"Bearer {signed(key, {name: claims[name] for name in claims if name != 'exp'})}",
        "another audience": f"Bearer {signed(key, {**claims, 'aud': 'another'})}",
        "another issuer": f"Bearer {signed(key, {**claims, 'iss': 'another'})}",
    }
    for path in (PREDICT, RELOAD, f"{PREDICT}?access_token={token}"):
        codes = {name: code(gateway, secrets, path, authorization) for name, authorization in refused.items()}
        assert {
            name for name in codes if codes[name] not in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
        } == set()
    assert not everything.calls
    with client(gateway, secrets) as caller, pytest.raises(TfctrError, match="token"):
        caller.predict(rows(1))


def test_two_keys_at_once(secrets, everything, tmp_path):
    """How a key is retired: tokens of both pass as long as both are in the file."""
    new = make_secrets(tmp_path / "new")
    jwks = tmp_path / "jwks.json"
    keys = [
        key for folder in (secrets, new) for key in json.loads((folder / "envoy/jwks.json").read_text(encoding="utf-8"))["keys"]
    ]
    jwks.write_text(json.dumps({"keys": keys}))

    def both(config):
        manager = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
        manager["http_filters"][0]["typed_config"]["providers"]["clients"]["local_jwks"] = {"filename": str(jwks)}

    path = f"/{protocol.PREDICTION_SERVICE}/Classify"
    with running(tmp_path, secrets, everything.port, both) as target:
        for folder in (secrets, new):
            assert code(target, secrets, path, f"Bearer {make_token(folder / 'token.key', 'ranker-7')}") is grpc.StatusCode.OK


def test_no_call_without_tls(gateway, secrets, certificate, everything):
    everything.calls.clear()
    for options in ({}, {"tls": True}, {"root_certificates": certificate[1]}):  # plain text, and authorities that are not ours
        with PredictionClient(gateway, model="m", **options) as caller, pytest.raises(StorageError, match="no server answers"):
            caller.predict(rows(1))
    assert not everything.calls


def signed_certificate(secrets, folder):
    """A client's key and certificate that our authority signed."""
    key, request, chain = (folder / name for name in ("client.key", "client.csr", "client.crt"))
    subject = ["-subj", "/CN=ranker-7", "-keyout", key, "-out", request]
    new = ["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", *subject]
    sign = [
        "openssl",
        "x509",
        "-req",
        "-in",
        request,
        "-CA",
        secrets / "ca.crt",
        "-CAkey",
        secrets / "ca.key",
        "-set_serial",
        "7",
    ]
    for command in (new, [*sign, "-days", "2", "-out", chain]):
        subprocess.run(command, check=True, capture_output=True)
    return {"client_certificate": chain, "client_key": key}


def test_certificates_of_clients(gateway, secrets, token, everything, certificate, tmp_path):
    """One that is sent is checked; one can be demanded, beside the token."""
    ours, foreign = signed_certificate(secrets, tmp_path), {"client_certificate": certificate[1], "client_key": certificate[0]}

    def answers(target, **options):
        with client(target, secrets, **options) as caller:
            try:
                return caller.predict(rows(1)).tolist() == [0.0]
            except TfctrError:
                return False

    def demand(config):
        transport = config["static_resources"]["listeners"][0]["filter_chains"][0]["transport_socket"]
        assert transport["typed_config"]["require_client_certificate"] is False
        transport["typed_config"]["require_client_certificate"] = True

    assert answers(gateway, token=token, **ours)
    assert not answers(gateway, token=token, **foreign)
    with running(tmp_path, secrets, everything.port, demand) as strict:
        assert answers(strict, token=token, **ours)
        assert not answers(strict, token=token)
        assert not answers(strict, token=token, **foreign)
        assert not answers(strict, **ours)


def test_the_size_of_requests(gateway, secrets, token, everything):
    path = f"/{protocol.PREDICTION_SERVICE}/Classify"
    assert code(gateway, secrets, path, f"Bearer {token}", bytes(15 * 2**20)) is grpc.StatusCode.OK
    everything.calls.clear()
    assert code(gateway, secrets, path, f"Bearer {token}", bytes(17 * 2**20)) is not grpc.StatusCode.OK
    assert not everything.calls


def test_a_model_that_does_not_end(secrets, token, tmp_path):
    """A call ends after Envoy's own limit, whatever the deadline of the caller."""

    def hurry(config):
        manager = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
        limits = manager["route_config"]["virtual_hosts"][0]["routes"][0]["route"]["max_stream_duration"]
        assert limits == {"max_stream_duration": "60s", "grpc_timeout_header_max": "60s"}
        limits.update({"max_stream_duration": "0.5s", "grpc_timeout_header_max": "0.5s"})

    server = Anything(go_on=False)
    with server.serving() as port, running(tmp_path, secrets, port, hurry) as target:
        assert code(target, secrets, PREDICT, f"Bearer {token}") is grpc.StatusCode.DEADLINE_EXCEEDED
        assert [*server.calls] == [PREDICT]
        server.go_on.set()


def test_a_server_that_is_gone_is_unavailable(secrets, token, tmp_path):
    server = Anything()
    with server.serving() as port:
        pass
    with running(tmp_path, secrets, port) as target:
        assert code(target, secrets, PREDICT, f"Bearer {token}") is grpc.StatusCode.UNAVAILABLE


def test_the_log_knows_who_and_not_the_token(secrets, token, everything, tmp_path):
    with running(tmp_path, secrets, everything.port) as target:
        assert code(target, secrets, RELOAD, f"Bearer {token}") is grpc.StatusCode.UNIMPLEMENTED
    (log,) = tmp_path.glob("*.log")
    (line,) = (json.loads(line) for line in log.read_text(encoding="utf-8").splitlines() if line.startswith("{"))
    assert (line["who"], line["call"], line["grpc_status"]) == ("ranker-7", RELOAD, "Unimplemented")
    assert token not in log.read_text(encoding="utf-8")


def test_secrets_are_not_replaced(secrets):
    again = subprocess.run(
        ["sh", DOCKER / "make_secrets.sh", secrets, "127.0.0.1"], capture_output=True, text=True, check=False
    )
    assert again.returncode == 1
    assert "is there already" in again.stderr
    assert (secrets.stat().st_mode & 0o777, (secrets / "token.key").stat().st_mode & 0o777) == (0o700, 0o600)
    assert not {"ca.key", "token.key"} & {file.name for file in (secrets / "envoy").iterdir()}


def test_names_and_addresses(tmp_path, secrets):
    named = make_secrets(f"{tmp_path}/named/", "serving.example.com") + "envoy/tls.crt"
    for certificate, name in ((named, "DNS:serving.example.com"), (secrets / "envoy/tls.crt", "IP Address:127.0.0.1")):
        show = ["openssl", "x509", "-in", certificate, "-noout", "-ext", "subjectAltName"]
        assert name in subprocess.run(show, check=True, capture_output=True, text=True).stdout
    for host, status, word in (("a b", 2, "HOST"), ("1.2.3", 1, "1.2.3")):
        command = ["sh", DOCKER / "make_secrets.sh", tmp_path / "other", host]
        refused = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (refused.returncode, word in refused.stderr) == (status, True)
        assert not [*tmp_path.glob("other*")]


@pytest.mark.parametrize("arguments", [(), ('x","aud":"y',), ("",), ("ranker", "0"), ("ranker", "1e9"), ("ranker", "1", "2")])
def test_tokens_that_are_not_made(secrets, arguments):
    command = ["sh", DOCKER / "make_token.sh", secrets / "token.key", *arguments]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stdout) == (2, "")


@pytest.mark.parametrize(("key", "words"), [("no.key", "no.key"), ("ca.key", "RSA")])
def test_no_token_without_its_key(secrets, key, words):
    command = ["sh", DOCKER / "make_token.sh", secrets / key, "ranker"]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stdout, words in refused.stderr) == (1, "", True)
