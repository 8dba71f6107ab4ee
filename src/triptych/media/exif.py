"""A recipe added to the EXIF block that a picture already has: what was there stays where it was, byte for byte.

A block is TIFF: a header that says where the first directory is, and directories of twelve bytes an entry. New
directories with the old entries and ours are appended, and only where the first one is changes in the header.
"""

import struct
from typing import Literal

from triptych.media.chunks import Cut, number
from triptych.media.recipe import COMMENT, DESCRIPTION, EXIF, HISTORY

__all__ = ["BARE", "merged"]

BARE = b"II*\0\x08\0\0\0" + bytes(6)  # a block with an empty directory
ASCII, LONG, UNDEFINED = 2, 4, 7

Entries = dict[int, bytes]  # by tag, each with its twelve bytes


def merged(block: bytes, text: str, comment: bytes | None, *, free: bool) -> bytes:
    """The block with this recipe, as the description where that is `free`, else as the history; and with this user's
    comment, if any. Raises Cut where the block is none."""
    order = _order(block)
    out = bytearray(block + bytes(len(block) % 2))
    entries, following = _entries(block, number(block, 4, 4, order), order)
    entries[DESCRIPTION if free else HISTORY] = _entry(
        out, DESCRIPTION if free else HISTORY, ASCII, text.encode(), order
    )
    if comment is not None:
        inner, after = _inner(block, entries, order)
        inner[COMMENT] = _entry(out, COMMENT, UNDEFINED, comment, order)
        place = _directory(out, inner, after, order)
        entries[EXIF] = struct.pack(f"{_mark(order)}HHII", EXIF, LONG, 1, place)
    out[4:8] = struct.pack(f"{_mark(order)}I", _directory(out, entries, following, order))
    return bytes(out)


Order = Literal["little", "big"]


def _order(block: bytes) -> Order:
    match block[:4]:
        case b"II*\0":
            return "little"
        case b"MM\0*":
            return "big"
    raise Cut("its EXIF is none")


def _mark(order: Order) -> str:
    return "<" if order == "little" else ">"


def _inner(block: bytes, entries: Entries, order: Order) -> tuple[Entries, bytes]:
    """The directory that is for the camera, and what follows it."""
    if EXIF not in entries:
        return {}, bytes(4)
    return _entries(block, number(entries[EXIF], 8, 4, order), order)


def _entries(block: bytes, at: int, order: Order) -> tuple[Entries, bytes]:
    """A directory's entries, and the four bytes that say where the next directory is."""
    count = number(block, at, 2, order)
    end = at + 2 + 12 * count
    rows = [block[place : place + 12] for place in range(at + 2, end, 12)]
    number(block, end, 4, order)
    return {number(row, 0, 2, order): row for row in rows}, block[end : end + 4]


def _entry(out: bytearray, tag: int, kind: int, value: bytes, order: Order) -> bytes:
    """The entry of a value that is appended."""
    value += b"\0" if kind == ASCII else b""
    row = struct.pack(f"{_mark(order)}HHII", tag, kind, len(value), len(out))
    out += value + bytes(len(value) % 2)
    return row


def _directory(out: bytearray, entries: Entries, following: bytes, order: Order) -> int:
    """Appends a directory; where it is."""
    place = len(out)
    out += struct.pack(f"{_mark(order)}H", len(entries))
    for tag in sorted(entries):
        out += entries[tag]
    out += following
    return place
