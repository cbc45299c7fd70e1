"""Write tfctr/serving/protocol.binpb: TensorFlow Serving's messages, from an installed tensorflow-serving-api.

    pip install tensorflow-serving-api==2.21.0     # in an environment of its own: it brings all of TensorFlow
    python export/make_protocol.py tfctr/serving/protocol.binpb

Only maintainers need this, when TensorFlow Serving's messages change. See tfctr/serving/NOTICE for what the file holds.
"""

import argparse
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)
from tensorflow_serving.config import model_server_config_pb2

ROOTS = (
    *(predict_pb2, classification_pb2, regression_pb2, inference_pb2),
    *(get_model_metadata_pb2, get_model_status_pb2, model_management_pb2),
    *(saved_model_pb2, model_server_config_pb2),
)


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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    descriptors = FileDescriptorSet()
    for file in closure(module.DESCRIPTOR for module in ROOTS):
        file.CopyToProto(descriptors.file.add())
    out.write_bytes(descriptors.SerializeToString(deterministic=True))
    print(f"{out}: {len(descriptors.file)} files, {out.stat().st_size:,} bytes")
