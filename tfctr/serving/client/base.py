"""What the blocking and the asyncio client have in common: options, requests, answers, errors.

The calls are coroutines around one method, `_send`, which a client writes in its own way. A client whose `_send` blocks runs
them with `finished`.
"""

import contextlib
import threading
import time
from collections.abc import Awaitable, Callable, Container, Coroutine, Mapping, Sequence
from types import ModuleType
from typing import Any, TypeVar

import grpc
import numpy as np
from numpy.typing import NDArray

from tfctr.errors import ConfigError, DataError, StorageError, choose, require, require_count, require_positive
from tfctr.serving.client.connection import Connection
from tfctr.serving.client.options import require_manner, require_model
from tfctr.serving.client.outcomes import Answer, Metadata, Recommendations, Request
from tfctr.serving.client.refusals import NotFound, closed, explained
from tfctr.serving.client.row_files import read_rows
from tfctr.serving.client.unseen import AsksUnseen
from tfctr.serving.wire import protocol
from tfctr.serving.wire.batches import in_batches, joined
from tfctr.serving.wire.definitions import described, named_types, output_name
from tfctr.serving.wire.rows import MissingError, RowError, column_names, to_columns
from tfctr.serving.wire.token_rules import INPUT, OUTPUT, SIGNATURE, TokenRules, agreed, read_rules
from tfctr.serving.wire.types import Column, Message, Rows, Separators, TensorSpecs
from tfctr.types import StrPath

_PREDICTION = protocol.PREDICTION_SERVICE
_MODEL = protocol.MODEL_SERVICE
_METHODS = {
    f"/{_PREDICTION}/Predict": protocol.PredictResponse,
    f"/{_PREDICTION}/GetModelMetadata": protocol.GetModelMetadataResponse,
    f"/{_MODEL}/GetModelStatus": protocol.GetModelStatusResponse,
}
_PREDICT, _GET_METADATA, _GET_STATUS = _METHODS
_Result = TypeVar("_Result")


class BaseClient(AsksUnseen):
    """The options of `PredictionClient`, and its calls as coroutines."""

    _library: ModuleType  # of gRPC: the one that opens channels

    def __init__(
        self,
        target: str,
        *,
        model: str,
        timeout: float = 5.0,
        version: int | None = None,
        label: str | None = None,
        signature: str = "serving_default",
        separator: Separators = None,
        max_rows: int = 1000,
        max_bytes: int = 2**20,
        strict: bool = True,
        tls: bool = False,
        root_certificates: StrPath | None = None,
        client_certificate: StrPath | None = None,
        client_key: StrPath | None = None,
        token: str | Callable[[], str] | None = None,
        observe: Callable[[Request], object] | None = None,
    ) -> None:
        self._connection = Connection(
            target,
            tls=tls,
            root_certificates=root_certificates,
            client_certificate=client_certificate,
            client_key=client_key,
            token=token,
        )
        require_model(model, version, label)
        require_manner(separator, strict, observe)
        require_positive("timeout", timeout)
        require_count("max_rows", max_rows)
        require_count("max_bytes", max_bytes)
        self.target = target
        self.model = model
        self.version = version
        self.label = label
        self.signature = signature
        self._timeout = timeout
        self._separator = separator
        self._limits = (max_rows, max_bytes)
        self._strict = strict
        self._observe = observe
        self._methods: dict[str, Callable[..., Any]] = {}
        self._channel: Any = None
        self._signatures: dict[str, Message] | None = None  # what the model takes
        self._described_version: int | None = None  # and which version of it
        self._rules: TokenRules | None = None  # what it says of tokens, once that has been asked
        self._lock = threading.Lock()
        self._closed = False

    async def _send(self, method: Callable[..., Any], request: bytes, timeout: float, metadata: Any) -> Message:
        """`method`'s answer to `request`, which is bytes."""
        raise NotImplementedError

    async def _asked(self, ask: Callable[..., Awaitable[_Result]], *rows: Any) -> _Result:
        """What `ask` gives. What fails by signatures of earlier is asked once more, if a newer version has others."""
        known = self._signatures
        try:
            return await ask(*rows)
        except (ConfigError, DataError):
            if known is None or self._closed or await self._definitions() == known:
                raise
            return await ask(*rows)

    async def _predict(self, rows: Rows) -> NDArray[np.float32]:
        if isinstance(rows, list | tuple) and not rows:
            return np.zeros(0, np.float32)
        signature = await self._signature(self.signature)
        probabilities, _ = await self._probabilities(self.signature, signature, await self._columns(rows, signature))
        return probabilities

    async def _predict_file(self, path: StrPath | Sequence[StrPath], **layout: Any) -> NDArray[np.float32]:
        parts: list[np.ndarray] = []
        version: int | None = None
        first: Mapping[str, Column] = {}
        for part in read_rows(path, **layout):
            if not parts:
                await self._definitions()
            signature = await self._signature(self.signature)
            with part.named():
                columns = await self._columns(part.rows, signature)
            try:
                probabilities, version = await self._probabilities(self.signature, signature, columns, version=version)
            except NotFound as error:
                if not parts:
                    raise
                before = f"the {part.unit}s before {part.numbers[0]}"
                problem = f"{self.target} no longer has version {version}, which answered {before}."
                raise StorageError(problem, fix="call again, so that one version answers the whole file") from error
            parts.append(probabilities)
            first = first or columns
        await self._keep_shares(first, version)
        return np.concatenate(parts)

    async def _rank(self, user: Rows, candidates: Rows) -> NDArray[np.float32]:
        signature = await self._signature("rank")
        inputs = described(signature.inputs)
        optional = self._optional(signature)
        if all(shape[:1] == (1,) for _, shape in inputs.values()):
            raise ConfigError("signature 'rank' has no input for candidates.", fix="use `predict`")
        user = [user] if isinstance(user, Mapping) else user
        # An optional column has no fixed shape: it belongs to the side that has it.
        sources = (self._rules or await self._ask_rules()).sources if optional else {}
        aside = column_names(user, inputs, sources) - column_names(candidates, inputs, sources)
        shared = {name: known for name, known in inputs.items() if known[1][:1] == (1,) or name in aside}
        user = await self._user(user, shared, optional)
        own = {name: known for name, known in inputs.items() if name not in shared}
        if not own:
            raise DataError("the candidates have no column that the model takes.", fix="give `user` only what they share")
        columns = await self._read_rows(candidates, own, optional)
        probabilities, _ = await self._probabilities("rank", signature, columns, protocol.pack(user))
        return probabilities

    async def _recommend(self, user: Rows, k: int) -> Recommendations:
        require_count("k", k)
        signature = await self._signature("recommend")
        user = [user] if isinstance(user, Mapping) else user
        columns = await self._user(user, described(signature.inputs), self._optional(signature))
        answer = await self._all_outputs("recommend", columns)
        items, probabilities = (answer.outputs[name][0] for name in ("item", "probability"))
        fix = f"ask for at most {len(items)}, or export with more: `retrieved`"
        require(k <= len(items), f"`k` is {k}, and the model retrieves {len(items)} items.", fix=fix)
        self._require_probabilities(probabilities, "probability")
        return Recommendations([item.decode() for item in items[:k]], probabilities[:k], answer.version)

    async def _columns(self, rows: Rows, signature: Message) -> dict[str, Column]:
        return await self._read_rows(rows, described(signature.inputs), self._optional(signature))

    async def _read_rows(self, rows: Rows, inputs: TensorSpecs, optional: Container[str]) -> dict[str, Column]:
        """The columns of a request. What the model's schema says of tokens is asked for only where it matters."""
        if self._rules is None and self._separator is None:
            # Perhaps a list, a number with a fraction, a raw table's name; even a column that may be left out may have one.
            with contextlib.suppress(RowError, MissingError):
                return to_columns(rows, inputs)
        rules = self._rules or await self._ask_rules()
        return to_columns(rows, inputs, rules.separators, optional, rules.fractions, rules.sources)

    async def _ask_rules(self) -> TokenRules:
        """The model's `TokenRules`; of an export without them, the caller's."""
        known = await self._definitions() if self._signatures is None else self._signatures
        if SIGNATURE not in known:
            return TokenRules(self._separator)
        answer = await self._ask(SIGNATURE, {INPUT: np.zeros(1, np.int32)}, {OUTPUT: (np.dtype(object), (None,))})
        self._rules = agreed(read_rules(answer.outputs[OUTPUT][0].decode()), self._separator)
        return self._rules

    def _optional(self, signature: Message) -> Container[str]:
        """The inputs that a request may leave out, as far as the client is to judge."""
        return signature.defaults if self._strict else signature.inputs

    async def _user(self, user: Rows, inputs: TensorSpecs, optional: Container[str]) -> dict[str, Column]:
        """The columns, of one row each, that all candidates share."""
        try:
            columns = await self._read_rows(user, inputs, optional)
        except DataError as error:
            raise DataError(f"user: {error.problem}", fix=error.fix) from error
        for column in columns.values():
            if len(column) != 1:
                raise DataError(f"user: {len(column)} rows, not one.", fix="call `rank` once for each user")
        return columns

    async def _answer(self, rows: Rows, name: str | None) -> Answer:
        name = self.signature if name is None else name
        return await self._all_outputs(name, await self._columns(rows, await self._signature(name)))

    async def _all_outputs(self, name: str, columns: Mapping[str, Column], version: int | None = None) -> Answer:
        return await self._ask(name, columns, described((await self._signature(name)).outputs), version=version)

    async def _metadata(self) -> Metadata:
        return {
            name: {"inputs": named_types(signature.inputs), "outputs": named_types(signature.outputs)}
            for name, signature in (await self._definitions()).items()
        }

    async def _status(self) -> list[dict[str, Any]]:
        # TensorFlow Serving does not look at labels here.
        request = protocol.GetModelStatusRequest(model_spec={"name": self.model, **_choice(self.version)})
        answer = await self._call(_GET_STATUS, request.SerializeToString())
        return [
            {"version": known.version, "state": protocol.state_name(known.state), "error": known.status.error_message}
            for known in answer.model_version_status
        ]

    async def _probabilities(
        self, name: str, signature: Message, columns: Mapping[str, Column], shared: bytes = b"", version: int | None = None
    ) -> tuple[np.ndarray, int | None]:
        output = output_name(signature)
        answer = await self._ask(name, columns, {output: (np.dtype("f4"), (None,))}, shared, version)
        found = answer.outputs[output].reshape(-1)
        self._require_probabilities(found, output)
        return found, answer.version

    def _require_probabilities(self, found: np.ndarray, output: str) -> None:
        wrong = np.flatnonzero(~((found >= 0) & (found <= 1)))  # NaN is neither
        if wrong.size:
            raise StorageError(
                f"{self.target} answered {found[wrong[0]]} for row {wrong[0]}, which is no probability "
                f"({wrong.size} of {found.size} rows).",
                fix=f"serve a model that tfctr exported; if {output!r} is no probability, call `answer`",
            )

    async def _ask(
        self,
        name: str,
        columns: Mapping[str, Column],
        outputs: TensorSpecs,
        shared: bytes = b"",
        version: int | None = None,
        restarts: int = 1,
    ) -> Answer:
        """The `Answer` to all rows, by `version` or the one that answers the first part. `outputs`: name -> (type, shape)."""
        pinned = version is not None
        answers = []
        choice = _choice(version) if pinned else _choice(self.version, self.label)
        version = version if pinned else self.version
        for packed, rows in in_batches(columns, *self._limits):
            spec = {"name": self.model, "signature_name": name, **choice}
            # Messages written one after the other are read as one.
            head = protocol.PredictRequest(model_spec=spec, output_filter=outputs).SerializeToString()
            try:
                response = await self._call(_PREDICT, head + shared + packed)
            except NotFound:
                if pinned or not answers or not restarts:
                    raise
                # A newer version has taken the place of that one.
                return await self._ask(name, columns, outputs, shared, restarts=restarts - 1)
            answers.append(self._read(response, outputs, rows))
            if (answered := _version(response)) is not None:
                version = answered
                choice = _choice(answered)
                if self._described_version is not None and version > self._described_version:
                    self._signatures = self._rules = None  # a newer version may take more columns
        return Answer(joined(answers, outputs), version)

    def _read(self, response: Message, outputs: TensorSpecs, rows: int) -> dict[str, np.ndarray]:
        """The outputs of one response: of the type and rank that `outputs` says, with that number of rows."""
        try:
            arrays = {name: protocol.from_tensor(response.outputs[name]) for name in outputs}
        except ValueError as error:
            raise StorageError(f"{self.target} answered with a broken tensor: {error}.", fix="check the server") from error
        for name, (dtype, shape) in outputs.items():
            array = arrays[name]
            if shape == (None,) and array.shape == (rows, 1):
                arrays[name] = array = array.reshape(-1)
            if array.dtype != dtype or array.shape[:1] != (rows,) or (shape and array.ndim != len(shape)):
                raise StorageError(
                    f"{self.target} answered {array.size} {array.dtype} values for {rows} rows as {name!r}.",
                    fix="serve a model that tfctr exported",
                )
        return arrays

    async def _signature(self, name: str) -> Message:
        known = self._signatures
        return choose(await self._definitions() if known is None else known, name, "signature")

    async def _definitions(self) -> dict[str, Message]:
        """The model's signatures, as the server has them now."""
        spec = {"name": self.model, **_choice(self.version, self.label)}
        request = protocol.GetModelMetadataRequest(model_spec=spec, metadata_field=["signature_def"])
        answer = await self._call(_GET_METADATA, request.SerializeToString())
        definitions = protocol.SignatureDefMap.FromString(answer.metadata["signature_def"].value).signature_def
        signatures = {name: definitions[name] for name in definitions if not name.startswith("__")}
        self._signatures = signatures
        self._described_version = _version(answer)
        self._rules = None
        return signatures

    async def _call(self, path: str, request: bytes) -> Message:
        method = self._method(path)
        metadata = self._connection.metadata()
        code = "CANCELLED"
        start = time.perf_counter()
        try:
            response = await self._send(method, request, timeout=self._timeout, metadata=metadata)
            code = "OK"
            return response
        except grpc.RpcError as error:
            code = error.code().name
            if code == "CANCELLED" and self._closed:
                raise closed() from error
            raise explained(error, self.target, self.model, self.label, self._timeout) from error
        finally:
            if self._observe is not None:
                self._observe(Request(self.model, path.rpartition("/")[2], code, time.perf_counter() - start))

    def _method(self, path: str) -> Callable[..., Any]:
        """The channel's method. The channel opens at the first call: a process that forks before that has one for itself."""
        with self._lock:
            if self._closed:
                raise closed()
            if self._channel is None:
                self._channel = self._connection.open(self._library)
                self._methods = {
                    name: self._channel.unary_unary(name, response_deserializer=response.FromString)
                    for name, response in _METHODS.items()
                }
            return self._methods[path]

    def _close(self) -> Any:
        """Take no calls any more; the channel to close, if there is one."""
        with self._lock:
            channel = self._channel
            self._channel = None
            self._closed = True
        return channel


def finished(coroutine: Coroutine[Any, Any, _Result]) -> _Result:
    """The result of a coroutine that never waits.

    >>> async def answer():
    ...     return 42
    >>> finished(answer())
    42
    """
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("a blocking call has waited")


def _choice(version: int | None, label: str | None = None) -> dict[str, Any]:
    """The part of a model spec that says which version."""
    if label is not None:
        return {"version_label": label}
    return {} if version is None else {"version": {"value": version}}


def _version(answer: Message) -> int | None:
    """The version that answered; None if the server does not say."""
    return answer.model_spec.version.value if answer.model_spec.HasField("version") else None
