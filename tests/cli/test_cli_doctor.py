"""`tfctr doctor`: all of it once, for machines; then what people read, and its exit codes."""

import json

import pytest
from kit.commands import tfctr_

from tfctr.doctor import checks, devices
from tfctr.doctor.findings import Finding
from tfctr.errors import ExportError
from tfctr.optimizers import optimizer_named


@pytest.fixture(scope="module")
def report():
    result = tfctr_("doctor", "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_this_machine_is_well(report):
    assert report["exit_code"] == 0
    assert list(report) == ["exit_code", "versions", "processor", "memory", "disk", "programs", "devices", "checks"]
    assert {found["status"] for found in report["checks"].values()} == {"ok"}
    named = {f"train {name} on CPU:0" for name in checks.NAMES} | {"prepare", "export on CPU"}
    assert named <= set(report["checks"])
    assert any(name.startswith("answer on ") for name in report["checks"])


def test_a_finding_for_machines(report):
    assert report["versions"]["tfctr"] == {"found": checks.tfctr.__version__, "status": "ok", "fix": None}
    assert report["disk"].popitem()[1]["found"] > 0


def test_what_people_read(monkeypatch):
    said = [Finding("devices", "GPU", "none: made", fix="buy one"), Finding("devices", "threads", None)]
    monkeypatch.setattr(devices, "device_findings", lambda: said)
    monkeypatch.setattr(checks, "check_findings", lambda: [Finding("checks", "train sgd on CPU:0", "right")])
    result = tfctr_("doctor")
    assert result.exit_code == 0
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    place = lines.index("devices")
    assert lines[place:] == [
        "devices",
        "warning GPU none: made",
        "fix: buy one",
        "ok threads none",
        "checks",
        "ok train sgd on CPU:0 right",
    ]
    assert {"versions", "processor", "memory", "disk", "programs"} <= set(lines[:place])
    assert "to be warned of" in result.stderr


def test_a_device_that_trains_wrongly_is_code_4(monkeypatch):
    monkeypatch.setattr(checks, "NAMES", ("sgd",))
    monkeypatch.setattr(checks, "exports", lambda *_: Finding("checks", "export on CPU", "left out"))
    monkeypatch.setattr(checks, "optimizer_named", lambda name, rate: optimizer_named(name, rate * 1.02))
    result = tfctr_("doctor")
    assert result.exit_code == 4
    failed = [line.split() for line in result.stdout.splitlines() if line.startswith("  failed")]
    assert [line[1:5] for line in failed] == [["train", "sgd", "on", "CPU:0"]]
    assert "off by" in result.stdout
    assert "fix: try TF_ENABLE_ONEDNN_OPTS=0" in result.stdout
    assert "1 failed" in result.stderr


def test_an_answer_that_is_wrong_is_code_5(monkeypatch):
    wrong = Finding("checks", "answer on CPU", "off by 1", fix="report it", error=ExportError)
    monkeypatch.setattr(checks, "check_findings", lambda: [wrong])
    result = tfctr_("doctor", "--json")
    assert result.exit_code == 5
    report = json.loads(result.stdout)
    assert report["exit_code"] == 5
    assert report["checks"]["answer on CPU"] == {"found": "off by 1", "status": "failed", "fix": "report it"}
