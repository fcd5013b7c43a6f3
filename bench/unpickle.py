"""Reads a checkpoint file without running anything in it: nothing is imported, called or set on the file's behalf.

A `.pth`, `.ckpt` or `.pkl` is a pickle, and a pickle is a program that may name any function of this machine. Here every
name in the file stays text. Of some twenty names (torch's tensor constructors, numpy's arrays, ordered dicts) this module
knows what they stand for and builds the value itself; every other object becomes an `Inert`, which records what it was
called and what it held. So a training script's `argparse.Namespace` is as harmless as `os.system`, and both can be looked at.

Formats: torch's zip (1.6 and later) and the format before it (MoCo's official files), plain pickles of numpy arrays
(detectron2's model zoo, Python 2 included), safetensors. Tensors are read lazily: the file is mapped, and what nobody asks
for (a queue of 1.28 million negatives, an optimizer's state) costs no memory. torch.load(weights_only=True) is not used: it
is as safe but reads everything, stops at the first foreign name, and would make two paths of one.
"""

import mmap
import pickle
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

MAGIC = 0x1950A86A20F9469CFC6C  # torch/serialization.py: the first object of a file written before 1.6
OPERATIONS = (
    20_000_000  # a ResNet-152 with its optimizer takes 300 thousand; a larger number is an attack or an accident
)

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
}
_NUMPY_TYPE = re.compile(r"[<>=|]?[biufc]\d{1,2}")


@dataclass(eq=False, repr=False)
class Inert:
    """What a file says about an object that is not a tensor, a number, a text or a container of these. Never called."""

    name: str  # module and name, as written in the file
    args: tuple[Any, ...] = ()
    state: Any = None
    items: list[Any] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"<{self.name}>"

    # what a pickle does to a list, a set and a dict; here it is written down
    def append(self, item: Any) -> None:
        self.items.append(item)

    add = append

    def extend(self, items: list[Any]) -> None:
        self.items.extend(items)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items.append((key, value))


class Stored:
    """A tensor in the file: its shape and dtype are known, `read()` fetches the values into memory of their own."""

    def __init__(self) -> None:
        self.shape: tuple[int, ...] = (0,)
        self.dtype: torch.dtype = torch.float32
        self.read: Callable[[], torch.Tensor] = lambda: torch.empty(0)

    def __repr__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"


@dataclass(eq=False)
class _Storage:
    """A block of numbers in the file, of which tensors are views; where it starts is known when the index has been read."""

    data: mmap.mmap
    dtype: torch.dtype
    key: str
    count: int
    first: int = 0  # a view starts this many elements into its root
    root: "_Storage | None" = None
    start: int | None = None  # in bytes
    crc: int | None = None  # of the zip's index, not yet verified

    @property
    def size(self) -> int:
        return self.count * self.dtype.itemsize


def read(path: Path) -> Any:
    """The object in a checkpoint file: containers, numbers and texts as they are, tensors as `Stored`, the rest as `Inert`.

    Raises FileNotFoundError, or ValueError with one sentence if the file is not a readable checkpoint.
    """
    if not path.exists():
        raise FileNotFoundError(f"expected a checkpoint file, found nothing at {path}")
    if not path.is_file():
        raise ValueError(f"expected a checkpoint file, found that {path} is a directory: name the file inside it")
    if path.stat().st_size == 0:
        raise ValueError(f"expected a checkpoint file, found that {path} is empty: download or save it again")
    with path.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)  # private: writable for torch, never written back
    head = data[:512].lstrip()
    if head[:1] == b"<":
        raise ValueError(f"expected a checkpoint, found an HTML or XML page in {path}: the download failed, repeat it")
    if head.startswith(b"version https://git-lfs"):
        raise ValueError(
            f"expected a checkpoint, found a Git LFS pointer in {path}: fetch the file with `git lfs pull`"
        )
    kind, reader = "pickle", _pickled
    if data[:2] == b"PK":
        kind, reader = "zip archive of torch", _zipped
    elif path.suffix == ".safetensors" or (data[8:9] == b"{" and int.from_bytes(data[:8], "little") < len(data)):
        kind, reader = "safetensors file", _safetensors
    try:
        return reader(path, data)
    except Exception as error:  # whatever a broken file makes of the readers, the answer is one sentence
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        if isinstance(error, KeyError):
            reason = f"{reason} has no meaning here"
        raise ValueError(
            f"expected a whole {kind}, found that {path} is not: {reason}. Download or save it again"
        ) from error


def _zipped(path: Path, data: mmap.mmap) -> Any:
    """torch's format since 1.6: a zip of data.pkl and one uncompressed entry per storage."""
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
    roots = [name.removesuffix("data.pkl") for name in entries if re.fullmatch(r"([^/]*/)?data\.pkl", name)]
    if len(roots) != 1:
        raise ValueError(f"{len(roots)} entries named data.pkl")
    root = roots[0]
    if f"{root}constants.pkl" in entries:
        raise ValueError("this is a TorchScript program; save its state_dict() instead")

    def place(name: str) -> tuple[int, zipfile.ZipInfo]:
        entry = entries[name]
        if entry.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{name!r} is compressed, which torch never does")
        start = entry.header_offset + 30 + sum(struct.unpack_from("<HH", data, entry.header_offset + 26))
        if start + entry.file_size > len(data):
            raise ValueError(f"{name!r} reaches beyond the end of the file")
        return start, entry

    if f"{root}byteorder" in entries:
        start, entry = place(f"{root}byteorder")
        if data[start : start + entry.file_size] != b"little":
            raise ValueError("its numbers are big-endian; save it on a little-endian machine")
    start, entry = place(f"{root}data.pkl")
    unpickler = _Unpickler(_Bounded(data, start, start + entry.file_size))
    found = unpickler.load()
    for storage in unpickler.storages.values():
        storage.start, entry = place(f"{root}data/{storage.key}")
        storage.crc = entry.CRC
        if entry.file_size != storage.size:
            raise ValueError(f"storage {storage.key!r} has {entry.file_size:,} bytes instead of {storage.size:,}")
    return found


def _pickled(path: Path, data: mmap.mmap) -> Any:
    """A plain pickle, or torch's format before 1.6: magic number, version, system, object, keys, then every storage."""
    file = _Bounded(data)
    found = _Unpickler(file).load()
    if found != MAGIC or not isinstance(found, int):
        return found
    version = _Unpickler(file).load()
    if version != 1001:
        raise ValueError("an unknown version of torch's format")
    _Unpickler(file).load()
    unpickler = _Unpickler(file)
    found = unpickler.load()
    for key in _Unpickler(file).load():
        storage = unpickler.storages[key]
        (count,) = struct.unpack("<q", file.read(8))
        if count != storage.count:
            raise ValueError(f"storage {key!r} has {count:,} elements instead of {storage.count:,}")
        storage.start = file.position
        file.skip(storage.size)
    if lost := [key for key, storage in unpickler.storages.items() if storage.start is None]:
        raise ValueError(f"storage {lost[0]!r} is not in the file")
    return found


def _safetensors(path: Path, data: mmap.mmap) -> Any:
    """The tensors of a safetensors file, and its free texts as "__metadata__"."""
    from safetensors import safe_open

    file = safe_open(path, framework="pt")

    def stored(name: str) -> Stored:
        part = file.get_slice(name)
        entry = Stored()
        entry.shape, entry.dtype = tuple(part.get_shape()), _SAFE[part.get_dtype()]
        entry.read = lambda: file.get_tensor(name)
        return entry

    return {name: stored(name) for name in file.keys()} | {"__metadata__": file.metadata() or {}}  # noqa: SIM118


class _Bounded:
    """The file as the unpickler sees it: at most OPERATIONS reads, none larger than what is left of the file."""

    def __init__(self, data: mmap.mmap, position: int = 0, end: int | None = None) -> None:
        self.data, self.position, self.left = data, position, OPERATIONS
        self.end = len(data) if end is None else end

    def skip(self, size: int) -> int:
        start = self.position
        if not 0 <= size <= self.end - start:
            raise ValueError(f"it ends early, at byte {self.end:,}")
        self.position = start + size
        return start

    def read(self, size: int) -> bytes:
        self.left -= 1
        if self.left < 0:
            raise ValueError(f"it asks for more than {OPERATIONS:,} operations")
        start = self.skip(size)
        return self.data[start : self.position]

    def readline(self) -> bytes:
        line = self.data.find(b"\n", self.position, self.end)
        return self.read((self.end if line < 0 else line + 1) - self.position)


class _Name(str):
    """The name of a class or function, which stays a name."""

    __slots__ = ()


_Pickle: Any = pickle._Unpickler  # the pure-Python form: its memo is a dict, so that a giant index costs nothing


class _Unpickler(_Pickle):
    """Python's own unpickler with every step replaced that could run code or trusts the file with memory or time."""

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(_Pickle.dispatch)

    def __init__(self, file: _Bounded) -> None:
        super().__init__(file, encoding="latin1")  # Python 2 texts and arrays
        self.data = file.data
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        return _Name(f"{'builtins' if module == '__builtin__' else module}.{name}")

    def get_extension(self, code: int) -> None:
        self.append(_Name(f"copyreg.extension_{code}"))

    def persistent_load(self, pid: Any) -> Any:
        """Storages, from ("storage", type, key, location, count[, view]); a whole pickled module is only its class's name."""
        kind, *rest = pid
        if kind == "module":
            return rest[0]
        if kind != "storage":
            raise ValueError(f"unknown kind of reference {str(kind)[:20]!r}")
        type_, key, _, count, *view = rest
        if not isinstance(type_, _Name) or type(count) is not int or count < 0 or type(key) is not str:
            raise ValueError("a malformed reference to a storage")
        dtype = _STORAGES[type_.rpartition(".")[2]]
        block = self.storages.setdefault(key, _Storage(self.data, dtype, key, count))
        if block.dtype != dtype or block.count != count:
            raise ValueError(f"storage {key[:40]!r} is declared twice, differently")
        if view and view[0] is not None:
            _, first, size = view[0]
            if not (type(first) is int and type(size) is int and 0 <= first <= first + size <= count):
                raise ValueError(f"a view leaves its storage {key[:40]!r}")
            return _Storage(self.data, dtype, key, size, first, block)
        return block

    # --- the steps that would call something: REDUCE, NEWOBJ, NEWOBJ_EX, OBJ, INST, BUILD

    def load_reduce(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = _made(self.stack[-1], args)

    def load_newobj_ex(self) -> None:
        self.stack.pop()  # keyword arguments
        self.load_reduce()

    def _instantiate(self, klass: Any, args: Any) -> None:
        self.append(_made(klass, tuple(args)))

    def load_build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, _Array):
            target.fill(state)
        elif isinstance(target, Inert):
            target.state = state  # of a dict subclass or a tensor: metadata, hooks

    # --- the steps that would hash: only plain keys, since the hash of nested tuples can take forever

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append({_plain(k): v for k, v in zip(items[::2], items[1::2], strict=True)})

    def load_setitem(self) -> None:
        value = self.stack.pop()
        key = self.stack.pop()
        self.stack[-1][_plain(key)] = value

    def load_setitems(self) -> None:
        items = self.pop_mark()
        target = self.stack[-1]
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_plain(key)] = value

    # --- a set is a list here

    def load_empty_set(self) -> None:
        self.append([])

    def load_frozenset(self) -> None:
        self.append(self.pop_mark())

    def load_additems(self) -> None:
        items = self.pop_mark()
        self.stack[-1].extend(items)

    # --- the steps that would reserve memory on the file's word

    def load_frame(self) -> None:
        self.read(8)  # frames only group what follows

    def load_bytearray8(self) -> None:
        (size,) = struct.unpack("<Q", self.read(8))
        self.append(self.read(size))

    dispatch[pickle.REDUCE[0]] = load_reduce
    dispatch[pickle.NEWOBJ[0]] = load_reduce
    dispatch[pickle.NEWOBJ_EX[0]] = load_newobj_ex
    dispatch[pickle.BUILD[0]] = load_build
    dispatch[pickle.DICT[0]] = load_dict
    dispatch[pickle.SETITEM[0]] = load_setitem
    dispatch[pickle.SETITEMS[0]] = load_setitems
    dispatch[pickle.EMPTY_SET[0]] = load_empty_set
    dispatch[pickle.FROZENSET[0]] = load_frozenset
    dispatch[pickle.ADDITEMS[0]] = load_additems
    dispatch[pickle.FRAME[0]] = load_frame
    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8


def _plain(key: Any) -> Any:
    """The key if hashing it is cheap, else an Inert that stands for it."""
    if key is None or isinstance(key, str | bytes | int | float | Inert):
        return key
    if isinstance(key, tuple) and all(isinstance(k, str | bytes | int | float) for k in key):
        return key
    return Inert("key", (key,))


class _Array(Stored):
    """A numpy array: made empty, then filled by the state that follows, as numpy's own pickles do."""

    def fill(self, state: Any) -> None:
        _, shape, dtype, fortran, raw = state
        self.view(raw, dtype, shape, "F" if fortran else "C")

    def view(self, raw: Any, dtype: Any, shape: Any, order: str) -> None:
        kind = _numpy_type(dtype)
        if kind is None:  # an array of texts or objects is nothing to train with
            return
        if isinstance(raw, str):
            raw = raw.encode("latin1")  # Python 2
        array = np.frombuffer(raw, kind).reshape(tuple(int(n) for n in shape), order="F" if order == "F" else "C")
        self.shape = array.shape
        self.dtype = torch.from_numpy(np.empty(0, kind.newbyteorder("="))).dtype
        self.read = lambda: torch.from_numpy(array.astype(kind.newbyteorder("="), order="C"))


def _numpy_type(dtype: Any) -> np.dtype[Any] | None:
    """A number's numpy dtype from its inert record, or None for any other type."""
    if not isinstance(dtype, Inert) or dtype.name != "numpy.dtype" or not dtype.args:
        return None
    order = dtype.state[1] if isinstance(dtype.state, tuple) and len(dtype.state) > 1 else "="
    text = f"{order}{dtype.args[0]}"
    return np.dtype(text) if _NUMPY_TYPE.fullmatch(text) else None


def _made(name: Any, args: Any) -> Any:
    """What calling `name` with `args` stands for, if it is one of the few names known here; else an Inert."""
    if not isinstance(args, tuple):
        raise ValueError("a call without a tuple of arguments")
    if not isinstance(name, _Name):
        return Inert("call", (name, *args))
    match str(name), args:
        case "collections.OrderedDict" | "collections.defaultdict" | "builtins.dict", _:
            pairs = args[0] if args and isinstance(args[0], list) else []  # Python 2 writes [[key, value], ...]
            return {_plain(key): value for key, value in pairs}
        case "builtins.set" | "builtins.frozenset" | "builtins.list" | "builtins.tuple" | "torch.Size", (items,):
            return items
        case "torch._utils._rebuild_tensor" | "torch._utils._rebuild_tensor_v2", (storage, first, shape, stride, *_):
            return _tensor(storage, first, shape, stride)
        case "torch._utils._rebuild_tensor_v3", (storage, first, shape, stride, _, _, dtype, *_):
            return _tensor(storage, first, shape, stride, _DTYPES[dtype])
        case "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state", (tensor, *_):
            return tensor
        case "torch.nn.parameter.Parameter", (Stored() as tensor, *_):
            return tensor
        case "torch._tensor._rebuild_from_type_v2", (function, _, arguments, *_):
            return _made(function, arguments)
        case "builtins.bytes" | "builtins.bytearray", () | (bytes(),):
            return args[0] if args else b""
        case "builtins.bytearray" | "_codecs.encode", (str(text), "latin1" | "latin-1"):
            return text.encode("latin1")
        case "numpy.core.multiarray._reconstruct" | "numpy._core.multiarray._reconstruct", _:
            return _Array()
        case "numpy.core.numeric._frombuffer" | "numpy._core.numeric._frombuffer", (raw, dtype, shape, order):
            array = _Array()
            array.view(raw, dtype, shape, order)
            return array
        case "numpy.core.multiarray.scalar" | "numpy._core.multiarray.scalar", (dtype, bytes(raw)):
            kind = _numpy_type(dtype)
            return np.frombuffer(raw, kind)[0].item() if kind is not None else Inert(name, args)
    return Inert(str(name), args)


def _tensor(storage: Any, first: Any, shape: Any, stride: Any, dtype: torch.dtype | None = None) -> Stored:
    """A tensor that knows its place in the file. Raises ValueError if it reaches outside its storage."""
    if not isinstance(storage, _Storage):
        raise ValueError("a tensor without a storage")
    dtype = dtype or storage.dtype
    places = (first, *shape, *stride)
    if not all(type(n) is int and 0 <= n < 2**48 for n in places) or len(shape) != len(stride) or len(shape) > 16:
        raise ValueError("a tensor with an impossible shape")
    count = storage.size // dtype.itemsize
    elements, last = 1, first
    for n, step in zip(shape, stride, strict=True):
        elements *= n
        last += (n - 1) * step
    if elements and (elements > count or last >= count):
        raise ValueError(f"a tensor of shape {list(shape)} that is larger than its storage of {count:,} elements")
    found = Stored()
    found.shape, found.dtype = tuple(shape), dtype
    if elements:
        found.read = lambda: (
            _numbers(storage, dtype).as_strided(shape, stride, first).clone(memory_format=torch.contiguous_format)
        )
    else:
        found.read = lambda: torch.empty(tuple(shape), dtype=dtype)
    return found


def _numbers(storage: _Storage, dtype: torch.dtype) -> torch.Tensor:
    """A storage's numbers as a view of the file. Raises ValueError if they do not match the zip's checksum."""
    root = storage.root or storage
    assert root.start is not None
    if root.crc is not None:
        with memoryview(root.data) as view:
            if zlib.crc32(view[root.start : root.start + root.size]) != root.crc:
                raise ValueError(
                    f"expected storage {root.key!r} to match its checksum, found damage: download it again"
                )
        root.crc = None
    start = root.start + storage.first * root.dtype.itemsize
    numbers = torch.frombuffer(root.data, dtype=torch.uint8, count=storage.size, offset=start)
    if start % 8:  # the older format aligns nothing
        numbers = numbers.clone()
    return numbers.view(dtype)
