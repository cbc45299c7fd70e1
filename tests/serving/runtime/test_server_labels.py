"""The local stand-in's labels and policies, new configs, TLS and deadlines."""

import os
import re
import types

import grpc
import pytest
from kit.saved_models import client_of, put

from tfctr.errors import ConfigError, StorageError
from tfctr.serving.client.blocking import PredictionClient
from tfctr.serving.runtime.methods import _handler
from tfctr.serving.runtime.stand_in import LocalServer
from tfctr.serving.wire import protocol

ROWS = {"user": ["60"], "price": [2.0]}
LIGHT, HEAVY = 0.7310586, 0.8175745  # sigmoid(0.5 * 2), sigmoid(0.75 * 2)


@pytest.fixture
def two(base, models):
    """A base path with the versions 1, light, and 2, heavy."""
    put(base, models / "heavy")
    return base


def answers(server, **options):
    with client_of(server, **options) as client:
        return client.predict(ROWS)[0]


def reload(server, base, labels=None, versions=(), **model):
    """Send a new config; what the server refuses is a `grpc.RpcError`."""
    policy = {"specific": {"versions": versions}} if versions else {}
    model = {"name": server.name, "base_path": str(base), "model_version_policy": policy, "version_labels": labels, **model}
    request = protocol.ReloadConfigRequest(config={"model_config_list": {"config": [model]}})
    path, answer = f"/{protocol.MODEL_SERVICE}/HandleReloadConfigRequest", protocol.ReloadConfigResponse
    with grpc.insecure_channel(server.target) as channel:
        method = channel.unary_unary(path, response_deserializer=answer.FromString)
        assert method(request.SerializeToString(), timeout=60).status.error_code == 0


def test_labels_name_versions(two):
    with LocalServer(two, port=0, versions=[1, 2], labels={"stable": 1, "canary": 2}) as server:
        assert server.version == 2
        assert answers(server) == pytest.approx(HEAVY)
        assert answers(server, label="stable") == pytest.approx(LIGHT)
        assert answers(server, label="canary") == pytest.approx(HEAVY)
        assert answers(server, version=1) == pytest.approx(LIGHT)
        with pytest.raises(StorageError, match="no such label: Unrecognized servable version label: stabel"):
            answers(server, label="stabel")
        with client_of(server) as client:
            assert [(known["version"], known["state"]) for known in client.status()] == [(2, "AVAILABLE"), (1, "AVAILABLE")]


def test_a_label_moves_with_two_configs(two):
    """As in TensorFlow Serving: load both versions, and then move the label."""
    with LocalServer(two, port=0, versions=[1], labels={"stable": 1}) as server:
        with pytest.raises(grpc.RpcError, match="version 2 of model frappe, which is not currently available") as raised:
            reload(server, two, {"stable": 2}, [1, 2])
        assert raised.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert answers(server, label="stable") == pytest.approx(LIGHT)
        reload(server, two, {"stable": 1}, [1, 2])
        assert answers(server, label="stable") == pytest.approx(LIGHT)
        reload(server, two, {"stable": 2}, [1, 2])
        assert answers(server, label="stable") == pytest.approx(HEAVY)
        reload(server, two, {"stable": 2}, [2])
        with pytest.raises(StorageError, match=r"Specific\(frappe, 1\)"):
            answers(server, version=1)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [({}, [2]), ({"latest": {"num_versions": 2}}, [1, 2]), ({"all": {}}, [1, 2]), ({"specific": {"versions": [1, 7]}}, [1])],
)
def test_policies(two, policy, expected):
    with LocalServer(two, port=0, versions=[1]) as server:
        reload(server, two, model_version_policy=policy)
        with client_of(server) as client:
            assert sorted(known["version"] for known in client.status()) == expected


def test_a_broken_version_leaves_the_chosen_ones(two, models):
    put(two, models / "broken")
    with LocalServer(two, port=0, versions=[1]) as server:
        reload(server, two, versions=[3])
        assert answers(server) == pytest.approx(LIGHT)
        reload(server, two, versions=[2, 3])
        assert answers(server) == pytest.approx(HEAVY)
        with client_of(server) as client:
            assert [(known["version"], known["state"]) for known in client.status()] == [(3, "END"), (2, "AVAILABLE")]


def test_a_config_may_name_the_folder_through_a_link(two, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(two.parent)
    with LocalServer(two, port=0) as server:
        reload(server, link / two.name, versions=[1])
        assert answers(server) == pytest.approx(LIGHT)
        with pytest.raises(grpc.RpcError, match="stand-in serves one model"):  # the real server wants it absolute, too
            reload(server, os.path.relpath(two))


@pytest.mark.parametrize(("field", "value"), [("name", "other"), ("base_path", "/models/frappe"), ("base_path", "/\0")])
def test_configs_of_other_models(base, field, value):
    with LocalServer(base, port=0) as server:
        with pytest.raises(grpc.RpcError, match="stand-in serves one model: frappe") as raised:
            reload(server, base, **{field: value})
        assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_labels_of_versions_that_are_not_served(two):
    with pytest.raises(ConfigError, match=r"`labels` is {'stable': 1}: .*version 1 .* not currently available"):
        LocalServer(two, port=0, labels={"stable": 1}).__enter__()


def test_tls(base, certificate):
    key, chain = certificate
    with LocalServer(base, port=0, certificate=chain, key=key) as server:
        assert answers(server, root_certificates=chain) == pytest.approx(LIGHT)
        with pytest.raises(StorageError, match="no server answers"):
            answers(server)


def test_tls_with_certificates_of_clients(base, certificate):
    key, chain = certificate
    with LocalServer(base, port=0, certificate=chain, key=key, root_certificates=chain) as server:
        own = {"client_certificate": chain, "client_key": key}
        assert answers(server, root_certificates=chain, **own) == pytest.approx(LIGHT)
        with pytest.raises(StorageError, match="no server answers"):
            answers(server, root_certificates=chain)


@pytest.mark.parametrize("given", ["certificate", "key", "root_certificates"])
def test_half_of_a_certificate(base, certificate, given):
    with pytest.raises(ConfigError, match=re.compile("`(certificate|key)` is None")):
        LocalServer(base, port=0, **{given: certificate[1]})


class Aborted(Exception):
    """Why a handler ended a call."""


def context(remaining=None):
    def abort(code, details):
        raise Aborted(code.name)

    return types.SimpleNamespace(time_remaining=lambda: remaining, abort=abort)


def test_a_request_that_has_waited_too_long_is_not_run():
    ran = []
    handler = _handler(ran.append, protocol.PredictRequest).unary_unary
    for remaining in (None, 5.0):
        handler(b"", context(remaining))
    with pytest.raises(Aborted, match="DEADLINE_EXCEEDED"):
        handler(b"", context(-0.1))
    assert len(ran) == 2


def test_a_request_that_is_too_large_for_the_memory():
    def respond(request):
        raise MemoryError

    with pytest.raises(Aborted, match="RESOURCE_EXHAUSTED"):
        _handler(respond, protocol.PredictRequest).unary_unary(b"", context())


def test_a_deadline_in_time(base):
    with LocalServer(base, port=0) as server, pytest.raises(StorageError, match="did not answer within 1e-06 s"):
        PredictionClient(server.target, model="frappe", timeout=1e-6).predict(ROWS)
