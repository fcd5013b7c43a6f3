"""What is in a checkpoint file, in the .json files beside it, and in its words; no value is read and nothing is judged here."""

import hashlib
import itertools
import json
import re
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.unpickle import Stored


Outer = tuple[str, ...]  # the keys, from the outermost dict on, of the dict that holds tensors; () is the file itself


@dataclass(frozen=True)
class File:
    """What is in a file, in the .json files beside it, and in its words."""

    path: Path
    files: list[Path]  # more than one for TensorFlow
    content: dict[Any, Any]
    sidecars: dict[str, dict[str, Any]]  # "bench", "timm", "transformers"
    words: str
    levels: dict[Outer, "Level"] = field(default_factory=dict)  # those that were looked at

    def level(self, outer: Outer) -> "Level":
        """The tensors of one level of the file."""
        if outer not in self.levels:
            self.levels[outer] = Level.of(self.content, outer)
        return self.levels[outer]

    @property
    def orderless(self) -> bool:
        """Whether the format keeps neither the order of the keys nor anything beside them."""
        from bench.unpickle import Safetensors

        return isinstance(self.content, Safetensors)


COMPILED = "_orig_mod."  # in front of what torch.compile was given: the network, or any part of it
WRAPPERS = ("module.", COMPILED)  # the first is DistributedDataParallel's


@dataclass(frozen=True)
class Level:
    """The tensors of one level of a file, without what wraps all of their keys or was compiled."""

    tensors: dict[str, "Stored"]  # by key in the file
    wrapped: str  # in front of every key
    keys: dict[str, str]  # key without it: key in the file
    beginnings: frozenset[str]  # of these keys, up to and with each of the first dots and slashes
    objects: dict[str, Any]  # what is no plain tensor: sparse and quantised ones, the training code's own

    @classmethod
    def of(cls, content: Mapping[Any, Any], outer: Outer) -> "Level":
        from bench.unpickle import Inert, Stored

        level: Any = content
        for key in outer:
            level = level.get(key) if isinstance(level, dict) else None
        pairs = level.items() if isinstance(level, dict) else ()
        tensors = {key: entry for key, entry in pairs if isinstance(key, str) and isinstance(entry, Stored)}
        objects = {str(key): entry for key, entry in pairs if isinstance(entry, Inert)}
        wrapped = ""
        for more in WRAPPERS * 2:
            if tensors and all(key.startswith(wrapped + more) for key in tensors):
                wrapped += more
        keys = {key[len(wrapped) :]: key for key in tensors}
        plain = {key.replace(COMPILED, ""): stored for key, stored in keys.items()}
        keys = plain if len(plain) == len(keys) else keys
        beginnings = {key[: m.end()] for key in keys for m in itertools.islice(re.finditer(r"[./]", key), 6)}
        return cls(tensors, wrapped, keys, frozenset(beginnings), objects)

    def has(self, pattern: str) -> bool:
        if pattern.startswith("*"):
            return any(key.endswith(pattern[1:]) for key in self.keys)
        return pattern in (self.beginnings if pattern.endswith((".", "/")) else self.keys)


class Digest:
    """The sha256 of a checkpoint's files, computed on another core from now on; given up if what is done meanwhile fails."""

    def __init__(self, path: Path) -> None:
        self._given_up = threading.Event()
        beside = ThreadPoolExecutor(1)
        self._digest = beside.submit(sha256, *files(path), given_up=self._given_up)
        beside.shutdown(wait=False)

    def __enter__(self) -> "Digest":
        return self

    def __exit__(self, error: object, *_: object) -> None:
        if error:
            self._given_up.set()

    def result(self) -> str:
        """The hexadecimal digest, waited for. Raises OSError for what cannot be read."""
        return self._digest.result()


def sha256(*paths: Path, given_up: threading.Event | None = None) -> str:
    """The hexadecimal digest of a file; of files, one after the other. What has no size, as devices, counts as empty."""
    digest, buffer = hashlib.sha256(), memoryview(bytearray(1 << 20))
    for path in paths:
        if not path.is_file() or not path.stat().st_size:
            continue  # a pipe or a file of /proc, which may wait for its writer
        with path.open("rb", buffering=0) as file:
            while size := file.readinto(buffer):
                digest.update(buffer[:size])
                if given_up and given_up.is_set():
                    return ""
    return digest.hexdigest()


def files(path: Path) -> list[Path]:
    """The files that a checkpoint's name stands for: more than one for TensorFlow."""
    from bench import tensorbundle

    index = tensorbundle.index_of(path)
    return tensorbundle.files(index) if index else [path]


def spare(path: Path, written: Iterable[Path]) -> None:
    """Raises ValueError where a file to be written is one of the checkpoint's own."""
    for place, file in itertools.product(written, files(path)):
        if place.exists() and file.exists() and place.samefile(file):
            raise ValueError(f"expected a new file to write, found that {place} is the checkpoint's own: name another")


def opened(path: Path, digest: Digest | None = None) -> File:
    """The file's outermost dict, and what stands beside it; the digest in this project's .json has been compared.

    digest: of the file, where it is computed anyway
    Raises FileNotFoundError, or ValueError for a file that is no checkpoint.
    """
    from bench import tensorbundle, unpickle

    if index := tensorbundle.index_of(path):
        content: Any = tensorbundle.read(index)
        return File(path, tensorbundle.files(index), content, {}, _words(path, content))
    if (part := re.search(r"-(\d{5})-of-(\d{5})\.(safetensors|bin)$", path.name)) and part[2] != "00001":
        raise ValueError(
            f"expected a whole checkpoint, found part {int(part[1])} of {int(part[2])} in {path}: save it in one file, for"
            " transformers with a max_shard_size larger than the model"
        )
    content = unpickle.read(path)
    if not isinstance(content, dict):
        named = repr(content) if isinstance(content, unpickle.Inert) else type(content).__name__
        what = "a single tensor" if isinstance(content, unpickle.Stored) else named
        raise ValueError(f"expected a dict of tensors, found {what} in {path}: save the model's state_dict() instead")
    if isinstance(run := content.get("run"), dict) and {"method", "recipe"} <= run.keys():
        raise ValueError(
            f"expected weights, found {path}, from which a run of bench pretrain goes on: give backbone.pth beside it, which "
            "the run writes at its end and which says what images are given to it"
        )
    if isinstance(state := content.get("experiment_state"), unpickle.Inert):
        content = content | {"experiment_state": _fields(state)}
    sidecars = _configurations(path)
    if (sidecar := _sidecar(path, digest) or _note(content)) is not None:
        sidecars["bench"] = sidecar
    return File(path, [path], content, sidecars, _words(path, content))


_BYOL_FIELDS = ("online_params", "target_params", "online_state", "target_state", "opt_state")


def _fields(state: Any) -> dict[str, "Stored"]:
    """The tensors of BYOL's experiment state as FIELD/MODULE/LEAF; the fields are those of its NamedTuple, in order."""
    named = dict(zip(_BYOL_FIELDS, state.args, strict=False))
    if isinstance(state.state, dict):
        named |= state.state
    found: dict[str, Stored] = {}
    _gather(named, "", 0, found, [100_000])
    return found


def _gather(value: Any, prefix: str, depth: int, found: dict[str, "Stored"], left: list[int]) -> None:
    """Every tensor below a value, through dicts, lists and the objects that hold one (Haiku's frozendict and FlatMapping).

    left: how many more values may be looked at, since a pickle may hold itself
    """
    from bench.unpickle import Inert, Stored

    left[0] -= 1
    if left[0] < 0 or depth > 12:
        raise ValueError("expected an experiment state of BYOL, found more values in it than any network has")
    if isinstance(value, Stored):
        found[prefix] = value
        return
    inner: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list | tuple):
        inner = list(enumerate(value))
    elif isinstance(value, Inert):
        held = [*value.args, *(value.state.values() if isinstance(value.state, dict) else [value.state])]
        inner = [(number, part) for number, part in enumerate(held) if isinstance(part, dict | Inert)]
        if len(inner) == 1:  # the mapping itself
            _gather(inner[0][1], prefix, depth + 1, found, left)
            return
    for key, part in inner:
        if isinstance(part, dict | list | tuple | Stored | Inert):
            _gather(part, f"{prefix}/{key}"[-1000:] if prefix else str(key)[:1000], depth + 1, found, left)


def _words(path: Path, content: Mapping[Any, Any]) -> str:
    """What the file is called and what it says in words, in lower case: author, architecture, notes of a framework."""
    said = [path.name, path.parent.name if path.suffix == ".index" else ""]
    texts = (value[:200] for value in content.values() if isinstance(value, str))
    said += itertools.islice(texts, 100)
    if isinstance(meta := content.get("meta"), dict):
        said += [word[:100_000] for pair in list(meta.items())[:100] for word in pair if isinstance(word, str)]
    return " ".join(said).lower()


def _sidecar(path: Path, digest: Digest | None) -> dict[str, Any] | None:
    """The content of this project's .json beside a file, None where there is none or it is somebody else's."""
    files = [path.with_name(f"{path.name}.json"), path.with_suffix(".json")]  # bench convert's, bench pretrain's
    for file in files if path.suffix == ".pth" else files[:1]:
        content = _json(file)
        if content is not None and {"sha256", "traits"} <= content.keys():
            break
    else:
        return None
    actual = digest.result() if digest else sha256(path)
    if content["sha256"] != actual:
        raise ValueError(
            f"expected the file that {file} describes (sha256 {str(content['sha256'])[:12]}...), found another"
            f" ({actual[:12]}...): one of the two was replaced; restore it, or remove {file.name} to use default traits"
        )
    return content


def _note(content: Mapping[Any, Any]) -> dict[str, Any] | None:
    """What `bench convert` wrote into a file: safetensors' texts, or one text in detectron2's dict or mmsegmentation's meta."""
    from bench.unpickle import Safetensors

    said: dict[str, Any] = {}
    if isinstance(content, Safetensors):
        for key, value in content.texts.items():
            try:
                said[key] = json.loads(value)
            except (ValueError, RecursionError):
                said[key] = value
    else:
        meta = content.get("meta")
        text = content.get("bench") or (meta.get("bench") if isinstance(meta, dict) else None)
        said = (_parsed(text) if isinstance(text, str) and len(text) <= 2**24 else None) or {}
    said.pop("sha256", None)  # which only a file beside this one can know
    if "traits" not in said:
        return None
    if not isinstance(said["traits"], dict):
        raise ValueError("expected the file's note on its traits to be JSON, found other text")
    return said


def _configurations(path: Path) -> dict[str, dict[str, Any]]:
    """timm's or transformers' configuration beside a file with the name that the Hugging Face hub gives to weights."""
    if path.name not in ("model.safetensors", "pytorch_model.bin"):
        return {}
    config = _json(path.with_name("config.json")) or {}
    if {"architecture", "mean", "std"} <= config.keys():
        config = {"pretrained_cfg": config} | config  # timm's older form, all in one
    if isinstance(config.get("pretrained_cfg"), dict):
        return {"timm": config}
    if config.get("model_type") == "resnet":
        return {"transformers": config | {"preprocessor": _json(path.with_name("preprocessor_config.json")) or {}}}
    return {}


def _json(path: Path) -> dict[str, Any] | None:
    if not path.is_file() or path.stat().st_size > 2**24:  # a pipe would be waited for
        return None
    try:
        return _parsed(path.read_bytes())
    except OSError:
        return None


def _parsed(text: str | bytes) -> dict[str, Any] | None:
    """The object that a text in JSON is, None for any other text."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None
