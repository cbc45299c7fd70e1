"""The files of docker/training/: an image of tfctr, and the same two workers by Docker Compose and on Kubernetes.

No container is started here.
"""

import fnmatch
import importlib.metadata
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from kit.doc_blocks import parse
from kit.places import DOCKER, ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import tfctr
from tfctr import errors
from tfctr.training.distribution import _cluster_and_task, is_named_chief

TRAINING = DOCKER / "training"
IMAGE = f"tfctr-training:{tfctr.__version__}"
BROUGHT = {"setuptools", "wheel"}  # by the image of Python


@pytest.fixture(scope="module")
def dockerfile():
    return (TRAINING / "Dockerfile").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def services():
    return yaml.safe_load((TRAINING / "compose.yaml").read_text(encoding="utf-8"))["services"]


@pytest.fixture(scope="module")
def kustomization():
    return yaml.safe_load((TRAINING / "kustomization.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def objects(kustomization):
    """(kind, name) -> manifest."""
    files = [(TRAINING / file).read_text(encoding="utf-8") for file in kustomization["resources"]]
    manifests = [manifest for text in files for manifest in yaml.safe_load_all(text)]
    return {(manifest["kind"], manifest["metadata"]["name"]): manifest for manifest in manifests}


@pytest.fixture(scope="module")
def job(objects):
    return objects["Job", "training"]["spec"]


@pytest.fixture(scope="module")
def pod(job):
    return job["template"]["spec"]


@pytest.fixture(scope="module")
def container(pod):
    (container,) = pod["containers"]
    return container


# the image


def test_the_constraints_pin_all_that_the_image_installs(dockerfile):
    assert 'pip install --no-cache-dir --constraint /usr/src/tfctr/constraints.txt "/usr/src/tfctr${EXTRAS}"' in dockerfile
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {canonicalize_name(line.partition("==")[0]) for line in lines if "==" in line}
    needed, left = set(), ["tfctr"]
    while left:
        requirements = map(Requirement, importlib.metadata.requires(left.pop()) or ())
        of_all = [each for each in requirements if each.marker is None or each.marker.evaluate({"extra": ""})]
        further = {canonicalize_name(each.name) for each in of_all} - needed
        needed |= further
        left += further
    assert {"tensorflow", "keras", "numpy"} <= needed
    assert needed - pinned <= BROUGHT


def test_the_build_has_the_files_that_it_needs(dockerfile, tmp_path):
    """The package is built from them alone, with its examples and messages."""
    assert "COPY . /usr/src/tfctr/" in dockerfile
    patterns = (TRAINING / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()[1:]
    assert (patterns[0], patterns[-1]) == ("*", "**/__pycache__")
    for pattern in patterns[1:-1]:
        found = [*ROOT.glob(pattern.removeprefix("!"))]
        assert found, pattern
        for file in found:
            target = tmp_path / "context" / file.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            if file.is_dir():
                shutil.copytree(file, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(file, target)
    command = [sys.executable, "setup.py", "--quiet", "bdist_wheel", "--dist-dir", str(tmp_path)]
    subprocess.run(command, cwd=tmp_path / "context", check=True, capture_output=True)
    (wheel,) = tmp_path.glob("tfctr-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    modules, texts = ["tfctr/cli/training.py", "tfctr/serving/wire/protocol.binpb"], ["LICENSE", "NOTICE"]
    for part in (*modules, "tfctr/examples/*.yaml", *(f"*.dist-info/*{text}" for text in texts)):
        assert fnmatch.filter(names, part), part


def test_the_image_has_no_root_and_one_name(dockerfile, services, kustomization, pod, container):
    assert re.findall(r"^(?:USER|ENTRYPOINT) .*", dockerfile, re.MULTILINE) == ["USER 10001:10001", 'ENTRYPOINT ["tfctr"]']
    (image,) = kustomization["images"]
    named = {f"{image['name']}:{image['newTag']}", *(service["image"] for service in services.values())}
    assert named == {IMAGE}
    assert container["image"] == image["name"]
    for page in (TRAINING / "Dockerfile", DOCKER / "README.md"):
        assert set(re.findall(r"tfctr-training:[\d.]+\d", page.read_text(encoding="utf-8"))) == {IMAGE}
    assert {"{runAsUser}:{runAsGroup}".format(**pod["securityContext"])} == {each["user"] for each in services.values()}


# TF_CONFIG


def environments(job, container):
    """The variables of each pod as Kubernetes makes them: in order, and `$(NAME)` is one that stands before."""
    limits = {f"limits.{name}": value for name, value in container["resources"]["limits"].items()}
    for index in range(job["completions"]):
        known = {"metadata.annotations['batch.kubernetes.io/job-completion-index']": str(index)}
        made = {}
        for variable in container["env"]:
            value = variable.get("value", "")
            for name, before in made.items():
                value = value.replace(f"$({name})", before)
            source = variable.get("valueFrom", {})
            if "fieldRef" in source:
                value = known[source["fieldRef"]["fieldPath"]]
            elif "resourceFieldRef" in source:
                value = limits[source["resourceFieldRef"]["resource"]]
            made[variable["name"]] = value
        yield made


def test_each_pod_knows_the_others_and_itself(job, pod, container, objects, monkeypatch):
    made = [*environments(job, container)]
    for index, environment in enumerate(made):
        monkeypatch.setenv("TF_CONFIG", environment["TF_CONFIG"])
        cluster, task = _cluster_and_task("multi_worker")
        assert task == {"type": "worker", "index": index}
        assert is_named_chief() is (index == 0)
        # The host name of a pod of an Indexed Job, in the domain of the headless Service.
        port, names = container["ports"][0]["containerPort"], range(job["completions"])
        assert cluster == {"worker": [f"training-{name}.{pod['subdomain']}:{port}" for name in names]}
        assert environment["TF_NUM_INTRAOP_THREADS"] == "4"
    assert job["completionMode"] == "Indexed"
    assert job["completions"] == job["parallelism"] == len(made) == 2  # all at once, or each waits for the others
    service = objects["Service", pod["subdomain"]]["spec"]
    assert (service["clusterIP"], service["publishNotReadyAddresses"]) == ("None", True)


def test_each_service_knows_the_other_and_itself(services, monkeypatch):
    for index, service in enumerate(services.values()):
        monkeypatch.setenv("TF_CONFIG", service["environment"]["TF_CONFIG"])
        cluster, task = _cluster_and_task("multi_worker")
        assert task == {"type": "worker", "index": index}
        assert [address.partition(":")[0] for address in cluster["worker"]] == [*services]
        assert is_named_chief() is (index == 0)


def test_the_commands_exist_and_are_one(services, container):
    commands = [service["command"] for service in services.values()]
    assert commands[0] == commands[1]
    for command in (commands[0], container["args"]):
        parse(command)
        assert {"--distribute=multi_worker", "--resume"} < {*command}
    with pytest.raises(Exception, match="No such option"):
        parse([*container["args"], "--checkpoint-evry=1000"])
    places = [dict(word.split("=") for word in command if "=" in word) for command in (commands[0], container["args"])]
    assert places[0]["--out"] == places[1]["--out"]
    mounts = {mount["mountPath"]: mount.get("readOnly", False) for mount in container["volumeMounts"]}
    assert mounts == {"/datasets": True, "/runs": False, "/tmp": False}
    assert [places[1][option].split("/")[1] for option in ("--data", "--out")] == ["datasets", "runs"]


# who begins again


def test_what_ends_the_job_and_what_does_not_count(job, pod):
    """The rules are asked in order; what none knows counts, such as 137 of a worker that had too little memory."""
    rules = job["podFailurePolicy"]["rules"]
    codes = {rule["action"]: rule["onExitCodes"]["values"] for rule in rules if "onExitCodes" in rule}
    hopeless = (errors.ConfigError, errors.DataError, errors.TrainingError)
    assert codes == {"FailJob": [error.exit_code for error in hopeless], "Ignore": [errors.WorkerError.exit_code]}
    assert rules[-1] == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    assert pod["restartPolicy"] == "Never"  # Kubernetes has no such policy with another
    assert job["backoffLimit"] > 0
    assert job["successPolicy"] == {"rules": [{"succeededIndexes": "0"}]}


# what is valid, and what can do little


@pytest.mark.parametrize("version", ["1.30", kubernetes_validate.latest_version()])
def test_kubernetes_schemas(objects, version):
    for manifest in objects.values():
        kubernetes_validate.validate(manifest, version, strict=True)
    wrong = {**objects["Job", "training"], "spec": {**objects["Job", "training"]["spec"], "podFailurePolicies": {}}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, version, strict=True)


def test_every_file_is_used(kustomization):
    others = {"Dockerfile", "Dockerfile.dockerignore", "compose.yaml", "kustomization.yaml"}
    assert {file.name for file in TRAINING.iterdir()} == {*kustomization["resources"]} | others


def test_kustomize_builds_them(objects):
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl here")
    built = subprocess.run(["kubectl", "kustomize", TRAINING], check=True, capture_output=True, text=True).stdout
    manifests = {(manifest["kind"], manifest["metadata"]["name"]): manifest for manifest in yaml.safe_load_all(built)}
    assert manifests.keys() == objects.keys()
    (container,) = manifests["Job", "training"]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"registry.example.com/{IMAGE}"


def test_pods_can_do_little(pod, container):
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC", "serviceAccountName"} & pod.keys()
    allowed = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    assert container["securityContext"] == allowed
    assert container["resources"]["limits"] == container["resources"]["requests"]


def test_volumes_are_there_and_for_several_pods(pod, container, objects):
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes.keys() == {mount["name"] for mount in container["volumeMounts"]}
    claims = {volume["persistentVolumeClaim"]["claimName"] for volume in volumes.values() if "persistentVolumeClaim" in volume}
    assert claims == {name for kind, name in objects if kind == "PersistentVolumeClaim"}
    assert all(objects["PersistentVolumeClaim", name]["spec"]["accessModes"] == ["ReadWriteMany"] for name in claims)


def test_workers_talk_to_each_other_only(objects, job):
    workers = {"podSelector": {"matchLabels": job["template"]["metadata"]["labels"]}}
    policy = objects["NetworkPolicy", "training"]["spec"]
    names = {"ports": [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]}
    assert policy == {
        **workers,
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [workers]}],
        "egress": [{"to": [workers]}, names],
    }
    assert objects["Service", "training"]["spec"]["selector"] == workers["podSelector"]["matchLabels"]
    (spread,) = job["template"]["spec"]["topologySpreadConstraints"]
    assert spread["labelSelector"] == workers["podSelector"]


def test_compose_reads_its_file_and_its_services_can_do_little():
    program = Path(sysconfig.get_path("scripts")) / "docker-compose"
    if not program.exists():
        pytest.skip("no docker-compose here")
    command = [program, "--file", TRAINING / "compose.yaml", "config"]
    environment = {"DATA": "/srv/data", "RUNS": "/srv/runs", "CPUS": "3"}
    read = yaml.safe_load(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    assert [network.get("internal") for network in read["networks"].values()] == [True]
    for service in read["services"].values():
        build = service["build"]
        assert (Path(build["context"]), Path(build["context"]) / build["dockerfile"]) == (ROOT, TRAINING / "Dockerfile")
        mounts = {(volume["source"], volume["target"], volume.get("read_only", False)) for volume in service["volumes"]}
        assert mounts == {("/srv/data", "/data", True), ("/srv/runs", "/runs", False)}
        assert service["environment"]["TF_NUM_INTRAOP_THREADS"] == str(service["cpus"]) == "3"
        assert (service["read_only"], service["cap_drop"], [*service["networks"]]) == (True, ["ALL"], ["workers"])
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert (service["mem_limit"], service["restart"]) == (str(4 << 30), "on-failure:10")
        assert not {"ports", "privileged", "network_mode", "pid", "ipc", "cap_add", "devices"} & service.keys()
