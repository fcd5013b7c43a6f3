"""What the commands make of files that want to run something, to exhaust the machine, or are damaged.

All of them are read in one child process whose memory is limited; this file is also that child's program.
"""

import contextlib
import hashlib
import io
import json
import math
import os
import pickle
import random
import re
import resource
import socket
import stat
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

MEMORY = 1 << 30  # bytes that reading may take, beyond what the process has after its imports
SECONDS = 20  # of processor time for one file

# --- pickles, written by hand: each returns the bytes of one


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def name(function: str) -> bytes:
    module, _, attribute = function.rpartition(".")
    return b"c" + module.encode() + b"\n" + attribute.encode() + b"\n"


def call(function: str, *args: bytes) -> bytes:
    return name(function) + b"(" + b"".join(args) + b"tR"


def body(*parts: bytes) -> bytes:
    return b"\x80\x02" + b"".join(parts) + b"."


def number(n: int) -> bytes:
    raw = pickle.encode_long(n)
    return b"\x8a" + bytes([len(raw)]) + raw


def numbers(*ns: int) -> bytes:
    return b"(" + b"".join(number(n) for n in ns) + b"t"


def tensor(
    count: int,
    shape: tuple[int, ...],
    stride: tuple[int, ...] = (1,),
    first: int = 0,
    key: str = "0",
    kind: str = "Float",
) -> bytes:
    """A dict with one tensor, in torch's words."""
    storage = b"(" + text("storage") + name(f"torch.{kind}Storage") + text(key) + text("cpu") + number(count) + b"tQ"
    made = call(
        "torch._utils._rebuild_tensor_v2", storage, number(first), numbers(*shape), numbers(*stride), b"\x89", b"}"
    )
    return body(b"}", text("conv1.weight"), made, b"s")


def running(marker: Path) -> dict[str, bytes]:
    """Pickles that create `marker` in the hands of a reader that follows them."""
    touch, python = text(f"touch {marker}"), text(f"open({str(marker)!r}, 'w').close()")
    system = call("posix.system", touch)
    inner = body(system)
    return {
        "os.system": body(system),
        "eval": body(call("builtins.eval", python)),
        "exec": body(call("builtins.exec", python)),
        "Python 2's eval": body(call("__builtin__.eval", python)),
        "open": body(call("builtins.open", text(str(marker)), text("w"))),
        "subprocess": body(call("subprocess.check_output", b"]" + text("touch") + b"a" + text(str(marker)) + b"a")),
        "getattr": body(
            call("builtins.getattr", call("builtins.__import__", text("os")), text("system")), b"(", touch, b"tR"
        ),
        "importlib": body(
            call("builtins.getattr", call("importlib.import_module", text("os")), text("system")), b"(", touch, b"tR"
        ),
        "a chain of calls": body(call("functools.reduce", name("builtins.getattr"), b"]" + system + b"a", name("os"))),
        "map of eval": body(call("builtins.list", call("builtins.map", name("builtins.eval"), b"]" + python + b"a"))),
        "partial": body(call("functools.partial", name("posix.system"), touch), b"(tR"),
        "methodcaller": body(call("operator.methodcaller", text("system"), touch), b"(", name("os.path"), b"tR"),
        "code object": body(call("types.FunctionType", call("marshal.loads", b"U\x01c"), b"}"), b"(tR"),
        "a pickle in a pickle": body(call("pickle.loads", b"B" + struct.pack("<I", len(inner)) + inner)),
        "torch.load": body(call("torch.load", text(str(marker)), text("cpu"))),
        "torch's compiler": body(call("torch.utils.cpp_extension.load_inline", text("x"), text("int main(){}"))),
        "numpy.save": body(call("numpy.save", text(str(marker)), b"]K\x01a")),
        "runpy": body(call("runpy.run_path", text(str(marker)))),
        "ctypes": body(call("ctypes.CDLL", text(str(marker)))),
        "copyreg": body(call("copyreg._reconstructor", name("posix.system"), name("builtins.object"), b"N")),
        "reduce in a reduce": body(name("posix.system"), b"(", call("posix.system", touch), b"tR"),
        "__setstate__": body(
            name("argparse.Namespace"), b")\x81}", text("__setstate__"), name("posix.system"), b"sb", touch, b"b"
        ),
        "__class__": body(name("argparse.Namespace"), b")\x81}", text("__class__"), name("subprocess.Popen"), b"sb"),
        "INST": b"(S'" + f"touch {marker}".encode() + b"'\nios\nsystem\n.",
        "OBJ": b"(cos\nsystem\nS'" + f"touch {marker}".encode() + b"'\no.",
        "NEWOBJ": body(name("posix.system"), b"(", touch, b"t\x81"),
        "NEWOBJ_EX": b"\x80\x04" + name("posix.system") + b"(" + touch + b"t}\x92.",
        "STACK_GLOBAL": b"\x80\x04\x8c\x05posix\x8c\x06system\x93(" + touch + b"tR.",
        "extension": body(b"\x82\x01(", touch, b"tR"),
        "persistent id": body(touch, b"Q"),
        "a key of a dict": body(b"}", system, b"K\x01s"),
        "a tensor's hooks": body(
            call("torch._tensor._rebuild_from_type_v2", name("posix.system"), b"N", b"(" + touch + b"t", b"N")
        ),
        "a parameter's state": body(call("torch._utils._rebuild_parameter_with_state", system, b"\x89", b"}", b"}")),
    }


def exhausting() -> dict[str, bytes]:
    """Pickles of at most ten megabytes that want gigabytes or hours."""
    tera = struct.pack("<Q", 1 << 40)
    args = b"(" + b"N" * 100_000 + b"tq\x01"  # a tuple of a hundred thousand, memoised
    doubled = b")" + b"2\x86" * 60  # sixty times a pair of twice itself: a hash or a text of it has 2^60 parts
    rebuild = name("torch._tensor._rebuild_from_type_v2")
    laughs = b"]q\x00" + b"".join(b"](h" + bytes([n]) + b"h" + bytes([n]) + b"eq" + bytes([n + 1]) for n in range(100))
    collisions = b"".join(b"(" + number(n) + number(-n * 3 % (1 << 60)) + b"tN" for n in range(100_000))
    return {
        "memo entry": b"\x80\x02Nr\xff\xff\xff\xff.",
        "memo entries that collide": b"N"
        + b"".join(b"p%d\n" % (n * ((1 << 61) - 1)) for n in range(1, 100_000))
        + b".",
        "bytes of a terabyte": b"\x80\x04\x8e" + tera + b"x.",
        "byte array of a terabyte": b"\x80\x05\x96" + tera + b"x.",
        "text of a terabyte": b"\x80\x04\x8d" + tera + b"x.",
        "frame of a terabyte": b"\x80\x04\x95" + tera + b"N",
        "number of two gigabytes": b"\x80\x02\x8b\xff\xff\xff\x7f.",
        "number of a million digits": b"L" + b"9" * 1_000_000 + b"L\n.",
        "key of nested tuples": body(b"}", doubled, b"Ns"),
        "set of nested tuples": b"\x80\x04\x8f(" + doubled + b"\x90.",
        "reference of nested tuples": body(doubled, b"Q"),
        "reference of a kind of nested tuples": body(doubled, b"N\x86Q"),
        "dtype of nested tuples": body(
            call("numpy.core.multiarray._reconstruct", b"N", b"N", b"N"),
            b"(K\x01K\x01\x85",
            name("numpy.dtype"),
            b"(",
            text("f4"),
            b"tR(K\x03",
            doubled,
            b"NNNtb\x89U\x00tb",
        ),
        "billion laughs": body(laughs),
        "keys that collide": body(b"}(", collisions, b"u"),
        "lists in lists": b"\x80\x02" + b"]" * 300_000 + b"a" * 299_999 + b".",
        "objects in objects": body(name("x.y"), b"q\x00N" + b"\x85q\x01h\x00h\x01R" * 150_000),
        "tensors in tensors": body(rebuild, b"q\x00N", b"q\x01h\x00Nh\x01\x87" * 200_000, b"q\x01h\x00h\x01R"),
        "a long argument, again and again": body(args, b"0N" + b"h\x01R" * 200_000),
        "a long list, again and again": body(
            b"]("
            + b"(NNt" * 100_000
            + b"e\x85q\x01"
            + name("collections.OrderedDict")
            + b"q\x02"
            + b"h\x02h\x01R0" * 100_000
        ),
        "a long name, again and again": b"\x80\x04"
        + b"\x8c\xff"
        + b"a" * 255
        + b"\x94"
        + text("b" * 100_000)
        + b"\x94"
        + b"h\x01h\x00\x93" * 100_000
        + b".",
        "a long text, again and again": body(
            b"("
            + text("x" * 1_000_000)
            + text("latin1")
            + b"tq\x01"
            + name("_codecs.encode")
            + b"q\x02"
            + b"h\x02h\x01R0" * 100_000
        ),
        "ten million steps": b"\x80\x02" + b"N0" * 10_000_000 + b"N.",
        "three hundred thousand objects": body(name("x.y") + b"q\x00)q\x01(", b"h\x00h\x01R" * 300_000, b"l"),
        "a dict in itself": body(b"}q\x00", text("state_dict"), b"h\x00s"),
        "a list in itself": body(b"]q\x00h\x00a"),
        "no end": b"\x80\x02}q\x00",
        "no beginning": b".",
        "an unknown step": b"\x80\x02\xf0.",
        "a protocol to come": b"\x80\x63N.",
        "a call of nothing": b"\x80\x02R.",
        "a mark of nothing": b"\x80\x02t.",
    }


def misplaced() -> dict[str, bytes]:
    """Tensors that are not inside their storage of four numbers, for the index of a torch zip."""
    return {
        "a shape of a terabyte": tensor(4, (1 << 38,)),
        "a storage of a terabyte": tensor(1 << 38, (4,)),
        "a shape whose product overflows": tensor(4, (1 << 33, 1 << 33), (1, 1)),
        "a shape of more than 64 bits": tensor(4, (1 << 70,)),
        "a negative shape": tensor(4, (-4,)),
        "a negative stride": tensor(4, (2,), (-1,)),
        "a stride that leaves": tensor(4, (2,), (4,)),
        "a stride that overflows": tensor(4, (2,), (1 << 63,)),
        "a negative place": tensor(4, (1,), (1,), first=-1),
        "a place behind": tensor(4, (1,), (1,), first=4),
        "a place that overflows": tensor(4, (1,), (1,), first=1 << 62),
        "strides for other dimensions": tensor(4, (2, 2), (1,)),
        "a hundred dimensions": tensor(4, (1,) * 100, (1,) * 100),
        "a storage of another type": tensor(4, (4,), kind="Double"),
        "a storage of no type": tensor(4, (4,), kind="Evil"),
        "a storage that is not there": tensor(4, (4,), key="7"),
        "a storage above the archive": tensor(4, (4,), key="../../../../etc/passwd"),
        "a negative storage": tensor(-4, (4,)),
    }


# --- containers


def archive(file: Path, entries: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(file, "w", method) as out:
        for entry, content in entries:
            out.writestr(entry, content)


def archives(folder: Path) -> None:
    """Zip files that are not what they seem."""
    good = [("archive/data.pkl", tensor(4, (4,))), ("archive/data/0", bytes(16))]
    archive(folder / "compressed storage.pth", [good[0], ("archive/data/0", bytes(1 << 26))], zipfile.ZIP_DEFLATED)
    archive(
        folder / "compressed index.pth",
        [("archive/data.pkl", b"\x80\x02" + b"N0" * (1 << 24) + b"N.")],
        zipfile.ZIP_DEFLATED,
    )
    archive(folder / "no index.pth", [("archive/other", b"")])
    archive(folder / "two indices.pth", [good[0], ("data.pkl", good[0][1]), good[1]])
    archive(folder / "program.pth", [*good, ("archive/constants.pkl", b"")])
    archive(folder / "big-endian.pth", [*good, ("archive/byteorder", b"big")])
    archive(folder / "leaves its folder.pth", [*good, ("../../../../tmp/evil", b"x"), ("/etc/evil", b"x")])
    archive(folder / "inner.pth", good)
    archive(folder / "archive in an archive.pth", [("inner.pth", (folder / "inner.pth").read_bytes())])
    plain = (folder / "inner.pth").read_bytes()
    with pytest.warns(UserWarning, match="Duplicate name"):
        archive(folder / "one name twice.pth", [*good, ("archive/data/0", bytes(16))])
    end = plain.rindex(b"PK\5\6")
    count, size, start = struct.unpack_from("<HII", plain, end + 10)

    def ending(count: int, size: int, start: int) -> bytes:
        return plain[:end] + b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, count, count, size, start, 0)

    (folder / "a directory of 65,534 entries.pth").write_bytes(ending(65_534, size, start))
    (folder / "a directory of four gigabytes.pth").write_bytes(ending(count, 0xFFFFFFF0, start))
    (folder / "a directory outside.pth").write_bytes(ending(count, size, len(plain)))
    wide = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, 1 << 60, 1 << 60, 1 << 62, 1 << 62)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, end, 1)
    (folder / "a directory of exabytes.pth").write_bytes(plain[:end] + wide + locator + plain[end:])
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, 1 << 63, 1)
    (folder / "a directory at no place.pth").write_bytes(plain[:end] + locator + plain[end:])
    first = plain.index(b"PK\1\2")
    (folder / "encrypted.pth").write_bytes(plain[: first + 8] + b"\1" + plain[first + 9 :])
    (folder / "another name at its place.pth").write_bytes(plain[:30] + b"archive/atad.pkl" + plain[46:])
    second = plain.index(b"PK\1\2", first + 1)
    (folder / "entries that overlap.pth").write_bytes(plain[: second + 42] + bytes(4) + plain[second + 46 :])
    (folder / "no directory.pth").write_bytes(plain[:end])
    (folder / "only an end.pth").write_bytes(b"PK\5\6" + bytes(18))
    archive(folder / "objects.npz", [("conv1.weight.npy", npy("|O", "(4,)", pickle.dumps([1, 2])))])
    archive(
        folder / "header of code.npz",
        [("conv1.weight.npy", npy("'+__import__('os').system('false')+'", "(4,)", bytes(16)))],
    )
    archive(folder / "terabyte.npz", [("conv1.weight.npy", npy("<f4", f"({1 << 38},)", bytes(16)))])
    archive(folder / "nested header.npz", [("conv1.weight.npy", npy("<f4", "(" * 4000 + ")" * 4000, bytes(16)))])
    archive(
        folder / "packed.npz", [("conv1.weight.npy", npy("<f4", "(1048576,)", bytes(1 << 22)))], zipfile.ZIP_DEFLATED
    )


def npy(dtype: str, shape: str, content: bytes) -> bytes:
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + content


def safetensors(folder: Path) -> None:
    """Headers that lie."""

    def write(title: str, header: str | bytes, data: bytes = bytes(16), size: int | None = None) -> None:
        raw = header.encode() if isinstance(header, str) else header
        (folder / f"{title}.safetensors").write_bytes(
            struct.pack("<Q", len(raw) if size is None else size) + raw + data
        )

    def entry(first: int, end: int, shape: str = "[4]", dtype: str = '"F32"', name: str = "conv1.weight") -> str:
        return f'"{name}":{{"dtype":{dtype},"shape":{shape},"data_offsets":[{first},{end}]}}'

    write("header of a terabyte", "{" + entry(0, 16) + "}", size=1 << 40)
    write("header of all there is", "{" + entry(0, 16) + "}", size=(1 << 64) - 1)
    write("tensor of a terabyte", "{" + entry(0, 1 << 40, f"[{1 << 38}]") + "}")
    write("tensors that overlap", "{" + entry(0, 16) + "," + entry(8, 24, name="b") + "}", bytes(24))
    write("a hole", "{" + entry(0, 16) + "," + entry(20, 36, name="b") + "}", bytes(36))
    write("data that nothing names", "{" + entry(0, 16) + "}", bytes(64))
    write("outside", "{" + entry(16, 32) + "}")
    write("backwards", "{" + entry(16, 0) + "}")
    write("negative offsets", "{" + entry(-16, 0) + "}")
    write("negative shape", "{" + entry(0, 16, "[-2,-2]") + "}")
    write("overflowing shape", "{" + entry(0, 16, f"[{1 << 62},4,{1 << 62}]") + "}")
    write("fractional shape", "{" + entry(0, 16, "[4.0]") + "}")
    write("true as a shape", "{" + entry(0, 4, "[true]") + "}", bytes(4))
    write("unknown type", "{" + entry(0, 16, dtype='"F7"') + "}")
    write("list as a type", "{" + entry(0, 16, dtype="[[]]") + "}")
    write("one name twice", "{" + entry(0, 16) + "," + entry(0, 16) + "}")
    write("nested", '{"a":' + "[" * 100_000 + "]" * 100_000 + "}")
    write("digits", '{"a":' + "9" * 100_000 + "}")
    write("no JSON", b"{" + bytes(100))
    write("no UTF-8", b'{"\xff":1}')
    write("list of tensors", "[" + "{}," * 10 + "{}]")
    write("entry of nothing", '{"a":null}')
    write("metadata of numbers", '{"__metadata__":{"a":1},' + entry(0, 16) + "}")
    write("no numbers", "{" + entry(0, 0, "[0]") + "}", b"")


def odd_files(folder: Path) -> None:
    """Things that are named like a checkpoint and are none."""
    (folder / "empty.pth").write_bytes(b"")
    (folder / "page.pth").write_bytes(b"<!DOCTYPE html><title>404</title>")
    (folder / "pointer.pth").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    (folder / "noise.pth").write_bytes(random.Random(0).randbytes(10_000))
    (folder / "zeros.pth").write_bytes(bytes(10_000))
    (folder / "text.pth").write_text("epoch 200, all is well\n" * 100)
    (folder / "packed.pth.gz").write_bytes(b"\x1f\x8b\x08\0" + bytes(100))
    (folder / "net.onnx").write_bytes(b"\x08\x07\x12\x07pytorch\x1a\x052.9.0:\x04\n\x02\x08\x01")
    torch.save(torch.ones(3), folder / "tensor.pth")
    (folder / "tape.tar").write_bytes(bytes(257) + b"ustar" + bytes(1000))
    (folder / "keras.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    (folder / "index.json").write_text('{"weight_map": {"conv1.weight": "model-00001.safetensors"}}')
    for title in ("noise", "zeros"):
        (folder / f"{title}.index").write_bytes((folder / f"{title}.pth").read_bytes())
    (folder / "folder.pth").mkdir()
    (folder / "loop.pth").symlink_to("loop.pth")
    (folder / "nowhere.pth").symlink_to("absent")
    (folder / "zero.pth").symlink_to("/dev/zero")
    (folder / "random.pth").symlink_to("/dev/urandom")
    (folder / "passwd.pth").symlink_to("/etc/passwd")
    os.mkfifo(folder / "pipe.pth")
    with socket.socket(socket.AF_UNIX) as listener, contextlib.chdir(folder):
        listener.bind("socket.pth")
    (folder / "a name\nof two lines\x1b[2J.pth").write_bytes(b"x")


def keys(folder: Path) -> None:
    """Names of tensors that would do something to a terminal, or fill it."""
    odd = ["\x1b]0;evil\x07\x1b[2J", "two\nlines", "\u202egnp.exe", "x" * 1_000_000, "", " ", "../../etc/passwd", "\0"]
    torch.save({"state_dict": {key: torch.ones(2) for key in odd}}, folder / "odd keys.pth")
    torch.save(
        {1: torch.ones(2), None: torch.ones(2), 1.5: torch.ones(2), b"a": torch.ones(2)}, folder / "no texts.pth"
    )
    half = text("x").replace(b"\1\0\0\0x", b"\3\0\0\0\xed\xa0\x80")  # half a surrogate pair
    (folder / "half a letter.pth").write_bytes(body(b"}", half, b"K\x01s"))


def written(folder: Path, marker: Path) -> None:
    """All hostile files, into a folder."""
    for title, content in running(marker).items():
        (folder / f"{title}.pkl").write_bytes(content)
        archive(folder / f"{title}.pth", [("archive/data.pkl", content)])
        head = b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {}))
        (folder / f"{title}, before 1.6.pth").write_bytes(head + content + pickle.dumps([], 2))
    for title, content in exhausting().items():
        (folder / f"{title}.pkl").write_bytes(content)
    for title, content in misplaced().items():
        archive(folder / f"{title}.pth", [("archive/data.pkl", content), ("archive/data/0", bytes(16))])
    archives(folder)
    safetensors(folder)
    odd_files(folder)
    keys(folder)


# --- the child: reads every file of a folder with the commands, in little memory


def limited() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def commanded(*words: str) -> dict[str, Any]:
    """A command of bench, in this process: exit code, both outputs and the processor's seconds."""
    from bench import cli

    out, err, code, start = io.StringIO(), io.StringIO(), 0, time.process_time()
    sys.argv = ["bench", *words]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
    return {"code": code, "out": out.getvalue(), "err": err.getvalue(), "seconds": time.process_time() - start}


def read_all(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    from bench import sources  # noqa: F401  before memory is limited
    from downstream import weights  # noqa: F401

    heavy = exhausting()
    limited()
    for file in sorted(folder.iterdir()):
        if file.stem not in heavy:  # these are read once
            yield (
                f"convert {file.name}",
                commanded("convert", str(file), str(folder / "out.pth"), "--to", "torchvision"),
            )
        yield f"inspect {file.name}", commanded("inspect", str(file), "--json")


# --- real files, damaged


@cache
def resnet18() -> Mapping[str, torch.Tensor]:
    """A ResNet-18 in fp16 whose tensors are views of one block of numbers, which keeps a torch file small."""
    from downstream import resnets

    numbers = torch.rand(512 * 512 * 9, generator=torch.Generator().manual_seed(0)).add(0.5).half()
    shapes = resnets.shapes(resnets.arch("resnet18"))
    return {
        key: torch.tensor(7) if key.endswith("num_batches_tracked") else numbers[: math.prod(shape)].view(shape)
        for key, shape in shapes.items()
    }


def weights() -> dict[str, torch.Tensor]:
    return dict(resnet18())


def torch_file(file: Path, content: Any, zipped: bool) -> None:
    torch.save(content, file, _use_new_zipfile_serialization=zipped)


COUNTS = {
    "zip.pth": 600,
    "legacy.pth": 400,
    "model.safetensors": 700,
    "python3.pkl": 150,
    "arrays.npz": 110,
    "pickle.pkl": 40,
}
WRITERS: dict[str, Callable[[Path, dict[str, torch.Tensor]], Any]] = {
    "zip.pth": lambda file, tensors: torch_file(file, {"state_dict": tensors, "epoch": 3}, True),
    "legacy.pth": lambda file, tensors: torch_file(file, {"state_dict": tensors, "epoch": 3}, False),
    "pickle.pkl": lambda file, tensors: file.write_bytes(pickle.dumps({"state_dict": arrays(tensors)}, 2)),
    "python3.pkl": lambda file, tensors: file.write_bytes(pickle.dumps({"state_dict": arrays(tensors)}, 4)),
    "model.safetensors": lambda file, tensors: save_file({key: t.clone() for key, t in tensors.items()}, file),
    "arrays.npz": lambda file, tensors: np.savez(file, **arrays(tensors)),
}


def arrays(tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    return {key: tensor.numpy() for key, tensor in tensors.items()}


def places(file: Path) -> list[int]:
    """Where bytes are that say something: not in the middle of a tensor."""
    content = np.fromfile(file, np.uint8)
    names = [b"conv1.weight", b"layer", b"PK", b"storage", b"dtype", b"numpy", b"torch", b"NUMPY"]
    found = [at for name in names for at in _all(content.tobytes(), name)]
    near = [at + step for at in found for step in range(-48, 112)]
    edges = [*range(1000), *range(len(content) - 1000, len(content))]
    return sorted({at for at in [*near, *edges] if 0 <= at < len(content)})


def _all(content: bytes, name: bytes) -> Iterator[int]:
    at = content.find(name)
    while at >= 0:
        yield at
        at = content.find(name, at + 1)


@contextlib.contextmanager
def damaged(file: Path, chance: random.Random, likely: list[int]) -> Iterator[str]:
    """The file with bits flipped, bytes overwritten, two parts exchanged, or its end cut off; afterwards whole again."""
    size = file.stat().st_size
    kind = chance.choice(["bit", "bits", "bytes", "zeros", "exchanged", "cut", "cut", "longer"])
    at = chance.choice(likely) if chance.random() < 0.8 else chance.randrange(size)
    length = min(chance.choice([1, 2, 4, 8, 64, 1000]), size - at)
    undo: list[tuple[int, bytes]] = []
    with file.open("r+b") as out:

        def get(place: int, count: int) -> bytes:
            out.seek(place)
            return out.read(count)

        def put(place: int, content: bytes) -> None:
            undo.append((place, get(place, len(content))))
            out.seek(place)
            out.write(content)

        old = get(at, length)
        if kind == "cut":
            undo.append((at, get(at, size - at)))
            out.truncate(at)
        elif kind == "longer":
            put(size, chance.randbytes(length))
        elif kind == "exchanged":
            other = min(chance.choice(likely), size - length)
            two = get(other, length)
            put(at, two)
            put(other, old)
        else:
            new = bytearray({"zeros": bytes(length), "bytes": chance.randbytes(length)}.get(kind, old))
            for _ in range({"bit": 1, "bits": 8}.get(kind, 0)):
                new[chance.randrange(length)] ^= 1 << chance.randrange(8)
            put(at, bytes(new))
        out.flush()
        yield f"{file.name}, {kind} at {at}, {length} bytes"
        for place, content in reversed(undo):
            out.seek(place)
            out.write(content)
        out.truncate(size)


def rewritten(file: Path, chance: random.Random) -> str:
    """A file of the same container that says something else: keys exchanged, types changed, NaN, nothing."""
    tensors: dict[str, Any] = weights()
    one, two = chance.sample(list(tensors), 2)
    kind = chance.choice(
        ["exchanged", "type", "nan", "infinity", "zeros", "negative", "none", "gone", "more", "shape", "empty"]
    )
    if kind == "exchanged":
        tensors[one], tensors[two] = tensors[two], tensors[one]
    elif kind == "type":
        tensors[one] = tensors[one].to(
            chance.choice([torch.int32, torch.bool, torch.complex64, torch.float64, torch.uint8])
        )
    elif kind in ("nan", "infinity", "zeros", "negative"):
        tensors[one] = tensors[one].clone()
        value = {"nan": math.nan, "infinity": -math.inf, "zeros": 0.0, "negative": -1.0}[kind]
        where = ... if kind == "zeros" else (0,) * tensors[one].dim()
        tensors[one][where] = value if tensors[one].is_floating_point() else -1
    elif kind == "gone":
        del tensors[one]
    elif kind == "more":
        tensors[f"{one}.more"] = tensors[one]
    elif kind == "shape":
        tensors[one] = tensors[one].reshape(-1)[:-1]
    elif kind == "empty":
        tensors = {}
    WRITERS[file.name](file, tensors)
    return f"{file.name}, {kind} {one} {two}"


def outcome(file: Path, what: str, truth: dict[str, torch.Tensor]) -> dict[str, Any]:
    """What reading gave: a sentence, or a backbone that may be believed."""
    from bench import sources

    start = time.process_time()
    try:
        found = sources.backbone(file)
    except (ValueError, FileNotFoundError) as error:
        return {"what": what, "sentence": str(error), "seconds": time.process_time() - start}
    seconds = time.process_time() - start
    whole = list(found.tensors) == list(truth)
    others = [key for key, t in found.tensors.items() if not torch.equal(t, truth[key])]
    whole &= all(found.tensors[key].shape == truth[key].shape and finite(found.tensors[key]) for key in others)
    return {"what": what, "sentence": "", "whole": whole, "others": others, "seconds": seconds}


def finite(tensor: torch.Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())


def damage(folder: Path) -> list[dict[str, Any]]:
    """Damaged files of every container, read one after the other; every tenth is written anew."""
    torch.set_num_threads(1)
    truth = {
        key: tensor.to(tensor.dtype if tensor.dtype == torch.int64 else torch.float32)
        for key, tensor in weights().items()
    }
    from bench import sources  # noqa: F401  before memory is limited

    limited()
    found = []
    for number, (title, count) in enumerate(COUNTS.items()):
        chance, file = random.Random(number), folder / title
        WRITERS[title](file, weights())
        assert outcome(file, title, truth).get("others") == [], outcome(file, title, truth)
        likely = places(file)
        for _ in range(count - count // 10):
            with damaged(file, chance, likely) as what:
                found.append(outcome(file, what, truth))
        assert outcome(file, title, truth).get("others") == [], "this test did not restore the file"
        for _ in range(count // 10):
            found.append(outcome(file, rewritten(file, chance), truth))
        file.unlink()
    return found


def child(task: str, *words: str) -> dict[str, Any]:
    """What this file's own `task` prints, in a process of its own, which keeps its memory instead of asking for it anew."""
    quiet = {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "1073741824", "MALLOC_TRIM_THRESHOLD_": "4294967296"}
    done = subprocess.run(
        [sys.executable, __file__, task, *words],
        capture_output=True,
        text=True,
        timeout=280,
        env=os.environ | quiet,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def state(folder: Path) -> dict[str, tuple[int, int, int]]:
    return {
        path.name: (path.lstat().st_size, path.lstat().st_mtime_ns, stat.S_IFMT(path.lstat().st_mode))
        for path in folder.iterdir()
    }


def test_hostile_files_end_in_one_sentence_and_nothing_runs(tmp_path: Path) -> None:
    folder, marker = tmp_path / "files", tmp_path / "marker"
    folder.mkdir()
    written(folder, marker)
    before = state(folder)
    assert len(before) > 150
    found = child("hostile", str(folder))
    assert not marker.exists() and state(folder) == before
    assert len(found) == 2 * len(before) - len(exhausting())
    for what, result in found.items():
        assert result["code"] == 2, (what, result)
        lines = result["err"].splitlines()
        assert len(lines) == 1 and lines[0].startswith("bench: expected"), (what, result)
        assert lines[0].isprintable() and len(lines[0]) < 1500, (what, result)
        assert result["seconds"] < SECONDS, (what, result)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system has no /proc")
def test_a_file_without_a_size_is_not_read_for_its_digest() -> None:
    from bench import content

    assert content.sha256(Path("/proc/self/status")) == hashlib.sha256().hexdigest()  # as /proc/kmsg, which blocks


def whole(folder: Path, **beside: Any) -> Path:
    """A ResNet-18 and what stands beside it in the file."""
    torch.save({"state_dict": weights(), **beside}, folder / "checkpoint.pth")
    return folder / "checkpoint.pth"


class Touch:
    """Pickles as a call that creates a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


def test_a_whole_backbone_beside_a_call_is_read_and_the_call_is_named(tmp_path: Path) -> None:
    file = whole(
        tmp_path, opt=Touch(tmp_path / "marker"), arch="\x1b[2J\x1b]0;evil\x07\nbench: all is well", epoch=10**400
    )
    before = state(tmp_path)
    result = commanded("inspect", str(file))
    assert result["code"] == 0 and "<posix.system>" in result["out"], result
    assert all(line.isprintable() for line in result["out"].splitlines())
    assert not any(line.startswith("bench: all is well") for line in result["out"].splitlines())
    assert commanded("inspect", str(file), "--json")["code"] == 0
    assert state(tmp_path) == before


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("key", ["layer3.1.conv2.weight", "bn1.running_mean"])
def test_nan_and_infinity_are_refused_by_name_where_values_are_read(tmp_path: Path, key: str, value: float) -> None:
    from bench import journey, report

    tensors = weights()
    tensors[key] = tensors[key].clone()
    tensors[key].view(-1)[-1] = value
    file = tmp_path / "diverged.pth"
    torch.save({"state_dict": tensors}, file)
    sentence = f"found NaN or infinity in '{key}': this training diverged"
    result = commanded("inspect", str(file))  # describes the index, and says so
    assert result["code"] == 0 and "values      not read: convert, transfer and report refuse NaN" in result["out"]
    result = commanded("convert", str(file), str(tmp_path / "out.pth"), "--to", "torchvision")
    assert result["code"] == 2 and sentence in result["err"], result
    with pytest.raises(ValueError, match=re.escape(sentence)):
        journey.opened(str(file), None, "mini")
    with pytest.raises(ValueError, match=re.escape(sentence)):
        report.write(str(file), tmp_path / "card", tmp_path, None, None)
    assert list(state(tmp_path)) == ["diverged.pth"]


def test_two_thousand_damaged_files_are_refused_in_one_sentence_or_read_right(tmp_path: Path) -> None:
    found = child("damage", str(tmp_path))
    assert len(found) == sum(COUNTS.values()) == 2000 and not list(tmp_path.iterdir())
    for result in found:
        sentence = result["sentence"]
        assert result["seconds"] < SECONDS, result
        if sentence:
            assert sentence.startswith("expected") and "\n" not in sentence and len(sentence) < 1500, result
        else:
            assert result["whole"], result
            # a zip has checksums: what is read is what was written, unless the file was written anew
            assert not result["others"] or not result["what"].startswith("zip.pth, ") or " at " not in result["what"], (
                result
            )
    refused = sum(bool(result["sentence"]) for result in found)
    assert refused > 1000, refused


if __name__ == "__main__":
    tasks: dict[str, Callable[..., Any]] = {
        "hostile": lambda folder: dict(read_all(Path(folder))),
        "damage": lambda folder: damage(Path(folder)),
    }
    print(json.dumps(tasks[sys.argv[1]](*sys.argv[2:])))
