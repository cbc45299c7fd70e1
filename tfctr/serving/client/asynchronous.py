"""The client for asyncio."""

import asyncio

import grpc.aio

from tfctr.errors import ConfigError
from tfctr.serving.client.base import BaseClient, closed


class AsyncPredictionClient(BaseClient):
    """`PredictionClient` for asyncio: the same arguments, methods, results and errors, and each method is awaited.

    Many calls may run at once. A client belongs to the event loop of its first call.

    >>> async def probabilities(tables):  # doctest: +SKIP
    ...     async with AsyncPredictionClient("localhost:8500", model="frappe") as client:
    ...         return await asyncio.gather(*map(client.predict, tables))
    """

    _library = grpc.aio
    _loop = None

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.close()

    async def close(self):
        """As `PredictionClient.close`."""
        if channel := self._close():
            await channel.close()

    async def predict(self, rows):
        """As `PredictionClient.predict`."""
        return await self._asked(self._predict, rows)

    async def predict_file(self, path, **layout):
        """As `PredictionClient.predict_file`; reading the file is not awaited."""
        return await self._predict_file(path, **layout)

    async def unseen(self, rows):
        """As `PredictionClient.unseen`."""
        return await self._asked(self._unseen, rows)

    async def rank(self, user, candidates):
        """As `PredictionClient.rank`."""
        return await self._asked(self._rank, user, candidates)

    async def answer(self, rows, signature=None):
        """As `PredictionClient.answer`."""
        return await self._asked(self._answer, rows, signature)

    async def metadata(self):
        """As `PredictionClient.metadata`."""
        return await self._metadata()

    async def status(self):
        """As `PredictionClient.status`."""
        return await self._status()

    def _method(self, path):
        loop = asyncio.get_running_loop()
        if self._loop not in (None, loop):
            raise ConfigError("the client belongs to another event loop.", fix="open one client for each event loop")
        self._loop = loop
        return super()._method(path)

    async def _send(self, method, request, timeout, metadata):
        try:
            return await method(request, timeout=timeout, metadata=metadata)
        except asyncio.CancelledError as error:
            if asyncio.current_task().cancelling():
                raise
            raise closed() from error
