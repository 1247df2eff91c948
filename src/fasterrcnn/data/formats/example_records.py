"""Reads TFRecord files of tf.train.Example without TensorFlow. Files are hostile: every length is checked.

A TFRecord file is a row of records: length of the data (8 bytes), its checksum (4), the data, its checksum (4). The
data are a protocol buffer: Example { Features features = 1 }, Features { map<string, Feature> feature = 1 }, and a
Feature has one list: BytesList = 1, FloatList = 2 (32 bits each) or Int64List = 3, whose values are its field 1.
"""

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fasterrcnn.errors import DataError

Feature = list[bytes] | list[float] | list[int]
"""The values of a feature, all of one type."""

_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5  # wire types of protocol buffers
_POLYNOMIAL = 0x82F63B78  # of CRC-32C, reflected
_BLOCK = 512  # bytes of a row in the parallel checksum


def is_record_file(file: Path) -> bool:
    """Whether a file begins with the length of a record and its checksum."""
    try:
        with file.open("rb") as stream:
            header = stream.read(12)
    except OSError:
        return False
    return len(header) == 12 and _checksum(header[:8]) == struct.unpack("<I", header[8:])[0]


def read_records(file: Path) -> Iterator[bytes | DataError]:
    """The data of each record of a file, or an error for a record that is damaged.

    After a damaged length nothing can be read, so the error is the last then.
    """
    try:
        with file.open("rb") as stream:
            remaining = os.fstat(stream.fileno()).st_size
            while remaining:
                header = stream.read(12)
                length = struct.unpack("<Q", header[:8])[0] if len(header) == 12 else remaining
                if length > remaining - 16 or _checksum(header[:8]) != struct.unpack("<I", header[8:])[0]:
                    yield DataError(f"the file is damaged or cut off at its last {remaining} bytes, which are lost")
                    return
                data, checksum = stream.read(length), stream.read(4)
                remaining -= length + 16
                is_sound = len(checksum) == 4 and _checksum(data) == struct.unpack("<I", checksum)[0]
                yield data if is_sound else DataError("its checksum is wrong, so it is damaged")
    except OSError as error:
        yield DataError(f"cannot be read ({error})")


def parse_example(data: bytes) -> dict[str, Feature]:
    """The features of a record by their names; one may have no values.

    Raises:
        DataError: it is no tf.train.Example.
    """
    features: dict[str, Feature] = {}
    try:
        for message in _messages(data, 1):
            for entry in _messages(message, 1):
                (name,), values = _messages(entry, 1), [_values(feature) for feature in _messages(entry, 2)]
                features[name.decode()] = values[-1] if values else []
    except (ValueError, struct.error, IndexError) as error:
        raise DataError(f"it is no tf.train.Example ({error})") from None
    return features


def _values(feature: bytes) -> Feature:
    """The values of the list in a feature."""
    if lists := _messages(feature, 1):
        return [value for content in lists for value in _messages(content, 1)]
    if lists := _messages(feature, 2):
        packed = b"".join(part for content in lists for part in _parts(content, _FIXED32))
        return [value for (value,) in struct.iter_unpack("<f", packed)]
    return [value for content in _messages(feature, 3) for part in _parts(content, _VARINT) for value in _varints(part)]


def _messages(message: bytes, number: int) -> list[bytes]:
    """The contents of the fields with a number that have a length."""
    return [content for field, wire_type, content in _fields(message) if (field, wire_type) == (number, _DELIMITED)]


def _parts(message: bytes, wire_type: int) -> list[bytes]:
    """The bytes of the numbers of a list, which may be packed in one field or in a field each."""
    return [content for field, wire, content in _fields(message) if field == 1 and wire in (_DELIMITED, wire_type)]


def _fields(message: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Number, wire type and content of each field of a message.

    Raises:
        ValueError: the message is cut off, or has a wire type that does not exist.
    """
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        start, wire_type = position, key & 7
        if wire_type == _VARINT:
            _, end = _varint(message, position)
        elif wire_type == _DELIMITED:
            length, start = _varint(message, position)
            end = start + length
        elif wire_type in (_FIXED64, _FIXED32):
            end = start + (8 if wire_type == _FIXED64 else 4)
        else:
            raise ValueError(f"wire type {wire_type}")
        if end > len(message):
            raise ValueError("it is cut off")
        yield key >> 3, wire_type, message[start:end]
        position = end


def _varint(message: bytes, position: int) -> tuple[int, int]:
    """A number of 7 bits in each byte, the lowest first, and the position behind it."""
    value = 0
    for shift in range(0, 70, 7):
        byte = message[position]  # an IndexError where it is cut off
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise ValueError("a number has more than 64 bits")


def _varints(packed: bytes) -> Iterator[int]:
    position = 0
    while position < len(packed):
        value, position = _varint(packed, position)
        value &= 2**64 - 1
        yield value - 2**64 if value >= 2**63 else value  # two's complement


def _make_table() -> NDArray[np.uint32]:
    """The CRC-32C of every byte."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(_POLYNOMIAL), table >> 1)
    return table.astype(np.uint32)


_TABLE = _make_table()
_TABLE_LIST = _TABLE.tolist()


def _checksum(data: bytes) -> int:
    """The CRC-32C of some bytes, masked as TFRecord does: turned by 15 bits, plus a constant."""
    crc = _crc(data, 0xFFFFFFFF) ^ 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _crc(data: bytes, state: int) -> int:
    """The state of the CRC after some bytes.

    Byte by byte, 1 MB would take a fifth of a second. So the bytes are cut into rows of equal length, whose states are
    computed together, from 0. How a state changes in as many zeros as a row has is computed beside them, for each of
    its 32 bits; as the CRC is linear, the state before a row changes as its bits do, and that of the row is added by
    xor.
    """
    count, length = len(data) // _BLOCK, _BLOCK
    if count > 1:
        rows = np.frombuffer(data, np.uint8, count * length).reshape(count, length)
        states = np.concatenate([np.zeros(count, np.uint32), np.uint32(1) << np.arange(32, dtype=np.uint32)])
        added = np.concatenate([rows.T, np.zeros((length, 32), np.uint8)], axis=1)
        for column in added:
            states = (states >> 8) ^ _TABLE[(states ^ column) & 255]
        after_zeros = states[count:].tolist()
        for own in states[:count].tolist():
            changed = 0
            for bit, value in enumerate(after_zeros):
                if state >> bit & 1:
                    changed ^= value
            state = changed ^ own
        data = data[count * length :]
    for byte in data:
        state = (state >> 8) ^ _TABLE_LIST[(state ^ byte) & 255]
    return state
