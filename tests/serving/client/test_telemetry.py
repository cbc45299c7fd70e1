"""What a client says about its requests, and how Prometheus and OpenTelemetry get to know."""

import asyncio
import sys

import grpc
import pytest
from kit.fake_serving import FakeServing, answer_price, rows

from tfctr.errors import ConfigError, StorageError
from tfctr.serving.client.asynchronous import AsyncPredictionClient
from tfctr.serving.client.blocking import PredictionClient
from tfctr.serving.client.telemetry import OpenTelemetryMetrics, PrometheusMetrics


def refuse_two_rows(request, context):
    if len(request.inputs["user"].string_val) == 2:
        context.abort(grpc.StatusCode.INTERNAL, "no")
    return answer_price(request, context)


def use(observe):
    """One answer and one failure: three requests, the first of them for the model's inputs."""
    with FakeServing(refuse_two_rows).serving() as target, PredictionClient(target, model="clicks", observe=observe) as client:
        client.predict(rows(1))
        with pytest.raises(StorageError, match="INTERNAL"):
            client.predict(rows(2))


EXPECTED = [("GetModelMetadata", "OK"), ("Predict", "OK"), ("Predict", "INTERNAL")]


def test_each_request_is_observed():
    seen = []
    use(seen.append)
    assert [(request.method, request.code) for request in seen] == EXPECTED
    assert {request.model for request in seen} == {"clicks"}
    assert all(0 < request.seconds < 60 for request in seen)


def test_requests_of_the_asyncio_client_too():
    seen = []

    async def run(target):
        async with AsyncPredictionClient(target, model="clicks", observe=seen.append) as client:
            await client.predict(rows(1))
            call = asyncio.ensure_future(client.predict(rows(3)))
            await asyncio.sleep(0)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call

    with FakeServing(answer_price).serving() as target:
        asyncio.run(run(target))
    assert [(request.method, request.code) for request in seen] == [*EXPECTED[:2], ("Predict", "CANCELLED")]


def test_prometheus():
    prometheus_client = pytest.importorskip("prometheus_client")
    registry = prometheus_client.CollectorRegistry()
    use(PrometheusMetrics(registry))
    for method, code in EXPECTED:
        labels = {"model": "clicks", "method": method, "code": code}
        assert registry.get_sample_value("tfctr_client_request_seconds_count", labels) == 1
        assert 0 < registry.get_sample_value("tfctr_client_request_seconds_sum", labels) < 60


def test_one_object_for_each_registry():
    registry = pytest.importorskip("prometheus_client").CollectorRegistry()
    PrometheusMetrics(registry)
    with pytest.raises(ConfigError, match=r"observes clients already\.\n  fix: give all clients the same object"):
        PrometheusMetrics(registry)


def test_opentelemetry():
    metrics = pytest.importorskip("opentelemetry.sdk.metrics")
    reader = metrics.export.InMemoryMetricReader()
    use(OpenTelemetryMetrics(metrics.MeterProvider([reader])))
    (scope,) = reader.get_metrics_data().resource_metrics[0].scope_metrics
    (metric,) = scope.metrics
    assert (metric.name, metric.unit) == ("tfctr.client.request.duration", "s")
    points = [(point.attributes["method"], point.attributes["code"], point.count) for point in metric.data.data_points]
    assert sorted(points) == sorted((method, code, 1) for method, code in EXPECTED)


@pytest.mark.parametrize(
    ("metrics", "module", "extra"),
    [(PrometheusMetrics, "prometheus_client", "prometheus"), (OpenTelemetryMetrics, "opentelemetry.metrics", "opentelemetry")],
)
def test_libraries_that_are_not_installed(metrics, module, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf'(?s){module} is not installed.*pip install "tfctr\[{extra}\]"'):
        metrics()
