"""The reader against torch's own, and against files that want to run something, to exhaust memory, or are broken."""

import argparse
import collections
import io
import itertools
import os
import pickle
import random
import resource
import struct
import sys
import tarfile
import time
import types
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from bench import unpickle


class Call:
    """Pickles as a call of a function: what a hostile file holds."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> Any:
        return self.call


def foreign(module: str, name: str, **state: Any) -> Any:
    """An object of a class that exists only while the file is written; the caller removes the module again."""
    sys.modules[module] = types.ModuleType(module)
    cls = type(name, (), {"__module__": module})
    setattr(sys.modules[module], name, cls)
    value = cls()
    value.__dict__.update(state)
    return value


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def content() -> dict[str, Any]:
    """What training scripts put in a checkpoint: odd tensors, an optimizer, numpy scalars, a namespace."""
    base = torch.randn(6, 8)
    weight = torch.nn.Parameter(base.clone())
    optimizer = torch.optim.SGD([weight], 0.1, momentum=0.9)
    weight.sum().backward()
    optimizer.step()
    tensors = {
        "plain": base,
        "view": base[2:4, 1:],
        "transposed": base.t(),
        "shared": base.view(-1)[8:16],
        "parameter": weight,
        "half": base.half(),
        "bfloat16": base.bfloat16(),
        "double": base.double(),
        "long": torch.arange(5),
        "bool": base > 0,
        "uint8": torch.arange(5, dtype=torch.uint8),
        "scalar": torch.tensor(3),
        "empty": torch.empty(0, 3),
    }
    return {
        "state_dict": collections.OrderedDict(tensors),
        "optimizer": optimizer.state_dict(),
        "opt": argparse.Namespace(arch="resnet50", lr=0.03),
        "best_acc1": np.float64(67.5),
        "milestones": collections.Counter({120: 1}),
        "classes": {"dog"},
        "betas": (0.9, 0.999),
        "epoch": 200,
    }


@pytest.mark.parametrize(("form", "protocol"), [*itertools.product(["zip", "legacy"], [2, 3, 4, 5]), ("tar", 2)])
def test_tensors_equal_torch_load(tmp_path: Path, form: str, protocol: int) -> None:
    file = tmp_path / "checkpoint.pth"
    if form == "tar":
        tarred(file, content())
    else:
        torch.save(content(), file, _use_new_zipfile_serialization=form == "zip", pickle_protocol=protocol)
    found, expected = unpickle.read(file), torch.load(file, weights_only=False)
    assert found["state_dict"].keys() == expected["state_dict"].keys()
    for name, tensor in expected["state_dict"].items():
        entry = found["state_dict"][name]
        assert (entry.shape, entry.dtype) == (tuple(tensor.shape), tensor.dtype), name
        assert torch.equal(entry.read(), tensor) and entry.read().is_contiguous(), name
    momentum = found["optimizer"]["state"][0]["momentum_buffer"].read()
    assert torch.equal(momentum, expected["optimizer"]["state"][0]["momentum_buffer"])
    assert found["best_acc1"] == 67.5 and found["epoch"] == 200 and found["betas"] == (0.9, 0.999)


def tarred(file: Path, found: Any) -> None:
    """Saves in torch's format before 0.1.10, which only its legacy_load still reads. A storage's second tensor has a view of it."""
    numbers, roots = itertools.count(2**46), {}
    parts = {"storages": [], "tensors": []}
    views = []

    def numbered(tensor: torch.Tensor) -> str:
        storage, key, first = tensor.untyped_storage(), next(numbers), tensor.storage_offset()
        if storage.data_ptr() in roots and len(storage):
            count = len(storage) // tensor.itemsize - first
            views.append((next(numbers), roots[storage.data_ptr()], first, count))
            root, first = views[-1][0], 0
        else:
            root = roots[storage.data_ptr()] = next(numbers)
            kind = getattr(torch, tensor.type().split(".")[-1].replace("Tensor", "Storage"))
            content = torch.empty(0, dtype=torch.uint8).set_(storage)
            count = struct.pack("<q", len(content) // tensor.itemsize)
            parts["storages"].append(pickle.dumps((root, "cpu", kind), 2) + count + content.numpy().tobytes())
        shape = struct.pack(f"<i4x{2 * tensor.dim() + 1}q", tensor.dim(), *tensor.shape, *tensor.stride(), first)
        parts["tensors"].append(pickle.dumps((key, root, torch.FloatTensor), 2) + shape)
        return str(key)

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> str | None:
            return numbered(value) if isinstance(value, torch.Tensor) else None

    body = io.BytesIO()
    Pickler(body, 2).dump(found)
    counted = {name: pickle.dumps(len(each), 2) + b"".join(each) for name, each in parts.items()}
    counted["storages"] += pickle.dumps(views, 2)
    system = pickle.dumps({"protocol_version": 1000, "little_endian": True}, 2)
    with tarfile.open(file, "w:", format=tarfile.PAX_FORMAT) as archive:
        for name, content in ({"sys_info": system, "pickle": body.getvalue()} | counted).items():
            about = tarfile.TarInfo(name)
            about.size, about.mtime = len(content), 1.5  # half a second is a part of its own
            archive.addfile(about, io.BytesIO(content))


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_tensors_pickled_without_torch_save_are_read(tmp_path: Path, protocol: int) -> None:
    tensors = content()["state_dict"] | {"large": torch.arange(100_000.0), "half": torch.ones(3, dtype=torch.float16)}
    tensors["view"] = tensors["large"][2:9:3]
    arrays = np.arange(4, dtype="f4")
    tpu = Call(torch._utils._rebuild_device_tensor_from_numpy, arrays, torch.float32, "xla:0", False)
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps({"model": tensors, "tpu": tpu}, protocol))
    found = unpickle.read(tmp_path / "plain.pkl")
    for name, tensor in tensors.items():
        entry = found["model"][name]
        assert entry.dtype == tensor.dtype and torch.equal(entry.read(), tensor.data), name
    assert found["tpu"].read().tolist() == arrays.tolist()


def test_a_storage_inside_a_storage_and_one_named_again_and_again_are_refused(tmp_path: Path) -> None:
    inner = pickle.dumps(torch.ones(3).untyped_storage(), 4)
    head = b"".join(pickle.dumps(value, 2) for value in (unpickle.MAGIC, 1001, {}))
    load = b"ctorch.storage\n_load_from_bytes\n"
    nested = head + b"\x80\x02" + load + b"(B" + struct.pack("<I", len(inner)) + inner + b"tR."
    again = (
        b"\x80\x02" + load + b"q\0B" + struct.pack("<I", len(inner)) + inner + b"\x85q\1" + b"h\0h\1R0" * 20_000 + b"N."
    )
    for name, body in {
        "nested": b"\x80\x02" + load + b"(B" + struct.pack("<I", len(nested)) + nested + b"tR.",
        "again": again,
    }.items():
        (tmp_path / f"{name}.pkl").write_bytes(body)
        with pytest.raises(ValueError, match=r"operations|a storage that is none"):
            unpickle.read(tmp_path / f"{name}.pkl")


def test_reading_a_tensor_leaves_the_file_alone(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.pth"
    torch.save({"a": torch.ones(4)}, file)
    before = file.read_bytes()
    unpickle.read(file)["a"].read().zero_()
    assert file.read_bytes() == before
    assert torch.equal(unpickle.read(file)["a"].read(), torch.ones(4))


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_an_object_of_a_class_that_is_not_installed_becomes_a_record(tmp_path: Path, zipped: bool) -> None:
    file = tmp_path / "checkpoint.pth"
    node = foreign("apex_of_2019", "AmpState", loss_scale=65536.0)
    try:
        torch.save({"model": {"a": torch.ones(2)}, "amp": node}, file, _use_new_zipfile_serialization=zipped)
    finally:
        del sys.modules["apex_of_2019"]
    found = unpickle.read(file)
    assert repr(found["amp"]) == "<apex_of_2019.AmpState>" and found["amp"].state == {"loss_scale": 65536.0}
    assert torch.equal(found["model"]["a"].read(), torch.ones(2))


@pytest.mark.parametrize("protocol", range(6))
def test_pickled_numpy_arrays_equal_numpys(tmp_path: Path, protocol: int) -> None:
    arrays = {
        "f4": np.random.default_rng(0).normal(size=(3, 4)).astype("f4"),
        "big-endian": np.arange(6, dtype=">f8").reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6, dtype="i8").reshape(2, 3)),
        "half": np.ones(3, "f2"),
        "zero-dim": np.array(7),
        "empty": np.empty((0, 2), "f4"),
    }
    file = tmp_path / "arrays.pkl"
    file.write_bytes(pickle.dumps({"model": arrays, "__author__": "nobody", "n": np.int64(3)}, protocol))
    found = unpickle.read(file)
    for name, array in arrays.items():
        tensor = found["model"][name].read()
        assert tensor.shape == array.shape and np.array_equal(tensor.numpy(), array), name
    assert found["__author__"] == "nobody" and found["n"] == 3


def test_a_python_2_pickle_of_numpy_arrays(tmp_path: Path) -> None:
    # {'conv1_w': array([1., 2.], dtype=float32)} as numpy 1.x under Python 2 wrote it (MSRA's R-50.pkl)
    raw = np.array([1.0, 2.0], "<f4").tobytes()
    pickled = (
        b"\x80\x02}q\x00U\x07conv1_wq\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85q\x04"
        b"U\x01bq\x05\x87q\x06Rq\x07(K\x01K\x02\x85q\x08cnumpy\ndtype\nq\tU\x02f4q\nK\x00K\x01\x87q\x0bRq\x0c"
        b"(K\x03U\x01<q\rNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x0eb\x89U" + bytes([len(raw)]) + raw + b"tbs."
    )
    assert pickle.loads(pickled, encoding="latin1")["conv1_w"].tolist() == [1.0, 2.0]
    (tmp_path / "R-50.pkl").write_bytes(pickled)
    assert unpickle.read(tmp_path / "R-50.pkl")["conv1_w"].read().tolist() == [1.0, 2.0]


def test_safetensors(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(3, 2), "b": torch.randn(4).half(), "c": torch.tensor(5)}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    found = unpickle.read(tmp_path / "model.safetensors")
    assert found.texts == {"format": "pt"}
    assert found.keys() == tensors.keys() and all(torch.equal(found[k].read(), tensors[k]) for k in tensors)


# --- files that want to run something


def hostile(marker: Path) -> dict[str, bytes]:
    """Pickles that create `marker` when a pickle module follows them."""
    touch, python = f"touch {marker}", f"open({str(marker)!r}, 'w').close()"
    calls = {
        "os.system": Call(os.system, touch),
        "builtins.eval": Call(eval, python),
        "builtins.exec": Call(exec, python),
        "builtins.open": Call(open, str(marker), "w"),
        "map of eval": Call(list, Call(map, eval, [python])),
        "io": Call(io.open, str(marker), "w"),
        "pathlib": Call(Path.touch, marker),
        "torch.load": Call(torch.load, str(marker)),
        "numpy": Call(np.save, str(marker), [1]),
    }
    pickles = {name: pickle.dumps(call, 2) for name, call in calls.items()}
    pickles["in a dict"] = pickle.dumps({"model": {"a": Call(os.system, touch)}}, 2)
    pickles["as a key"] = pickle.dumps({Call(os.system, touch): 1}, 4)
    pickles["INST"] = f"(S'{touch}'\nios\nsystem\n.".encode()
    pickles["OBJ"] = f"(cos\nsystem\nS'{touch}'\no.".encode()
    pickles["REDUCE"] = f"cos\nsystem\n(S'{touch}'\ntR.".encode()
    pickles["STACK_GLOBAL"] = (
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c" + bytes([len(touch)]) + touch.encode() + b"\x85R."
    )
    pickles["getattr"] = (  # getattr(__import__("os"), "system")(touch)
        b"\x80\x02cbuiltins\ngetattr\ncbuiltins\n__import__\nS'os'\n\x85RS'system'\n\x86RS'"
        + touch.encode()
        + b"'\n\x85R."
    )
    pickles["NEWOBJ"] = b"\x80\x02cos\nsystem\n(S'" + touch.encode() + b"'\nt\x81."
    # an object whose __setstate__ is a function of the file's choice: obj.__dict__ = {"__setstate__": os.system}, then BUILD
    pickles["BUILD"] = (
        b"\x80\x02cargparse\nNamespace\n)\x81}S'__setstate__'\ncos\nsystem\nsbS'" + touch.encode() + b"'\nb."
    )
    pickles["EXT"] = b"\x80\x02\x82\x01(S'" + touch.encode() + b"'\ntR."
    pickles["persistent id"] = b"\x80\x02S'" + touch.encode() + b"'\nQ."
    return pickles


def test_the_hostile_pickles_are_hostile(tmp_path: Path) -> None:
    for name in ("REDUCE", "getattr", "BUILD", "INST"):
        marker = tmp_path / name
        pickle.loads(hostile(marker)[name])
        assert marker.exists(), name


@pytest.mark.parametrize("name", list(hostile(Path("marker"))))
@pytest.mark.parametrize("form", ["pickle", "legacy", "zip", "tar"])
def test_nothing_in_a_file_is_run(tmp_path: Path, name: str, form: str) -> None:
    marker, file = tmp_path / "marker", tmp_path / "checkpoint.pth"
    body = hostile(marker)[name]
    if form == "zip":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("archive/data.pkl", body)
    elif form == "legacy":
        head = [pickle.dumps(part, 2) for part in (unpickle.MAGIC, 1001, {})]
        file.write_bytes(b"".join(head) + body + pickle.dumps([], 2))
    elif form == "tar":
        with tarfile.open(file, "w") as archive:
            parts = {"sys_info": pickle.dumps({"little_endian": True}), "pickle": body}
            for part, content in (parts | dict.fromkeys(("storages", "tensors"), b"\x80\2K\0.N.")).items():
                about = tarfile.TarInfo(part)
                about.size = len(content)
                archive.addfile(about, io.BytesIO(content))
    else:
        file.write_bytes(body)
    try:
        found = unpickle.read(file)
    except ValueError as error:
        assert "\n" not in str(error)
    else:
        assert isinstance(found, unpickle.Inert | dict)
    assert not marker.exists() and listing(tmp_path) == ["checkpoint.pth"]


def test_a_whole_pickled_module_is_a_record(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pth")
    assert repr(unpickle.read(tmp_path / "model.pth")) == "<torch.nn.modules.linear.Linear>"


# --- files that want memory or time


def zipped(
    file: Path, body: bytes, storage: bytes = b"", method: int = zipfile.ZIP_STORED, name: str = "data/0"
) -> Path:
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("archive/data.pkl", body, zipfile.ZIP_STORED)
        archive.writestr(f"archive/{name}", storage)
    return file


def tensor_pickle(count: int, shape: tuple[int, ...], key: str = "0", first: int = 0) -> bytes:
    """A dict with one fp32 tensor of this shape in a storage of this count, in torch's words."""

    class Pickler(pickle._Pickler):
        def persistent_id(self, value: Any) -> Any:
            return ("storage", torch.FloatStorage, key, "cpu", count) if value == "STORAGE" else None

    stride = (1,) * len(shape)
    call = Call(torch._utils._rebuild_tensor_v2, "STORAGE", first, shape, stride, False, collections.OrderedDict())
    out = io.BytesIO()
    Pickler(out, 2).dump({"a": call})
    return out.getvalue()


TERA = struct.pack("<Q", 1 << 40)
BOMBS = {
    "memo index": b"\x80\x02Nr\xff\xff\xff\xff.",
    "bytes": b"\x80\x04\x8e" + TERA + b"x.",
    "bytearray": b"\x80\x05\x96" + TERA + b"x.",
    "text": b"\x80\x04\x8d" + TERA + b"x.",
    "frame": b"\x80\x04\x95" + TERA + b"N",
    "long": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    # ((((),()),((),())), ...) doubled sixty times and used as a key: its hash would take 2^60 steps
    "key of nested tuples": b"\x80\x02})" + b"2\x86" * 60 + b"Ns.",
    "nested tuples in a set": b"\x80\x04\x8f()" + b"2\x86" * 60 + b"\x90.",
    "nested lists": b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".",
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_costs_neither_memory_nor_time(tmp_path: Path, name: str) -> None:
    file = tmp_path / "bomb.pkl"
    file.write_bytes(BOMBS[name])
    try:
        unpickle.read(file)
    except ValueError as error:
        assert len(str(error)) < 500 + len(str(file))


@pytest.mark.timeout(20)
@pytest.mark.parametrize("letter", ["a", "\n", "\U0010ffff"])
def test_a_long_key_that_is_named_again_and_again_is_looked_at_and_escaped_once(tmp_path: Path, letter: str) -> None:
    text = (letter * (250_000 // len(letter.encode()))).encode()
    key = b"X" + struct.pack("<I", len(text)) + text + b"q\0"
    uses = {
        "SETITEM": b"}h\0Ns0" * 100_000,
        "SETITEMS": b"}(h\0Nu0" * 80_000,
        "DICT": b"(h\0Nd0" * 100_000,
        "REDUCE": b"ccollections\nOrderedDict\nq\1]h\0N\x86a\x85q\2" + b"0h\1h\2R" * 100_000,
        "kept": b"(" + b"}h\0Ns" * 100_000 + b"l",
    }
    for name, steps in uses.items():
        (tmp_path / "keys.pkl").write_bytes(b"\x80\x02" + key + steps + b".")
        start, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        unpickle.read(tmp_path / "keys.pkl")
        assert time.process_time() - start < 5
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000, name  # kB


def test_a_text_as_long_as_the_file_is_not_read_and_a_line_is_refused(tmp_path: Path) -> None:
    large, short = struct.pack("<Q", (1 << 31) - 100), b"X" + struct.pack("<I", 200_000) + bytes(200_000)
    cases = {
        "a step that no pickle has": b"\x80\x04\x8d" + large,
        "a line of more than 67,108,864 bytes": b"V",
        "more than 1,000,000 operations": b"(" + short * 330,
    }
    for message, start in cases.items():
        (tmp_path / "sparse.pkl").write_bytes(start)
        os.truncate(tmp_path / "sparse.pkl", 1 << 31)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(ValueError, match=message), pytest.MonkeyPatch.context() as patch:
            patch.setattr(unpickle, "OPERATIONS", 1_000_000)
            unpickle.read(tmp_path / "sparse.pkl")
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_an_array_of_many_megabytes_is_read_from_any_protocol(tmp_path: Path, protocol: int) -> None:
    array = np.random.default_rng(0).normal(size=(2048, 2048)).astype("f4")
    (tmp_path / "array.pkl").write_bytes(pickle.dumps({"a": array}, protocol))
    assert np.array_equal(unpickle.read(tmp_path / "array.pkl")["a"].read().numpy(), array)


def test_an_array_that_is_written_as_a_text_is_left_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpickle, "OPERATIONS", 1000)  # BYOL's file has 450 MB of arrays, as texts of 670 MB
    array = np.random.default_rng(0).normal(size=(512, 1024)).astype("f4")
    content = pickle.dumps({"a": array}, 2)
    (tmp_path / "array.pkl").write_bytes(content)
    found = unpickle.read(tmp_path / "array.pkl")["a"]
    assert np.array_equal(found.read().numpy(), array)
    letter = content.index("\xbf".encode(), len(content) // 4)
    for damaged in (b"\xff\xff", b"aa"):  # no UTF-8; one letter more
        (tmp_path / "array.pkl").write_bytes(content[:letter] + damaged + content[letter + 2 :])
        with pytest.raises(ValueError, match="expected an array that was written as a text, found another"):
            unpickle.read(tmp_path / "array.pkl")["a"].read()


@pytest.mark.parametrize("build", [dict, collections.OrderedDict])
@pytest.mark.parametrize("protocol", [0, 2])
def test_of_many_keys_numbers_which_can_be_made_to_collide_are_texts(tmp_path: Path, protocol: int, build: Any) -> None:
    few, many = [*range(unpickle.NUMBERS)], [5000, 0.5, -7, 1 << 62, 1e300]
    (tmp_path / "keys.pkl").write_bytes(pickle.dumps(build.fromkeys([*few, "a", *many, b"b"]), protocol))
    assert list(unpickle.read(tmp_path / "keys.pkl")) == [*few, "a", *map(str, many), b"b"]


def test_numbers_of_a_memo_count_up_so_that_none_can_be_made_to_collide(tmp_path: Path) -> None:
    file = tmp_path / "memo.pkl"
    file.write_bytes(b"\x80\x02]" + b"".join(b"Nr" + struct.pack("<I", n) + b"0" for n in range(1, 1000)) + b".")
    assert unpickle.read(file) == []
    for put in (b"r" + struct.pack("<I", 1 << 20), b"p1048576\n"):
        file.write_bytes(b"\x80\x02]" + put + b".")
        with pytest.raises(ValueError, match="a memo entry that no pickle writes"):
            unpickle.read(file)


def test_the_number_of_operations_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpickle, "OPERATIONS", 1000)
    (tmp_path / "long.pkl").write_bytes(b"\x80\x02" + b"N0" * 1000 + b"N.")
    with pytest.raises(ValueError, match="more than 1,000 operations"):
        unpickle.read(tmp_path / "long.pkl")


def test_a_tensor_is_never_larger_than_its_file(tmp_path: Path) -> None:
    good = zipped(tmp_path / "good.pth", tensor_pickle(4, (4,)), b"\0" * 16)
    assert unpickle.read(good)["a"].read().tolist() == [0.0] * 4
    empty = zipped(tmp_path / "empty.pth", tensor_pickle(4, (0, 3), first=1 << 40), b"\0" * 16)
    assert unpickle.read(empty)["a"].read().shape == (0, 3)
    cases = {
        "larger than its storage": (tensor_pickle(4, (1 << 38,)), b"\0" * 16),
        "larger than its storage of": (tensor_pickle(4, (1 << 20, 1 << 20)), b"\0" * 16),
        "instead of 4,398,046,511,104": (tensor_pickle(1 << 40, (4,)), b"\0" * 16),
        "impossible shape": (tensor_pickle(4, (-4,)), b"\0" * 16),
    }
    for message, (body, storage) in cases.items():
        with pytest.raises(ValueError, match=message):
            unpickle.read(zipped(tmp_path / "bad.pth", body, storage))


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_tensor_that_is_marked_negative_or_conjugate_is_not_read(tmp_path: Path, zipped: bool) -> None:
    marked = {"neg": torch._neg_view(torch.ones(3)), "conj": torch.ones(3, dtype=torch.complex64).conj()}
    for flag, tensor in marked.items():
        torch.save({"a": tensor}, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
        with pytest.raises(ValueError, match=rf"found one that is marked {flag}: save it with resolve_conj\(\)"):
            unpickle.read(tmp_path / "a.pth")["a"].read()
        torch.save({"a": tensor.resolve_conj().resolve_neg()}, tmp_path / "a.pth")
        assert torch.equal(unpickle.read(tmp_path / "a.pth")["a"].read(), tensor.resolve_conj().resolve_neg())


@pytest.mark.parametrize("dtype", [torch.uint16, torch.float8_e4m3fn])
def test_a_tensor_of_a_type_that_no_backbone_has_leaves_the_others_readable(tmp_path: Path, dtype: torch.dtype) -> None:
    torch.save({"a": torch.ones(3), "odd": torch.zeros(4, dtype=dtype)}, tmp_path / "a.pth")
    found = unpickle.read(tmp_path / "a.pth")
    assert found["a"].read().tolist() == [1, 1, 1] and repr(found["odd"]) == f"<tensor of {dtype}>"
    save_file({"a": torch.ones(3), "odd": torch.zeros(4, dtype=dtype)}, tmp_path / "a.safetensors")
    found = unpickle.read(tmp_path / "a.safetensors")
    assert found["a"].read().tolist() == [1, 1, 1] and repr(found["odd"]) == f"<tensor of {dtype}>"


@pytest.mark.filterwarnings("ignore:.*quantize_per_tensor:UserWarning")  # deprecated, but in files
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_an_expanded_or_quantised_tensor_leaves_the_others_readable(
    tmp_path: Path, zipped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpickle, "SPREAD", 256)
    odd = {
        "tensor of shape [16] spread over 121 elements": torch.ones(128)[::8],
        "tensor of shape [2, 64] expanded from 2 elements": torch.ones(2, 1).expand(2, 64),
        "torch._utils._rebuild_qtensor": torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8),
    }
    for name, tensor in odd.items():
        torch.save({"odd": tensor, "a": torch.ones(3)}, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
        found = unpickle.read(tmp_path / "a.pth")
        assert found["a"].read().tolist() == [1, 1, 1] and repr(found["odd"]) == f"<{name}>"


def test_a_zip_cannot_hide_a_decompression_bomb_or_leave_its_folder(tmp_path: Path) -> None:
    bomb = zipped(tmp_path / "a.pth", tensor_pickle(1 << 20, (1 << 20,)), b"\0" * (4 << 20), zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="compressed"):
        unpickle.read(bomb)
    outside = zipped(tmp_path / "b.pth", tensor_pickle(4, (4,), "../../../etc/passwd"), b"\0" * 16, name="../../x")
    with pytest.raises(ValueError, match="is not in the archive"):
        unpickle.read(outside)
    nested = tmp_path / "c.pth"
    with zipfile.ZipFile(nested, "w") as archive:
        archive.write(bomb, "inner.pth")
    with pytest.raises(ValueError, match=r"0 entries named data\.pkl"):
        unpickle.read(nested)
    assert listing(tmp_path) == ["a.pth", "b.pth", "c.pth"]


def test_a_safetensors_header_that_claims_a_terabyte(tmp_path: Path) -> None:
    header = b'{"a":{"dtype":"F32","shape":[274877906944],"data_offsets":[0,1099511627776]}}'
    file = tmp_path / "model.safetensors"
    file.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 16)
    with pytest.raises(ValueError, match="expected a whole safetensors file"):
        unpickle.read(file)
    file.write_bytes(TERA + header)
    with pytest.raises(ValueError, match="expected a whole safetensors file"):
        unpickle.read(file)


# --- files that are broken


def test_what_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="found nothing at"):
        unpickle.read(tmp_path / "absent.pth")
    with pytest.raises(ValueError, match="is a directory"):
        unpickle.read(tmp_path)
    file = tmp_path / "file.pth"
    for body, message in {
        b"": "is empty",
        b"\n<!DOCTYPE html><html>404</html>": "HTML",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n": "Git LFS",
        b"epoch 200, all is well\n": "expected a whole pickle",
        b"PK\x03\x04": "expected a whole zip",
        b"\x00" * 100: "expected a whole pickle",
        b"\x1f\x8b\x08\x00abcdef": "a gzip archive: unpack it first",
        b"\x82\xa6params\x81\xa4conv\xc0\xa4step\3": "MessagePack",
    }.items():
        file.write_bytes(body)
        with pytest.raises(ValueError, match=message):
            unpickle.read(file)


def test_of_a_sound_file_that_is_not_read_the_way_out_is_said_and_not_another_download(tmp_path: Path) -> None:
    file = tmp_path / "file.pth"
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), file)
    with pytest.raises(ValueError, match=r"found in .* a TorchScript program: save its state_dict\(\) instead$"):
        unpickle.read(file)
    file.write_bytes(b"\x08\x07\x12\x07pytorch\x1a\x052.9.0:\x04\n\x02\x08\x01")
    with pytest.raises(ValueError, match=r"found in .* an ONNX graph: give the checkpoint that it was exported from$"):
        unpickle.read(file)
    exported = torch.export.export(torch.nn.Linear(2, 2), (torch.ones(1, 2),))
    torch.export.save(exported, tmp_path / "file.pt2")
    with pytest.raises(
        ValueError, match=r"a program of torch.export: save torch.export.load\(...\).state_dict instead$"
    ):
        unpickle.read(tmp_path / "file.pt2")
    torch.save({"a": torch.ones(3)}, file)
    with zipfile.ZipFile(file) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, b"big" if name.endswith("/byteorder") else content)
    with pytest.raises(ValueError, match=r"found in .* big-endian numbers: save it on a little-endian machine$"):
        unpickle.read(file)
    np.savez_compressed(tmp_path / "arrays.npz", a=np.ones(1000))
    with pytest.raises(ValueError, match=r"arrays that are compressed: save them with numpy\.savez$"):
        unpickle.read(tmp_path / "arrays.npz")


@pytest.mark.parametrize("form", ["zip", "legacy", "tar", "pickle", "safetensors"])
def test_every_truncation_is_an_error(tmp_path: Path, form: str) -> None:
    whole, file = written(tmp_path, form), tmp_path / "cut.bin"
    for size in [*range(1, 40), *range(40, len(whole), max(1, len(whole) // 40)), len(whole) - 1]:
        file.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="expected a whole"):
            unpickle.read(file)


def test_a_flipped_weight_in_a_zip_fails_its_checksum(tmp_path: Path) -> None:
    file = tmp_path / "model.pth"
    torch.save({"a": torch.full((64,), 1.5)}, file)
    data = bytearray(file.read_bytes())
    data[data.index(struct.pack("<f", 1.5) * 8)] ^= 1
    file.write_bytes(data)
    with pytest.raises(ValueError, match="checksum"):
        unpickle.read(file)["a"].read()


def written(folder: Path, form: str) -> bytes:
    tensors = {"a.weight": torch.randn(8, 4), "b.bias": torch.randn(3), "n": torch.tensor(2)}
    file = folder / "whole.bin"
    if form == "safetensors":
        save_file(tensors, file)
    elif form == "pickle":
        file.write_bytes(pickle.dumps({"model": {k: t.numpy() for k, t in tensors.items()}}, 2))
    elif form == "tar":
        tarred(file, {"state_dict": tensors, "opt": argparse.Namespace(lr=1)})
        file.write_bytes(file.read_bytes().rstrip(b"\0"))  # what fills it up holds nothing
    else:
        torch.save(
            {"state_dict": tensors, "opt": argparse.Namespace(lr=1)}, file, _use_new_zipfile_serialization=form == "zip"
        )
    return file.read_bytes()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("form", ["zip", "legacy", "tar", "pickle", "safetensors"])
def test_a_mutated_file_is_read_or_refused_in_one_sentence(tmp_path: Path, form: str) -> None:
    whole, file = written(tmp_path, form), tmp_path / "mutated.bin"
    rng = random.Random(0)
    refused = 0
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(rng.choice([1, 2, 8])):
            data[rng.randrange(len(data))] = rng.randrange(256)
        if rng.random() < 0.2:
            start = rng.randrange(len(data))
            del data[start : start + rng.randrange(1, 64)]
        file.write_bytes(data)
        try:
            found = unpickle.read(file)
            level = found.get("state_dict", found.get("model", found)) if isinstance(found, dict) else {}
            for entry in level.values() if isinstance(level, dict) else ():
                if isinstance(entry, unpickle.Stored):
                    assert tuple(entry.read().shape) == entry.shape
        except ValueError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 50
    assert listing(tmp_path) == ["mutated.bin", "whole.bin"]


def test_a_zip_without_checksums_is_read(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": torch.arange(5.0)}, tmp_path / "model.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    assert {entry.CRC for entry in zipfile.ZipFile(tmp_path / "model.pth").infolist()} == {0}
    assert torch.equal(unpickle.read(tmp_path / "model.pth")["a"].read(), torch.arange(5.0))


def test_a_zip_of_more_than_four_gigabytes_is_read_by_its_index(tmp_path: Path) -> None:
    """As torch writes it, with a hole for the numbers: 64-bit sizes and places in the directory."""
    count, file = (1 << 30) + 4, tmp_path / "large.pth"  # of float32
    index = tensor_pickle(count, (4,))
    entries = [("archive/data/0", b"", 4 * count), ("archive/data.pkl", index, len(index))]
    directory, places = b"", []
    with file.open("wb") as out:
        for name, content, size in entries:
            places.append(out.tell())
            wide = struct.pack("<HHQQ", 1, 16, size, size)
            crc = zlib.crc32(content)
            head = struct.pack(
                "<4s5H3I2H", b"PK\3\4", 45, 0, 0, 0, 0, crc, 0xFFFFFFFF, 0xFFFFFFFF, len(name), len(wide)
            )
            out.write(head + name.encode() + wide + content)
            if not content:
                out.truncate(out.tell() + size)
                out.seek(0, os.SEEK_END)
            wide = struct.pack("<HHQQQ", 1, 24, size, size, places[-1])
            numbers = (45, 45, 0, 0, 0, 0, crc, 0xFFFFFFFF, 0xFFFFFFFF, len(name), len(wide), 0, 0, 0, 0, 0xFFFFFFFF)
            directory += struct.pack("<4s6H3I5H2I", b"PK\1\2", *numbers) + name.encode() + wide
        start = out.tell()
        end = start + len(directory)
        out.write(directory + struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, 2, 2, len(directory), start))
        out.write(struct.pack("<4sIQI", b"PK\6\7", 0, end, 1))
        out.write(struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 2, 2, len(directory), 0xFFFFFFFF, 0))
    with zipfile.ZipFile(file) as archive:  # Python's reader sees the same places
        assert [entry.header_offset for entry in archive.infolist()] == places
        assert archive.read("archive/data.pkl") == index
    assert unpickle.read(file)["a"].read().tolist() == [0.0] * 4


def test_what_safetensors_own_reader_refuses_is_refused(tmp_path: Path) -> None:
    whole, file, chance = written(tmp_path, "safetensors"), tmp_path / "mutated.safetensors", random.Random(0)
    header = 8 + int.from_bytes(whole[:8], "little")
    agreed = 0
    for _ in range(1500):
        data = bytearray(whole)
        for _ in range(chance.choice([1, 1, 2])):
            data[chance.randrange(header)] = chance.choice(b'0123456789{}[]",:FI ab')
        file.write_bytes(data)
        try:
            expected = load_file(file)
        except Exception:
            with pytest.raises(ValueError):
                unpickle.read(file)
            continue
        try:
            found = unpickle.read(file)
        except ValueError as error:
            assert "occurs twice" in str(error), bytes(data[:header])
            continue
        assert found.keys() == expected.keys() and all(torch.equal(found[k].read(), expected[k]) for k in found)
        agreed += 1
    assert agreed > 50
