"""What a server's refusals and failures mean to the caller."""

import grpc

from tfctr.errors import ConfigError, DataError, StorageError, TfctrError


class NotFound(StorageError):
    """The server does not serve this model or version."""


def closed() -> ConfigError:
    """The error of a call after, or while, the client is closed."""
    return ConfigError("the client is closed.", fix="open another one")


def explained(error: grpc.RpcError, target: str, model: str, label: str | None, timeout: float) -> TfctrError:
    """A refusal or failure of a server as the error that a caller gets."""
    code = error.code()
    details = error.details()
    match code:
        case grpc.StatusCode.UNAVAILABLE:
            fix = "start one (tfctr serve FOLDER), or correct the address, the certificates, or whether there is TLS"
            return StorageError(f"no server answers at {target}: {details}", fix=fix)
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            fix = "raise `timeout`, or lower `max_rows`"
            return StorageError(f"{target} did not answer within {timeout:g} s.", fix=fix)
        case grpc.StatusCode.UNAUTHENTICATED | grpc.StatusCode.PERMISSION_DENIED:
            return ConfigError(f"{target} refused the caller: {details}", fix="check `token` or `client_certificate`")
        case grpc.StatusCode.NOT_FOUND:
            fix = "check `model`, `version` and `label` against what the server serves"
            return NotFound(f"{target} has no such model: {details}", fix=fix)
        case grpc.StatusCode.INVALID_ARGUMENT if label is not None and "version label" in (details or ""):
            return StorageError(f"{target} has no such label: {details}", fix="check `label`, and the server's config")
        case grpc.StatusCode.INVALID_ARGUMENT | grpc.StatusCode.OUT_OF_RANGE:
            return DataError(f"model {model!r} refused the rows: {details}", fix="correct the rows")
        case grpc.StatusCode.FAILED_PRECONDITION:
            return ConfigError(f"model {model!r} cannot be called so: {details}", fix="check `signature`")
    return StorageError(f"{target} failed: {code.name}: {details}", fix="see the server's log")
