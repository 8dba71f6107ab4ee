"""A result on its way to a file: what has come of it is gone on from, where what comes now is more of the same.

A part is named by the mark of what it is a part of (its ETag, or when that was last changed), so that it is known after
a restart too; what has no mark is begun anew.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from triptych.errors import BadAnswer

if TYPE_CHECKING:
    import httpx

__all__ = ["drop", "here", "received"]

LARGEST: Final = 4 * 2**30  # bytes of one result
UNMARKED: Final = "unmarked"
RANGE: Final = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


def here(place: Path) -> int:
    """Bytes that an earlier try has brought and that need not come again."""
    return sum(part.stat().st_size for part in _parts(place) if UNMARKED not in part.name)


def drop(place: Path) -> None:
    """What has come is not wanted any longer."""
    for part in _parts(place):
        part.unlink(missing_ok=True)


async def received(response: "httpx.Response", place: Path) -> bool:
    """Adds what comes to what is here, or begins anew; whether the whole lies at its place now.

    Raises BadAnswer where it is too large, OSError where it cannot be written, HTTPError where it is cut.
    """
    start, whole = _extent(response)
    part = place.with_name(f"{place.name}.{_mark(response)}.part")
    if start not in (0, part.stat().st_size if part.exists() else 0):  # of something else than what is here
        drop(place)
        return False
    with part.open("ab" if start else "wb") as file:
        async for piece in response.aiter_bytes():
            file.write(piece)
            if file.tell() > LARGEST:
                part.unlink()
                raise BadAnswer(f"the result is larger than {LARGEST // 2**30} GiB: it was not fetched.")
        file.flush()
        os.fsync(file.fileno())
        size = file.tell()
    if whole is not None and size < whole:
        return False
    part.replace(place)
    drop(place)
    return True


def _parts(place: Path) -> Iterator[Path]:
    return place.parent.glob(f"{place.name}.*.part")


def _extent(response: "httpx.Response") -> tuple[int, int | None]:
    """Where in the whole the body begins, and how long the whole is, both in bytes, where that is told."""
    told = response.headers
    if response.status_code == 206:
        found = RANGE.fullmatch(told.get("content-range", "").strip())
        if found is None:
            return -1, None
        return int(found[1]), None if found[2] == "*" else int(found[2])
    plain = told.get("content-encoding", "identity") == "identity"
    length = told.get("content-length", "")
    return 0, int(length) if plain and length.isdigit() else None


def _mark(response: "httpx.Response") -> str:
    """What tells what lies at a URL from what lies there later."""
    told = response.headers
    etag = told.get("etag", "")
    known = etag if etag and not etag.startswith("W/") else told.get("last-modified")
    if not known or told.get("content-encoding", "identity") != "identity":  # whose bytes are not those of the file
        return UNMARKED
    return hashlib.sha256(known.encode()).hexdigest()[:12]
