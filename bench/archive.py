"""A file's bytes by position, and what is where in a zip or tar archive: what a torch file is made of, read without trusting it.

Python's zipfile and tarfile would do, but take any size on the archive's word and the last of two entries of one name.
"""

import itertools
import math
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import torch

INDEX = 16 << 20  # bytes of a directory; that of a ResNet-152 with its optimizer has 300 kB


class File:
    """A file's bytes by position. Nothing is mapped: a file that shrinks meanwhile is an error, not the end of the process."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self.size = os.fstat(self.descriptor).st_size

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)

    def bytes(self, start: int, size: int) -> bytes:
        """`size` bytes from `start`. Raises ValueError if the file ends before."""
        if not 0 <= start <= start + size <= self.size:
            raise ValueError(f"it ends early, at byte {self.size:,}")
        content = os.pread(self.descriptor, size, start)
        return content if len(content) == size else bytes(self.numbers(start, size).numpy())

    def numbers(self, start: int, size: int) -> torch.Tensor:
        """The same in a tensor, [size] uint8."""
        if not 0 <= start <= start + size <= self.size:
            raise ValueError(f"it ends early, at byte {self.size:,}")
        found = torch.empty(size, dtype=torch.uint8)
        into, done = found.numpy().data, 0
        while done < size:
            count = os.preadv(self.descriptor, [into[done:]], start + done)
            if not count:
                raise ValueError(
                    "expected the file to stay as it was, found it shorter while it was read: read it again"
                )
            done += count
        return found

    def crc32(self, start: int, size: int) -> int:
        """The checksum of zip archives, of a part of the file."""
        crc = 0
        for first in range(start, start + size, 1 << 20):
            crc = zlib.crc32(self.bytes(first, min(1 << 20, start + size - first)), crc)
        return crc


@dataclass(frozen=True, slots=True)
class Entry:
    """One file in a zip archive."""

    name: str
    header: int  # where its local header starts
    size: int
    crc: int
    stored: bool  # neither compressed nor encrypted

    def place(self, file: File) -> int:
        """Where its bytes start. Raises ValueError if they are packed, or elsewhere than the directory says."""
        if not self.stored:
            raise ValueError(f"{self.name!r} is compressed or encrypted, which torch never does")
        magic, flags, method, name, extra = struct.unpack("<4s2xHH16xHH", file.bytes(self.header, 30))
        start = self.header + 30 + name + extra
        if magic != b"PK\3\4" or flags & 1 or method or start + self.size > file.size:
            raise ValueError(f"expected {self.name!r} where the archive's directory says, found something else")
        if file.bytes(self.header + 30, name) != self.name.encode():
            raise ValueError(f"expected {self.name!r} at its place in the archive, found another name")
        return start


def members(file: File) -> dict[str, tuple[int, int]]:
    """Where the files of a tar archive start, and their sizes in bytes, by name (POSIX ustar; what pax adds is not looked at).

    Raises ValueError for an archive that contradicts itself or has more than a hundred parts.
    """
    found: dict[str, tuple[int, int]] = {}
    place = 0
    for _ in range(100):
        header = file.bytes(place, min(512, file.size - place))
        if not header.strip(b"\0"):
            return found
        name, digits, kind = header[:100].rstrip(b"\0").decode(), header[124:136].strip(b"\0 "), header[156:157]
        size = int(digits, 8) if digits.isdigit() else file.size
        if place + 512 + size > file.size:
            raise ValueError(f"{name[:80]!r} ends early, or has no size")
        if kind in (b"0", b"\0"):
            if name in found:
                raise ValueError(f"two entries are called {name[:80]!r}")
            found[name] = place + 512, size
        place = min(place + 512 + math.ceil(size / 512) * 512, file.size)
    raise ValueError("it has more than a hundred parts")


def directory(file: File) -> dict[str, Entry]:
    """A zip archive's entries by name, from its directory alone (APPNOTE 4.3: records of the end, zip64, central headers).

    Raises ValueError for an archive that contradicts itself.
    """
    tail = file.bytes(max(0, file.size - 65_557), min(65_557, file.size))
    found = tail.rfind(b"PK\5\6")
    end = file.size - len(tail) + found
    if found < 0 or len(tail) - found < 22:
        raise ValueError("it ends early: the archive's directory is missing")
    disk, first, here, count, size, start = struct.unpack_from("<HHHHII", tail, found + 4)
    if found >= 20 and tail[found - 20 : found - 16] == b"PK\6\7":
        (end,) = struct.unpack_from("<Q", tail, found - 12)
        magic, disk, first, here, count, size, start = struct.unpack("<4s12xIIQQQQ", file.bytes(end, 56))
        if magic != b"PK\6\6":
            raise ValueError("the archive's directory is not where its end says")
    if disk or first or here != count or size > INDEX or start + size > end or count * 46 > size:
        raise ValueError(f"its directory of {count:,} entries and {size:,} bytes is none that torch writes")
    return _entries(file.bytes(start, size), count, start)


def _entries(directory: bytes, count: int, limit: int) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    place = 0
    for _ in range(count):
        values = struct.unpack_from("<4s4xHH4xIIIHHH8xI", directory, place)
        magic, flags, method, crc, packed, size, names, extras, comments, header = values
        place += 46
        name = directory[place : place + names].decode()
        packed, size, header = _wide(directory[place + names : place + names + extras], packed, size, header)
        place += names + extras + comments
        if magic != b"PK\1\2" or place > len(directory) or header + 30 + packed > limit:
            raise ValueError("the archive's directory is damaged")
        if name in entries:
            raise ValueError(f"two entries are called {name[:80]!r}")
        entries[name] = Entry(name, header, size, crc, method == 0 and not flags & 1 and packed == size)
    ordered = sorted(entries.values(), key=lambda entry: entry.header)
    for one, following in itertools.pairwise(ordered):
        if one.stored and one.header + 30 + one.size > following.header:
            raise ValueError(f"{one.name[:80]!r} and {following.name[:80]!r} overlap")
    return entries


def _wide(extra: bytes, packed: int, size: int, header: int) -> tuple[int, int, int]:
    """The sizes and the place of a zip entry, from its zip64 field where they do not fit into 32 bits."""
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<HH", extra)
        body, extra = extra[4 : 4 + length], extra[4 + length :]
        if kind == 1:
            numbers = iter(struct.unpack_from(f"<{len(body) // 8}Q", body))
            wide = [next(numbers) if n == 0xFFFFFFFF else n for n in (size, packed, header)]
            return wide[1], wide[0], wide[2]
    return packed, size, header
