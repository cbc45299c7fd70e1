"""From a trained model to an answer: raw columns in the graph, a checked and versioned SavedModel, a server, a client.

Nothing is loaded before it is used, so that the client starts without TensorFlow.
"""

import importlib

_NAMES = {
    "export": "exporting",
    "fit_calibration": "calibration",
    "compress_tables": "tables",
    "RawFeatures": "raw_features",
    "check_saved_model": "check",
    "latest": "publish",
    "versions": "publish",
    "prune": "publish",
    "publish_model": "release",
    "rollback": "release",
    "history": "release",
    "Bounds": "comparison",
    "sample_clicks": "samples",
    "read_clicks": "clicks",
    "Batching": "configuration",
    "write_server_config": "configuration",
    "LocalServer": "server",
    "serve": "server",
    "PredictionClient": "client",
    "AsyncPredictionClient": "async_client",
    "OpenTelemetryMetrics": "telemetry",
    "PrometheusMetrics": "telemetry",
}

__all__ = [*_NAMES]


def __getattr__(name):
    if name in _NAMES:
        return getattr(importlib.import_module(f"tfctr.serving.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'tfctr.serving' has no attribute {name!r}")


def __dir__():
    return __all__
