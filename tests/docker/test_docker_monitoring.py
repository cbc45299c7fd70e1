"""Prometheus' and Grafana's files of docker/: expressions parse, and ask for metrics and labels that the server exports."""

import json
import re
import shutil
import subprocess

import grpc
import promql_parser
import pytest
import yaml
from kit.places import DOCKER
from kit.serving_metrics import COUNTERS, HISTOGRAMS, STATUSES, labels_of

DASHBOARD = DOCKER / "grafana/dashboards/serving.json"


def panels():
    return json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]


def alerts():
    (group,) = yaml.safe_load((DOCKER / "prometheus/alerts.yaml").read_text(encoding="utf-8"))["groups"]
    return {rule["alert"]: rule for rule in group["rules"]}


def expressions():
    found = {f"alert {name}": rule["expr"] for name, rule in alerts().items()}
    for panel in panels():
        for target in panel.get("targets", ()):
            expression = target["expr"].replace("$__rate_interval", "1m").replace("$model", "frappe")
            found[f"panel {panel['title']} {target['refId']}"] = expression
    return found


def children(node):
    if isinstance(node, promql_parser.BinaryExpr):
        return [node.lhs, node.rhs]
    if isinstance(node, promql_parser.Call):
        return node.args
    if isinstance(node, promql_parser.MatrixSelector):
        return [node.vector_selector]
    if isinstance(node, (promql_parser.AggregateExpr, promql_parser.ParenExpr, promql_parser.SubqueryExpr)):
        return [node.expr]
    assert isinstance(node, (promql_parser.VectorSelector, promql_parser.NumberLiteral, promql_parser.StringLiteral)), node
    return []


def walk(node):
    yield node
    for child in children(node):
        yield from walk(child)


def complaints(expression):
    """What of an expression no server can answer."""
    tree = promql_parser.parse(expression)
    found = []
    for node in walk(tree):
        if isinstance(node, promql_parser.VectorSelector):
            found += selector_complaints(node)
        elif isinstance(node, promql_parser.AggregateExpr):
            names = [inner.name for inner in walk(node) if isinstance(inner, promql_parser.VectorSelector)]
            by = set(node.modifier.labels) if node.modifier else set()
            found += [f"{name} has no label {label}" for name in names for label in sorted(by - (labels_of(name) or by))]
        elif isinstance(node, promql_parser.Call):
            found += call_complaints(node)
    return found


def selector_complaints(node):
    known = labels_of(node.name)
    if known is None:
        return [f"{node.name} is not exported"]
    found = []
    for matcher in node.matchers.matchers:
        statuses = STATUSES.get(node.name, {code.name for code in grpc.StatusCode})
        if matcher.name not in known:
            found.append(f"{node.name} has no label {matcher.name}")
        elif matcher.name == "status" and matcher.value not in statuses:
            found.append(f"{node.name} has no status {matcher.value}")
    return found


def call_complaints(node):
    """Rates are of counters, and quantiles of buckets that kept their `le`."""
    inner = [part for part in walk(node) if isinstance(part, promql_parser.VectorSelector)]
    if node.func.name in ("rate", "increase"):
        counted = {*COUNTERS, *(name + suffix for name in HISTOGRAMS for suffix in ("_bucket", "_sum", "_count"))}
        return [f"{part.name} is no counter" for part in inner if part.name not in counted]
    if node.func.name == "histogram_quantile":
        kept = [part.modifier.labels for part in walk(node) if isinstance(part, promql_parser.AggregateExpr)]
        lost = [] if all("le" in labels for labels in kept) else ["`le` is lost"]
        return lost + [f"{part.name} has no buckets" for part in inner if not part.name.endswith("_bucket")]
    return []


@pytest.mark.parametrize("where", expressions())
def test_expressions(where):
    assert complaints(expressions()[where]) == []


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        ("tensorflow_serving_request_count", "is not exported"),
        (':tensorflow:serving:request_count{model="m"}', "no label model"),
        (':tensorflow:serving:request_count{status="success"}', "no status success"),
        (':tensorflow:cc:saved_model:load_attempt_count{status="OK"}', "no status OK"),
        ("sum by (version) (:tensorflow:serving:request_count)", "no label version"),
        ("rate(:tensorflow:serving:request_latency[5m])", "is not exported"),
        ("rate(up[5m])", "up is no counter"),
        ("histogram_quantile(0.9, sum by (API) (rate(:tensorflow:serving:request_latency_bucket[5m])))", "`le` is lost"),
        ("histogram_quantile(0.9, :tensorflow:serving:request_latency_sum)", "has no buckets"),
    ],
)
def test_what_the_check_refuses(expression, complaint):
    assert complaint in " ".join(complaints(expression))


def test_alerts_say_what_is_wrong():
    for name, rule in alerts().items():
        assert rule["labels"]["severity"] in ("page", "ticket"), name
        labels = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        selectors = [node for node in walk(promql_parser.parse(rule["expr"])) if isinstance(node, promql_parser.VectorSelector)]
        assert labels <= set.union(*(labels_of(node.name) for node in selectors)), name


def test_the_slow_threshold_is_a_bucket():
    """Buckets are 10 * 1.8^n microseconds; between two of them a quantile is a guess."""
    threshold = float(alerts()["Slow"]["expr"].rpartition(">")[2])
    buckets = [float(f"{10 * 1.8**exponent:g}") for exponent in range(33)]
    assert threshold in buckets
    assert "request_latency" in alerts()["Slow"]["expr"]


def test_prometheus_scrapes_the_server():
    config = yaml.safe_load((DOCKER / "prometheus/prometheus.yaml").read_text(encoding="utf-8"))
    (job,) = config["scrape_configs"]
    compose = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))["services"]
    (name,) = job["dns_sd_configs"][0]["names"]
    assert name in compose
    assert compose[name]["expose"] == [str(job["dns_sd_configs"][0]["port"])]
    assert f'path: "{job["metrics_path"]}"' in (DOCKER / "config/monitoring.config").read_text(encoding="utf-8")
    assert all((DOCKER / "prometheus" / file).is_file() for file in config["rule_files"])
    selected = re.findall(
        r'job="(\w+)"', json.dumps(panels()) + (DOCKER / "prometheus/alerts.yaml").read_text(encoding="utf-8")
    )
    assert set(selected) <= {job["job_name"]}
    volumes = [volume for volume in compose["prometheus"]["volumes"] if isinstance(volume, dict)]
    config_file = f"--config.file={volumes[0]['target']}/prometheus.yaml"
    assert config_file in compose["prometheus"]["command"]


def test_the_dashboard():
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    identifiers = [panel["id"] for panel in dashboard["panels"]]
    assert len({*identifiers}) == len(identifiers)
    (source,) = yaml.safe_load((DOCKER / "grafana/provisioning/datasources/prometheus.yaml").read_text(encoding="utf-8"))[
        "datasources"
    ]
    for panel in dashboard["panels"]:
        assert panel["type"] == "text" or panel["datasource"]["uid"] == source["uid"]
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
    latencies = [panel for panel in dashboard["panels"] if "_bucket" in json.dumps(panel)]
    assert latencies
    assert all(panel["fieldConfig"]["defaults"]["unit"] == "µs" for panel in latencies)
    (provider,) = yaml.safe_load((DOCKER / "grafana/provisioning/dashboards/tfctr.yaml").read_text(encoding="utf-8"))[
        "providers"
    ]
    volumes = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))["services"]["grafana"]["volumes"]
    assert provider["options"]["path"] in [volume["target"] for volume in volumes if isinstance(volume, dict)]


def test_prometheus_accepts_its_files():
    """The rules are tested by examples, too: alerts_test.yaml."""
    if shutil.which("promtool") is None:
        pytest.skip("no promtool here")
    for command in (["check", "config", "prometheus.yaml"], ["test", "rules", "alerts_test.yaml"]):
        subprocess.run(["promtool", *command], cwd=DOCKER / "prometheus", check=True, capture_output=True)
