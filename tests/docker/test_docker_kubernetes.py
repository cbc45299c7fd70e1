"""The manifests of docker/kubernetes/: valid, without rights that they need not have, and with the facts of the other files."""

import re
import shutil
import subprocess

import kubernetes_validate
import pytest
import yaml
from google.protobuf import text_format
from kit.places import DOCKER

from tfctr.serving.wire import protocol

OLDEST = "1.30"


@pytest.fixture(scope="module")
def kustomization():
    return yaml.safe_load((DOCKER / "kustomization.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def objects(kustomization):
    """(kind, name) -> manifest."""
    manifests = [
        manifest
        for file in kustomization["resources"]
        for manifest in yaml.safe_load_all((DOCKER / file).read_text(encoding="utf-8"))
    ]
    found = {(manifest["kind"], manifest["metadata"]["name"]): manifest for manifest in manifests}
    assert len(found) == len(manifests)
    return found


@pytest.fixture(scope="module")
def pods(objects):
    return {name: manifest["spec"]["template"]["spec"] for (kind, name), manifest in objects.items() if kind == "Deployment"}


@pytest.fixture(scope="module")
def containers(pods):
    return {name: pod["containers"][0] for name, pod in pods.items()}


@pytest.mark.parametrize("version", [OLDEST, kubernetes_validate.latest_version()])
def test_kubernetes_schemas(objects, version):
    for manifest in objects.values():
        kubernetes_validate.validate(manifest, version, strict=True)
    wrong = {**objects["Service", "serving"], "spec": {"selectors": {}}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, version, strict=True)


def test_every_file_is_used(kustomization):
    assert {f"kubernetes/{file.name}" for file in (DOCKER / "kubernetes").iterdir()} == set(kustomization["resources"])
    generated = {generator["name"]: generator["files"] for generator in kustomization["configMapGenerator"]}
    assert all((DOCKER / file).is_file() for files in generated.values() for file in files)


def test_pods_can_do_little(pods):
    assert {*pods} == {"serving", "envoy"}
    for pod in pods.values():
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC", "serviceAccountName"} & pod.keys()
        (container,) = pod["containers"]
        allowed = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
        assert container["securityContext"] == allowed
        assert container["resources"]["limits"] == container["resources"]["requests"]
        for mount in container["volumeMounts"]:
            assert mount.get("readOnly") is True or mount["name"] == "tmp"


def test_pods_outlive_the_news_of_their_end(pods, containers):
    """Until every node has heard of it, new connections still come."""
    hooks = {name: container["lifecycle"]["preStop"] for name, container in containers.items()}
    # The image of Envoy has no program `sleep`; Kubernetes 1.30 has an action.
    assert hooks == {"serving": {"exec": {"command": ["sleep", "15"]}}, "envoy": {"sleep": {"seconds": 15}}}
    assert all(pod.get("terminationGracePeriodSeconds", 30) > 15 for pod in pods.values())


def test_users_and_images_are_those_of_compose(pods, containers, kustomization):
    compose = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))["services"]
    (image,) = kustomization["images"]
    assert f"{image['name']}:{image['newTag']}" == compose["serving"]["image"]
    assert containers["serving"]["image"] == image["name"]
    assert containers["envoy"]["image"] == compose["envoy"]["image"]
    arguments = containers["envoy"]["args"]
    assert arguments[: len(compose["envoy"]["command"])] == compose["envoy"]["command"]
    for name, pod in pods.items():
        user = "{runAsUser}:{runAsGroup}".format(**pod["securityContext"])
        assert user == compose[name]["user"]


def test_mounts_are_those_of_compose(pods, containers, kustomization):
    compose = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))["services"]
    for name, container in containers.items():
        mounted = {mount["mountPath"] for mount in container["volumeMounts"]} - {"/tmp"}
        assert mounted == {volume["target"] for volume in compose[name]["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pods[name]["volumes"]}
    generated = {generator["name"] for generator in kustomization["configMapGenerator"]}
    mapped = {volume["configMap"]["name"] for pod in pods.values() for volume in pod["volumes"] if "configMap" in volume}
    assert mapped == generated


def test_readiness_asks_the_model_itself(containers):
    """/v1/models/NAME lists states, and says 200 to any: get_model_status_impl.cc. Metadata need a version that is loaded."""
    config = text_format.Parse((DOCKER / "config/models.config").read_text(encoding="utf-8"), protocol.ModelServerConfig())
    probe = containers["serving"]["readinessProbe"]["httpGet"]
    name = re.fullmatch(r"/v1/models/([^/:]+)/metadata", probe["path"])[1]
    assert name in [model.name for model in config.model_config_list.config]
    flags = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    assert "--enable_grpc_healthcheck_service=true" in flags  # which the startup probe asks
    startup, ports = containers["serving"]["startupProbe"], {port["name"]: port for port in containers["serving"]["ports"]}
    assert f"--port={startup['grpc']['port']}" in flags
    assert ports["grpc"]["containerPort"] == startup["grpc"]["port"]
    assert f"--rest_api_port={ports[probe['port']]['containerPort']}" in flags
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 600


def test_envoy_finds_the_pods(objects):
    config = yaml.safe_load((DOCKER / "envoy/envoy.yaml").read_text(encoding="utf-8"))
    (cluster,) = config["static_resources"]["clusters"]
    address = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]
    service = objects["Service", address["address"]]["spec"]
    assert service["clusterIP"] == "None"  # all addresses
    assert address["port_value"] in [port["port"] for port in service["ports"]]
    assert address["address"] in yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))["services"]


def test_selectors_select(objects, containers):
    labels = {name: objects["Deployment", name]["spec"]["template"]["metadata"]["labels"] for name in containers}
    for (kind, name), manifest in objects.items():
        spec = manifest["spec"]
        selector = {
            "Deployment": lambda spec: spec["selector"]["matchLabels"],
            "Service": lambda spec: spec["selector"],
            "PodDisruptionBudget": lambda spec: spec["selector"]["matchLabels"],
            "NetworkPolicy": lambda spec: spec["podSelector"]["matchLabels"],
        }.get(kind)
        if selector is not None:
            assert selector(spec) == labels[name], (kind, name)
        if kind == "Service":
            named = {port["name"] for port in containers[name]["ports"]}
            assert {port["targetPort"] for port in spec["ports"]} <= named
    target = objects["HorizontalPodAutoscaler", "serving"]["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) in objects
    assert "replicas" not in objects["Deployment", target["name"]]["spec"]  # or each apply would undo the autoscaler


def test_who_reaches_the_server(objects):
    rules = objects["NetworkPolicy", "serving"]["spec"]["ingress"]
    allowed = {rule["ports"][0]["port"]: [source["podSelector"]["matchLabels"] for source in rule["from"]] for rule in rules}
    name = "app.kubernetes.io/name"
    assert allowed == {8500: [{name: "tfctr-envoy"}, {"tfctr/serving-client": "true"}], 8501: [{name: "prometheus"}]}
    assert objects["NetworkPolicy", "serving"]["spec"]["egress"] == []
    assert all(set(rule) == {"from", "ports"} for rule in rules)
    outside = [manifest["spec"].get("type") for (kind, _), manifest in objects.items() if kind == "Service"]
    assert outside == [None, None]


def test_kustomize_builds_them(objects, tmp_path):
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl here")
    built = subprocess.run(["kubectl", "kustomize", DOCKER], check=True, capture_output=True, text=True).stdout
    manifests = {
        manifest["metadata"]["name"]: manifest for manifest in yaml.safe_load_all(built) if manifest["kind"] == "ConfigMap"
    }
    (serving,) = (manifest for name, manifest in manifests.items() if name.startswith("serving-"))
    assert serving["data"] == {
        name: (DOCKER / "config" / name).read_text(encoding="utf-8") for name in ("models.config", "monitoring.config")
    }
    assert f"name: {serving['metadata']['name']}\n" in built.partition("kind: Deployment")[2]  # the Deployment mounts that one
