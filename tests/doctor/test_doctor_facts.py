"""Facts of a machine, each from made inputs: files of the system, control groups, distributions, programs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from tfctr import doctor
from tfctr.doctor import devices, packages, programs, resources
from tfctr.doctor.findings import Finding, exit_code
from tfctr.doctor.packages import judged, package_findings, required_ranges
from tfctr.doctor.processor import precision, processor_findings
from tfctr.errors import ExportError, StorageError, TrainingError
from tfctr.processor import read_processor

XEON = (
    "processor\t: 0\nmodel name\t: Intel(R) Xeon(R) Platinum\nflags\t\t: fpu avx avx2 avx512f avx512_bf16 amx_bf16 amx_tile\n"
)
EPYC = "model name\t: AMD EPYC\nflags\t\t: fpu avx avx2 fma\n"
OLD = "model name\t: Old\nflags\t\t: fpu sse4_1 avx\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd bf16\n"


def found(findings):
    return {finding.name: finding for finding in findings}


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


# the processor


@pytest.mark.parametrize(
    ("cpuinfo", "sets"),
    [(XEON, ("AVX2", "AVX-512F", "AVX512_BF16", "AMX")), (EPYC, ("AVX2",)), (OLD, ()), (ARM, None), (None, None)],
)
def test_instruction_sets_are_read(cpuinfo, sets):
    assert read_processor(cpuinfo).sets == sets
    assert read_processor(cpuinfo).name


@pytest.mark.parametrize(
    ("cpuinfo", "environment", "expected"),
    [
        (XEON, {}, "mixed_bfloat16 may be faster than float32: AMX and AVX512_BF16 multiply it"),
        (XEON, {"ONEDNN_MAX_CPU_ISA": "avx512_core_amx"}, "mixed_bfloat16"),
        (XEON, {"ONEDNN_MAX_CPU_ISA": "AVX2"}, "float32: the environment"),
        (XEON, {"TF_ENABLE_ONEDNN_OPTS": "0"}, "float32: the environment"),
        (EPYC, {}, "float32: there are no instructions"),
        (ARM, {}, "float32; whether"),
    ],
)
def test_the_precision_that_pays(cpuinfo, environment, expected):
    assert precision(read_processor(cpuinfo), environment).startswith(expected)


def test_a_processor_without_avx2_and_limits_of_the_environment(tmp_path):
    limits = {"ONEDNN_MAX_CPU_ISA": "SSE41", "TF_ENABLE_ONEDNN_OPTS": "0"}
    old = found(processor_findings(write(tmp_path / "cpuinfo", OLD), limits))
    assert old["instruction sets"].status == "warning"
    assert "no later instructions" in old["ONEDNN_MAX_CPU_ISA"].found
    assert old["TF_ENABLE_ONEDNN_OPTS"].found == "0 (oneDNN is off)"
    new = found(processor_findings(write(tmp_path / "cpuinfo", EPYC), {}))
    assert {finding.status for finding in new.values()} == {"ok"}
    assert new["ONEDNN_MAX_CPU_ISA"].found == "not set"
    elsewhere = found(processor_findings(tmp_path / "none", {}))
    assert (elsewhere["instruction sets"].found, elsewhere["instruction sets"].status) == ("unknown", "ok")


# control groups, memory, malloc


def test_limits_of_control_groups_of_version_2(tmp_path):
    membership = write(tmp_path / "cgroup", "0::/pod/container\n")
    root = tmp_path / "fs"
    write(root / "pod" / "cpu.max", "150000 100000\n")
    write(root / "pod" / "container" / "cpu.max", "max 100000\n")
    write(root / "pod" / "memory.max", str(2**30))
    write(root / "pod" / "container" / "memory.max", str(3 * 2**30))
    write(root / "memory.max", "max\n")
    groups = resources.control_groups("cpu", membership, root)
    assert groups == [root / "pod" / "container", root / "pod", root]
    assert (resources.cpu_quota(groups), resources.memory_limit(groups)) == (1.5, 1.0)


def test_limits_of_control_groups_of_version_1(tmp_path):
    membership = write(tmp_path / "cgroup", "4:memory:/seen/from/outside\n2:cpuacct,cpu:/\n1:cpuset:/\n")
    root = tmp_path / "fs"
    write(root / "cpu" / "cpu.cfs_quota_us", "50000\n")
    write(root / "cpu" / "cpu.cfs_period_us", "100000\n")
    write(root / "memory" / "memory.limit_in_bytes", str(4 * 2**30))
    assert resources.cpu_quota(resources.control_groups("cpu", membership, root)) == 0.5
    memory = resources.control_groups("memory", membership, root)
    assert resources.memory_limit(memory) == 4.0
    write(root / "memory" / "memory.limit_in_bytes", str(2**63 - 4096))
    write(root / "cpu" / "cpu.cfs_quota_us", "-1\n")
    assert resources.memory_limit(memory) is None
    assert resources.cpu_quota(resources.control_groups("cpu", membership, root)) is None


def test_a_system_without_control_groups(tmp_path):
    assert resources.control_groups("cpu", tmp_path / "none", tmp_path) == []
    assert (resources.cpu_quota([]), resources.memory_limit([])) == (None, None)


@pytest.mark.parametrize(
    ("free", "limit", "status"),
    [(8, None, "ok"), (1, None, "warning"), (8, 1.5, "warning"), (8, 4.0, "ok"), (None, None, "ok")],
)
def test_low_memory_is_warned_of(free, limit, status):
    text = None if free is None else f"MemTotal:       16777216 kB\nMemFree: 1 kB\nMemAvailable:    {free * 2**20} kB\n"
    memory = found(resources.memory_findings(text, limit))
    assert memory["free GiB"].found == ("unknown" if free is None else free)
    assert memory["free GiB"].status == status
    assert text is None or memory["total GiB"].found == 16


@pytest.mark.parametrize(
    ("libc", "environment", "expected"),
    [
        (("glibc", "2.36"), {}, "lets it keep freed memory"),
        (("glibc", "2.36"), {"GLIBC_TUNABLES": "x"}, "set by GLIBC_TUNABLES"),
        (("", ""), {}, "another C library than glibc: `tfctr train` leaves it as it is"),
    ],
)
def test_malloc(libc, environment, expected):
    assert expected in resources.malloc_text(libc, environment)


def test_this_machine_has_processors_and_memory():
    mine = found(resources.resource_findings())
    assert mine["processors"].found.endswith(f"of {os.cpu_count()}")
    assert mine["total GiB"].found == "unknown" or mine["total GiB"].found > 0


# packages


@pytest.fixture
def distributions(tmp_path, monkeypatch):
    """`made("app", "1.0", *requirements)` installs a distribution that has nothing in it."""

    def made(name, version, *requirements):
        lines = [
            "Metadata-Version: 2.1",
            f"Name: {name}",
            f"Version: {version}",
            *(f"Requires-Dist: {it}" for it in requirements),
        ]
        write(tmp_path / f"{name.replace('-', '_')}-{version}.dist-info" / "METADATA", "\n".join(lines) + "\n")

    monkeypatch.syspath_prepend(str(tmp_path))
    return made


def test_ranges_come_from_the_metadata(distributions):
    distributions("made-app", "1.0", "made-engine[fast]>=2,<4", "Made_Table>=1", 'made-extra; extra == "report"')
    distributions("made-engine", "3.0", 'made-table<9; extra == "fast"', 'made-slow; extra == "slow"', "made-core")
    ranges = {name: str(allowed) for name, allowed in required_ranges("made-app").items()}
    assert ranges == {"made-engine": str(SpecifierSet(">=2,<4")), "made-table": str(SpecifierSet(">=1,<9"))}


def test_what_setup_declares_is_reported():
    assert {"tensorflow", "keras", "numpy", "ibis-framework", "duckdb", "pandas", "grpcio", "protobuf"} <= set(
        required_ranges()
    )
    mine = found(package_findings())
    assert {"tfctr", "python", *required_ranges()} <= set(mine)
    assert not [finding for finding in mine.values() if finding.status == "failed"]


def test_versions_are_judged():
    allowed = SpecifierSet(">=2.20,<2.22")
    assert judged("tensorflow", "2.21.0", allowed).status == "ok"
    assert judged("tensorflow", "2.21.0rc1", allowed).status == "ok"
    assert judged("tensorflow", "2.22.0", allowed).status == "warning"
    assert "pip install 'tensorflow" in judged("tensorflow", "2.19.1", allowed).fix
    assert judged("python", "3.14.0", SpecifierSet("<3.14")).fix == "use a Python <3.14"
    missing = judged("tensorflow", None, allowed)
    assert (missing.status, missing.error) == ("failed", StorageError)
    assert "as tensorflow-cpu" in judged("tensorflow", "2.21.0", allowed, "tensorflow-cpu").found


@pytest.mark.parametrize(
    ("there", "said", "clash"),
    [
        ({"tensorflow"}, "2.21.0", False),
        ({"tensorflow-cpu"}, "2.21.0, as tensorflow-cpu", False),
        ({"tensorflow", "tensorflow-cpu"}, "2.21.0", True),
        (set(), "not installed", False),
    ],
)
def test_tensorflow_under_two_names(there, said, clash, monkeypatch):
    version = packages._version
    named = {"tensorflow", "tensorflow-cpu", "tensorflow-intel", "tensorflow-macos", "tf-nightly"}

    def installed(name):
        return ("2.21.0" if name in there else None) if name in named else version(name)

    monkeypatch.setattr(packages, "_version", installed)
    mine = found(package_findings())
    assert mine["tensorflow"].found.startswith(said)
    assert ("tensorflow twice" in mine) == clash
    if clash:
        assert mine["tensorflow twice"].status == "warning"
        assert "pip uninstall tensorflow tensorflow-cpu" in mine["tensorflow twice"].fix


def test_without_a_package_nothing_is_checked(monkeypatch):
    monkeypatch.setattr(packages, "_version", lambda name: None)
    findings = list(doctor.examine())
    assert exit_code(findings) == 6
    assert "checks" not in {finding.group for finding in findings}
    assert "processor" in {finding.group for finding in findings}


def test_facts_need_no_tensorflow():
    program = """if True:
        import json, sys
        from tfctr.doctor import examine
        seen = []
        for finding in examine():
            seen.append(finding.group)
            if finding.group == "programs":
                break
        print(json.dumps([seen, "tensorflow" in sys.modules]))
    """
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, encoding="utf-8", check=True)
    groups, imported = json.loads(run.stdout)
    assert list(dict.fromkeys(groups)) == ["versions", "processor", "memory", "disk", "programs"]
    assert not imported


# programs


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo 27.1", "answers, version 27.1"),
        ("echo Cannot connect to the daemon >&2; exit 1", "not reachable: Cannot connect to the daemon"),
        ("exec sleep 30", "did not answer within 0.5 s"),
    ],
)
def test_the_daemon_of_docker(script, expected, tmp_path, monkeypatch):
    write(tmp_path / "docker", f"#!/bin/sh\n{script}\n").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setattr(programs, "_PATIENCE", 0.5)
    mine = found(programs.program_findings())
    assert mine["docker"].found == str(tmp_path / "docker")
    assert mine["docker daemon"].found == expected


def test_programs_that_are_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    mine = found(programs.program_findings())
    assert set(mine) == {"tensorflow_model_server", "docker", "java"}
    assert all(finding.found.startswith("not on PATH") and finding.status == "ok" for finding in mine.values())


# devices


@pytest.mark.parametrize(
    ("cuda", "driver", "environment", "expected", "status"),
    [
        (True, True, {"CUDA_VISIBLE_DEVICES": ""}, "none: CUDA_VISIBLE_DEVICES is ''", "ok"),
        (True, False, {}, "none: no NVIDIA driver", "ok"),
        (False, False, {"CUDA_VISIBLE_DEVICES": "0"}, "none: no NVIDIA driver, and TensorFlow is built without CUDA", "ok"),
        (False, True, {}, "none: there is an NVIDIA driver, but TensorFlow is built without CUDA", "warning"),
        (True, True, {}, "none, though there is an NVIDIA driver", "warning"),
    ],
)
def test_why_there_is_no_gpu(cuda, driver, environment, expected, status):
    finding = devices.why_no_gpu(cuda, driver, environment)
    assert finding.found.startswith(expected)
    assert finding.status == status


def test_what_pays_on_a_gpu():
    h200 = devices.gpu_finding("GPU:0", {"device_name": "NVIDIA H200", "compute_capability": (9, 0)})
    assert h200.found.startswith("NVIDIA H200, compute capability 9.0: mixed_bfloat16 and mixed_float16 may be faster")
    assert "TF32" in h200.found
    assert devices.gpu_precision((7, 0)).startswith("mixed_float16")
    assert devices.gpu_precision((6, 1)) == "float32"
    assert "not known" in devices.gpu_finding("GPU:0", {}).found


@pytest.mark.parametrize(
    ("quota", "environment", "status"),
    [(None, {}, "ok"), (8.0, {}, "ok"), (2.5, {}, "warning"), (2.5, {"TF_NUM_INTRAOP_THREADS": "2"}, "ok")],
)
def test_more_threads_than_a_quota_grants(quota, environment, status):
    threads = found(devices.thread_findings(8, quota, environment))
    assert threads["threads of an operation"].status == status
    if status == "warning":
        assert "TF_NUM_INTRAOP_THREADS=2:" in threads["threads of an operation"].fix


# exit codes


def test_the_exit_code_is_that_of_the_first_failure():
    ok, warning = Finding("a", "b", "c"), Finding("a", "b", "c", fix="d")
    training, serving = (Finding("a", "b", "c", fix="d", error=error) for error in (TrainingError, ExportError))
    assert [finding.status for finding in (ok, warning, training)] == ["ok", "warning", "failed"]
    assert exit_code([ok, warning]) == 0
    assert exit_code([warning, serving, training]) == 5
    assert exit_code([training, serving]) == 4


def test_the_driver_is_looked_for():
    assert devices.has_driver() or not Path("/proc/driver/nvidia/version").exists()
