"""Write tfctr/serving/wire/protocol.binpb: TensorFlow Serving's messages, from an installed tensorflow-serving-api.

    pip install tensorflow-serving-api==2.21.0     # the extra `dev` has it
    python export/make_protocol.py tfctr/serving/wire/protocol.binpb

Only maintainers need this, when TensorFlow Serving's messages change. See tfctr/serving/wire/NOTICE for what the file holds.
"""

import argparse
from pathlib import Path

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorSet
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    prediction_log_pb2,
    regression_pb2,
)
from tensorflow_serving.config import model_server_config_pb2

ROOTS = (
    *(predict_pb2, classification_pb2, regression_pb2, inference_pb2, prediction_log_pb2),
    *(get_model_metadata_pb2, get_model_status_pb2, model_management_pb2),
    *(saved_model_pb2, model_server_config_pb2),
)
LABELS = {"": FieldDescriptorProto.LABEL_OPTIONAL, "repeated": FieldDescriptorProto.LABEL_REPEATED}
SERVING, WRAPPERS = "tensorflow_serving", "google/protobuf/wrappers.proto"
INTEGER, TEXT = ".google.protobuf.Int64Value", ".google.protobuf.StringValue"
# The messages of the server's other configuration files, which no package carries; of the third file only this one.
# File -> message -> field -> (number, type).
BY_HAND = {
    f"{SERVING}/config/monitoring_config.proto": {
        "PrometheusConfig": {"enable": (1, "bool"), "path": (2, "string")},
        "MonitoringConfig": {"prometheus_config": (1, ".tensorflow.serving.PrometheusConfig")},
    },
    f"{SERVING}/servables/tensorflow/session_bundle_config.proto": {
        "BatchingParameters": {
            "max_batch_size": (1, INTEGER),
            "batch_timeout_micros": (2, INTEGER),
            "max_enqueued_batches": (3, INTEGER),
            "num_batch_threads": (4, INTEGER),
            "thread_pool_name": (5, TEXT),
            "allowed_batch_sizes": (6, "repeated int64"),
            "pad_variable_length_inputs": (7, "bool"),
        }
    },
    f"{SERVING}/config/ssl_config.proto": {
        "SSLConfig": {
            "server_key": (1, "string"),
            "server_cert": (2, "string"),
            "custom_ca": (3, "string"),
            "client_verify": (4, "bool"),
        }
    },
}


def closure(files):
    """`files` and all that they import, each after its imports."""
    ordered = {}

    def add(file):
        if file.name not in ordered:
            for dependency in file.dependencies:
                add(dependency)
            ordered[file.name] = file

    for file in files:
        add(file)
    return ordered.values()


def describe(file, name, messages):
    """Fill a `FileDescriptorProto` with one file of `BY_HAND`."""
    file.name, file.package, file.syntax = name, "tensorflow.serving", "proto3"
    for message, fields in messages.items():
        described = file.message_type.add(name=message)
        for field, (number, kind) in fields.items():
            label, _, kind = kind.rpartition(" ")
            added = described.field.add(name=field, number=number, label=LABELS[label])
            if kind.startswith("."):
                added.type, added.type_name = FieldDescriptorProto.TYPE_MESSAGE, kind
            else:
                added.type = FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")
    if any(kind in (INTEGER, TEXT) for fields in messages.values() for _, kind in fields.values()):
        file.dependency.append(WRAPPERS)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    descriptors = FileDescriptorSet()
    for file in closure(module.DESCRIPTOR for module in ROOTS):
        file.CopyToProto(descriptors.file.add())
    for name, messages in BY_HAND.items():
        describe(descriptors.file.add(), name, messages)
    out.write_bytes(descriptors.SerializeToString(deterministic=True))
    print(f"{out}: {len(descriptors.file)} files, {out.stat().st_size:,} bytes")
