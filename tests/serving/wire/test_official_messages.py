"""Our messages beside those of the package tensorflow-serving-api: the same fields, the same bytes, the same tensors."""

import contextlib
import importlib
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from kit.saved_models import texts
from kit.served_model import serialized
from tensorflow_serving.apis import predict_pb2

from tfctr.serving.wire import protocol

NOT_IN_THE_PACKAGE = {"monitoring_config", "session_bundle_config", "ssl_config"}
ARRAYS = {
    "float": np.array([[0.25, -np.inf], [np.nan, 1e-45]], np.float32),
    "double": np.array([1.5, np.nan, -0.0]),
    "int32": np.array([[1, -(2**31)]], np.int32),
    "int64": np.array([2**63 - 1, -(2**63)]),
    "bool": np.array([True, False]),
    "string": texts("60", "", "東京", b"\xff\x00"),
    "no rows": np.zeros((0, 3), np.int32),
    "a scalar": np.array(0.5, np.float32),
}


def test_every_file_of_ours_is_that_of_the_package():
    ours = FileDescriptorSet.FromString(Path(protocol.__file__).with_name("protocol.binpb").read_bytes())
    absent = set()
    for file in ours.file:
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(file.name.removesuffix(".proto").replace("/", ".") + "_pb2")
        theirs = FileDescriptorProto()
        try:
            descriptor_pool.Default().FindFileByName(file.name).CopyToProto(theirs)
        except KeyError:
            absent.add(Path(file.name).stem)
            continue
        assert file == theirs, file.name
    assert absent == NOT_IN_THE_PACKAGE


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
def test_tensors_go_both_ways(array):
    ours, theirs = protocol.to_tensor(array), tf.make_tensor_proto(array)
    read = tf.make_ndarray(type(theirs).FromString(ours.SerializeToString()))
    sent = protocol.from_tensor(protocol.TensorProto.FromString(theirs.SerializeToString()))
    for found in (read, sent):
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        assert found.tolist() == array.tolist() if array.dtype.hasobject else found.tobytes() == array.tobytes()


def test_packed_columns_are_a_request_of_the_package():
    columns = {"user": [b"60", b""], "price": np.array([0.5, np.nan])}
    packed = protocol.pack(columns)
    theirs = predict_pb2.PredictRequest.FromString(packed)
    assert serialized(theirs) == serialized(protocol.PredictRequest.FromString(packed))
    assert tf.make_ndarray(theirs.inputs["user"]).tolist() == columns["user"]
    assert tf.make_ndarray(theirs.inputs["price"]).tobytes() == columns["price"].tobytes()
