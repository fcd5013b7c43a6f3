"""Addresses and transfers, against a server on this machine that behaves as badly as servers do."""

import contextlib
import errno
import hashlib
import http.client
import http.server
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench import addresses, fetch

BODY = bytes(range(256)) * 12_000  # 3 MB
SHA = hashlib.sha256(BODY).hexdigest()


class Web(http.server.ThreadingHTTPServer):
    """Answers each path in its own way and remembers what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.asked: list[tuple[str, str]] = []  # path, Range
        self.body = BODY
        self.go = threading.Event()  # for what is held back until then
        self.described: dict[str, bytes] = {}  # what a model of the hub has beside its weights

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The other side hangs up on a server that misbehaves: not worth a line."""


class Answer(http.server.BaseHTTPRequestHandler):
    server: Web

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Range", "")))
        getattr(self, self.path.split("/")[1].partition("?")[0])()

    def head(self, status: int = 200, **headers: Any) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def good(self, cut: int | None = None, pause: float = 0.0) -> None:
        """The file, from where it is asked if it is still the same one."""
        body, tag = self.server.body, f'"{hashlib.sha256(self.server.body).hexdigest()[:8]}"'
        start = int(self.headers.get("Range", "bytes=0-")[6:-1])
        if start and self.headers.get("If-Range", tag) == tag:
            whole = {"Content_Range": f"bytes {start}-{len(body) - 1}/{len(body)}"}
            self.head(206, Content_Length=len(body) - start, ETag=tag, **whole)
        else:
            start = 0
            self.head(Content_Length=len(body), ETag=tag)
        for first in range(start, len(body), 1 << 18):
            self.wfile.write(body[first : min(first + (1 << 18), start + cut if cut else len(body))])
            time.sleep(pause)
            if cut and first + (1 << 18) >= start + cut:
                self.connection.shutdown(socket.SHUT_RDWR)
                return

    def slow(self) -> None:
        self.good(pause=0.1)

    def held(self) -> None:
        self.server.go.wait()
        self.good()

    def cut(self) -> None:
        self.good(cut=1_200_000)

    def early(self) -> None:
        """Never gets beyond the first hundred bytes."""
        if self.headers.get("Range"):
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.good(cut=100)

    def untagged(self) -> None:
        """Cut once, and nothing tells whether the second answer is the same file."""
        self.head(Content_Length=len(BODY))
        first = len([path for path, _ in self.server.asked if path == self.path]) == 1
        self.wfile.write(BODY[: 1_000_000 if first else None])

    def page(self) -> None:
        self.head(Content_Type="text/html; charset=utf-8")
        self.wfile.write(b"<!DOCTYPE html><title>Sign in</title>")

    def disguised(self) -> None:
        self.head(Content_Type="application/octet-stream")
        self.wfile.write(b"\n<HTML>quota exceeded</HTML>")

    def moved(self) -> None:
        self.head(302, Location="/good/model.pth")

    def circle(self) -> None:
        self.head(302, Location=self.path)

    def local(self) -> None:
        self.head(302, Location="file:///etc/passwd")

    def gone(self) -> None:
        self.head(404)

    def secret(self) -> None:
        self.head(403)

    def busy(self) -> None:
        asked = sum(path == self.path for path, _ in self.server.asked)
        self.head(503) if asked < 3 else self.good()

    def nothing(self) -> None:
        self.head(Content_Length=0)

    def packed(self) -> None:
        self.head(Content_Encoding="gzip")
        self.wfile.write(b"\x1f\x8b")

    def longer(self) -> None:
        """Declares less than it sends."""
        self.head(Content_Length=1000)
        self.wfile.write(BODY)

    def shorter(self) -> None:
        """Declares more than it ever sends."""
        self.head(Content_Length=len(BODY) + 1)
        self.wfile.write(BODY)

    def huge(self) -> None:
        self.head(Content_Length=1 << 50)

    def endless(self) -> None:
        self.head()
        with contextlib.suppress(OSError):
            while True:
                self.wfile.write(BODY)

    def silent(self) -> None:
        self.head(Content_Length=len(BODY))
        self.wfile.write(BODY[:10])
        time.sleep(3)

    def drip(self) -> None:
        self.head(Content_Length=len(BODY))
        with contextlib.suppress(OSError):
            while True:
                self.wfile.write(b"x")
                time.sleep(0.02)

    def garbage(self) -> None:
        self.wfile.write(b"SSH-2.0-OpenSSH\r\n")

    def api(self) -> None:
        """The Hugging Face hub's answer about a model."""
        if "absent" in self.path:
            self.head(404, **{"X-Error-Code": "RepoNotFound"})
            return
        files = [
            {"rfilename": "README.md", "size": 3},
            {
                "rfilename": "model.safetensors",
                "size": len(BODY),
                "lfs": {"sha256": SHA, "size": len(BODY), "pointerSize": 1},
            },
            {"rfilename": "old/a.pth", "size": len(BODY)},
            {"rfilename": "old/b.pth", "size": len(BODY)},
            *([{"rfilename": "other.pth", "size": len(BODY)}] if "rooted" in self.path else []),
        ]
        if "ambiguous" in self.path:
            del files[1]
        if "described" in self.path:
            digest = hashlib.sha256(self.server.body).hexdigest()
            files = [
                {"rfilename": "model.safetensors", "size": len(self.server.body), "lfs": {"sha256": digest, "size": 1, "pointerSize": 1}},
                *({"rfilename": name, "size": len(text)} for name, text in self.server.described.items()),
            ]  # fmt: skip
        about = {"id": "somebody/r50", "sha": "c0ffee", "tags": ["license:mit"], "siblings": files}
        self.head(Content_Type="application/json")
        self.wfile.write(json.dumps(about).encode())

    def somebody(self) -> None:
        text = self.server.described.get(self.path.rpartition("/")[2])
        if text is None:
            self.good()
        else:
            self.head(Content_Type="text/plain; charset=utf-8", Content_Length=len(text))
            self.wfile.write(text)

    def timm(self) -> None:
        self.somebody()


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    """A server, an empty cache, and no patience."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(fetch, "PAUSE", 0.001)
    server = Web()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


get = fetch.fetch


# --- a transfer that goes well in the end


def test_a_file_is_fetched_once_and_its_hash_recorded(web: Web, tmp_path: Path) -> None:
    found = get(f"{web.url}/good/model.pth")
    assert found.path.read_bytes() == BODY and found.path.name == "model.pth"
    assert (found.sha256, found.size, found.url, found.checked) == (SHA, len(BODY), f"{web.url}/good/model.pth", "")
    assert found.provenance() == {"address": f"{web.url}/good/model.pth", "url": f"{web.url}/good/model.pth"}
    assert found.path.is_relative_to(tmp_path / "cache" / "bench")
    assert sorted(Path(name).name for name in listing(tmp_path)) == [".model.pth.json", "model.pth"]
    assert get(f"{web.url}/good/model.pth") == found and len(web.asked) == 1


def test_a_file_system_without_locks_is_no_obstacle(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fetch.fcntl, "flock", none)
    assert get(f"{web.url}/good/model.pth").path.read_bytes() == BODY


def test_processes_without_locks_do_not_write_into_one_file(web: Web, tmp_path: Path) -> None:
    code = (
        "import sys; from bench import fetch\n"
        "def none(*_): raise OSError('no locks')\n"
        "fetch.fcntl.flock = none; print(fetch.fetch(sys.argv[1]).sha256)"
    )
    call = [sys.executable, "-c", code, f"{web.url}/slow/model.pth"]
    three = [subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    outputs = [process.communicate(timeout=60) for process in three]
    assert [out for out, _ in outputs] == [f"{SHA}\n"] * 3, outputs
    assert sorted(Path(name).name for name in listing(tmp_path)) == [".model.pth.json", "model.pth"]


def test_without_locks_too_a_broken_transfer_is_gone_on_with(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fetch.fcntl, "flock", none)
    monkeypatch.setattr(fetch, "ATTEMPTS", 0)
    for _ in range(2):
        with pytest.raises(ConnectionError, match="bytes are kept: call again to go on"):
            get(f"{web.url}/cut/model.pth")
    assert get(f"{web.url}/cut/model.pth").sha256 == SHA
    assert [asked for _, asked in web.asked] == ["", "bytes=1200000-", "bytes=2400000-"]


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("https://a.b/x/m.pth?X-Amz-Date=1&X-Amz-Signature=5e#sha256=0", "https://a.b/x/m.pth?X-Amz-Date=1&X-Amz-Signature=...#sha256=0"),
        ("https://a.b/m.pth?sv=2&sig=a%2Fb&se=3", "https://a.b/m.pth?sv=2&sig=...&se=3"),
        ("https://a.b/v1@2/key=3/m.pth", "https://a.b/v1@2/key=3/m.pth"),
    ],
)  # fmt: skip
def test_no_key_of_an_address_comes_into_a_record(address: str, told: str) -> None:
    found = fetch.Fetched(Path("m.pth"), address, address, SHA, 1, "", None)
    assert found.provenance() == {"address": told, "url": told}


def test_the_hash_in_an_address_is_compared(web: Web, tmp_path: Path) -> None:
    found = get(f"{web.url}/good/model.pth#sha256={SHA}")
    assert found.checked == "the address" and "#" not in found.address
    wrong = "0" * 64
    with pytest.raises(ValueError, match=r"expected sha256 000000000000\.\.\. as the address says, found .* remove it"):
        get(f"{web.url}/good/model.pth#sha256={wrong}")
    with pytest.raises(ValueError, match=r"expected sha256 000000000000\.\.\. .* nothing was kept"):
        get(f"{web.url}/good/other.pth#sha256={wrong}")
    assert "other.pth" not in " ".join(listing(tmp_path))


def test_a_connection_that_breaks_is_taken_up_where_it_broke(
    web: Web, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = get(f"{web.url}/cut/model.pth")
    assert found.path.read_bytes() == BODY
    assert [asked for _, asked in web.asked] == ["", "bytes=1200000-", "bytes=2400000-"]
    assert capsys.readouterr().err.count("trying again") == 2
    assert len(listing(tmp_path)) == 2


@pytest.mark.parametrize(
    "broken",
    [OSError(errno.EHOSTUNREACH, "No route to host"), ssl.SSLError(1, "[SSL: DECRYPTION_FAILED_OR_BAD_RECORD_MAC]")],
)
def test_whatever_breaks_a_connection_and_keeps_it_away_for_a_while_it_is_gone_on_with(
    web: Web, monkeypatch: pytest.MonkeyPatch, broken: OSError
) -> None:
    read, connect = http.client.HTTPResponse.read1, socket.create_connection
    reads, calls = iter([False] * 4 + [True]), iter([False, True, True])

    def read1(self: http.client.HTTPResponse, n: int = -1) -> bytes:
        if next(reads, False):
            raise broken
        return read(self, n)

    def create_connection(*args: Any, **more: Any) -> socket.socket:
        if next(calls, False):
            raise OSError(errno.ENETUNREACH, "Network is unreachable")
        return connect(*args, **more)

    monkeypatch.setattr(http.client.HTTPResponse, "read1", read1)
    monkeypatch.setattr(socket, "create_connection", create_connection)
    assert get(f"{web.url}/good/model.pth").sha256 == SHA
    assert len(web.asked) == 2 and web.asked[1][1].startswith("bytes=")


def test_a_later_call_goes_on_with_what_an_interrupted_one_left(web: Web, tmp_path: Path) -> None:
    address = f"{web.url}/good/model.pth"
    folder = tmp_path / "cache" / "bench" / "http" / web.url.removeprefix("http://").replace(":", "_") / "good"
    folder.mkdir(parents=True)
    part = folder / ".model.pth.part"
    part.write_bytes(BODY[:1000])
    tag = f'"{SHA[:8]}"'
    part.with_name(".model.pth.part.json").write_text(json.dumps({address: tag}))
    assert get(address).sha256 == SHA and web.asked == [("/good/model.pth", "bytes=1000-")]
    assert len(listing(tmp_path)) == 2


@pytest.mark.parametrize("note", ['{"http://elsewhere/model.pth": "\\"tag\\""}', "[]", "{", '{"URL": null}'])
@pytest.mark.parametrize("fragment", ["", f"#sha256={SHA}"])
def test_a_download_whose_address_changed_begins_again(web: Web, tmp_path: Path, note: str, fragment: str) -> None:
    address = f"{web.url}/good/model.pth"
    folder = tmp_path / "cache" / "bench" / "http" / web.url.removeprefix("http://").replace(":", "_") / "good"
    folder.mkdir(parents=True)
    (folder / ".model.pth.part").write_bytes(b"of another file")
    (folder / ".model.pth.part.json").write_text(note.replace("URL", address))
    assert get(address + fragment).sha256 == SHA and web.asked == [("/good/model.pth", "")]
    assert len(listing(tmp_path)) == 2


def test_a_file_that_changed_meanwhile_is_fetched_from_its_beginning(web: Web, tmp_path: Path) -> None:
    address = f"{web.url}/cut/model.pth"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fetch, "ATTEMPTS", 0)
        with pytest.raises(ConnectionError, match="the first 1,200,000 bytes are kept"):
            get(address)
    web.body = BODY[::-1]
    assert get(address).path.read_bytes() == BODY[::-1]


def test_without_a_tag_or_a_hash_a_broken_transfer_starts_again(web: Web) -> None:
    assert get(f"{web.url}/untagged/model.pth").sha256 == SHA
    assert [asked for _, asked in web.asked] == ["", ""]
    assert get(f"{web.url}/untagged/again.pth#sha256={SHA}").sha256 == SHA  # a hash tells
    assert [asked for _, asked in web.asked[2:]] == ["", "bytes=1000000-"]


def test_redirections_and_a_busy_server_are_followed(web: Web) -> None:
    found = get(f"{web.url}/moved/model.pth")
    assert found.sha256 == SHA and found.url == f"{web.url}/moved/model.pth"
    assert get(f"{web.url}/busy/model.pth").sha256 == SHA


def test_progress_says_what_is_left(
    web: Web, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fetch, "TELL", 0.05)
    get(f"{web.url}/slow/model.pth")
    said = capsys.readouterr().err.splitlines()
    assert said[0] == f"fetching {web.url}/slow/model.pth"
    assert any("of 3 MB (" in line and line.endswith("s left") for line in said[1:])
    assert fetch._progress(31_000_000, 98_000_000, 3.1e6) == "31 of 98 MB (31 %), 3.1 MB/s, 22 s left"


def test_two_processes_fetch_one_file_once(web: Web, tmp_path: Path) -> None:
    code = "import sys; from bench import fetch; print(fetch.fetch(sys.argv[1]).sha256)"
    call = [sys.executable, "-c", code, f"{web.url}/held/model.pth"]
    both, said = [], []
    for _ in range(2):
        both.append(subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        said.append(both[-1].stderr.readline())
    web.go.set()
    outputs = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert all(out == f"{SHA}\n" for out, _ in outputs)
    assert len(web.asked) == 1 and len(listing(tmp_path)) == 2
    assert said[0].startswith("fetching") and said[1].startswith("another process is fetching")


# --- a transfer that cannot go well

FATAL = {
    "page": (ValueError, "found an HTML page"),
    "disguised": (ValueError, "found an HTML page"),
    "circle": (ValueError, "found status 302"),
    "local": (ValueError, "found status 302 .*file:///etc/passwd' is not allowed"),
    "gone": (FileNotFoundError, r"found none \(status 404\): correct the address"),
    "secret": (ValueError, "expected a public file .* found status 403"),
    "nothing": (ValueError, "found nothing in it"),
    "packed": (ValueError, "found it packed with gzip"),
    "huge": (ValueError, "expected a checkpoint of at most"),
}


@pytest.mark.parametrize("path", FATAL)
def test_an_answer_that_cannot_be_right_is_refused_at_once(web: Web, tmp_path: Path, path: str) -> None:
    kind, message = FATAL[path]
    with pytest.raises(kind, match=message) as caught:
        get(f"{web.url}/{path}/model.pth")
    assert "\n" not in str(caught.value) and "by hand" in str(caught.value)
    assert path == "circle" or len(web.asked) == 1
    assert not [name for name in listing(tmp_path) if not name.endswith(".part")]


def test_a_server_that_lies_about_the_length(web: Web, tmp_path: Path) -> None:
    assert (
        get(f"{web.url}/longer/model.pth").size == 1000
    )  # what was declared; a hash or the reader finds the rest missing
    with pytest.raises(ValueError, match=r"expected sha256 .* nothing was kept"):
        get(f"{web.url}/longer/other.pth#sha256={SHA}")
    with pytest.raises(ConnectionError, match="it ended at byte 3,072,000 of 3,072,001"):
        get(f"{web.url}/shorter/model.pth")
    assert "shorter/model.pth" not in listing(tmp_path)


def test_a_server_that_never_ends_is_left_at_the_limit(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "LIMIT", 10_000_000)
    with pytest.raises(ValueError, match="expected 10,000,000 bytes at most"):
        get(f"{web.url}/endless/model.pth")
    assert not listing(tmp_path) or sum((tmp_path / name).stat().st_size for name in listing(tmp_path)) < 10_000


@pytest.mark.parametrize(
    ("path", "word"), [("silent", "timed out"), ("drip", "bytes in 0.1 seconds"), ("early", "broke")]
)
def test_a_server_that_does_not_get_on_is_left(web: Web, monkeypatch: pytest.MonkeyPatch, path: str, word: str) -> None:
    monkeypatch.setattr(fetch, "TIMEOUT", 0.2)
    monkeypatch.setattr(fetch, "WINDOW", 0.1)
    monkeypatch.setattr(fetch, "ATTEMPTS", 2)
    with pytest.raises(ConnectionError, match=f"expected the whole of .*{word}.* are kept: call again to go on"):
        get(f"{web.url}/{path}/model.pth")
    assert len(web.asked) == 2


def test_what_is_no_web_server_is_named(web: Web) -> None:
    with pytest.raises(ConnectionError, match=r"expected the whole of .*SSH-2\.0"):
        get(f"{web.url}/garbage/model.pth")


def test_a_full_disk_is_said_before_anything_is_written(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(OSError, match="3,072,000 bytes more than the disk of the cache has left"):
        get(f"{web.url}/good/model.pth")


def test_without_a_network_one_sentence_says_where_to_put_the_file(web: Web, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/weights/r50.pth"
        with pytest.raises(
            ConnectionError, match=r"expected to reach 127\.0\.0\.1, found no network or no answer .* by hand"
        ) as caught:
            get(address)
        path = Path(str(caught.value).partition("put the file at ")[2].removesuffix(" by hand"))
        path.write_bytes(b"weights")
        found = get(address)
        assert (found.path, found.url, found.sha256) == (path, None, hashlib.sha256(b"weights").hexdigest())
        path.write_bytes(b"others!")
        os.utime(path, (1, 1))
        with pytest.raises(ValueError, match="found it changed: remove it"):
            get(address)


def test_a_file_in_a_cache_that_cannot_be_written_is_read(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    def readonly(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(fetch, "replaced", readonly)
    path = fetch.user_cache().joinpath(*addresses.parsed(address := f"{web.url}/good/model.pth").folder, "model.pth")
    path.parent.mkdir(parents=True)
    path.write_bytes(BODY)
    assert (get(address).path, get(address).sha256, web.asked) == (path, SHA, [])


# --- addresses


def test_torchvisions_table_gives_url_and_hash(web: Web, tmp_path: Path) -> None:
    found = addresses.remote(addresses.parsed("torchvision://resnet50"))
    assert found.url == "https://download.pytorch.org/models/resnet50-0676ba61.pth"
    assert (found.file, found.sha256) == ("resnet50-0676ba61.pth", "0676ba61")
    newer = addresses.remote(addresses.parsed("torchvision://resnet50.IMAGENET1K_V2"))
    assert newer.sha256 == "11ad3fa6"
    direct = addresses.remote(addresses.parsed(found.url))
    assert direct == found
    with pytest.raises(ValueError, match=r"found 'resnet5O'\. Did you mean 'resnet50'"):
        addresses.remote(addresses.parsed("torchvision://resnet5O"))
    with pytest.raises(ValueError, match="IMAGENET1K_V3"):
        addresses.remote(addresses.parsed("torchvision://resnet50.IMAGENET1K_V3"))
    with pytest.raises(ValueError, match="correct the address"):
        addresses.remote(addresses.parsed(f"torchvision://resnet50#sha256={'0' * 64}"))
    folder = tmp_path / "cache" / "bench" / "torchvision" / "resnet50"
    folder.mkdir(parents=True)
    (folder / "resnet50-0676ba61.pth").write_bytes(b"other weights")
    with pytest.raises(ValueError, match=r"expected sha256 0676ba61\.\.\. as its name"):
        get("torchvision://resnet50")


def test_detectron2s_zoo_is_where_detectron2_says() -> None:
    from detectron2.utils.file_io import Detectron2Handler

    address = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
    found = addresses.remote(addresses.parsed(address))
    assert found.url == Detectron2Handler.S3_DETECTRON2_PREFIX + "ImageNetPretrained/MSRA/R-50.pkl"
    assert found.file == "R-50.pkl" and addresses.parsed(address).folder == ("detectron2", "ImageNetPretrained", "MSRA")


def test_a_model_of_the_hugging_face_hub(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", web.url)
    found = get("hf-hub:somebody/r50")
    assert found.path.name == "model.safetensors" and found.sha256 == SHA
    assert (found.checked, found.licence) == ("the Hugging Face hub", "mit")
    assert found.url == f"{web.url}/somebody/r50/resolve/c0ffee/model.safetensors"
    asked = len(web.asked)
    assert get("hf-hub:somebody/r50") == found and len(web.asked) == asked  # nobody is asked again
    assert get("hf-hub:somebody/r50/old/a.pth").path.name == "a.pth"
    assert get("hf-hub:somebody/r50@v1").path.parent.name == "r50@v1"
    with pytest.raises(ValueError, match=r"found 2 files of weights: say which with hf-hub:somebody/ambiguous/FILE"):
        get("hf-hub:somebody/ambiguous")
    with pytest.raises(ValueError, match=r"found no x\.pth"):
        get("hf-hub:somebody/r50/x.pth")
    with pytest.raises(FileNotFoundError, match="found none: correct the name"):
        get("hf-hub:somebody/absent")
    web.body = BODY[:-1]
    with pytest.raises(ValueError, match="expected 3,072,000 bytes as the Hugging Face hub says, found 3,071,999"):
        get("hf-hub:somebody/r50@v2")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(ConnectionError, match=r"Without a network, put the file into .*hf-hub/somebody/r51"):
        get("hf-hub:somebody/r51")


def test_a_model_is_not_another_file_of_its_repository(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", web.url)
    folder = tmp_path / "cache" / "bench" / "hf-hub" / "somebody" / "rooted"
    assert get("hf-hub:somebody/rooted/other.pth").path == folder / "other.pth"
    assert get("hf-hub:somebody/rooted").path == folder / "model.safetensors"
    asked = len(web.asked)
    assert get("hf-hub:somebody/rooted").name == "rooted" and len(web.asked) == asked
    assert get("hf-hub:somebody/rooted/model.safetensors").path.name == "model.safetensors"  # the same file by its name
    by_hand = folder.with_name("by-hand") / "any.pth"
    by_hand.parent.mkdir()
    by_hand.write_bytes(BODY)
    assert get("hf-hub:somebody/by-hand").url is None and get("hf-hub:somebody/by-hand").path == by_hand


def test_a_models_configuration_comes_with_it_and_tells_the_traits(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torchvision
    from safetensors.torch import save_file

    from bench import sources

    monkeypatch.setenv("HF_ENDPOINT", web.url)
    weights = tmp_path / "r18.safetensors"
    save_file(torchvision.models.resnet18().state_dict(), weights)
    web.body = weights.read_bytes()
    fed = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.25, 0.5]}
    for architecture, sentence in (("resnet18", None), ("resnetblur18", "found that config.json says 'resnetblur18'")):
        web.described = {"config.json": json.dumps({"architecture": architecture, "pretrained_cfg": fed}).encode()}
        found = get(f"hf-hub:somebody/described-{architecture}")
        assert sorted(path.name for path in found.path.parent.glob("[!.]*")) == ["config.json", "model.safetensors"]
        report = sources.inspect(found.path)
        assert (report["family"], report["equal"], report["traits"]["std"]) == ("timm", [], [127.5, 63.75, 127.5])
        assert "has the notes of timm with it" in report["evidence"] and (report["problem"] is None) == (
            sentence is None
        )
        assert sentence is None or sentence in report["problem"]
    asked = len(web.asked)
    assert get("hf-hub:somebody/described-resnet18").path.name == "model.safetensors" and len(web.asked) == asked
    web.described["preprocessor_config.json"] = b'{"image_mean": [0, 0, 0]}'
    assert [other.file for other in addresses.remote(addresses.parsed("hf-hub:somebody/described")).beside] == [
        "config.json",
        "preprocessor_config.json",
    ]


def test_timms_table_gives_the_hubs_model(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed")
    monkeypatch.setenv("HF_ENDPOINT", web.url)
    found = addresses.remote(addresses.parsed("timm/resnet50"))
    repository = timm.get_pretrained_cfg("resnet50").hf_hub_id
    assert found.url == f"{web.url}/{repository}/resolve/c0ffee/model.safetensors" and found.licence == "apache-2.0"
    with pytest.raises(ValueError, match="Invalid pretrained tag"):
        addresses.remote(addresses.parsed("timm/resnet50.nobody"))
    with pytest.raises(ValueError, match="expected a model of timm with weights"):
        addresses.remote(addresses.parsed("timm/resnet49"))


@pytest.mark.parametrize(
    "address",
    [
        "torchvision://",
        "torchvision://../../etc/passwd",
        "detectron2://../x.pkl",
        "detectron2://a//b.pkl",
        "hf-hub:somebody",
        "hf-hub:a/../../b",
        "timm/",
        "timm/a/b",
        "ftp://host/file.pth",
        "https://",
        "https:///file.pth",
        "https://user:password@host/file.pth",
        "https://host:port/file.pth",
        "https://[::1/file.pth",
        "https://host/file.pth#md5=0",
        "https://host/file.pth#sha256=123",
    ],
)
def test_what_is_no_address_is_refused_without_asking_anybody(address: str) -> None:
    with pytest.raises(ValueError, match=r"expected .* found") as caught:
        addresses.parsed(address)
    assert "user:password" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("https://host/a/../../../b.pth", "https/host/a/_./_./_./b.pth"),
        ("https://host/%2e%2e%2f%2e%2e/b.pth", "https/host/_._../b.pth"),
        ("https://host:8/x/.bashrc", "https/host_8/x/_bashrc"),
        ("https://host/", "https/host/download"),
        ("https://host/a b.pth", "https/host/a_b.pth"),
    ],
)
def test_a_file_never_leaves_the_cache(address: str, place: str) -> None:
    found = addresses.parsed(address)
    assert "/".join((*found.folder, found.file or "")) == place
    assert not {".", ".."} & {*found.folder, found.file}


def test_two_queries_are_two_files() -> None:
    one, two = (addresses.parsed(f"https://host/file.pth?id={n}") for n in (1, 2))
    assert one.folder != two.folder and one.file == two.file == "file.pth"


def test_two_addresses_with_one_place_in_the_cache_do_not_share_a_file(web: Web) -> None:
    assert get(f"{web.url}/good/a%20b/x.pth").sha256 == SHA
    with pytest.raises(
        ValueError, match=r"expected the file of .*/good/a_b/x\.pth at .*, found the one of .*/good/a%20b/x"
    ):
        get(f"{web.url}/good/a_b/x.pth")
    get(f"{web.url}/good/a%20b/x.pth").path.unlink()
    assert get(f"{web.url}/good/a_b/x.pth").address == f"{web.url}/good/a_b/x.pth"


def test_a_file_that_exists_is_no_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert fetch.is_address("timm/resnet50") and not fetch.is_address("weights.pth")
    (tmp_path / "timm").mkdir()
    (tmp_path / "timm" / "resnet50").write_bytes(b"")
    assert not fetch.is_address("timm/resnet50")


def test_an_encrypted_address_never_leads_to_an_open_one() -> None:
    request = urllib.request.Request("https://host/model.pth")
    for there in ("http://host/model.pth", "ftp://host/model.pth"):
        with pytest.raises(fetch._Final, match="expected a redirection to an encrypted address"):
            fetch._Redirects().redirect_request(request, None, 302, "Found", {}, there)
    assert fetch._Redirects().redirect_request(request, None, 302, "Found", {}, "https://cdn/model.pth") is not None


def test_weights_are_called_by_their_address() -> None:
    for address, name in {
        "torchvision://resnet50": "resnet50",
        "timm/resnet50.a1_in1k": "resnet50.a1_in1k",
        "hf-hub:somebody/r50": "r50",
        "https://host/moco_v2_800ep_pretrain.pth.tar?download=1": "moco_v2_800ep_pretrain",
    }.items():
        found = fetch.Fetched(Path("file"), address, None, "", 0, "", None)
        assert found.name == name


def test_inspect_and_transfer_take_an_address(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    import torchvision

    from bench import journey, sources

    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "plain.pth")
    web.body = (tmp_path / "plain.pth").read_bytes()
    address = f"{web.url}/good/somebody-r18.pth"
    about, _ = journey.opened(address, None, "mini")
    assert (about["name"], about["address"], about["url"]) == ("somebody-r18", address, address)
    assert about["sha256"] == hashlib.sha256(web.body).hexdigest()
    assert sources.inspect(fetch.located(address))["family"] == "torchvision" and len(web.asked) == 1
    call = [sys.executable, "-m", "bench", "inspect", f"{web.url}/gone/model.pth", "--json"]
    done = subprocess.run(call, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "status 404" in done.stderr and "Traceback" not in done.stderr


def test_a_run_is_named_by_its_folder_or_by_its_name_in_runs_and_a_file_of_that_name_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    weights = Path("runs/moco/backbone.pth")
    weights.parent.mkdir(parents=True)
    weights.touch()
    assert fetch.located("moco") == fetch.located("runs/moco") == fetch.located(str(weights)) == weights
    assert fetch.located("mocha") == Path("mocha")
    Path("moco").touch()
    assert fetch.located("moco") == Path("moco")


def test_torchvisions_default_weights_have_their_address():
    assert addresses.remote(addresses.parsed("torchvision://resnet50.DEFAULT")).file == "resnet50-11ad3fa6.pth"
    assert addresses.remote(addresses.parsed("torchvision://resnet50")).file == "resnet50-0676ba61.pth"


@pytest.mark.parametrize("address", ["open-mmlab://resnet50", "file:///tmp/a.pth", "hf://owner/name"])
def test_an_address_of_another_kind_is_told_which_are_known(address):
    with pytest.raises(ValueError, match=rf"expected an address such as torchvision://resnet50, .*, found '{address}'"):
        fetch.located(address)
