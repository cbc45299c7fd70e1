"""The client for asyncio."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Self

import grpc.aio
import numpy as np
from numpy.typing import NDArray

from tfctr.errors import ConfigError
from tfctr.serving.client.base import BaseClient
from tfctr.serving.client.outcomes import Answer, Metadata, Recommendations, Shares
from tfctr.serving.client.refusals import closed
from tfctr.serving.wire.types import Message, Rows
from tfctr.types import StrPath


class AsyncPredictionClient(BaseClient):
    """`PredictionClient` for asyncio: the same arguments, methods, results and errors, and each method is awaited.

    Many calls may run at once. A client belongs to the event loop of its first call.

    >>> async def probabilities(tables):  # doctest: +SKIP
    ...     async with AsyncPredictionClient("localhost:8500", model="frappe") as client:
    ...         return await asyncio.gather(*map(client.predict, tables))
    """

    _library = grpc.aio
    _loop: asyncio.AbstractEventLoop | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """As `PredictionClient.close`."""
        if channel := self._close():
            await channel.close()

    async def predict(self, rows: Rows) -> NDArray[np.float32]:
        """As `PredictionClient.predict`."""
        return await self._asked(self._predict, rows)

    async def predict_file(self, path: StrPath | Sequence[StrPath], **layout: Any) -> NDArray[np.float32]:
        """As `PredictionClient.predict_file`; reading the file is not awaited."""
        return await self._predict_file(path, **layout)

    async def unseen(self, rows: Rows) -> Shares | None:
        """As `PredictionClient.unseen`."""
        return await self._asked(self._unseen, rows)

    async def rank(self, user: Rows, candidates: Rows) -> NDArray[np.float32]:
        """As `PredictionClient.rank`."""
        return await self._asked(self._rank, user, candidates)

    async def recommend(self, user: Rows, k: int = 10) -> Recommendations:
        """As `PredictionClient.recommend`."""
        return await self._asked(self._recommend, user, k)

    async def answer(self, rows: Rows, signature: str | None = None) -> Answer:
        """As `PredictionClient.answer`."""
        return await self._asked(self._answer, rows, signature)

    async def metadata(self) -> Metadata:
        """As `PredictionClient.metadata`."""
        return await self._metadata()

    async def status(self) -> list[dict[str, Any]]:
        """As `PredictionClient.status`."""
        return await self._status()

    def _method(self, path: str) -> Callable[..., Any]:
        loop = asyncio.get_running_loop()
        if self._loop not in (None, loop):
            raise ConfigError("the client belongs to another event loop.", fix="open one client for each event loop")
        self._loop = loop
        return super()._method(path)

    async def _send(self, method: Callable[..., Any], request: bytes, timeout: float, metadata: Any) -> Message:
        try:
            return await method(request, timeout=timeout, metadata=metadata)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise closed() from error
