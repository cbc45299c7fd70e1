"""From a trained model to an answer: raw columns in the graph, a checked and versioned SavedModel, a server, a client.

Nothing is loaded before it is used, so that the client starts without TensorFlow.
"""

import importlib

_NAMES = {
    "export": "exporting.exporter",
    "fit_calibration": "exporting.calibration",
    "compress_tables": "exporting.compression",
    "RawFeatures": "exporting.raw_features",
    "check_saved_model": "exporting.check",
    "latest": "store.folders",
    "versions": "store.folders",
    "prune": "store.folders",
    "publish_model": "publishing.release",
    "rollback": "publishing.release",
    "history": "publishing.release",
    "Bounds": "publishing.comparison",
    "sample_clicks": "publishing.samples",
    "read_clicks": "publishing.clicks",
    "Batching": "publishing.configuration",
    "write_server_config": "publishing.configuration",
    "LocalServer": "runtime.stand_in",
    "serve": "runtime.stand_in",
    "PredictionClient": "client.blocking",
    "AsyncPredictionClient": "client.asynchronous",
    "OpenTelemetryMetrics": "client.telemetry",
    "PrometheusMetrics": "client.telemetry",
}

__all__ = [*_NAMES]


def __getattr__(name):
    if name in _NAMES:
        return getattr(importlib.import_module(f"tfctr.serving.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'tfctr.serving' has no attribute {name!r}")


def __dir__():
    return __all__
