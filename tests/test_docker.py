"""The files of docker/ parse and say what their README promises. No container is started here."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from tfctr.serving import protocol
from tfctr.serving.server import tensorflow_serving_command

DOCKER = Path(__file__).parents[1] / "docker"


@pytest.fixture(scope="module")
def instructions():
    """Dockerfile instruction -> its arguments, in order."""
    text = re.sub(r"^#.*\n", "", (DOCKER / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", "")
    found = {}
    for line in filter(None, text.splitlines()):
        name, _, arguments = line.partition(" ")
        found.setdefault(name, []).append(arguments)
    return found


@pytest.fixture(scope="module")
def service():
    return yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]["serving"]


@pytest.fixture(scope="module")
def flags(instructions):
    assert json.loads(instructions["ENTRYPOINT"][0]) == ["/usr/bin/tensorflow_model_server"]
    return dict(flag.removeprefix("--").split("=") for flag in json.loads(instructions["CMD"][0]))


def test_the_image_is_pinned_and_said_everywhere(instructions, service):
    (image,) = instructions["FROM"]
    version = re.fullmatch(r"tensorflow/serving:(2\.\d+\.\d+)", image)[1]
    assert service["image"] == f"tfctr-serving:{version}"
    assert f"The image's TensorFlow is {version.rpartition('.')[0]}," in (DOCKER / "README.md").read_text()


def test_the_image_has_its_files_and_no_root(instructions, flags):
    *sources, target = instructions["COPY"][0].split()
    assert all((DOCKER / source).is_file() for source in sources)
    copied = {target + source for source in sources}
    assert {flags["model_config_file"], flags["monitoring_config_file"]} == copied
    assert instructions["USER"] == ["10001:10001"]


def test_the_flags(flags):
    assert flags["enable_profiler"] == "false"
    assert int(flags["num_load_threads"]) >= 1
    assert int(flags["num_unload_threads"]) >= 1
    # `tfctr serve` starts the same server with the same care.
    command = dict(flag.removeprefix("--").split("=") for flag in tensorflow_serving_command("server", "/models/frappe")[1:])
    shared = command.keys() & flags.keys()
    assert {"port", "num_load_threads", "num_unload_threads", "enable_profiler"} <= shared
    assert {name: command[name] for name in shared} == {name: flags[name] for name in shared}


def test_the_container_can_do_little(service):
    assert service["ports"] == ["127.0.0.1:8500:8500"]
    (models,) = service["volumes"]
    assert models["read_only"] is True
    assert models["target"] == "/models"
    assert service["read_only"] is True
    assert service["user"] == "10001:10001"
    assert service["cap_drop"] == ["ALL"]
    assert not {"privileged", "network_mode", "command", "entrypoint"} & service.keys()


def test_the_models(service):
    config = text_format.Parse((DOCKER / "models.config").read_text(), protocol.ModelServerConfig())
    (model,) = config.model_config_list.config
    assert model.base_path == f"{service['volumes'][0]['target']}/{model.name}"
    assert model.model_platform == "tensorflow"
    for readme in (DOCKER / "README.md", DOCKER.parent / "README.md"):
        assert f" serving/{model.name}" in readme.read_text(), readme
        assert f"--model {model.name}" in readme.read_text(), readme
    with pytest.raises(text_format.ParseError):
        text_format.Parse("model_config_list { config { nam: 'frappe' } }", protocol.ModelServerConfig())


def test_one_line_starts_it_everywhere(service):
    for file in (DOCKER / "README.md", DOCKER / "compose.yaml", DOCKER.parent / "README.md"):
        lines = re.findall(r"[^\s`]* ?docker compose [^`\n]*", file.read_text())
        assert lines == ["MODELS=$PWD/serving docker compose -f docker/compose.yaml up --build"], file
    assert service["volumes"][0]["source"] == "${MODELS:-../serving}"  # the same folder, beside compose.yaml's own


def test_the_metrics(flags, service):
    config = text_format.Parse((DOCKER / "monitoring.config").read_text(), monitoring_config())
    assert config.prometheus_config.enable
    metrics = f":{flags['rest_api_port']}{config.prometheus_config.path}"
    assert metrics in (DOCKER / "compose.yaml").read_text()
    assert service["expose"] == [flags["rest_api_port"]]


def monitoring_config():
    """An empty `MonitoringConfig`, which tensorflow-serving-api does not carry.

    Source: tensorflow_serving/config/monitoring_config.proto.
    """
    types = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="monitoring_config.proto", syntax="proto3")
    prometheus = file.message_type.add(name="PrometheusConfig")
    prometheus.field.add(name="enable", number=1, type=types.TYPE_BOOL, label=types.LABEL_OPTIONAL)
    prometheus.field.add(name="path", number=2, type=types.TYPE_STRING, label=types.LABEL_OPTIONAL)
    config = file.message_type.add(name="MonitoringConfig")
    config.field.add(
        name="prometheus_config", number=1, type=types.TYPE_MESSAGE, type_name="PrometheusConfig", label=types.LABEL_OPTIONAL
    )
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("MonitoringConfig"))()


def test_compose_accepts_its_file():
    compose = ["docker", "compose", "-f", str(DOCKER / "compose.yaml")]
    if shutil.which("docker") is None or subprocess.run([*compose, "version"], capture_output=True).returncode:
        pytest.skip("no docker compose here")
    subprocess.run([*compose, "config", "--quiet"], check=True)
