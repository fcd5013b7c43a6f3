"""Reads a checkpoint file without running anything in it: nothing is imported, called or set on the file's behalf.

A `.pth`, `.ckpt` or `.pkl` is a pickle, and a pickle is a program that may name any function of this machine. Here every
name in the file stays text. Of some twenty names (torch's tensor constructors, numpy's arrays, ordered dicts) this module
knows what they stand for and builds the value itself; every other object becomes an `Inert`, which records what it was
called and what it held. So a training script's `argparse.Namespace` is as harmless as `os.system`, and both can be looked at.

Formats: torch's zip (1.6 and later), the format before it (MoCo's official files) and the first, a tar (torchvision's files
until 2021), plain pickles of numpy arrays (detectron2's model zoo, Python 2 included), safetensors, numpy's .npz. Only the
index is read; a tensor's values are fetched when somebody asks for them, so what nobody asks for (a queue of 1.28 million
negatives, an optimizer's state) costs neither memory nor time. torch.load(weights_only=True) is not used: it is as safe but
reads everything, stops at the first foreign name, and would make two paths of one.

A file can lie about every number in it. So each step costs what the file's own bytes pay for: sizes are compared with the
file's before anything is reserved, the steps are counted, and nothing is hashed, copied or printed that a few bytes could
make arbitrarily large.
"""

import io
import json
import math
import pickle
import re
import struct
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from bench.archive import INDEX, Entry, File, directory, members

MAGIC = 0x1950A86A20F9469CFC6C  # torch/serialization.py: the first object of a file written before 1.6
# a ResNet-152 with its optimizer takes 300 thousand steps, a list of ImageNet's 1.28 million file names 6.4 million; no
# step but a tensor's, which is charged as five, makes more than a hundred bytes
OPERATIONS = 10_000_000
INNER = 1000  # of them for one storage that is a file inside the file; takes some hundred
LAZY = 1 << 14  # bytes from which on a pickled array is left in the file
CHUNK = 1 << 14
SPREAD = 16 << 20  # bytes from a tensor's first element to its last from which on it must fill a quarter of them
LAZY_TEXT = 1 << 18  # bytes from which on a text is: as such Python 3 writes arrays for Python 2 to read
LINE = 4 * INDEX  # bytes of a line; as such protocol 0 writes arrays, of a ResNet-152 27 MB at most
NUMBERS = 1000  # entries of a dict up to which its keys may be numbers: these can be made to collide

_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "UntypedStorage": torch.uint8,
    # of quantised tensors, which are no backbone's and become an Inert
    "QInt8Storage": torch.int8,
    "QUInt8Storage": torch.uint8,
    "QInt32Storage": torch.int32,
    "QUInt4x2Storage": torch.uint8,
    "QUInt2x4Storage": torch.uint8,
}
_DTYPES = {str(dtype): dtype for dtype in _STORAGES.values()}
_SAFE = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "C64": torch.complex64,
    # no backbone's
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "U16": torch.uint16,
    "U32": torch.uint32,
    "U64": torch.uint64,
}
_NUMPY_TYPE = re.compile(r"[<>=|]?[biufc]\d{1,2}")
_FOREIGN = {  # how files begin that are no checkpoint, or hold one inside
    b"<": "an HTML or XML page: the download failed, repeat it",
    b"version https://git-lfs": "a Git LFS pointer: fetch the file with `git lfs pull`",
    b"\x1f\x8b": "a gzip archive: unpack it first",
    b"BZh": "a bzip2 archive: unpack it first",
    b"\xfd7zXZ": "an xz archive: unpack it first",
    b"\x28\xb5\x2f\xfd": "a Zstandard archive: unpack it first",
    b"7z\xbc\xaf": "a 7-Zip archive: unpack it first",
    b"Rar!": "a RAR archive: unpack it first",
    b"\x89HDF": "an HDF5 file (Keras), which no family here uses",
    b"\x93NUMPY": "a single numpy array: save the weights by name, with numpy.savez or torch.save",
    b"{": "a text in JSON: name the file with the weights",
}


@dataclass(eq=False, repr=False, slots=True)
class Inert:
    """What a file says about an object that is not a tensor, a number, a text or a container of these. Never called."""

    name: str  # module and name, as written in the file
    args: tuple[Any, ...] = ()
    state: Any = None
    items: list[Any] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"<{self.name}>"

    # what a pickle does to a list and a dict; here it is written down
    def append(self, item: Any) -> None:
        self.items.append(item)

    def extend(self, items: list[Any]) -> None:
        self.items.extend(items)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items.append((key, value))


class Stored:
    """A tensor in the file: its shape and dtype are known, `read()` fetches the values into memory of their own.

    Two with the same `place` are the same numbers under two names; None where that is not known.
    """

    __slots__ = ("dtype", "place", "read", "shape")

    def __init__(
        self,
        shape: tuple[int, ...] = (0,),
        dtype: torch.dtype = torch.float32,
        read: Callable[[], torch.Tensor] = lambda: torch.empty(0),
        place: tuple[Any, ...] | None = None,
    ) -> None:
        self.shape, self.dtype, self.read, self.place = shape, dtype, read, place

    def __repr__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"


class Safetensors(dict[str, Any]):
    """The tensors of a safetensors file, which keeps no order of its keys, and `texts`, all that it has beside them."""

    def __init__(self, tensors: dict[str, Stored | Inert], texts: dict[str, str]) -> None:
        super().__init__(tensors)
        self.texts = texts


@dataclass(eq=False, slots=True)
class _Storage:
    """A block of numbers in the file, of which tensors are views; where it lies is known when the index has been read."""

    file: File
    dtype: torch.dtype
    key: str
    count: int
    first: int = 0  # a view starts this many elements into its root
    root: "_Storage | None" = None
    place: Callable[[], int] | None = None  # where it starts in the file, in bytes
    crc: int = 0  # as the zip's directory has it; 0 if there is none, or if it has been compared

    @property
    def size(self) -> int:
        return self.count * self.dtype.itemsize


@dataclass(eq=False, slots=True)
class _Left:
    """What was left in the file of a pickle."""

    file: File
    start: int
    size: int


class _Raw(_Left):
    """Bytes."""

    __slots__ = ()


class _Text(_Left):
    """A long text, in UTF-8."""

    __slots__ = ()

    def encoded(self, size: int | None = None) -> bytes:
        """The bytes that its letters stand for. Raises ValueError where these are none, or not `size`."""
        try:
            found = self.file.bytes(self.start, self.size).decode().encode("latin1")
        except UnicodeError:
            found = None
        if found is None or size not in (None, len(found)):
            raise ValueError("expected an array that was written as a text, found another text: download it again")
        return found


class _Inner(File):
    """Bytes of a pickle as a file of their own."""

    def __init__(self, raw: bytes | _Raw) -> None:
        self.raw, self.size = raw, len(raw) if isinstance(raw, bytes) else raw.size

    def bytes(self, start: int, size: int) -> bytes:
        return bytes(self.numbers(start, size).numpy())

    def numbers(self, start: int, size: int) -> torch.Tensor:
        if not 0 <= start <= start + size <= self.size:
            raise ValueError("a storage inside it ends early")
        if isinstance(self.raw, _Raw):
            return self.raw.file.numbers(self.raw.start + start, size)
        return torch.from_numpy(np.frombuffer(bytearray(self.raw[start : start + size]), np.uint8))


def _inner(raw: bytes | _Raw | _Text, size: int | None = None) -> _Inner:
    """`size`: the bytes that it must have if it is a text; other bytes are known without being read."""
    return _Inner(raw.encoded(size) if isinstance(raw, _Text) else raw)


class _Foreign(ValueError):
    """A file that may be sound and is not read here: what it is, and what to do."""


def read(path: Path) -> Any:
    """The object in a checkpoint file: containers, numbers and texts as they are, tensors as `Stored`, the rest as `Inert`.

    Raises FileNotFoundError, or ValueError with one sentence if the file is not a readable checkpoint.
    """
    if not path.exists():
        raise FileNotFoundError(f"expected a checkpoint file, found nothing at {path}")
    if path.suffix == ".distcp" or any(path.glob("*.distcp")):
        folder = path if path.is_dir() else path.parent
        raise ValueError(
            f"expected a checkpoint in one file, found a distributed one of torch in {folder}: make one file of it by"
            f" `python -m torch.distributed.checkpoint.format_utils dcp_to_torch {folder} FILE.pth`"
        )
    if path.is_dir():
        raise ValueError(f"expected a checkpoint file, found that {path} is a directory: name the file inside it")
    if not path.is_file():
        raise ValueError(f"expected a checkpoint file, found that {path} is a pipe, a socket or a device: name a file")
    file = File(path)
    if file.size == 0:
        raise ValueError(f"expected a checkpoint file, found that {path} is empty: download or save it again")
    kind = "checkpoint"
    try:
        kind, reader = _kind(path, file)
        return reader(file)
    except _Foreign as error:
        raise ValueError(f"expected a checkpoint, found in {path} {error}") from error
    except ValueError as error:
        reason = " ".join(str(error).split())[:200]
        cause: Exception = error
    except MemoryError as error:
        reason, cause = "it asks for more memory than there is", error
    except Exception as error:  # whatever a broken file makes of the readers, the answer is one sentence
        reason, cause = f"its parts contradict one another ({type(error).__name__})", error
    raise ValueError(
        f"expected a whole {kind}, found that {path} is not: {reason}. Download or save it again"
    ) from cause


def _kind(path: Path, file: File) -> tuple[str, Callable[[File], Any]]:
    """What a file is by its first bytes, and who reads it. Raises _Foreign for what is known to be something else."""
    head = file.bytes(0, min(512, file.size))
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < file.size:
        return "safetensors file", _safetensors
    for start, what in _FOREIGN.items():
        if head.lstrip().startswith(start):
            raise _Foreign(what)
    if re.match(rb"[\x81-\x8f][\xa1-\xbf]", head):  # a map whose first key is a text
        raise _Foreign("MessagePack (Flax), which no family here uses")
    if re.match(
        rb"\x08[\x03-\x0f][\x12\x1a\x22\x28\x32\x3a\x42]", head
    ):  # a ModelProto: its version, then another field
        raise _Foreign("an ONNX graph: give the checkpoint that it was exported from")
    if head[257:262] == b"ustar":
        return "tar archive of torch", _tarred
    if head.startswith(b"PK"):
        return "zip archive of torch", _zipped
    return ("safetensors file", _safetensors) if path.suffix == ".safetensors" else ("pickle", _pickled)


# --- containers


def _zipped(file: File) -> Any:
    """torch's format since 1.6: a zip of data.pkl and one uncompressed entry per storage. Or numpy's: of arrays."""
    entries = directory(file)
    roots = [name.removesuffix("data.pkl") for name in entries if re.fullmatch(r"([^/]*/)?data\.pkl", name)]
    if not roots and entries and all(name.endswith(".npy") for name in entries):
        if not all(entry.stored for entry in entries.values()):
            raise _Foreign("numpy arrays that are compressed: save them with numpy.savez")
        return {name.removesuffix(".npy"): _npy(file, entry) for name, entry in entries.items()}
    if any(name.endswith("/archive_format") for name in entries):
        raise _Foreign("a program of torch.export: save torch.export.load(...).state_dict instead")
    if len(roots) != 1:
        raise _Foreign(f"a zip archive with {len(roots)} entries named data.pkl, not one: unpack it first")
    root = roots[0]
    if f"{root}constants.pkl" in entries:
        raise _Foreign("a TorchScript program: save its state_dict() instead")
    if f"{root}byteorder" in entries:
        entry = entries[f"{root}byteorder"]
        if entry.size != 6 or file.bytes(entry.place(file), 6) != b"little":
            raise _Foreign("big-endian numbers: save it on a little-endian machine")
    index = entries[f"{root}data.pkl"]
    start = index.place(file)
    if index.crc and file.crc32(start, index.size) != index.crc:
        raise ValueError("its data.pkl does not match its checksum")
    unpickler = _Unpickler(_Stream(file, start, start + index.size))
    found = unpickler.load()
    for storage in unpickler.storages.values():
        _put(storage, entries.get(f"{root}data/{storage.key}"))
    return found


def _put(storage: _Storage, entry: Entry | None) -> None:
    """Says where in the archive a storage is."""
    if entry is None:
        raise ValueError(f"storage {storage.key[:40]!r} is not in the archive")
    if not entry.stored:
        entry.place(storage.file)
    if entry.size != storage.size:
        raise ValueError(f"storage {storage.key[:40]!r} has {entry.size:,} bytes instead of {storage.size:,}")
    storage.crc, storage.place = entry.crc, lambda: entry.place(storage.file)


def _npy(file: File, entry: Entry) -> Stored:
    """An array of numpy.savez. Raises ValueError for one of objects, which is a pickle."""
    start = entry.place(file)
    head = io.BytesIO(file.bytes(start, min(entry.size, 4096)))
    version = np.lib.format.read_magic(head)
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = reader(head, max_header_size=4096)
    array = _Array()
    raw = _Raw(file, start + head.tell(), entry.size - head.tell())
    array.view(raw, Inert("numpy.dtype", (dtype.str,), (3, "")), shape, "F" if fortran else "C")
    return array


def _pickled(file: File, operations: int | None = None) -> Any:
    """A plain pickle, or torch's format before 1.6: magic number, version, system, object, keys, then every storage."""
    stream = _Stream(file, 0, file.size, operations)
    found = _Unpickler(stream).load()
    if found != MAGIC or not isinstance(found, int):
        return found
    version = _Unpickler(stream).load()
    if version != 1001:
        raise ValueError("an unknown version of torch's format")
    _Unpickler(stream).load()
    unpickler = _Unpickler(stream)
    found = unpickler.load()
    keys = _Unpickler(stream).load()
    if not isinstance(keys, list) or not all(type(key) is str and key in unpickler.storages for key in keys):
        raise ValueError("its list of storages is not the one its tensors name")
    for key in keys:
        storage = unpickler.storages[key]
        (count,) = struct.unpack("<q", file.bytes(stream.skip(8), 8))
        if count != storage.count:
            raise ValueError(f"storage {key[:40]!r} has {count:,} elements instead of {storage.count:,}")
        storage.place = _at(stream.skip(storage.size))
    if lost := [key for key, storage in unpickler.storages.items() if storage.place is None]:
        raise ValueError(f"storage {lost[0][:40]!r} is not in the file")
    return found


def _tarred(file: File) -> Any:
    """torch's format before 0.1.10: a tar of sys_info, storages, tensors (views of these) and the object that names them."""
    parts = members(file)
    if parts and "sys_info" not in parts:
        raise _Foreign("a tar archive: unpack it first")
    if lost := {"sys_info", "storages", "tensors", "pickle"} - parts.keys():
        raise ValueError(f"it ends early, before its {min(lost)}")
    streams = {name: _Stream(file, start, start + size) for name, (start, size) in parts.items()}
    system = _Unpickler(streams["sys_info"]).load()
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise _Foreign("big-endian numbers: save it on a little-endian machine")
    objects: dict[str, Any] = {}
    stream = streams["storages"]
    for _ in range(_Unpickler(stream).load()):
        key, _, type_ = _Unpickler(stream).load()
        dtype = _STORAGES[type_.rpartition(".")[2]]
        (count,) = struct.unpack("<q", file.bytes(stream.skip(8), 8))
        place = _at(stream.skip(count * dtype.itemsize))
        objects[_digits(key)] = _Storage(file, dtype, _digits(key), count, place=place)
    for key, root, first, count in _Unpickler(stream).load():
        objects[_digits(key)] = _part(objects[_digits(root)], first, count)
    stream = streams["tensors"]
    for _ in range(_Unpickler(stream).load()):
        key, storage, _ = _Unpickler(stream).load()
        dims = int.from_bytes(file.bytes(stream.skip(8), 4), "little")
        if dims > 16:
            raise ValueError("a tensor with an impossible shape")
        numbers = struct.unpack(f"<{2 * dims + 1}q", file.bytes(stream.skip(16 * dims + 8), 16 * dims + 8))
        objects[_digits(key)] = _tensor(objects[_digits(storage)], numbers[-1], numbers[:dims], numbers[dims:-1])
    return _Named(streams["pickle"], objects).load()


def _digits(number: Any) -> str:
    """A number as a text, which cannot be made to collide."""
    return str(int(number))


def _part(whole: _Storage, first: Any, count: Any) -> _Storage:
    """Some elements of a storage as one of their own. Raises ValueError if they are not all in it."""
    if whole.root or not _counts((first, count)) or first + count > whole.count:
        raise ValueError(f"a view leaves its storage {whole.key[:40]!r}")
    return _Storage(whole.file, whole.dtype, whole.key, count, first, whole)


def _at(start: int) -> Callable[[], int]:
    return lambda: start


def _safetensors(file: File) -> Safetensors:
    """The tensors of a safetensors file, and its free texts. The header is JSON: nothing in it can run."""
    (size,) = struct.unpack("<Q", file.bytes(0, 8))
    if size > INDEX:
        raise ValueError(f"its header claims {size:,} bytes")
    header = json.loads(file.bytes(8, size), object_pairs_hook=_once)
    texts = header.pop("__metadata__", {})
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise ValueError("its metadata are not texts")
    found = {name: _slice(file, 8 + size, name, about) for name, about in header.items()}
    position = 0
    for first, end, name in sorted((*about["data_offsets"], name) for name, about in header.items()):
        if first != position:
            raise ValueError(f"{name[:80]!r} starts at byte {first:,} of the data, not where the one before ends")
        position = end
    if 8 + size + position != file.size:
        raise ValueError(f"its header describes {8 + size + position:,} bytes, the file has {file.size:,}")
    return Safetensors(found, texts)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice in its header")
    return found


def _slice(file: File, data: int, name: str, about: Any) -> Stored | Inert:
    dtype, shape, (first, end) = _SAFE.get(about["dtype"]), tuple(about["shape"]), about["data_offsets"]
    if dtype is None:
        raise ValueError(f"{name[:80]!r} has numbers of the type {str(about['dtype'])[:20]!r}, unknown here")
    if not _counts((first, end, *shape)) or end - first != math.prod(shape) * dtype.itemsize or data + end > file.size:
        raise ValueError(f"{name[:80]!r} has another size than its shape says, or reaches beyond the end of the file")
    if str(dtype) not in _DTYPES:
        return Inert(f"tensor of {dtype}")
    return Stored(shape, dtype, lambda: file.numbers(data + first, end - first).view(dtype).view(shape))


# --- pickles


class _Stream:
    """The file as the unpickler sees it: at most so many reads (OPERATIONS), none larger than what is left of the file.

    Of what is large, 64 bytes count as one read.
    """

    def __init__(self, file: File, position: int, end: int, operations: int | None = None) -> None:
        self.file, self.position, self.end, self.left = file, position, end, operations or OPERATIONS
        self.buffer, self.base = b"", 0  # a piece of the file, and where it starts

    def charge(self, steps: int) -> None:
        self.left -= steps
        if self.left < 0:
            raise ValueError(f"it asks for more than {OPERATIONS:,} operations")

    def skip(self, size: int) -> int:
        """Where the next `size` bytes start."""
        start = self.position
        if not 0 <= size <= self.end - start:
            raise ValueError(f"it ends early, at byte {self.end:,}")
        self.position = start + size
        return start

    def read(self, size: int) -> bytes:
        offset = self.position - self.base
        if self.left < 1 or offset < 0 or size < 0 or offset + size > len(self.buffer):
            self.charge(1 + (size >> 6))
            start = self.skip(size)
            self.buffer = self.file.bytes(start, max(size, min(CHUNK, self.end - start)))
            self.base = start
            return self.buffer[:size]
        self.left -= 1  # what follows is most of the time that an index takes
        self.position += size
        return self.buffer[offset : offset + size]

    def readline(self) -> bytes:
        at = self.position - self.base
        if at >= 0 and (line := self.buffer.find(b"\n", at) + 1):
            return self.read(line - at)
        size = CHUNK
        while True:
            piece = self.file.bytes(self.position, min(size, self.end - self.position))
            if (line := piece.find(b"\n") + 1) or size >= self.end - self.position:
                return self.read(line or len(piece))
            if size >= LINE:
                raise ValueError(f"a line of more than {LINE:,} bytes")
            size *= 8


class _Name(str):
    """The name of a class or function, which stays a name."""

    __slots__ = ()


def _named(module: str, name: str) -> _Name:
    if len(module) + len(name) > 1000:
        raise ValueError(f"a class with a name of {len(module) + len(name):,} letters")
    return _Name(f"{'builtins' if module == '__builtin__' else module}.{name}")


_Pickle: Any = pickle._Unpickler  # the pure-Python form: its memo is a dict, so that a giant index costs nothing


class _Unpickler(_Pickle):
    """Python's own unpickler with every step replaced that could run code or trusts the file with memory or time."""

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(_Pickle.dispatch)

    def __init__(self, stream: _Stream) -> None:
        super().__init__(stream, encoding="latin1")  # Python 2 texts and arrays
        self.stream = stream
        self.storages: dict[str, _Storage] = {}
        self.escaped: dict[str, str] = {}  # keys that are long or not printable, as _plain gives them

    def load(self) -> Any:
        self.metastack: list[Any] = []
        self.stack: list[Any] = []
        self.append = self.stack.append
        read, dispatch = self.stream.read, self.dispatch
        self.read, self.readline = read, self.stream.readline
        try:
            while True:
                step = dispatch.get(read(1)[0])
                if step is None:
                    raise ValueError("it has a step that no pickle has")
                step(self)
        except pickle._Stop as stop:  # type: ignore[attr-defined]
            return stop.value

    def find_class(self, module: str, name: str) -> Any:
        return _named(module, name)

    def get_extension(self, code: int) -> None:
        self.append(_Name(f"copyreg.extension_{code}"))

    def persistent_load(self, pid: Any) -> Any:
        """Storages, from ("storage", type, key, location, count[, view]); a whole pickled module is only its class's name."""
        if type(pid) is not tuple or not 2 <= len(pid) <= 6 or pid[0] not in ("storage", "module"):
            raise ValueError("an unknown kind of reference")
        if pid[0] == "module":
            return pid[1]
        type_, key, _, count, *view = pid[1:]
        if not isinstance(type_, _Name) or type(key) is not str or not _counts((count,)):
            raise ValueError("a malformed reference to a storage")
        dtype = _STORAGES.get(type_.rpartition(".")[2])
        if dtype is None:
            raise ValueError(f"a storage of the type {type_[:80]!r}, unknown here")
        block = self.storages.setdefault(key, _Storage(self.stream.file, dtype, key, count))
        if block.dtype != dtype or block.count != count:
            raise ValueError(f"storage {key[:40]!r} is declared twice, differently")
        if view and view[0] is not None:
            _, first, size = view[0]
            return _part(block, first, size)
        return block

    # --- the steps that would call something: REDUCE, NEWOBJ, NEWOBJ_EX, OBJ, INST, BUILD

    def load_reduce(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = _made(self.stack[-1], args, self.stream.charge, self._put)

    def load_newobj_ex(self) -> None:
        self.stack.pop()  # keyword arguments
        self.load_reduce()

    def _instantiate(self, klass: Any, args: Any) -> None:
        self.append(_made(klass, tuple(args), self.stream.charge, self._put))

    def load_build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, _Array):
            target.fill(state, self.stream.charge)
        elif isinstance(target, Inert):
            target.state = state  # of a dict subclass or a tensor: metadata, hooks

    # --- the steps that would hash: only plain keys

    def _put(self, target: Any, pairs: Iterable[tuple[Any, Any]]) -> Any:
        """The dict, or what stands for one, with these pairs in it."""
        for key, value in pairs:
            target[self._plain(key, isinstance(target, dict) and len(target) >= NUMBERS)] = value
        return target

    def _plain(self, key: Any, many: bool) -> Any:
        """The key of `_plain`, which a memo may name any number of times: a long text is looked at once, escaped once."""
        if not isinstance(key, str) or (len(key) < 256 and key.isprintable()):
            return _plain(key, many)
        if key not in self.escaped:
            self.escaped[key] = _plain(key, many)
        return self.escaped[key]

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append(self._put({}, zip(items[::2], items[1::2], strict=True)))

    def load_setitem(self) -> None:
        value = self.stack.pop()
        key = self.stack.pop()
        self._put(self.stack[-1], [(key, value)])

    def load_setitems(self) -> None:
        items = self.pop_mark()
        self._put(self.stack[-1], zip(items[::2], items[1::2], strict=True))

    def load_put(self) -> None:
        self._memorise(int(self.readline()[:-1]))

    def load_long_binput(self) -> None:
        self._memorise(*struct.unpack("<I", self.read(4)))

    def _memorise(self, number: int) -> None:
        if not 0 <= number <= OPERATIONS - self.stream.left:  # they count up; others could be made to collide
            raise ValueError("a memo entry that no pickle writes")
        self.memo[number] = self.stack[-1]

    # --- a set is a list here

    def load_empty_set(self) -> None:
        self.append([])

    def load_frozenset(self) -> None:
        self.append(self.pop_mark())

    def load_additems(self) -> None:
        items = self.pop_mark()
        self.stack[-1].extend(items)

    # --- the steps that would reserve memory on the file's word, or hold an array that may never be asked for

    def load_frame(self) -> None:
        self.read(8)  # frames only group what follows

    def _raw(self, size: int, text: bool = False) -> None:
        if size >= LAZY:
            self.append(_Raw(self.stream.file, self.stream.skip(size), size))
        else:
            self.append(self.read(size).decode("latin1") if text else self.read(size))

    def _unicode(self, size: int) -> None:
        if size >= LAZY_TEXT:
            self.append(_Text(self.stream.file, self.stream.skip(size), size))
        else:
            self.append(str(self.read(size), "utf-8", "surrogatepass"))

    def load_binunicode(self) -> None:
        self._unicode(*struct.unpack("<I", self.read(4)))

    def load_binunicode8(self) -> None:
        self._unicode(*struct.unpack("<Q", self.read(8)))

    def load_binbytes(self) -> None:
        self._raw(struct.unpack("<I", self.read(4))[0])

    def load_binbytes8(self) -> None:
        self._raw(struct.unpack("<Q", self.read(8))[0])

    def load_binstring(self) -> None:
        self._raw(struct.unpack("<i", self.read(4))[0], text=True)

    def load_long4(self) -> None:
        (size,) = struct.unpack("<i", self.read(4))
        if not 0 <= size <= 1000:
            raise ValueError(f"a number of {size:,} bytes")
        self.append(pickle.decode_long(self.read(size)))

    dispatch[pickle.REDUCE[0]] = load_reduce
    dispatch[pickle.NEWOBJ[0]] = load_reduce
    dispatch[pickle.NEWOBJ_EX[0]] = load_newobj_ex
    dispatch[pickle.BUILD[0]] = load_build
    dispatch[pickle.DICT[0]] = load_dict
    dispatch[pickle.SETITEM[0]] = load_setitem
    dispatch[pickle.SETITEMS[0]] = load_setitems
    dispatch[pickle.PUT[0]] = load_put
    dispatch[pickle.LONG_BINPUT[0]] = load_long_binput
    dispatch[pickle.EMPTY_SET[0]] = load_empty_set
    dispatch[pickle.FROZENSET[0]] = load_frozenset
    dispatch[pickle.ADDITEMS[0]] = load_additems
    dispatch[pickle.FRAME[0]] = load_frame
    dispatch[pickle.BINUNICODE[0]] = load_binunicode
    dispatch[pickle.BINUNICODE8[0]] = load_binunicode8
    dispatch[pickle.BINBYTES[0]] = load_binbytes
    dispatch[pickle.BINBYTES8[0]] = load_binbytes8
    dispatch[pickle.BYTEARRAY8[0]] = load_binbytes8
    dispatch[pickle.BINSTRING[0]] = load_binstring
    dispatch[pickle.LONG4[0]] = load_long4


class _Named(_Unpickler):
    """Of a tar: its tensors and storages are named by numbers, and a whole module is only its class's name."""

    def __init__(self, stream: _Stream, objects: dict[str, Any]) -> None:
        super().__init__(stream)
        self.objects = objects

    def persistent_load(self, pid: Any) -> Any:
        return pid[0] if type(pid) is tuple else self.objects[_digits(pid)]


def _plain(key: Any, many: bool) -> Any:
    """The key if its hash is cheap, else an Inert that stands for it; of `many` keys, a number's text.

    Texts and bytes are hashed with a secret of the process, numbers so that a file can make them collide. A text with control
    characters or half a surrogate pair stays readable: as its escape sequence.
    """
    if isinstance(key, str):
        return key if key.isprintable() else key.encode("unicode_escape").decode()
    if isinstance(key, float) or (isinstance(key, int) and -(2**63) <= key < 2**63):
        return repr(key) if many else key
    if key is None or isinstance(key, bytes | Inert):
        return key
    return Inert("key", (key,))


def _counts(numbers: tuple[Any, ...]) -> bool:
    """Whether these are lengths, places or strides that a file can have, and not more than a tensor needs."""
    return len(numbers) <= 40 and all(type(n) is int and 0 <= n < 2**48 for n in numbers)


class _Array(Stored):
    """A numpy array: made empty, then filled by the state that follows, as numpy's own pickles do."""

    __slots__ = ()

    def fill(self, state: Any, charge: Callable[[int], None]) -> None:
        _, shape, dtype, fortran, raw = state
        if isinstance(raw, str):
            charge(len(raw) >> 10)
            raw = raw.encode("latin1")  # Python 2
        self.view(raw, dtype, shape, "F" if fortran else "C")

    def view(self, raw: Any, dtype: Any, shape: Any, order: Any) -> None:
        kind = _numpy_type(dtype)
        if kind is None or not isinstance(raw, bytes | _Raw | _Text):
            self.read = _no_numbers
            return
        shape = tuple(shape)
        size = len(raw) if isinstance(raw, bytes) else raw.size
        wanted = math.prod(shape) * kind.itemsize if _counts(shape) else -1
        most = 2 * wanted if isinstance(raw, _Text) else wanted  # a letter has one byte or two
        if not wanted <= size <= most:
            raise ValueError(f"an array of {size:,} bytes with the wrong shape")
        self.shape = shape
        self.dtype = torch.from_numpy(np.empty(0, kind.newbyteorder("="))).dtype
        self.read = lambda: _array(_inner(raw, wanted), kind, shape, order)


def _no_numbers() -> torch.Tensor:
    raise ValueError("expected an array of numbers, found one of texts or objects: save the weights as numbers")


def _array(content: _Inner, kind: np.dtype[Any], shape: tuple[int, ...], order: Any) -> torch.Tensor:
    """The values of a pickled array, in this machine's byte order and C order."""
    found = content.numbers(0, content.size).numpy().view(kind).reshape(shape, order="F" if order == "F" else "C")
    return torch.from_numpy(found.astype(kind.newbyteorder("="), order="C", copy=False))


def _numpy_type(dtype: Any) -> np.dtype[Any] | None:
    """A number's numpy dtype from its inert record, or None for any other type."""
    if not isinstance(dtype, Inert) or dtype.name != "numpy.dtype" or not dtype.args:
        return None
    order = dtype.state[1] if isinstance(dtype.state, tuple) and len(dtype.state) > 1 else "="
    text = f"{order}{dtype.args[0]}" if type(order) is str and type(dtype.args[0]) is str else ""
    try:
        kind = np.dtype(text) if _NUMPY_TYPE.fullmatch(text) else None
        torch.from_numpy(np.empty(0, kind.newbyteorder("=")) if kind else np.empty(0))
    except TypeError:  # such as f3, or a long double
        return None
    return kind


def _made(name: Any, args: Any, charge: Callable[[int], None], put: Callable[[Any, Any], Any]) -> Any:
    """What calling `name` with `args` stands for, if it is one of the few names known here; else an Inert.

    Raises ValueError for a known name with impossible arguments, and when `charge` finds the work too much. `put` fills
    a dict with pairs.
    """
    if type(args) is not tuple:
        raise ValueError("a call without a tuple of arguments")
    if not isinstance(name, _Name):
        return Inert("call", (name, args))
    if len(args) > 16:
        return Inert(str(name), args)
    if name.startswith(("torch.", "numpy.", "dill.")):
        charge(4)
    match str(name), args:
        case "collections.OrderedDict" | "collections.defaultdict" | "builtins.dict", _:
            pairs = args[0] if args and isinstance(args[0], list) else []  # Python 2 writes [[key, value], ...]
            charge(len(pairs))
            return put({}, pairs)
        case "builtins.set" | "builtins.frozenset" | "builtins.list" | "builtins.tuple" | "torch.Size", (items,):
            return items
        case "torch._utils._rebuild_tensor" | "torch._utils._rebuild_tensor_v2", (storage, first, shape, stride, *more):
            return _as_stored(_tensor(storage, first, shape, stride), more[2:])
        case "torch._utils._rebuild_tensor_v3", (storage, first, shape, stride, _, _, dtype, *more):
            if not isinstance(dtype, _Name):
                raise ValueError("a tensor without a type")
            if str(dtype) not in _DTYPES:  # uint16, float8: no backbone's
                return Inert(f"tensor of {dtype[:80]}", args)
            return _as_stored(_tensor(storage, first, shape, stride, _DTYPES[str(dtype)]), more)
        case "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state", (tensor, *_):
            return tensor
        case (
            "torch.nn.parameter.Parameter"
            | "torch._utils._rebuild_device_tensor_from_numpy"
            | "torch._utils._rebuild_xla_tensor",
            (Stored() as tensor, *_),
        ):
            return tensor
        case "torch.storage._load_from_bytes", (
            bytes() | _Raw() | _Text() as raw,
        ):  # pickle.dump of tensors: a file for each storage
            charge(INNER + (raw.size >> 6 if isinstance(raw, _Text) else 0))
            storage = _pickled(_inner(raw), INNER)
            if not isinstance(storage, _Storage):
                raise ValueError("a storage that is none")
            return storage
        case "torch._tensor._rebuild_from_type_v2", (function, _, arguments, *_):
            return _made(function, arguments, charge, put)
        case "builtins.bytes" | "builtins.bytearray", () | (bytes() | _Raw(),):
            return args[0] if args else b""
        case "builtins.bytearray" | "_codecs.encode", (str(text), "latin1" | "latin-1"):
            charge(len(text) >> 10)
            return text.encode("latin1")
        case "builtins.bytearray" | "_codecs.encode", (_Text() as text, "latin1" | "latin-1"):
            return text
        case "numpy.core.multiarray._reconstruct" | "numpy._core.multiarray._reconstruct", _:
            return _Array()
        case "numpy.core.numeric._frombuffer" | "numpy._core.numeric._frombuffer", (raw, dtype, shape, order):
            array = _Array()
            array.view(raw, dtype, shape, order)
            return array
        case "dill._dill._create_array", (function, arguments, state, *_):
            array = _made(function, arguments, charge, put)
            if isinstance(array, _Array):
                array.fill(state, charge)
            return array
        case "dill._dill._create_namedtuple", (str(class_), _, str(module), *_):
            return _named(module, class_)
        case "numpy.core.multiarray.scalar" | "numpy._core.multiarray.scalar", (dtype, bytes(raw)):
            kind = _numpy_type(dtype)
            return np.frombuffer(raw, kind)[0].item() if kind is not None else Inert(name, args)
    return Inert(str(name), args)


def _as_stored(tensor: Stored | Inert, metadata: list[Any]) -> Stored | Inert:
    """The tensor, not to be read if its values are not the stored ones: torch keeps a negation or conjugation as a flag."""
    flags = [f for f in ("conj", "neg") if metadata[0].get(f)] if metadata and isinstance(metadata[0], dict) else []

    def read() -> torch.Tensor:
        raise ValueError(
            f"expected a tensor as it is stored, found one that is marked {' and '.join(flags)}: save it with"
            " resolve_conj().resolve_neg()"
        )

    if flags and isinstance(tensor, Stored):
        tensor.read = read
    return tensor


def _tensor(storage: Any, first: Any, shape: Any, stride: Any, dtype: torch.dtype | None = None) -> Stored | Inert:
    """A tensor that knows its place in the file; an Inert for one that a few bytes could make large.

    Such are an expanded one, of terabytes, and one spread over much of a file, which may be a hole.
    Raises ValueError if it reaches outside its storage.
    """
    if not isinstance(storage, _Storage):
        raise ValueError("a tensor without a storage")
    dtype = dtype or storage.dtype
    sized = isinstance(shape, tuple | list) and isinstance(stride, tuple | list) and len(shape) == len(stride) <= 16
    if not sized or not _counts((first, *shape, *stride)):
        raise ValueError("a tensor with an impossible shape")
    shape, stride = tuple(shape), tuple(stride)
    count = storage.size // dtype.itemsize
    elements = math.prod(shape)
    first = first if elements else 0  # where nothing is, may be anywhere
    last = first + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
    if elements and last >= count:
        raise ValueError(f"a tensor of shape {list(shape)} that is larger than its storage of {count:,} elements")
    if elements > count:
        return Inert(f"tensor of shape {list(shape)} expanded from {count:,} elements", (storage, first, shape, stride))
    span = last + 1 - first if elements else 0
    if span > 4 * elements and span * dtype.itemsize > SPREAD:
        return Inert(f"tensor of shape {list(shape)} spread over {span:,} elements", (storage, first, shape, stride))
    return Stored(
        shape,
        dtype,
        lambda: _numbers(storage, dtype, first, shape, stride, first + span),
        (storage.key, storage.first, first, shape, stride, dtype),
    )


def _numbers(
    storage: _Storage, dtype: torch.dtype, first: int, shape: tuple[int, ...], stride: tuple[int, ...], end: int
) -> torch.Tensor:
    """A tensor's values, contiguous, in memory of their own. Raises ValueError if its storage fails the zip's checksum."""
    root = storage.root or storage
    assert root.place is not None
    place, size = root.place(), dtype.itemsize
    start = place + storage.first * root.dtype.itemsize + first * size
    content = storage.file.numbers(start, (end - first) * size)
    if root.crc:
        whole = start == place and len(content) == root.size
        if (zlib.crc32(content.numpy().data) if whole else storage.file.crc32(place, root.size)) != root.crc:
            raise ValueError(
                f"expected storage {root.key[:40]!r} to match its checksum, found damage: download it again"
            )
        root.crc = 0
    return content.view(dtype).as_strided(shape, stride).contiguous()
