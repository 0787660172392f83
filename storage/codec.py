"""Stored records: the encoding in which they travel, behind five bytes that are cut off when they do.

    schema (1) · CRC-32 of what follows (4) · MessagePack

A record of more than 64 KiB is cut: the head says how many parts there are, the parts lie under keys of their
own. Nobody above this module and `tables` knows.
"""

from __future__ import annotations

from typing import Final, TypeVar
from zlib import crc32

import msgspec

from ..protocol.errors import DataLoss, ResourceExhausted
from . import keys
from .engine import MAX_VALUE_BYTES, Reader, Transaction

__all__ = ["MAX_RECORD_BYTES", "decoder", "delete_record", "encode", "open_value", "put_record", "seal"]

SCHEMA: Final = 1
SCHEMA_BYTE: Final = bytes([SCHEMA])
HEADER_BYTES: Final = 5
_PARTED: Final = 0x80
MAX_RECORD_BYTES: Final = 512 * 1024
_PART_BYTES: Final = MAX_VALUE_BYTES - 8

encode = msgspec.msgpack.Encoder().encode

R = TypeVar("R")


def join_records(payloads: list[bytes]) -> msgspec.Raw:
    """Records as they travel in a list, without a look at any of them. Source: MessagePack, array format family."""
    return msgspec.Raw(b"\xdd" + len(payloads).to_bytes(4, "big") + b"".join(payloads))


def decoder(kind: type[R]) -> msgspec.msgpack.Decoder[R]:
    return msgspec.msgpack.Decoder(kind)


def seal(payload: bytes, schema: int = SCHEMA) -> bytes:
    return b"%c%b%b" % (schema, crc32(payload).to_bytes(4, "big"), payload)


def open_value(value: bytes, key: bytes) -> tuple[int, bytes]:
    """(schema byte, payload). Raises DataLoss when the checksum does not fit."""
    payload = value[HEADER_BYTES:]
    if len(value) < HEADER_BYTES or crc32(payload).to_bytes(4, "big") != value[1:HEADER_BYTES]:
        raise DataLoss(f"record {key!r}: checksum mismatch")
    return value[0], payload


def put_record(txn: Transaction, key: bytes, payload: bytes) -> None:
    """Write a record whole or in parts. The caller has deleted the parts of the one before, if it had any."""
    if len(payload) <= _PART_BYTES:
        txn.put(key, seal(payload))
        return
    if len(payload) > MAX_RECORD_BYTES:
        raise ResourceExhausted(f"a record of {len(payload)} bytes is larger than {MAX_RECORD_BYTES}")
    pieces = [payload[at : at + _PART_BYTES] for at in range(0, len(payload), _PART_BYTES)]
    txn.put(key, seal(encode((len(pieces), len(payload), crc32(payload))), SCHEMA | _PARTED))
    for index, piece in enumerate(pieces):
        txn.put(keys.part(key, index), seal(piece))


async def read_record(reader: Reader, key: bytes, value: bytes) -> bytes:
    """The payload of the record whose head is `value`."""
    schema, payload = open_value(value, key)
    if schema == SCHEMA:
        return payload
    if schema != SCHEMA | _PARTED:
        raise DataLoss(f"record {key!r}: schema {schema} is not known")
    count, length, checksum = _PART_HEAD.decode(payload)
    pieces = []
    for index in range(count):
        part_key = keys.part(key, index)
        stored = await reader.get(part_key)
        if stored is None:
            raise DataLoss(f"record {key!r}: part {index} of {count} is missing")
        pieces.append(open_value(stored, part_key)[1])
    whole = b"".join(pieces)
    if len(whole) != length or crc32(whole) != checksum:
        raise DataLoss(f"record {key!r}: its parts do not fit together")
    return whole


def delete_record(txn: Transaction, key: bytes, value: bytes) -> None:
    """Remove a record and its parts. `value` is the head as it stands."""
    txn.delete(key)
    delete_parts(txn, key, value)


def delete_parts(txn: Transaction, key: bytes, value: bytes) -> None:
    if value[0] & _PARTED:
        count, _, _ = _PART_HEAD.decode(open_value(value, key)[1])
        for index in range(count):
            txn.delete(keys.part(key, index))


_PART_HEAD = msgspec.msgpack.Decoder(tuple[int, int, int])
