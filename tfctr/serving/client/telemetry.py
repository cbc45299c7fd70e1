"""Metrics of a client's requests, for its argument `observe`: one histogram of seconds by model, method and code.

Traces need nothing here: `GrpcInstrumentorClient().instrument()` of opentelemetry-instrumentation-grpc, or its asyncio twin,
knows the channels that are opened afterwards, and a client opens its own at its first call.
"""

import importlib
from typing import Any

from tfctr.errors import ConfigError
from tfctr.serving.client.outcomes import Request

_HELP = "Seconds of each request to a served model, its retries included."


class PrometheusMetrics:
    """Observes requests as the Prometheus histogram `tfctr_client_request_seconds`.

    Args:
        registry: a `CollectorRegistry`; the default one if None. Make one object a registry, and give it to all clients.

    Raises:
        ConfigError: prometheus-client is not installed, or the registry has such a histogram.

    >>> client = PredictionClient("localhost:8500", model="frappe", observe=PrometheusMetrics())  # doctest: +SKIP
    """

    def __init__(self, registry: Any = None) -> None:
        library = _load("prometheus_client", "prometheus")
        registry = library.REGISTRY if registry is None else registry
        labels = ["model", "method", "code"]
        try:
            self._seconds = library.Histogram("tfctr_client_request_seconds", _HELP, labels, registry=registry)
        except ValueError as error:
            raise ConfigError("this registry observes clients already.", fix="give all clients the same object") from error

    def __call__(self, request: Request) -> None:
        self._seconds.labels(request.model, request.method, request.code).observe(request.seconds)


class OpenTelemetryMetrics:
    """Observes requests as the OpenTelemetry histogram `tfctr.client.request.duration`, in seconds.

    Args:
        provider: a `MeterProvider`; the global one if None.

    Raises:
        ConfigError: opentelemetry-api is not installed.
    """

    def __init__(self, provider: Any = None) -> None:
        meter = _load("opentelemetry.metrics", "opentelemetry").get_meter("tfctr", meter_provider=provider)
        self._seconds = meter.create_histogram("tfctr.client.request.duration", unit="s", description=_HELP)

    def __call__(self, request: Request) -> None:
        attributes = {"model": request.model, "method": request.method, "code": request.code}
        self._seconds.record(request.seconds, attributes)


def _load(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(f"{module} is not installed.", fix=f'pip install "tfctr[{extra}]"') from error
