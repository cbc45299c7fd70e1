"""TFRecord files, without TensorFlow: each record is its length, a checksum of the length, the bytes, a checksum of these.

Reference: [TFRecord](https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details); the checksum is the
CRC-32C of [RFC 3720, B.4](https://www.rfc-editor.org/rfc/rfc3720#appendix-B.4), masked.
"""

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

from tfctr.errors import StorageError
from tfctr.storage import atomic_file
from tfctr.types import StrPath

_POLYNOMIAL = 0x82F63B78  # Castagnoli's, its bits reversed
_MASK = 0xA282EAD8  # a checksum of bytes that hold checksums would be weak
_LENGTH = struct.Struct("<Q")
_CHECKSUM = struct.Struct("<I")


def write_records(path: StrPath, records: Iterable[bytes]) -> None:
    """Write byte strings as a TFRecord file, which appears whole or not at all."""
    with atomic_file(path, "wb") as file:
        for record in records:
            for part in (_LENGTH.pack(len(record)), record):
                file.write(part + _CHECKSUM.pack(_masked(part)))


def read_records(path: StrPath) -> Iterator[bytes]:
    """The byte strings of a TFRecord file, in their order, one after the other.

    Raises:
        StorageError: the file cannot be read; or, once that record is reached, one is cut off or not what was written.
    """
    try:
        content = memoryview(Path(path).read_bytes())
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}.", fix="check the path") from error
    start = 0
    while start < len(content):
        (length,) = _LENGTH.unpack(_checked_part(path, content, start, start, _LENGTH.size))
        begin = start + _LENGTH.size + _CHECKSUM.size
        yield bytes(_checked_part(path, content, start, begin, length))
        start = begin + length + _CHECKSUM.size


def crc32c(data: bytes | memoryview) -> int:
    """The CRC-32C (Castagnoli) of bytes.

    >>> hex(crc32c(b"123456789"))
    '0xe3069283'
    """
    checksum = 0xFFFFFFFF
    for byte in data:
        checksum = _TABLE[(checksum ^ byte) & 0xFF] ^ (checksum >> 8)
    return checksum ^ 0xFFFFFFFF


def _remainder(byte):
    for _ in range(8):
        byte = (byte >> 1) ^ (_POLYNOMIAL if byte & 1 else 0)
    return byte


_TABLE = [_remainder(byte) for byte in range(256)]


def _masked(data):
    checksum = crc32c(data)
    return ((checksum >> 15 | checksum << 17) + _MASK) & 0xFFFFFFFF


def _checked_part(path: StrPath, content: memoryview, record: int, begin: int, length: int) -> memoryview:
    """`length` bytes that a checksum follows; the problem names where the `record` starts."""
    end = begin + length
    if end + _CHECKSUM.size > len(content):
        raise StorageError(f"{path}: truncated record at {record}.", fix="write the file again")
    if _CHECKSUM.unpack_from(content, end)[0] != _masked(content[begin:end]):
        raise StorageError(f"{path}: corrupted record at {record}.", fix="write the file again")
    return content[begin:end]
