"""TFRecord files: TensorFlow reads what is written here and the other way round; what is broken is told with its place."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from tfctr.errors import StorageError
from tfctr.serving.wire.tfrecord import crc32c, read_records, write_records

RECORDS = [b"", b"a", bytes(range(256)) * 5, b"", np.random.default_rng(0).bytes(10_000), b"\xff" * 11, b"last"]


@pytest.mark.parametrize(
    ("data", "checksum"),
    [  # RFC 3720, B.4; the last one is the check value of every catalogue of checksums
        (b"", 0x00000000),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(reversed(range(32))), 0x113FDB5C),
        (b"123456789", 0xE3069283),
    ],
)
def test_known_checksums(data, checksum):
    assert crc32c(data) == checksum


@given(st.binary(max_size=40))
def test_the_checksum_is_the_remainder_of_a_division(data):
    """By the definition: the message as a polynomial over two elements, bit by bit, low bits first."""
    remainder = 0xFFFFFFFF
    for bit in (byte >> position & 1 for byte in data for position in range(8)):
        remainder = (remainder >> 1) ^ (0x82F63B78 if (remainder ^ bit) & 1 else 0)
    assert crc32c(data) == remainder ^ 0xFFFFFFFF


def test_tensorflow_reads_what_is_written(tmp_path):
    write_records(tmp_path / "records", RECORDS)
    assert [record.numpy() for record in tf.data.TFRecordDataset(str(tmp_path / "records"))] == RECORDS
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as writer:
        for record in RECORDS:
            writer.write(record)
    assert (tmp_path / "records").read_bytes() == (tmp_path / "theirs").read_bytes()
    assert list(read_records(tmp_path / "theirs")) == RECORDS


def test_no_records(tmp_path):
    write_records(tmp_path / "records", [])
    assert (tmp_path / "records").read_bytes() == b""
    assert list(read_records(tmp_path / "records")) == []
    with pytest.raises(StorageError, match=r"cannot read .*absent: No such file"):
        next(read_records(tmp_path / "absent"))


def outcome(read):
    """How many records come before the error, and whether there is one."""
    records = 0
    try:
        for _ in read:
            records += 1
    except (StorageError, tf.errors.DataLossError):
        return records, "error"
    return records, "end"


def test_a_file_that_is_cut_off_anywhere(tmp_path):
    path = tmp_path / "records"
    write_records(path, [b"one", b"", b"three"])
    whole, ends = path.read_bytes(), {0: 0, 19: 1, 35: 2, 56: 3}  # 8 + 4 + length + 4 bytes each
    assert len(whole) == 56
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        before = sum(end <= size for end in ends) - 1
        assert outcome(read_records(path)) == (before, "end" if size in ends else "error"), size
        # TensorFlow takes less than a length and its checksum for the end of the file.
        silent = size - max(end for end in ends if end <= size) < 12
        assert outcome(tf.data.TFRecordDataset(str(path))) == (before, "end" if silent else "error"), size
    path.write_bytes(whole[:40])
    with pytest.raises(StorageError, match="records: truncated record at 35"):
        list(read_records(path))


def test_a_bit_that_has_turned_anywhere(tmp_path):
    path = tmp_path / "records"
    write_records(path, [b"one", b"two"])
    whole = path.read_bytes()
    for position in range(len(whole)):
        turned = bytearray(whole)
        turned[position] ^= 1 << position % 8
        path.write_bytes(turned)
        with pytest.raises(StorageError, match=rf"records: corrupted record at {0 if position < 19 else 19}\."):
            list(read_records(path))


def test_a_length_that_lies(tmp_path):
    """A right checksum of a length of 2**63 asks for no memory."""
    path = tmp_path / "records"
    masked = crc32c((2**63).to_bytes(8, "little"))
    masked = ((masked >> 15) + (masked << 17 & 0xFFFFFFFF) + 0xA282EAD8) % 2**32
    path.write_bytes((2**63).to_bytes(8, "little") + masked.to_bytes(4, "little") + bytes(100))
    with pytest.raises(StorageError, match="truncated record at 0"):
        list(read_records(path))
