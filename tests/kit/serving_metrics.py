"""The metrics of TensorFlow Serving that docker/ uses: name -> labels. Histograms carry `_bucket`, `_sum` and `_count`.

Sources, in tensorflow/serving: servables/tensorflow/util.cc for requests and runtime, saved_model_warmup_util.cc beside it, and
batching/batching_session.cc; in tensorflow/tensorflow: cc/saved_model/loader.cc. The exporter, prometheus_exporter.cc, puts a
colon for what is no letter, digit or underscore in a name: "/tensorflow/serving/x" becomes ":tensorflow:serving:x".
"""

COUNTERS = {
    ":tensorflow:serving:request_count": {"model_name", "status"},
    ":tensorflow:cc:saved_model:load_attempt_count": {"model_path", "status"},
    ":tensorflow:cc:saved_model:load_latency": {"model_path"},  # microseconds of all loads together
}
HISTOGRAMS = {  # in microseconds
    ":tensorflow:serving:request_latency": {"model_name", "API", "entrypoint"},
    ":tensorflow:serving:runtime_latency": {"model_name", "API", "runtime"},
    ":tensorflow:serving:model_warmup_latency": {"model_path", "status"},
    ":tensorflow:serving:batching_session:queuing_latency": {"thread_pool_name"},
}
STATUSES = {":tensorflow:cc:saved_model:load_attempt_count": {"success", "fail"}}  # all others: names of gRPC's codes


def labels_of(name):
    """The labels of a series, with those that Prometheus adds; None for one that nobody exports."""
    added = {"job", "instance"}
    if name == "up":
        return added
    if name in COUNTERS:
        return COUNTERS[name] | added
    for suffix in ("_bucket", "_sum", "_count"):
        if name.removesuffix(suffix) in HISTOGRAMS and name.endswith(suffix):
            return HISTOGRAMS[name.removesuffix(suffix)] | added | ({"le"} if suffix == "_bucket" else set())
    return None
