"""The connection of a client: gRPC's settings, TLS and tokens, checked before anything is sent."""

import json
import re
import reprlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import grpc

from tfctr.errors import ConfigError
from tfctr.serving.wire import protocol
from tfctr.serving.wire.pem import read_pem, require_usable
from tfctr.types import StrPath

# UNAVAILABLE alone says that the server has not done the work; three attempts, the first one included.
_RETRY = {
    "maxAttempts": 3,
    "initialBackoff": "0.05s",
    "maxBackoff": "0.5s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
_SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {"name": [{"service": protocol.PREDICTION_SERVICE}, {"service": protocol.MODEL_SERVICE}], "retryPolicy": _RETRY}
    ],
}
_OPTIONS = [
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    ("grpc.enable_http_proxy", 0),  # a proxy for the web would also catch calls to localhost
    ("grpc.max_reconnect_backoff_ms", 1000),  # or a server that was away is not asked for up to two minutes after it is back
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
]
_TARGET = re.compile(r"unix:\S+|(dns://[^/\s]*/|ipv4:|ipv6:)?[^/\s]*[^/:\s]:(?P<port>\d{1,5})", re.ASCII)
_TOKEN = re.compile(r"[!-~]+")  # what a header may hold, without spaces


class Connection:
    """Where a client connects, and how it proves who it is. Opens nothing by itself.

    Args:
        target: "host:port" or "dns:///host:port", whose addresses take turns; "ipv4:", "ipv6:" and "unix:" as gRPC reads them.
        tls: encrypt, and trust the certificate authorities that gRPC brings. Implied by the files below.
        root_certificates: a PEM file of the authorities to trust instead.
        client_certificate, client_key: PEM files that show the server who calls.
        token: sent as `authorization: Bearer`; a function is asked for it at every request. Only over TLS.

    Raises:
        ConfigError: an argument cannot be used.
        StorageError: a file cannot be read.
    """

    def __init__(
        self,
        target: str,
        *,
        tls: bool = False,
        root_certificates: StrPath | None = None,
        client_certificate: StrPath | None = None,
        client_key: StrPath | None = None,
        token: str | Callable[[], str] | None = None,
    ) -> None:
        address = _TARGET.fullmatch(target) if isinstance(target, str) else None
        if address is None or not 0 < int(address["port"] or 1) < 2**16:  # gRPC takes 74036 for 8500
            fix = "give 'host:port', such as 'localhost:8500', or 'dns:///host:port'"
            raise ConfigError(f"`target` is {reprlib.repr(target)}.", fix=fix)
        if not isinstance(tls, bool):
            raise ConfigError(f"`tls` is {tls!r}.", fix="give True or False")
        if (client_certificate is None) != (client_key is None):
            absent = "client_key" if client_key is None else "client_certificate"
            raise ConfigError(f"`{absent}` is None.", fix="give `client_certificate` and `client_key` together, or neither")
        files = {"root_certificates": root_certificates, "client_key": client_key, "client_certificate": client_certificate}
        contents = [None if path is None else read_pem(argument, path) for argument, path in files.items()]
        require_usable({"client_certificate": client_certificate, "client_key": client_key}, root_certificates)
        self.target = target
        self._credentials = grpc.ssl_channel_credentials(*contents) if tls or any(contents) else None
        if token is not None and self._credentials is None:
            fix = "give `tls=True`, or `root_certificates` for a certificate authority of your own"
            raise ConfigError("`token` would be sent without encryption.", fix=fix)
        self._token = token if token is None or callable(token) else _checked_token(token)

    def open(self, library: ModuleType = grpc) -> Any:
        """A channel of `library`: `grpc`, or `grpc.aio`."""
        if self._credentials is None:
            return library.insecure_channel(self.target, options=_OPTIONS)
        return library.secure_channel(self.target, self._credentials, options=_OPTIONS)

    def metadata(self) -> list[tuple[str, str]] | None:
        """The headers of one request, or None."""
        if self._token is None:
            return None
        token = _checked_token(self._token()) if callable(self._token) else self._token
        return [("authorization", f"Bearer {token}")]


def _checked_token(token: Any) -> str:
    """The token, if a header can hold it. An error must not show it."""
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        problem = "is not text" if not isinstance(token, str) else "is empty or has spaces or characters outside ASCII"
        raise ConfigError(f"`token` {problem}.", fix="give the token alone, without 'Bearer' or a line end")
    return token
