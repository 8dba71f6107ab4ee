"""How files are laid out: the parts that a file consists of, one after another, without decoding any.

Every walker goes to the end that the format itself defines (IEND, EOI, the trailer of a GIF, the sizes of RIFF and
boxes, the last page of Ogg) and raises Cut where the file ends before it.
"""

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, final

__all__ = [
    "Cut",
    "Part",
    "boxes",
    "flac",
    "gif",
    "id3",
    "jpeg",
    "mp3",
    "number",
    "ogg",
    "ogg_crc",
    "png",
    "riff",
    "within",
]

MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # within a scan of JPEG: all that is no data
UNKNOWN = 0x7FFF0000  # from here on a size of RIFF is a promise of somebody who did not know it yet
OLD = 128  # bytes of ID3v1, the tag at the end of MP3
RATES = {  # kbit/s of MPEG audio by (version 1, layer) and the index in its header
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
HERTZ = (44100, 48000, 32000)  # of version 1; the half and the quarter of it in versions 2 and 2.5
MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class Cut(ValueError):
    """The bytes end before the file does, or are not laid out as its format wants."""


@final
@dataclass(frozen=True, slots=True)
class Part:
    """One part of a file: bytes `start` to `end`, of which the content begins at `body`."""

    name: bytes
    start: int
    body: int
    end: int


def number(data: bytes, at: int, size: int, order: Literal["big", "little"] = "big") -> int:
    """The unsigned number in `size` bytes from `at`. Raises Cut."""
    if at + size > len(data):
        raise Cut(f"it ends at byte {len(data)}, in the middle of a header")
    return int.from_bytes(data[at : at + size], order)


def png(data: bytes) -> list[Part]:
    """The chunks up to IEND, their checksums compared. Raises Cut."""
    found: list[Part] = []
    at = 8
    while not found or found[-1].name != b"IEND":
        end = at + 12 + number(data, at, 4)
        part = Part(data[at + 4 : at + 8], at, at + 8, within(data, end, "chunk"))
        if zlib.crc32(data[at + 4 : end - 4]) != number(data, end - 4, 4):
            raise Cut(f"the checksum of its chunk {part.name!r} is wrong")
        found.append(part)
        at = end
    return found


def jpeg(data: bytes) -> list[Part]:
    """The segments up to EOI, named by their marker (b"\\xe1" is APP1); a scan ends with its data. Raises Cut,
    also where another picture that follows is not whole."""
    found = _picture(data, 0)
    end = found[-1].end
    while data[end : end + 3] == b"\xff\xd8\xff":
        end = _picture(data, end)[-1].end
    return found


def riff(data: bytes) -> list[Part]:
    """The chunks of a RIFF file (WAV, WebP), each with its padding. Raises Cut."""
    said = number(data, 4, 4, "little")
    streamed = said == 0 or said >= UNKNOWN
    if not streamed and said > len(data):  # some writers count the eight bytes before it too
        raise Cut(f"it says that it has {said + 8} bytes and has {len(data)}")
    found: list[Part] = []
    at, last = 12, len(data) if streamed else min(said + 8, len(data))
    while at < last:
        name, size = data[at : at + 4], number(data, at + 4, 4, "little")
        if name == b"data" and (size >= UNKNOWN or (streamed and size == 0)):
            return [*found, Part(name, at, at + 8, len(data))]
        within(data, at + 8 + size, "chunk")
        found.append(Part(name, at, at + 8, min(at + 8 + size + size % 2, len(data))))
        at = found[-1].end
    if not found:
        raise Cut("nothing is in it")
    return found


def gif(data: bytes) -> list[Part]:
    """The blocks up to the trailer: b"!" is an extension, b"," a picture. Raises Cut."""
    found: list[Part] = []
    at = 13 + _palette(number(data, 10, 1))
    while (name := data[at : at + 1]) != b";":
        if name == b",":
            body = at + 11 + _palette(number(data, at + 9, 1))
        elif name == b"!":
            body = at + 2
        else:
            raise Cut(f"no block at byte {at}")
        end = body
        while size := number(data, end, 1):
            end += 1 + size
        found.append(Part(name, at, body, end + 1))
        at = end + 1
    return [*found, Part(name, at, at, at + 1)]


def boxes(data: bytes) -> list[Part]:
    """The outermost boxes of MP4, QuickTime and AVIF. Raises Cut."""
    found: list[Part] = []
    at, last = 0, len(data)
    while at < last:
        size, body = number(data, at, 4), at + 8
        name = data[at + 4 : body]
        if size == 1:
            size, body = number(data, at + 8, 8), at + 16
        elif size == 0:
            size = last - at
        if size < body - at or at + size > last:
            raise Cut(f"its box {name!r} at byte {at} should have {size} bytes; {last - at} are there")
        found.append(Part(name, at, body, at + size))
        at += size
    return found


def ogg(data: bytes) -> list[Part]:
    """The pages, named by the number of their stream; each stream must come to its end. Raises Cut."""
    found: list[Part] = []
    following: dict[bytes, int] = {}  # the number of its next page, of each stream that is not over
    at = 0
    while at < len(data):
        if data[at : at + 4] != b"OggS":
            raise Cut(f"no page at byte {at}")
        body = at + 27 + number(data, at + 26, 1)
        end = within(data, within(data, body, "page") + sum(data[at + 27 : body]), "page")
        name, count = data[at + 14 : at + 18], number(data, at + 18, 4, "little")
        if ogg_crc(data[at : at + 22] + bytes(4) + data[at + 26 : end]) != number(data, at + 22, 4, "little"):
            raise Cut(f"the checksum of its page at byte {at} is wrong")
        if count != following.get(name, count):
            raise Cut(f"page {following[name]} is missing")
        following[name] = count + 1
        if data[at + 5] & 4:
            del following[name]
        found.append(Part(name, at, body, end))
        at = end
    if following or not found:
        raise Cut("its last page is missing")
    return found


def ogg_crc(page: bytes) -> int:
    """The checksum of a page whose checksum is zero: zlib's polynomial, most significant bit first, from 0."""
    mirrored = zlib.crc32(page.translate(MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)


def flac(data: bytes) -> list[Part]:
    """The blocks before the sound, named by their type (b"\\x04" is the comments). Raises Cut."""
    at = id3(data)
    if data[at : at + 4] != b"fLaC":
        raise Cut("it does not begin as FLAC does")
    found: list[Part] = []
    at, over = at + 4, False
    while not over:
        kind = number(data, at, 1)
        end = within(data, at + 4 + number(data, at + 1, 3), "block")
        found.append(Part(bytes([kind & 127]), at, at + 4, end))
        at, over = end, kind >= 128
    return found


def id3(data: bytes) -> int:
    """Where the ID3v2 tags at the beginning end; 0 without any. Raises Cut."""
    at = 0
    while data[at : at + 3] == b"ID3":
        size = sum(number(data, at + 6 + place, 1) << 7 * (3 - place) for place in range(4))
        at = within(data, at + 10 + size + (10 if data[at + 5] & 16 else 0), "tag")
    return at


def mp3(data: bytes) -> list[Part]:
    """The frames of MPEG audio, which must be as many as their first one says (or one less). Raises Cut."""
    found: list[Part] = []
    for part in _frames(data, id3(data)):
        found.append(part)
    if not found:
        raise Cut("no frame of sound is in it")
    first = data[found[0].start : found[0].end]
    at = max(first.find(b"Xing"), first.find(b"Info"))
    if at >= 0 and number(first, at + 4, 4) & 1:
        said = number(first, at + 8, 4)
        if len(found) < said:
            raise Cut(f"it says that it has {said} frames and has {len(found) - 1}")
    return found


def _picture(data: bytes, at: int) -> list[Part]:
    found = [Part(b"\xd8", at, at + 2, at + 2)]
    at += 2
    while True:
        name = data[at + 1 : at + 2]
        if number(data, at, 1) != 0xFF or not name:
            raise Cut(f"no marker at byte {at}")
        if name == b"\xff":  # a marker may be preceded by any number of these
            at += 1
            continue
        if name == b"\xd9":
            return [*found, Part(name, at, at + 2, at + 2)]
        end = within(data, at + 2 + number(data, at + 2, 2), "segment")
        if name == b"\xda":
            following = MARKER.search(data, end)
            if following is None:
                raise Cut("it ends in the middle of the pixels")
            end = following.start()
        found.append(Part(name, at, at + 4, end))
        at = end


def _frames(data: bytes, at: int) -> Iterator[Part]:
    """The frames from there on, until something begins that is none, such as tags."""
    at += len(data) - at - len(data[at:].lstrip(b"\0"))  # what fills up a tag
    while data[at : at + 1] == b"\xff" and (size := _frame(number(data, at, 4))):
        yield Part(b"frame", at, at + 4, within(data, at + size, "frame"))
        at += size
    if data[at:] and len(data) < at + OLD and b"TAG".startswith(data[at : at + 3]):
        raise Cut("its tag at the end is not whole")


def _frame(head: int) -> int | None:
    """The bytes of the frame with this header; None where it is no header or does not say."""
    version, layer = head >> 19 & 3, 4 - (head >> 17 & 3)
    rate, hertz, padding = head >> 12 & 15, head >> 10 & 3, head >> 9 & 1
    if head >> 21 != 0x7FF or version == 1 or layer == 4 or rate in (0, 15) or hertz == 3:
        return None
    bits = RATES[version == 3, layer][rate - 1] * 1000
    clock = HERTZ[hertz] >> {3: 0, 2: 1, 0: 2}[version]
    if layer == 1:
        return (12 * bits // clock + padding) * 4
    return (72 if layer == 3 and version != 3 else 144) * bits // clock + padding


def _palette(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 128 else 0


def within(data: bytes, end: int, what: str) -> int:
    """`end`, which lies in the file. Raises Cut."""
    if end > len(data):
        raise Cut(f"its {what} should go on to byte {end}; it ends at byte {len(data)}")
    return end
