"""The client of a served model: rows in, probabilities out, over gRPC, without TensorFlow."""

from collections.abc import Callable, Sequence
from typing import Any, Self

import grpc
import numpy as np
from numpy.typing import NDArray

from tfctr.serving.client.base import BaseClient, finished
from tfctr.serving.client.outcomes import Answer, Metadata, Recommendations, Shares
from tfctr.serving.client.refusals import closed
from tfctr.serving.wire.types import Message, Rows
from tfctr.types import StrPath


class PredictionClient(BaseClient):
    """Calls a model on TensorFlow Serving, or on the local stand-in.

    One client serves many threads; keep it open, one a process, and let processes fork before its first call. Only UNAVAILABLE
    is tried again, twice.

    The names and types of the model's inputs are asked from the server once, and again when a newer version answers, so that a
    missing or misspelt column is refused here, by name; what else the rows hold stays here. Values are read as `prepare` reads
    them: 60 and "60" are one token, "1.5" and 1.5 one number, None, NaN and "" are missing. What the model's schema says of
    tokens is asked for when rows hold lists, or tokens that are numbers with a fraction.

    Args:
        target: "host:port", or "dns:///host:port" for all addresses of a name; requests go to them in turn.
        model: the model's name on the server.
        timeout: seconds for each request to the server.
        version: a version's number; the highest one if None.
        label: a version's label on the server, such as "stable", instead of its number.
        signature: which of the model's functions `predict` calls.
        separator: joins the tokens of lists. The model says which, in its signature `schema`, and another one is refused; only
            a model that was exported without it needs `"|"`, or a dict, `{"genres": "|"}`, with each column's own.
        max_rows, max_bytes: more than this is sent as several requests, one after the other, all answered by one version.
        strict: refuse rows without a column that the model takes, unless the server says that it is optional. TensorFlow
            Serving from 2.20 on does not say so: False sends what there is, and leaves it to the server to refuse.
        tls: encrypt, and trust the certificate authorities that gRPC brings. The files below imply it.
        root_certificates: a PEM file of the certificate authorities to trust instead.
        client_certificate, client_key: PEM files that prove to the server who calls.
        token: sent with each request as `authorization: Bearer`; a function is asked for it each time. Only over TLS.
        observe: called after each request with its `model`, `method`, `code` and `seconds`; see `telemetry`.

    Raises:
        ConfigError: the target or an option cannot be used, the model has no such signature, or the server refused the caller.
        DataError: the rows do not fit the model, or the model refused them.
        StorageError: no server, model or label at `target`, no answer in time, or one that is no probability: not in [0, 1].

    >>> with PredictionClient("localhost:8500", model="frappe") as client:  # doctest: +SKIP
    ...     client.predict({"user": ["60"], "item": ["2438"]})
    array([0.8912], dtype=float32)
    """

    _library = grpc

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; calls that run, and those after this, fail."""
        if channel := self._close():
            channel.close()

    def predict(self, rows: Rows) -> NDArray[np.float32]:
        """The click probability of each row.

        Args:
            rows: a dict of columns, a list of dicts, a DataFrame, or, with `signature="ids"`, an integer matrix of ids.

        Returns:
            A float32 array of shape `(rows,)`, in the order of the rows.
        """
        return finished(self._asked(self._predict, rows))

    def predict_file(self, path: StrPath | Sequence[StrPath], **layout: Any) -> NDArray[np.float32]:
        """`predict` for the rows of files, in their order; errors name the line, or the row.

        Files are read and sent part by part, and one version answers all of them; the probabilities alone stay in memory.
        Afterwards `shares` says, for the first 1,000 rows, what `unseen` says.

        Args:
            path: a file, a glob or a list of those: one JSON object a line, or, by their ending, CSV and other text cells or
                Parquet, as `tfctr.prepare` reads them (that needs duckdb, ibis-framework and pyarrow); "-" for JSON lines from
                standard input.
            layout: `separator`, `columns`, `missing` and `encoding` of text cells, as for `tfctr.prepare`.

        Returns:
            A float32 array with one probability a row.
        """
        return finished(self._predict_file(path, **layout))

    def unseen(self, rows: Rows) -> Shares | None:
        """How many tokens of the rows the model does not know: `{feature: {"unseen", "expected"}}`, as shares.

        "expected" is the share in rows like those of training. Where there are many more, a warning is logged: tokens may be
        written otherwise than in the training table, or joined by another separator. None for a model that cannot say.

        Args:
            rows: as in `predict`.
        """
        return finished(self._asked(self._unseen, rows))

    def rank(self, user: Rows, candidates: Rows) -> NDArray[np.float32]:
        """The click probability of each candidate for one user, by the signature `rank`, which takes the user once.

        Args:
            user: what all candidates share, the context of the request included: one row as a dict, `{"user": "60"}`, or a
                table of one row.
            candidates: rows as in `predict`, with the other columns.

        Returns:
            A float32 array of shape `(candidates,)`, in the order of the candidates.

        >>> with PredictionClient("localhost:8500", model="frappe") as client:  # doctest: +SKIP
        ...     candidates.iloc[(-client.rank({"user": "60"}, candidates)).argsort()]
        """
        return finished(self._asked(self._rank, user, candidates))

    def recommend(self, user: Rows, k: int = 10) -> Recommendations:
        """The K items that one user clicks on most probably, among all, by the signature `recommend`.

        The model's retriever finds the candidates, and the model ranks them, in one request.

        Args:
            user: one row as a dict, `{"user": "60"}`, or a table of one row, with all that is not the item's.
            k: at most as many as the model was exported to retrieve.

        Returns:
            `Recommendations(items, probabilities, version)`, the most probable item first.

        >>> with PredictionClient("localhost:8500", model="frappe") as client:  # doctest: +SKIP
        ...     client.recommend({"user": "60", "city": "Köln"}, k=3).items
        ['item 7', 'item 21', 'item 4']
        """
        return finished(self._asked(self._recommend, user, k))

    def answer(self, rows: Rows, signature: str | None = None) -> Answer:
        """All outputs of a signature, not only the probability.

        Args:
            rows: as in `predict`.
            signature: which one; the client's if None.

        Returns:
            `Answer(outputs, version)`: name -> array with one value or vector a row, and the version that gave them.
        """
        return finished(self._asked(self._answer, rows, signature))

    def metadata(self) -> Metadata:
        """What the model takes and gives: signature -> {"inputs" or "outputs" -> {name -> (type, shape)}}."""
        return finished(self._metadata())

    def status(self) -> list[dict[str, Any]]:
        """The versions that the server knows: a list of dicts with `version`, `state` ("AVAILABLE" when served) and `error`."""
        return finished(self._status())

    async def _send(self, method: Callable[..., Any], request: bytes, timeout: float, metadata: Any) -> Message:
        try:
            return method(request, timeout=timeout, metadata=metadata)
        except ValueError as error:
            if not self._closed:
                raise
            raise closed() from error  # by another thread, after this one had asked for the channel
