"""Reads TensorFlow's checkpoints (a `.index` file and its `.data-00000-of-00001` shards) without TensorFlow.

The index is a sorted table in LevelDB's format: blocks of keys that share prefixes, each with a checksum, found through one
more block and a footer. A value is a small protocol buffer that says where in which shard a tensor is. Source of both:
tensorflow/core/lib/io/format.cc and core/util/tensor_bundle/tensor_bundle.h, core/protobuf/tensor_bundle.proto.
"""

import glob
import math
import re
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from bench.unpickle import Stored

MAGIC = 0xDB4775248B80FB57  # table/format.h: the last eight bytes of a table
LARGEST_INDEX = 2**24  # bytes; the index of a ResNet-152 with its optimizer has 0.2 million
LONGEST_KEY = 4096  # bytes, which cost the index three if the rest is the key before
MOST_KEYS = 2**15  # a ResNet-152 with its optimizer and its moving average has two thousand
GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"  # a text in every checkpoint of TensorFlow 2: a TrackableObjectGraph
LARGEST_GRAPH = 2**22  # bytes; that of a SavedModel of a ResNet-50 has 0.25 million

_DTYPES = {  # core/framework/types.proto
    1: torch.float32,
    2: torch.float64,
    3: torch.int32,
    4: torch.uint8,
    5: torch.int16,
    6: torch.int8,
    9: torch.int64,
    10: torch.bool,
    14: torch.bfloat16,
    19: torch.float16,
}

Kind = TypeVar("Kind", int, bytes)


def index_of(path: Path) -> Path | None:
    """The `.index` file of a checkpoint named as TensorFlow does, by any of its files or by a folder with just one; else None.

    A SavedModel's folder has it in variables/.
    """
    if path.is_dir():
        inner = path / "variables" if (path / "saved_model.pb").is_file() else path
        found = sorted(file for file in inner.glob("*.index") if file.is_file())  # a pipe would be waited for
        return found[0] if len(found) == 1 else None
    if path.suffix == ".index" and path.is_file():
        return path
    if path.suffix == ".meta" or not path.exists():  # TensorFlow's name is what all of its files begin with
        index = path.with_name(f"{path.name.removesuffix('.meta')}.index")
        if index.is_file():
            return index
    if match := re.fullmatch(r"(.+)\.data-\d{5}-of-\d{5}", path.name):
        index = path.with_name(f"{match[1]}.index")
        if path.is_file() and not index.is_file():
            raise FileNotFoundError(
                f"expected {index.name} beside {path}, found none: download it too, the names are in it"
            )
        return index if path.is_file() else None
    return None


def files(index: Path) -> list[Path]:
    """The index and the shards that belong to it, in order."""
    return [index, *sorted(index.parent.glob(f"{glob.escape(index.stem)}.data-?????-of-?????"))]


def read(index: Path) -> dict[str, Stored]:
    """The variables of a checkpoint by name; values are read when asked for. Texts and the like are left out.

    TensorFlow 2 files a variable under a path of objects (model/resnet_model/.../kernel/.ATTRIBUTES/VARIABLE_VALUE, in a SavedModel
    trainable_variables_list/7/...) and tells its name beside it: resnet/.../conv2d_2/kernel. Here it has that name, and the layers of a
    kind are numbered from 0, where Keras goes on counting from model to model.

    Raises ValueError, with one sentence, for a file that is damaged or is something else.
    """
    if index.stat().st_size > LARGEST_INDEX:
        raise ValueError(f"expected the index of a TensorFlow checkpoint, found a file of another kind at {index}")
    try:
        entries = {key: dict(_fields(value)) for key, value in _table(index)}
        header = entries.pop(b"", {})
        if _field(header, 2, 0) != 0:
            raise ValueError(f"expected little-endian numbers, found big-endian ones in {index}")
        shards, graph = _field(header, 1, 1), entries.pop(GRAPH.encode(), None)
        found = dict(_variables(index, shards, entries))
        names = {} if graph is None else _numbered(_names(_text(_shard(index, shards, graph), graph)))
        named = {names.get(key, key): stored for key, stored in found.items()}
        return named if len(named) == len(found) else found
    except (IndexError, TypeError, OverflowError, MemoryError, struct.error, UnicodeDecodeError) as error:
        raise ValueError(
            f"expected a whole index of a TensorFlow checkpoint, found that {index} is not: download it again"
        ) from error


def _shard(index: Path, shards: int, fields: dict[int, int | bytes]) -> Path:
    """The file that an entry's bytes are in."""
    return index.with_name(f"{index.stem}.data-{_field(fields, 3, 0):05d}-of-{shards:05d}")


def _variables(index: Path, shards: int, entries: dict[bytes, dict[int, int | bytes]]) -> Iterator[tuple[str, Stored]]:
    for key, fields in entries.items():
        dtype = _DTYPES.get(_field(fields, 1, 0))
        if dtype is None or 7 in fields:  # a text, a resource; or a tensor cut into slices, which ResNets do not have
            continue
        shape, name = tuple(_shape(_field(fields, 2, b""))), key.decode()
        yield name, _variable(name, shape, dtype, _shard(index, shards, fields), fields)


def _variable(
    name: str, shape: tuple[int, ...], dtype: torch.dtype, shard: Path, fields: dict[int, int | bytes]
) -> Stored:
    """A tensor in a shard, from its BundleEntryProto. Raises ValueError if its shape and its size disagree."""
    offset, size, checksum = (_field(fields, number, 0) for number in (4, 5, 6))
    if math.prod(shape) * dtype.itemsize != size:
        raise ValueError(
            f"expected {math.prod(shape) * dtype.itemsize:,} bytes for {name[:80]!r} of shape {list(shape)}, found {size:,}"
        )

    whole = False

    def read() -> torch.Tensor:
        nonlocal whole
        data = _piece(shard, name, offset, size)
        whole = whole or masked(crc32c(data)) == checksum
        if not whole:
            raise ValueError(
                f"expected {name[:80]!r} to match its checksum, found damage in {shard}: download it again"
            )
        return torch.frombuffer(data, dtype=dtype).reshape(shape) if data else torch.empty(shape, dtype=dtype)

    return Stored(shape, dtype, read)


def _text(shard: Path, fields: dict[int, int | bytes]) -> bytes:
    """The object graph, one text: its length, a checksum of that and the bytes (tensor_bundle.cc, WriteStringTensor)."""
    offset, size, checksum = (_field(fields, number, 0) for number in (4, 5, 6))
    if size > LARGEST_GRAPH:
        raise ValueError(f"expected at most {LARGEST_GRAPH:,} bytes of object graph in {shard}, found {size:,}")
    data = bytes(_piece(shard, GRAPH, offset, size))
    length, position = _varint(data, 0)
    if position + 4 + length != size or masked(crc32c(struct.pack("<I", length) + data[position:])) != checksum:
        raise ValueError(
            f"expected an object graph that matches its checksum, found damage in {shard}: download it again"
        )
    return data[position + 4 :]


def _names(graph: bytes) -> dict[str, str]:
    """Names of variables by the keys they are filed under (core/protobuf/trackable_object_graph.proto); none is given twice."""
    names: dict[str, str] = {}
    for node in _each(graph, 1):
        for attribute in _each(node, 2):
            about = dict(_fields(attribute))
            name, key = (_field(about, number, b"").decode() for number in (2, 3))
            if 0 < len(name) <= LONGEST_KEY:
                names.setdefault(key, name)
    several = Counter(names.values())
    return {key: name for key, name in names.items() if several[name] == 1}


def _numbered(names: dict[str, str]) -> dict[str, str]:
    """The names with the layers of a kind counted from 0: conv2d_53/kernel is conv2d/kernel where 53 is the first."""
    parts = {key: re.fullmatch(r"((?:.*/)?)(\w*?)(?:_(\d{1,9}))?(/\w+)", name) for key, name in names.items()}
    numbers: dict[str, set[int]] = {}
    for part in parts.values():
        if part:
            numbers.setdefault(part[2], set()).add(int(part[3] or 0))
    places = {kind: {number: place for place, number in enumerate(sorted(some))} for kind, some in numbers.items()}

    def counted(part: re.Match[str]) -> str:
        place = places[part[2]][int(part[3] or 0)]
        return f"{part[1]}{part[2]}{f'_{place}' if place else ''}{part[4]}"

    return {key: counted(part) if part else names[key] for key, part in parts.items()}


def _piece(shard: Path, name: str, offset: int, size: int) -> bytearray:
    """The bytes of a tensor."""
    if not shard.is_file():
        raise FileNotFoundError(
            f"expected {shard.name} beside the index, found none in {shard.parent}: download it too"
        )
    if offset + size > shard.stat().st_size:
        raise ValueError(f"expected {name[:80]!r} in {shard}, found that the file ends before: download it again")
    with shard.open("rb") as file:
        file.seek(offset)
        return bytearray(file.read(size))


# --- the table


def _table(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """Every key and value of a table file, in order."""
    data = path.read_bytes()
    if len(data) < 48 or int.from_bytes(data[-8:], "little") != MAGIC:
        raise ValueError(f"expected the index of a TensorFlow checkpoint, found another file or half of one at {path}")
    footer = data[-48:]
    _, _, position = _handle(footer, 0)  # of the metaindex, which is empty
    start, size, _ = _handle(footer, position)
    end = count = 0
    for _, value in _block(path, data, start, size):
        inner, length, _ = _handle(value, 0)
        if inner < end:  # a block that is named twice costs nothing in the file
            raise IndexError
        end = inner + length
        for entry in _block(path, data, inner, length):
            count += 1
            if count > MOST_KEYS:
                raise IndexError
            yield entry


def _block(path: Path, data: bytes, start: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """The keys and values of one block: each key is what it shares with the one before, and the rest."""
    if start + size + 5 > len(data):
        raise ValueError(f"expected a whole index of a TensorFlow checkpoint, found that {path} ends early")
    content, kind = data[start : start + size], data[start + size]
    (checksum,) = struct.unpack_from("<I", data, start + size + 1)
    if masked(crc32c(data[start : start + size + 1])) != checksum:
        raise ValueError(f"expected an index that matches its checksums, found damage in {path}: download it again")
    if kind != 0:
        raise ValueError(f"expected an uncompressed index, as TensorFlow writes it, found compression in {path}")
    (restarts,) = struct.unpack_from("<I", content, size - 4)
    end = size - 4 - 4 * restarts
    position, key = 0, b""
    while position < end:
        shared, position = _varint(content, position)
        rest, position = _varint(content, position)
        length, position = _varint(content, position)
        if shared > len(key) or shared + rest > LONGEST_KEY or position + rest + length > end:
            raise IndexError
        key = key[:shared] + content[position : position + rest]
        position += rest
        yield key, content[position : position + length]
        position += length


def _handle(data: bytes, position: int) -> tuple[int, int, int]:
    """Where a block is: its start, its size, and the position behind these two numbers."""
    start, position = _varint(data, position)
    size, position = _varint(data, position)
    return start, size, position


# --- protocol buffers


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise IndexError


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of every field of a message."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, position = _varint(data, position)
            yield number, value
        elif wire == 2:
            size, position = _varint(data, position)
            if position + size > len(data):
                raise IndexError
            yield number, data[position : position + size]
            position += size
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
            yield number, int.from_bytes(data[position : position + size], "little")
            position += size
        else:
            raise IndexError


def _each(data: bytes, number: int) -> Iterator[bytes]:
    """The messages that are one repeated field of a message. Raises TypeError where one is a number."""
    for found, value in _fields(data):
        if found == number:
            if not isinstance(value, bytes):
                raise TypeError
            yield value


def _field(fields: dict[int, int | bytes], number: int, default: Kind) -> Kind:
    """A field of a message. Raises TypeError for one that is not of its default's type."""
    value = fields.get(number, default)
    if not isinstance(value, type(default)):
        raise TypeError
    return value


def _shape(data: bytes) -> Iterator[int]:
    """The sizes in a TensorShapeProto. Raises ValueError for one that no file can hold."""
    if len(data) > 1000:  # of more axes than an array has
        raise IndexError
    for number, dim in _fields(data):
        if number == 2:
            if not isinstance(dim, bytes):  # of a number, bytes() would make as many zeros
                raise TypeError
            size = _field(dict(_fields(dim)), 1, 0)
            if size >= 2**40:
                raise ValueError("expected a shape, found a negative or impossible size")
            yield size


# --- CRC-32C, of four bytes of many lanes at a time; zlib has only CRC-32


def _step(register: np.ndarray) -> np.ndarray:
    """The register after eight zero bits, by the Castagnoli polynomial (RFC 3720, bits reversed)."""
    for _ in range(8):
        register = (register >> np.uint32(1)) ^ np.where(register & np.uint32(1), np.uint32(0x82F63B78), np.uint32(0))
    return register


_BYTE = _step(np.arange(256, dtype=np.uint32))
_WORD = _step(_step(np.arange(65536, dtype=np.uint32)))


def crc32c(data: bytes | bytearray) -> int:
    """CRC-32C of some bytes, as in RFC 3720."""
    if len(data) < 2**12:
        value = 0xFFFFFFFF
        table = _BYTE.tolist() if len(data) > 64 else _BYTE
        for byte in data:
            value = int(table[(value ^ byte) & 0xFF]) ^ (value >> 8)
        return value ^ 0xFFFFFFFF
    lanes = 1 << max(6, (len(data).bit_length() - 8) // 2 + 2)
    width = -(-len(data) // (2 * lanes))  # words in a lane
    padded = np.zeros(2 * lanes * width, np.uint8)  # zeros in front leave a register of zero as it is
    padded[-len(data) :] = np.frombuffer(data, np.uint8)
    padded[len(padded) - len(data) :][:4] ^= 0xFF  # the same as a register that starts with ones
    words = padded.view("<u2").reshape(lanes, width).T.astype(np.uint32)
    register = np.zeros(lanes, np.uint32)
    for column in words:
        register = _WORD[(register ^ column) & np.uint32(0xFFFF)] ^ (register >> np.uint32(16))
    shift = _zeros(2 * width)
    while len(register) > 1:
        register = _times(shift, register[0::2]) ^ register[1::2]
        shift = _times(shift, shift)
    return int(register[0]) ^ 0xFFFFFFFF


def _times(matrix: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """A matrix of bits, 32 columns, times vectors of 32 bits."""
    product = np.zeros_like(vectors)
    for bit, column in enumerate(matrix):
        product ^= np.where((vectors >> np.uint32(bit)) & np.uint32(1), column, np.uint32(0))
    return product


def _zeros(count: int) -> np.ndarray:
    """The matrix that takes a register over that many zero bytes."""
    matrix = np.uint32(1) << np.arange(32, dtype=np.uint32)
    power = _step(matrix)
    while count:
        if count & 1:
            matrix = _times(power, matrix)
        power = _times(power, power)
        count >>= 1
    return matrix


def masked(crc: int) -> int:
    """A checksum as it is stored (core/lib/hash/crc32c.h): rotated and moved, so that data with checksums in it is no problem."""
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
