"""The strict loader: a SavedModel run by TensorFlow's C API, as TensorFlow Serving runs it, without TensorFlow's Python.

`tf.saved_model.load` accepts models that TensorFlow Serving refuses: variables that no restore reaches, compiled functions,
Python functions. This loader meets the same refusals. It needs the two shared libraries of the TensorFlow wheel, found without
importing it.

Reference: [TensorFlow's C API](https://github.com/tensorflow/tensorflow/blob/master/tensorflow/c/c_api.h); text tensors as in
[tstring](https://github.com/tensorflow/community/blob/master/rfcs/20190411-string-unification.md).
"""

import ctypes
import functools
import importlib.util
import itertools
import re
import sys
import weakref
from collections.abc import Callable, Iterable, Mapping
from ctypes import POINTER, c_char_p, c_int, c_int64, c_size_t, c_void_p
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from tfctr.errors import StorageError
from tfctr.serving.wire.codes import Code
from tfctr.serving.wire.protocol import STRING, SavedModelProto, SignatureDefMap, numpy_type, type_number
from tfctr.serving.wire.types import Message
from tfctr.types import StrPath

_LIBRARIES = {
    "linux": ("libtensorflow_framework.so.2", "libtensorflow_cc.so.2"),
    "darwin": ("libtensorflow_framework.2.dylib", "libtensorflow_cc.2.dylib"),
}
_ACTING = re.compile(
    r"(Read|Write)File|(Experimental)?MatchingFiles\w*|PrintV2|\w+Reader(V2)?|CreateSummary\w+Writer|Save(Slices)?|FileSystem\w+"
    r"|(TextLine|TFRecord|FixedLengthRecord|CSV|Sql|Load|Save|Snapshot|Cache|DataService)\w*Dataset(V\d)?|DatasetToTFRecord"
    r"|Debug\w*Identity(V\d)?|DistributedSave|RemoteCall|Rpc\w+"
)
# A text tensor is an array of 24-byte TF_TString; the low bits 3 of its length mean "a view of bytes owned elsewhere".
_TSTRING_SIZE = 24
_TSTRING_VIEW = 3


class StatusError(StorageError):
    """TensorFlow refused to load or run a model. `code` is a canonical status code, the same numbers as gRPC's."""

    def __init__(self, code: int, problem: str) -> None:
        super().__init__(problem)
        self.code = code


class _Output(ctypes.Structure):
    _fields_ = (("operation", c_void_p), ("index", c_int))


class SavedModel:
    """A SavedModel folder, loaded with the tag `serve`; `run` may be called from many threads.

    Args:
        folder: one version's folder, the one with `saved_model.pb`.

    Raises:
        StorageError: the folder holds no SavedModel, or one that reads or writes files; or TensorFlow is not installed.
        StatusError: TensorFlow refuses to load it.

    Attributes:
        signatures: name -> `SignatureDef`.
    """

    def __init__(self, folder: StrPath) -> None:
        graph = _read_graph(folder)
        _refuse_acting(graph, folder)
        self.signatures: dict[str, Message] = _signatures(graph)
        api = _api()
        options = api.TF_NewSessionOptions()
        self._graph = api.TF_NewGraph()
        try:
            self._session = _call(
                api.TF_LoadSessionFromSavedModel,
                options,
                None,
                str(folder).encode(),
                (c_char_p * 1)(b"serve"),
                1,
                self._graph,
                None,
            )
        except StatusError:
            api.TF_DeleteGraph(self._graph)
            raise
        finally:
            api.TF_DeleteSessionOptions(options)
        self._close = weakref.finalize(self, _close, self._session, self._graph)

    def close(self) -> None:
        """Free the session; otherwise done when the last reference goes, so that running calls finish first."""
        self._close()

    def run(
        self, signature: str, inputs: Mapping[str, np.ndarray], outputs: Iterable[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Run one signature.

        Args:
            signature: its name.
            inputs: name -> array (`object` arrays of `bytes` for strings), one for each input of the signature.
            outputs: the names wanted; all of them if None.

        Returns:
            Name -> array.

        Raises:
            StatusError: TensorFlow refuses the inputs, or cannot run the graph.
        """
        definition = self.signatures[signature]
        wanted = sorted(definition.outputs) if outputs is None else list(outputs)
        feeds = [self._output(definition.inputs[name].name) for name in inputs]
        fetches = [self._output(definition.outputs[name].name) for name in wanted]
        tensors = []
        results = (c_void_p * len(fetches))()
        owners = []
        try:
            for array in inputs.values():
                tensor, owner = _to_native(array)
                tensors.append(tensor)
                owners.append(owner)
            _call(
                *(_api().TF_SessionRun, self._session, None),
                *((_Output * len(feeds))(*feeds), (c_void_p * len(tensors))(*tensors), len(feeds)),
                *((_Output * len(fetches))(*fetches), results, len(fetches)),
                *(None, 0, None),
            )
            return {name: _from_native(result) for name, result in zip(wanted, results, strict=True)}
        except ValueError as error:
            raise StatusError(Code.UNIMPLEMENTED, f"{error}.") from error
        finally:
            for tensor in (*tensors, *filter(None, results)):
                _api().TF_DeleteTensor(tensor)

    def _output(self, tensor_name: str) -> _Output:
        operation, _, index = tensor_name.partition(":")
        handle = _api().TF_GraphOperationByName(self._graph, operation.encode())
        if handle is None:
            raise StatusError(Code.NOT_FOUND, f"the graph has no operation {operation!r}.")
        return _Output(handle, int(index or 0))


def read_signatures(folder: StrPath) -> dict[str, Message]:
    """The signatures of a SavedModel folder, name -> `SignatureDef`, without loading it."""
    return _signatures(_read_graph(folder))


def _signatures(graph: Message) -> dict[str, Message]:
    # Copies: a part of the graph's message would keep all of it in memory.
    copies = SignatureDefMap(signature_def=graph.signature_def).signature_def
    return {name: copies[name] for name in sorted(copies) if not name.startswith("__")}


def _read_graph(folder: StrPath) -> Message:
    """The `MetaGraphDef` with the tag `serve`."""
    path = Path(folder) / "saved_model.pb"
    try:
        graphs = SavedModelProto.FromString(path.read_bytes()).meta_graphs
    except OSError as error:
        raise StorageError(f"{folder} holds no SavedModel: cannot read {path.name}.", fix="give a version's folder") from error
    except DecodeError as error:
        raise StorageError(f"{path} is corrupt.", fix="export the model again") from error
    for graph in graphs:
        if "serve" in graph.meta_info_def.tags:
            return graph
    raise StorageError(f"{folder} has no graph with the tag 'serve'.", fix="export the model with tfctr.serving.export")


def _refuse_acting(graph: Message, folder: StrPath) -> None:
    """Raise `StorageError` for an operation that reads or writes files, but for those by which a SavedModel is restored."""
    functions = (function.node_def for function in graph.graph_def.library.function)
    for node in itertools.chain(graph.graph_def.node, *functions):
        if _ACTING.fullmatch(node.op):
            problem = f"{folder} has the operation {node.op}, and a model that is served reads and writes no files of its own."
            raise StorageError(problem, fix="serve only models that you or those whom you trust have exported")


def refuse_unless(condition: object, code: int, problem: str) -> None:
    """Refuse a model or a request with a `StatusError`, unless `condition`."""
    if not condition:
        raise StatusError(code, problem)


def disable_xla() -> None:
    """Refuse compiled functions in this whole process, as TensorFlow Serving does unless it is told otherwise."""
    _api()._ZN10tensorflow21DisableXlaCompilationEv()


@functools.cache
def _api() -> ctypes.CDLL:
    package = importlib.util.find_spec("tensorflow")
    if package is None or not package.submodule_search_locations:
        raise StorageError("TensorFlow is not installed.", fix="pip install tensorflow")
    if sys.platform not in _LIBRARIES:
        raise StorageError(
            f"the strict loader does not know TensorFlow's libraries on {sys.platform}.", fix="use Linux or macOS"
        )
    folder = Path(package.submodule_search_locations[0])
    # RTLD_GLOBAL would put TensorFlow's TLS functions in front of OpenSSL's: importing hashlib afterwards crashes.
    libraries = [ctypes.CDLL(str(folder / name), mode=ctypes.RTLD_LOCAL) for name in _LIBRARIES[sys.platform]]
    api = libraries[-1]
    for name, result, arguments in _FUNCTIONS:
        function = getattr(api, name)
        function.restype = result
        function.argtypes = arguments
    return api


_FUNCTIONS = (
    ("TF_NewStatus", c_void_p, ()),
    ("TF_DeleteStatus", None, (c_void_p,)),
    ("TF_GetCode", c_int, (c_void_p,)),
    ("TF_Message", c_char_p, (c_void_p,)),
    ("TF_NewGraph", c_void_p, ()),
    ("TF_DeleteGraph", None, (c_void_p,)),
    ("TF_GraphOperationByName", c_void_p, (c_void_p, c_char_p)),
    ("TF_NewSessionOptions", c_void_p, ()),
    ("TF_DeleteSessionOptions", None, (c_void_p,)),
    (
        "TF_LoadSessionFromSavedModel",
        c_void_p,
        (c_void_p, c_void_p, c_char_p, POINTER(c_char_p), c_int, c_void_p, c_void_p, c_void_p),
    ),
    ("TF_CloseSession", None, (c_void_p, c_void_p)),
    ("TF_DeleteSession", None, (c_void_p, c_void_p)),
    (
        "TF_SessionRun",
        None,
        (
            *(c_void_p, c_void_p),  # session, run options
            *(POINTER(_Output), POINTER(c_void_p), c_int),  # feeds
            *(POINTER(_Output), POINTER(c_void_p), c_int),  # fetches
            *(c_void_p, c_int, c_void_p, c_void_p),  # targets, metadata, status
        ),
    ),
    ("TF_AllocateTensor", c_void_p, (c_int, POINTER(c_int64), c_int, c_size_t)),
    ("TF_DeleteTensor", None, (c_void_p,)),
    ("TF_TensorType", c_int, (c_void_p,)),
    ("TF_NumDims", c_int, (c_void_p,)),
    ("TF_Dim", c_int64, (c_void_p, c_int)),
    ("TF_TensorData", c_void_p, (c_void_p,)),
    ("TF_TensorByteSize", c_size_t, (c_void_p,)),
    ("TF_StringGetDataPointer", c_void_p, (c_void_p,)),
    ("TF_StringGetSize", c_size_t, (c_void_p,)),
    ("_ZN10tensorflow21DisableXlaCompilationEv", None, ()),
)


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    """`function(*arguments, status)`, or a `StatusError`."""
    api = _api()
    status = api.TF_NewStatus()
    try:
        result = function(*arguments, status)
        code = api.TF_GetCode(status)
        if code:
            raise StatusError(code, api.TF_Message(status).decode(errors="replace"))
        return result
    finally:
        api.TF_DeleteStatus(status)


def _close(session: int, graph: int) -> None:
    _call(_api().TF_CloseSession, session)
    _call(_api().TF_DeleteSession, session)
    _api().TF_DeleteGraph(graph)


def _to_native(array: np.ndarray) -> tuple[int, np.ndarray | None]:
    """A new `TF_Tensor` with the array's values, and the buffer that must outlive it."""
    number = type_number(array.dtype)
    content, owner = _text_content(array) if number == STRING else (np.ascontiguousarray(array), None)
    tensor = _api().TF_AllocateTensor(number, (c_int64 * array.ndim)(*array.shape), array.ndim, content.nbytes)
    ctypes.memmove(_api().TF_TensorData(tensor), content.ctypes.data, content.nbytes)
    return tensor, owner


def _text_content(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    texts = array.ravel().tolist()
    lengths = np.fromiter(map(len, texts), np.uint64, len(texts))
    owner = np.frombuffer(b"".join(texts) or b"\0", np.uint8)
    content = np.zeros((len(texts), _TSTRING_SIZE // 8), np.uint64)
    content[:, 0] = lengths << np.uint64(2) | np.uint64(_TSTRING_VIEW)
    content[:, 1] = np.uint64(owner.ctypes.data) + np.cumsum(lengths) - lengths
    return content, owner


def _from_native(tensor: int) -> np.ndarray:
    api = _api()
    number = api.TF_TensorType(tensor)
    shape = [api.TF_Dim(tensor, axis) for axis in range(api.TF_NumDims(tensor))]
    data = api.TF_TensorData(tensor)
    size = api.TF_TensorByteSize(tensor)
    if number != STRING:
        return np.frombuffer(ctypes.string_at(data, size), numpy_type(number)).reshape(shape)
    texts = [
        ctypes.string_at(api.TF_StringGetDataPointer(text), api.TF_StringGetSize(text))
        for text in range(data or 0, (data or 0) + size, _TSTRING_SIZE)
    ]
    array = np.empty(len(texts), object)
    array[:] = texts
    return array.reshape(shape)
