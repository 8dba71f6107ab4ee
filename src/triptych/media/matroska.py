"""Matroska and WebM: their elements, and a recipe added to them without a move of anything that is there.

A file is a segment of elements. Its SeekHead says where others are, and writers leave room behind it, in which the
place of one more is said: of our tags, at the end. A live stream has no such index, so the tags go before its clusters.
"""

import zlib
from collections.abc import Mapping
from typing import Any

from triptych.media.chunks import Cut, Part, number, within
from triptych.media.recipe import KEY, MARK, to_text

__all__ = ["ebml", "in_matroska"]

SEGMENT, CLUSTER, CUES = (bytes.fromhex(name) for name in ("18538067", "1f43b675", "1c53bb6b"))
SEEK_HEAD, SEEK, SEEK_ID, SEEK_POSITION = (bytes.fromhex(name) for name in ("114d9b74", "4dbb", "53ab", "53ac"))
TAGS, TAG, TARGETS, SIMPLE, NAME, TEXT = (
    bytes.fromhex(name) for name in ("1254c367", "7373", "63c0", "67c8", "45a3", "4487")
)
VOID, CRC = b"\xec", b"\xbf\x84"
OURS = MARK.encode()


def ebml(data: bytes) -> list[Part]:
    """The elements one after another, named by their id. Segments and clusters may be of unknown size, so the part of
    one is its header alone, and what is in it follows. Raises Cut."""
    found: list[Part] = []
    at = 0
    while at < len(data):
        name = data[at : at + _length(data, at)]
        size, body = _size(data, at + len(name))
        if size is not None:
            within(data, body + size, "element")
        elif name not in (SEGMENT, CLUSTER):
            raise Cut(f"its element {name.hex()} at byte {at} has no size")
        end = body if name in (SEGMENT, CLUSTER) else body + (size or 0)
        found.append(Part(name, at, body, end))
        at = end
    return found


def in_matroska(data: bytes, recipe: Mapping[str, Any]) -> bytes:
    """With one more tag. Raises Cut where there is no room to say where it is."""
    parts = ebml(data)
    names = [part.name for part in parts]
    heads = [at for at, name in enumerate(names[:-1]) if name == SEEK_HEAD]
    if names.count(SEGMENT) != 1 or CLUSTER not in names or (CUES in names and not heads):
        raise Cut("it has not one segment with clusters, and an index of them")
    simple = _element(NAME, KEY.upper().encode()) + _element(TEXT, to_text(recipe).encode())
    fresh = _element(TAGS, _element(TAG, _element(TARGETS, b"") + _element(SIMPLE, simple)))
    mine = [part for part in parts if part.name == TAGS and OURS in data[part.body : part.body + 64]]
    segment = parts[names.index(SEGMENT)]
    if not heads:
        begin = parts[names.index(CLUSTER)].start
        start = mine[0].start if mine else begin
        made = data[:start] + fresh + data[mine[0].end if mine else begin :]
    else:
        kept = data[: mine[0].start] if mine and mine[0].end == len(data) else data
        made = _pointed(kept, parts[heads[0]], parts[heads[0] + 1], len(kept) - segment.body) + fresh
    return _resized(made, segment, len(data))


def _pointed(data: bytes, head: Part, void: Part, place: int) -> bytes:
    """The same with one more entry in its SeekHead: our tags are at this place in the segment."""
    entry = _element(SEEK, _element(SEEK_ID, TAGS) + _element(SEEK_POSITION, place.to_bytes(8, "big")))
    body = data[head.body : head.end]
    if entry in body:
        return data
    room = void.end - void.start - len(entry)
    if void.name != VOID or room < 2:
        raise Cut("it has no room to say where its recipe is")
    body += entry
    if body.startswith(CRC):
        body = CRC + zlib.crc32(body[6:]).to_bytes(4, "little") + body[6:]
    size = _vint(len(body), head.body - head.start - len(SEEK_HEAD))
    width = min(room - 1, 8)
    rest = VOID + _vint(room - 1 - width, width) + bytes(room - 1 - width)
    return data[: head.start] + SEEK_HEAD + size + body + rest + data[void.end :]


def _resized(made: bytes, segment: Part, before: int) -> bytes:
    """With the size of its segment as it is now, if it was known. Raises Cut where something follows the segment."""
    begin = segment.start + len(SEGMENT)
    size, _ = _size(made, begin)
    if size is None:
        return made
    if segment.body + size != before:
        raise Cut("something follows its segment")
    return made[:begin] + _vint(len(made) - segment.body, segment.body - begin) + made[segment.body :]


def _size(data: bytes, at: int) -> tuple[int | None, int]:
    """A size, None where it is unknown, and where it ends."""
    length = _length(data, at)
    full = (1 << 7 * length) - 1
    value = number(data, at, length) & full
    return (None if value == full else value), at + length


def _length(data: bytes, at: int) -> int:
    """How many bytes a number has, which its first byte says."""
    length = 9 - number(data, at, 1).bit_length()
    if length > 8:
        raise Cut(f"no element at byte {at}")
    return length


def _vint(value: int, length: int) -> bytes:
    """A size in so many bytes. Raises Cut where it does not fit."""
    if value >= (1 << 7 * length) - 1:
        raise Cut(f"{value} does not fit into {length} bytes")
    return (value | 1 << 7 * length).to_bytes(length, "big")


def _element(name: bytes, body: bytes) -> bytes:
    length = next(length for length in range(1, 9) if len(body) < (1 << 7 * length) - 1)
    return name + _vint(len(body), length) + body
