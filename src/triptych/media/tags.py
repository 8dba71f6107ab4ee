"""A recipe written into a clip or a sound that exists, by changing its tags alone: no stream is encoded again.

MP4 and QuickTime: a box of their own at the end, so that nothing moves. MP3: a frame of ID3v2. WAV: a LIST or ID3 chunk
before the samples. FLAC and Ogg: an entry of the Vorbis comments. Matroska is in a module of its own.
"""

import struct
from collections.abc import Mapping
from typing import Any

from triptych.media.chunks import Cut, Part, boxes, flac, number, ogg, ogg_crc, riff
from triptych.media.recipe import KEY, MARK, to_text
from triptych.media.video import metadata

__all__ = ["in_boxes", "in_flac", "in_mp3", "in_ogg", "in_wav"]

OURS = MARK.encode()
COMMENT = "comment"
NO_TAG, FOOTER = b"ID3\3" + bytes(6), 16  # of ID3v2: an empty one, and the flag of one that ends as it begins
OLD = (  # of ID3v1: frame, what it begins with, and where its text is
    (b"TIT2", b"\0", 3, 33),
    (b"TPE1", b"\0", 33, 63),
    (b"TALB", b"\0", 63, 93),
    (b"TYER", b"\0", 93, 97),
    (b"COMM", b"\0eng\0", 97, 125),
)
LAST, COMMENTS = 128, b"\x04"  # of FLAC's blocks: the flag of the last one, and the kind
OGG_COMMENTS = {b"\x03vorbis": 7, b"OpusTags": 8, b"\x84": 4, b"\x04": 4, b"\x81theora": 7}  # and where they begin
NO_END = b"\xff" * 8  # the time of a page on which no packet ends


def in_boxes(data: bytes, recipe: Mapping[str, Any]) -> bytes:
    """MP4 and QuickTime, fragmented or not: after all other boxes, but before the index that must be the last one."""
    kept = [part for part in boxes(data) if not (part.name == b"meta" and OURS in data[part.body : part.body + 256])]
    if not kept:
        raise Cut("nothing is in it")
    pieces = [data[part.start : part.end] for part in kept]
    if number(pieces[-1], 0, 4) == 0:  # it went on to the end of the file
        pieces[-1] = _long(len(pieces[-1]), 4) + pieces[-1][4:]
    text = _box(b"data", struct.pack(">II", 1, 0) + to_text(recipe).encode())
    name = KEY.encode()
    item = _box(b"----", _box(b"mean", bytes(4) + name) + _box(b"name", bytes(4) + name) + text)
    handler = _box(b"hdlr", bytes(8) + b"mdirappl" + bytes(9))
    place = -1 if kept[-1].name == b"mfra" else len(pieces)
    pieces[place:place] = [_box(b"meta", bytes(4) + handler + _box(b"ilst", item))]
    return b"".join(pieces)


def in_mp3(data: bytes, recipe: Mapping[str, Any]) -> bytes:
    """In the first ID3v2 tag, which is made where there is none."""
    end = 10 + _syncsafe(data, 6) + (10 if data[5] & FOOTER else 0) if data[:3] == b"ID3" else 0
    return _framed(data[:end] or _renewed(data[-128:]), _key(data), to_text(recipe)) + data[end:]


def in_wav(data: bytes, recipe: Mapping[str, Any]) -> bytes:
    """As LIST INFO, or as ID3 where somebody else's comment is; before the samples, whose size may be unknown."""
    chunks, key, text = riff(data), _key(data), to_text(recipe)
    if data[:4] != b"RIFF" or all(part.name != b"data" for part in chunks):
        raise Cut("it is too large a file, or no samples are in it")
    tags = [part for part in chunks if key == KEY and part.name in (b"id3 ", b"ID3 ")]
    if key == KEY:
        told = _chunk(b"id3 ", _framed(data[tags[0].body : tags[0].end] if tags else NO_TAG, key, text))
    else:
        told = _chunk(b"LIST", b"INFO" + _chunk(b"ICMT", text.encode() + b"\0"))
    pieces = [data[8:12]]
    for part in chunks:
        body = data[part.body : part.body + 12 + len(OURS)]
        if part in tags[:1] or (part.name == b"LIST" and body[:8] == b"INFOICMT" and body.endswith(OURS)):
            continue
        pieces += [told] if part.name == b"data" else []
        pieces.append(data[part.start : part.end])
    body, said = b"".join(pieces), number(data, 4, 4, "little")
    size = struct.pack("<I", len(body)) if 0 < said <= len(data) else data[4:8]
    return data[:4] + size + body + data[chunks[-1].end :]


def in_flac(data: bytes, recipe: Mapping[str, Any]) -> bytes:
    """In the block of comments, which is made where there is none."""
    blocks = flac(data)
    entry = (_key(data), to_text(recipe))
    found = next((part for part in blocks if part.name == COMMENTS), None)
    if found is None:
        first = blocks[0]
        flag, kind = data[first.start] & LAST, data[first.start] & ~LAST
        told = _block(flag, _commented(_counted(b"triptych") + bytes(4), *entry))
        return data[: first.start] + bytes([kind]) + data[first.start + 1 : first.end] + told + data[first.end :]
    told = _block(data[found.start] & LAST, _commented(data[found.body : found.end], *entry))
    return data[: found.start] + told + data[found.end :]


def in_ogg(data: bytes, recipe: Mapping[str, Any]) -> bytes:
    """In the second packet of the first stream with such comments; its pages are made anew, the rest numbered on."""
    pages, entry = ogg(data), (_key(data), to_text(recipe))
    for name in dict.fromkeys(page.name for page in pages):
        mine = [page for page in pages if page.name == name]
        head, packet, lacing, body = _second(data, mine)
        begin = next((at for mark, at in OGG_COMMENTS.items() if packet.startswith(mark)), None)
        if begin is not None:
            told = packet[:begin] + _commented(packet[begin:], *entry)
            if begin == 4:  # a block of FLAC, which says how long it is
                told = _block(packet[0] & LAST, told[4:])
            fresh = _pages(data, mine[1], _laced(len(told)) + lacing, told + body)
            return _renumbered(data, pages, {page.start for page in mine[1:head]}, mine[1], fresh)
    raise Cut("no stream of it has comments")


def _key(data: bytes) -> str:
    """The tag for the recipe: the comment, unless it is somebody else's."""
    told = metadata(data).get(COMMENT, "")
    return KEY if told and not told.startswith(MARK) else COMMENT


def _framed(tag: bytes, key: str, text: str) -> bytes:
    """A tag of ID3v2 with one more frame before its others; a recipe that was in it goes."""
    version, flags = tag[3], tag[5]
    if version not in (2, 3, 4) or (version == 2 and flags & 64):
        raise Cut(f"its ID3 of version {version} is not known")
    size, at = _syncsafe(tag, 6), 10
    if flags & 64:
        at += _syncsafe(tag, 10) if version == 4 else 4 + number(tag, 10, 4)
    frames = tag[at : 10 + size]
    kept = b"".join(frames[part.start : part.end] for part in _frames(frames, version) if not _ours(frames, part))
    names = {COMMENT: (b"COM", b"COMM", b"\0eng\0"), KEY: (b"TXX", b"TXXX", b"\0" + KEY.encode() + b"\0")}
    short, long, begin = names[key]
    value = begin + text.encode()
    if version == 2:
        frame = short + _long(len(value), 3) + value
    else:
        frame = long + (_synced(len(value)) if version == 4 else _long(len(value), 4)) + bytes(2) + value
    body = tag[10:at] + frame + kept
    head = tag[3:6] + _synced(len(body))
    return b"ID3" + head + body + (b"3DI" + head if flags & FOOTER else b"")


def _renewed(old: bytes) -> bytes:
    """A new tag of ID3v2 that says what ID3v1 at the end says, which nobody reads any more where there is another."""
    found = b""
    for name, begin, start, end in OLD if old[:3] == b"TAG" else ():
        text = old[start:end].partition(b"\0")[0].rstrip()
        found += name + _long(len(begin + text), 4) + bytes(2) + begin + text if text else b""
    return b"ID3\3\0\0" + _synced(len(found)) + found


def _frames(frames: bytes, version: int) -> list[Part]:
    """The frames of a tag, and what comes after them as one more part."""
    found, at, short = [], 0, version == 2
    while frames[at : at + 1].isalnum():
        head = 6 if short else 10
        size = (
            _syncsafe(frames, at + 4) if version == 4 else number(frames, at + (3 if short else 4), 3 if short else 4)
        )
        if at + head + size > len(frames):
            break
        found.append(Part(frames[at : at + (3 if short else 4)], at, at + head, at + head + size))
        at += head + size
    return [*found, Part(b"", at, at, len(frames))]


def _ours(frames: bytes, part: Part) -> bool:
    return part.name in (b"COMM", b"TXXX", b"COM", b"TXX") and OURS in frames[part.body : part.body + 64]


def _commented(body: bytes, key: str, text: str) -> bytes:
    """Vorbis comments with one more; a recipe that was in them goes, and what follows them stays."""
    at = 4 + number(body, 0, 4, "little")
    count, vendor = number(body, at, 4, "little"), body[:at]
    entries, at = [], at + 4
    for _ in range(count):
        size = number(body, at, 4, "little")
        entries.append(body[at + 4 : at + 4 + size])
        at += 4 + size
    kept = [entry for entry in entries if not entry.partition(b"=")[2].startswith(OURS)]
    kept.append(f"{key.upper()}={text}".encode())
    return vendor + struct.pack("<I", len(kept)) + b"".join(_counted(entry) for entry in kept) + body[at:]


def _second(data: bytes, pages: list[Part]) -> tuple[int, bytes, bytes, bytes]:
    """Of the second packet of a stream: after how many pages it is over, itself, and what else is on the last of them
    (lengths and bytes). The first packet has the first page for itself."""
    packet = b""
    for count, page in enumerate(pages[1:], 2):
        lengths, at = data[page.start + 27 : page.body], page.body
        for place, length in enumerate(lengths, 1):
            packet += data[at : at + length]
            at += length
            if length < 255:
                return count, packet, lengths[place:], data[at : page.end]
    raise Cut("its comments do not end")


def _laced(size: int) -> bytes:
    return b"\xff" * (size // 255) + bytes([size % 255])


def _pages(data: bytes, model: Part, lacing: bytes, body: bytes) -> list[bytes]:
    """Pages of these lengths and bytes, with the stream's number, and without numbers and checksums of their own."""
    found, at, whole = [], 0, True
    for start in range(0, len(lacing), 255):
        row = lacing[start : start + 255]
        time = bytes(8) if min(row) < 255 else NO_END
        size = sum(row)
        head = b"OggS\0" + bytes([0 if whole else 1]) + time + data[model.start + 14 : model.start + 18] + bytes(8)
        found.append(head + bytes([len(row)]) + row + body[at : at + size])
        at, whole = at + size, row[-1] < 255
    return found


def _renumbered(data: bytes, pages: list[Part], gone: set[int], first: Part, fresh: list[bytes]) -> bytes:
    """All pages with these ones instead of those that are gone, numbered on."""
    more, out = len(fresh) - len(gone), []
    for page in pages:
        piece = data[page.start : page.end]
        if page.start == first.start:
            begin = number(piece, 18, 4, "little")
            out += [_numbered(one, begin + place) for place, one in enumerate(fresh)]
        if page.start not in gone:
            moved = more and page.name == first.name and page.start > first.start
            out.append(_numbered(piece, number(piece, 18, 4, "little") + more) if moved else piece)
    return b"".join(out)


def _numbered(page: bytes, count: int) -> bytes:
    bare = page[:18] + struct.pack("<I", count) + bytes(4) + page[26:]
    return bare[:22] + struct.pack("<I", ogg_crc(bare)) + bare[26:]


def _box(name: bytes, body: bytes) -> bytes:
    return _long(8 + len(body), 4) + name + body


def _chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)


def _block(flag: int, body: bytes) -> bytes:
    return bytes([flag | COMMENTS[0]]) + _long(len(body), 3) + body


def _counted(text: bytes) -> bytes:
    return struct.pack("<I", len(text)) + text


def _long(value: int, size: int) -> bytes:
    """A number in so many bytes. Raises Cut where it does not fit."""
    if value >> 8 * size:
        raise Cut(f"{value} does not fit into {size} bytes")
    return value.to_bytes(size, "big")


def _synced(value: int) -> bytes:
    if value >> 28:
        raise Cut(f"an ID3 tag cannot have {value} bytes")
    return bytes(value >> shift & 127 for shift in (21, 14, 7, 0))


def _syncsafe(data: bytes, at: int) -> int:
    return sum(number(data, at + place, 1) << 7 * (3 - place) for place in range(4))
