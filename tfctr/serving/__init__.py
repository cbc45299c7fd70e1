"""From a trained model to an answer: raw columns in the graph, a checked and versioned SavedModel, a server, a client.

Nothing is loaded before it is used, so that the client starts without TensorFlow.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfctr.serving.client.asynchronous import AsyncPredictionClient as AsyncPredictionClient
    from tfctr.serving.client.blocking import PredictionClient as PredictionClient
    from tfctr.serving.client.telemetry import OpenTelemetryMetrics as OpenTelemetryMetrics
    from tfctr.serving.client.telemetry import PrometheusMetrics as PrometheusMetrics
    from tfctr.serving.exporting.calibration import fit_calibration as fit_calibration
    from tfctr.serving.exporting.check import check_saved_model as check_saved_model
    from tfctr.serving.exporting.compression import compress_tables as compress_tables
    from tfctr.serving.exporting.exporter import export as export
    from tfctr.serving.exporting.options import ExportOptions as ExportOptions
    from tfctr.serving.exporting.raw_features import RawFeatures as RawFeatures
    from tfctr.serving.exporting.retriever_export import export_retriever as export_retriever
    from tfctr.serving.publishing.clicks import read_clicks as read_clicks
    from tfctr.serving.publishing.comparison import Bounds as Bounds
    from tfctr.serving.publishing.configuration import Batching as Batching
    from tfctr.serving.publishing.configuration import write_server_config as write_server_config
    from tfctr.serving.publishing.release import history as history
    from tfctr.serving.publishing.release import publish_model as publish_model
    from tfctr.serving.publishing.release import rollback as rollback
    from tfctr.serving.publishing.samples import sample_clicks as sample_clicks
    from tfctr.serving.runtime.stand_in import LocalServer as LocalServer
    from tfctr.serving.runtime.stand_in import serve as serve
    from tfctr.serving.store.folders import latest as latest
    from tfctr.serving.store.folders import prune as prune
    from tfctr.serving.store.folders import versions as versions

_NAMES = {
    "export": "exporting.exporter",
    "ExportOptions": "exporting.options",
    "export_retriever": "exporting.retriever_export",
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


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(f"tfctr.serving.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'tfctr.serving' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
