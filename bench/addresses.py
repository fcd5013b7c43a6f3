"""What an address of published weights stands for: the URL of one file, and what its makers say about it.

    torchvision://resnet50                             torchvision's own table; IMAGENET1K_V1, as in every paper before 2022
    torchvision://resnet50.IMAGENET1K_V2               the newer recipe's
    detectron2://ImageNetPretrained/MSRA/R-50.pkl      detectron2's model zoo, the names its configurations use
    timm/resnet50.a1_in1k                              timm's table; without a tag, its default
    hf-hub:OWNER/NAME[@REVISION][/FILE]                a public model on the Hugging Face hub
    https://...  http://...                            any file

`#sha256=HEX` at the end of any of them is compared with the file. Nothing is downloaded here; only the hub is asked for its
list of files.
"""

import hashlib
import os
import re
from dataclasses import dataclass, replace
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from bench import catalog

SCHEMES = ("torchvision://", "detectron2://", "timm/", "hf-hub:", "https://", "http://")
ZOO = "https://dl.fbaipublicfiles.com/detectron2/"  # detectron2/utils/file_io.py, Detectron2Handler
WEIGHTS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".pkl", ".tar")
CONFIGURATIONS = ("config.json", "preprocessor_config.json")  # timm's and transformers', beside their weights
TIMEOUT = 30  # seconds


@dataclass(frozen=True)
class Address:
    """An address, taken apart without asking anybody."""

    text: str  # without the fragment
    folder: tuple[str, ...]  # of the cache
    file: str | None  # in that folder; None: whatever file the address will turn out to be
    sha256: str  # as the user wrote it, or ""


@dataclass(frozen=True)
class Remote:
    """The file an address stands for."""

    url: str
    file: str
    sha256: str = ""  # the beginning of the digest, as far as somebody publishes it
    authority: str = ""  # who does
    size: int | None = None  # in bytes
    licence: str | None = None
    beside: tuple["Remote", ...] = ()  # what says how the weights are fed: config.json and the like


def parsed(address: str) -> Address:
    """An address's parts. Raises ValueError for what is none, or would leave the cache."""
    text, _, fragment = address.partition("#")
    digest = fragment.removeprefix("sha256=").lower()
    if fragment and not (fragment.startswith("sha256=") and re.fullmatch(r"[0-9a-f]{64}", digest)):
        raise ValueError(f"expected #sha256= and 64 hexadecimal digits after the address, found #{fragment[:80]}")
    if text.startswith(("https://", "http://")):
        return _url(text, digest)
    scheme = next((scheme for scheme in SCHEMES if text.startswith(scheme)), "")
    parts = tuple(text.removeprefix(scheme).split("/"))
    shape = {"torchvision://": (1, 1), "detectron2://": (1, 9), "timm/": (1, 1), "hf-hub:": (2, 9)}.get(scheme)
    plain = all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,150}", part) for part in parts)
    if shape is None or not plain or not shape[0] <= len(parts) <= shape[1]:
        raise ValueError(
            "expected an address such as torchvision://resnet50, detectron2://FILE, timm/NAME, hf-hub:OWNER/NAME or https://HOST/FILE, "
            f"found {address!r}"
        )
    folder, file = parts, None
    if scheme == "detectron2://" or len(parts) > 2:
        folder, file = parts[:-1], parts[-1]
    return Address(text, (scheme.rstrip(":/"), *folder), file, digest)


def _url(text: str, digest: str) -> Address:
    try:
        url = urlsplit(text)
        plain = url.hostname and url.username is None and (url.port is None or url.port > 0)
    except ValueError:  # a port that is no number, half an IPv6 address
        plain = False
    if not plain:
        shown = re.sub(r"//[^/]*@", "//...@", text.partition("?")[0])
        raise ValueError(f"expected an address with a host and without a password, found {shown!r}")
    url = url._replace(path=quote(url.path, safe="/%:@!$&'()*+,;=~"), query=quote(url.query, safe="/%:@!$&'()*+,;=~?"))
    # each part is a name in a folder of the cache: no separators, nothing hidden, nothing above
    parts = [re.sub(r"[^\w.@+=-]|^\.", "_", unquote(part))[:150] for part in url.path.split("/") if part]
    query = [hashlib.sha256(url.query.encode()).hexdigest()[:8]] if url.query else []
    folder = (url.scheme, re.sub(r"[^\w.-]", "_", url.netloc), *parts[:-1], *query)
    return Address(urlunsplit(url), folder, parts[-1] if parts else "download", digest)


def remote(address: Address) -> Remote:
    """Where the file is. Raises ValueError or FileNotFoundError for names that do not exist, ConnectionError without a network."""
    scheme = address.folder[0]
    if scheme in ("https", "http"):
        assert address.file
        found = Remote(address.text, address.file, *published(address, address.file))
    elif scheme == "torchvision":
        url = _torchvision(address.folder[1])
        file = url.rpartition("/")[2]
        found = Remote(url, file, *published(address, file))
    elif scheme == "detectron2":
        assert address.file
        found = Remote(ZOO + address.text.removeprefix("detectron2://"), address.file)
    elif scheme == "timm":
        found = _timm(address.folder[1])
    else:
        owner, name, *rest = address.text.removeprefix("hf-hub:").split("/")
        found = _hugging_face(owner, name, "/".join(rest) or None)
    if not address.sha256:
        return found
    if not address.sha256.startswith(found.sha256):
        raise ValueError(
            f"expected sha256 {address.sha256[:12]}... as the address says, found that {found.authority} says"
            f" {found.sha256[:12]}...: correct the address"
        )
    return replace(found, sha256=address.sha256, authority="the address")


def published(address: Address, file: str) -> tuple[str, str]:
    """The beginning of a file's sha256 as its name has it, and who says so; two empty texts where there is no such rule.

    torch.hub's rule: the sha256 of resnet50-0676ba61.pth begins with 0676ba61. Elsewhere such a name may mean anything.
    """
    ruled = address.folder[0] == "torchvision" or address.folder[1:2] == ("download.pytorch.org",)
    found = re.search(r"-([0-9a-f]{8,64})\.\w+$", file) if ruled else None
    return (found[1], "its name, by torch.hub's rule,") if found else ("", "")


def _torchvision(name: str) -> str:
    """The URL in torchvision's table. Raises ValueError for a name that is not in it."""
    from torchvision import models

    arch, _, weights = name.partition(".")
    if arch not in models.list_models(module=models):
        raise ValueError(catalog.unknown("torchvision model", arch, models.list_models(module=models)))
    entries = {name.upper(): entry for name, entry in models.get_model_weights(arch).__members__.items()}  # DEFAULT too
    if weights and weights.upper() not in entries:
        raise ValueError(catalog.unknown(f"table of {arch}'s weights", weights, entries))
    # the first is IMAGENET1K_V1, which papers call the supervised baseline and mmengine torchvision://resnet50
    return entries[weights.upper()].url if weights else next(iter(entries.values())).url


def _timm(name: str) -> Remote:
    """timm's own table says where a model is; without timm, the hub has it under the same name if the tag is given."""
    try:
        from timm.models import get_pretrained_cfg
    except ImportError:
        return _hugging_face("timm", name, None)
    try:
        cfg = get_pretrained_cfg(name)
    except RuntimeError as error:  # the architecture is known, the tag is not
        raise ValueError(f"expected a model of timm, found {name!r}: {error}") from error
    if cfg is None or not (cfg.hf_hub_id or isinstance(cfg.url, str)):
        raise ValueError(f"expected a model of timm with weights, found {name!r}: timm.list_pretrained() lists them")
    if not cfg.hf_hub_id:
        assert isinstance(cfg.url, str)
        return Remote(cfg.url, cfg.url.rpartition("/")[2], licence=cfg.license)
    owner, _, repository = cfg.hf_hub_id.partition("/")
    found = _hugging_face(owner, repository, cfg.hf_hub_filename)
    return replace(found, licence=cfg.license or found.licence)


def _hugging_face(owner: str, name: str, file: str | None) -> Remote:
    """A file of a public model: FILE, else model.safetensors, pytorch_model.bin, or the only one that looks like weights."""
    from huggingface_hub import HfApi, hf_hub_url
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    name, _, revision = name.partition("@")
    repository, endpoint = f"{owner}/{name}", os.environ.get("HF_ENDPOINT")
    try:
        info = HfApi(endpoint, token=False).model_info(
            repository, revision=revision or None, files_metadata=True, timeout=TIMEOUT
        )
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise FileNotFoundError(
            f"expected a public model {repository}{'@' * bool(revision)}{revision} on the Hugging Face hub, found none:"
            " correct the name; a private one is fetched with `hf download` and given as a file"
        ) from error
    except Exception as error:  # connection errors of whichever HTTP library this version of huggingface_hub uses
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise ConnectionError(
            f"expected an answer of the Hugging Face hub about {repository}, found {reason}"
        ) from error
    files = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    chosen = _chosen(repository, list(files), file)
    folder = chosen.rpartition("/")[0]

    def found(path: str) -> Remote:
        lfs = files[path].lfs
        url = hf_hub_url(repository, path, revision=info.sha, endpoint=endpoint)
        digest = lfs.sha256 if lfs else ""
        return Remote(url, path.rpartition("/")[2], digest, "the Hugging Face hub", files[path].size)

    return replace(
        found(chosen),
        licence=next((tag.removeprefix("license:") for tag in info.tags or () if tag.startswith("license:")), None),
        beside=tuple(found(path) for name in CONFIGURATIONS if (path := f"{folder}/{name}".lstrip("/")) in files),
    )


def _chosen(repository: str, files: list[str], asked: str | None) -> str:
    likely = [file for file in files if file.endswith(WEIGHTS)]
    for file in (asked,) if asked else ("model.safetensors", "pytorch_model.bin"):
        if file in files:
            return file
    if len(likely) == 1 and not asked:
        return likely[0]
    what = f"no {asked}" if asked else f"{len(likely) or 'no'} files of weights"
    some = ", ".join(likely[:5]) or ", ".join(files[:5]) or "nothing"
    raise ValueError(
        f"expected one file of weights in {repository}, found {what}: say which with hf-hub:{repository}/FILE ({some})"
    )
