"""PEM files for TLS, of clients and of servers, checked before they are used."""

import ssl
from collections.abc import Mapping
from pathlib import Path

from tfctr.errors import ConfigError, StorageError
from tfctr.types import StrPath


def read_pem(argument: str, path: StrPath) -> bytes:
    """The contents of a PEM file."""
    try:
        content = Path(path).read_bytes()
    except TypeError as error:
        raise ConfigError(f"`{argument}` is {path!r}.", fix="give the path of a PEM file") from error
    except OSError as error:
        raise StorageError(f"`{argument}`: cannot read {path}: {error.strerror}.", fix="check the path") from error
    if b"-----BEGIN " not in content:
        raise ConfigError(f"`{argument}`: {path} is no PEM file.", fix="give text that starts with -----BEGIN")
    return content


def read_server_pem(certificate: StrPath | None, key: StrPath | None, root_certificates: StrPath | None) -> dict[str, bytes]:
    """What a server needs for TLS: `{argument: contents}` of the PEM files that are given; `{}` if none is.

    Args:
        certificate, key: who the server is.
        root_certificates: the authorities whose certificates clients must show; None for any client.

    Raises:
        ConfigError: one of certificate and key is missing, they do not belong together, or a file is no PEM file.
        StorageError: a file cannot be read.
    """
    given = {"certificate": certificate, "key": key, "root_certificates": root_certificates}
    pem = {argument: read_pem(argument, path) for argument, path in given.items() if path is not None}
    if not pem:
        return {}
    if "certificate" not in pem or "key" not in pem:
        raise ConfigError(f"`{next(name for name in given if name not in pem)}` is None.", fix="give `certificate` and `key`")
    require_usable({"certificate": certificate, "key": key}, root_certificates)
    return pem


def require_usable(pair: Mapping[str, StrPath | None], root_certificates: StrPath | None) -> None:
    """Raise `ConfigError` for PEM files that gRPC cannot use, of which it would not say why.

    Args:
        pair: the paths of a certificate and its key by their arguments; None for none.
        root_certificates: the path of the authorities' certificates, or None.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        paths = [path for path in pair.values() if path is not None]
        if len(paths) == len(pair):
            context.load_cert_chain(*paths, password=lambda: "")  # never asked for: there is nobody to type it
    except ssl.SSLError as error:
        names = " and ".join(f"`{argument}`" for argument in pair)
        files = ", ".join(map(str, pair.values()))
        fix = "give a certificate and its own private key, without a password"
        raise ConfigError(f"{names} do not belong together: {files}.", fix=fix) from error
    try:
        if root_certificates is not None:
            context.load_verify_locations(root_certificates)
    except ssl.SSLError as error:
        problem = f"`root_certificates`: {root_certificates} holds no certificate."
        raise ConfigError(problem, fix="give the certificates of the authorities, not their keys") from error
