"""How a client learns what the model does not know of its rows: by the signature `unseen`, where the model has it."""

import logging
from collections.abc import Mapping

from tfctr.data.shares import told_shares
from tfctr.errors import TfctrError
from tfctr.serving.client.outcomes import Answer, Shares
from tfctr.serving.wire.types import Column, Message, Rows

_LOG = logging.getLogger(__name__)
_SAMPLE = 1000  # rows of a file whose tokens are counted


class AsksUnseen:
    """The part of `BaseClient` that asks for it."""

    shares: Shares | None = None  # of the last file: see `PredictionClient.predict_file`

    # What `BaseClient` brings.
    target: str
    model: str
    signature: str
    _signatures: dict[str, Message] | None

    async def _signature(self, name: str) -> Message:
        raise NotImplementedError

    async def _columns(self, rows: Rows, signature: Message) -> dict[str, Column]:
        raise NotImplementedError

    async def _all_outputs(self, name: str, columns: Mapping[str, Column], version: int | None = None) -> Answer:
        raise NotImplementedError

    async def _unseen(self, rows: Rows) -> Shares | None:
        return await self._shares(await self._columns(rows, await self._signature(self.signature)))

    async def _keep_shares(self, columns: Mapping[str, Column], version: int | None) -> None:
        """Of a file's first columns. None also where the model cannot be asked: the probabilities are there by then."""
        self.shares = None
        if self.signature != "serving_default":
            return
        try:
            self.shares = await self._shares({name: column[:_SAMPLE] for name, column in columns.items()}, version)
        except TfctrError as error:
            _LOG.info("%s does not say which tokens it knows: %s", self.target, error.problem)

    async def _shares(self, columns: Mapping[str, Column], version: int | None = None) -> Shares | None:
        """`{feature: {"unseen", "expected"}}`; None where the model does not say. Logs a warning where one jumps."""
        if "unseen" not in (self._signatures or ()):
            return None
        answer = await self._all_outputs("unseen", columns, version)
        return told_shares(answer.outputs, f"the rows for model {self.model!r}")
