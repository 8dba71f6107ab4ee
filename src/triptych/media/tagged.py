"""Our recipe inside a file that somebody else made: the pixels, frames and samples stay as they came, bit for bit.

Only the recipe is added, where `media.read_recipe` looks for it. Whatever else the file says of itself (XMP, ICC, EXIF,
C2PA manifests, other comments) stays. A C2PA signature over the whole file no longer matches afterwards, as after any
edit: the manifest is still there, and readers say that the file was changed.
"""

import struct
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from PIL import Image

from triptych.errors import FileProblem
from triptych.media import exif, tags
from triptych.media import recipe as recipes
from triptych.media.chunks import Cut, Part, gif, jpeg, number, png, riff
from triptych.media.image import quiet
from triptych.media.matroska import in_matroska
from triptych.media.whole import checked
from triptych.types import Artifact

__all__ = ["checked", "tagged"]

BEGIN = b"Exif\0\0"
OURS = recipes.MARK.encode()
TEXTS = (b"tEXt", b"zTXt", b"iTXt")
PIXELS = (b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF")  # of WebP
ALPHA, HAS_EXIF = 16, 8  # flags of WebP
MOST = (1 << 32) - 1  # bytes of a chunk of WebP


def tagged(artifact: Artifact, recipe: Mapping[str, Any]) -> Artifact:
    """The same file with the recipe inside, and as `recipe`. A format that cannot carry it stays as it is."""
    write, data = WRITERS.get(artifact.mime), artifact.data
    if recipe and write is not None:
        with suppress(Cut, FileProblem):
            data = write(data, recipe)
    return Artifact(artifact.mime, data, recipe)


def _in_png(data: bytes, recipe: Mapping[str, Any]) -> bytes:
    """As text before the pixels, where all readers look; `parameters` only where nobody else says how it was made."""
    chunks = png(data)
    named = {part.start: data[part.body : part.end].partition(b"\0")[0] for part in chunks if part.name in TEXTS}
    mine = {b"triptych", b"parameters"} if b"triptych" in named.values() else set()
    others = {b"parameters", b"prompt"} & set(named.values()) - mine
    told = b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body, _ in recipes.png_text(recipe).chunks
        if not (others and body.startswith(b"parameters\0"))
    )
    pixels = next(part.start for part in chunks if part.name in (b"IDAT", b"IEND"))
    pieces = [data[:8]]
    for part in chunks:
        pieces += [told] if part.start == pixels else []
        pieces += [] if named.get(part.start) in mine else [data[part.start : part.end]]
    return b"".join([*pieces, data[chunks[-1].end :]])


def _in_jpeg(data: bytes, recipe: Mapping[str, Any]) -> bytes:
    """In EXIF, which comes first after what says that it is JFIF."""
    segments = jpeg(data)
    found = [part for part in segments if part.name == b"\xe1" and data[part.body : part.body + 6] == BEGIN]
    if len(found) > 1:
        raise Cut("it has more than one EXIF block")
    if found:
        start, end, block = found[0].start, found[0].end, data[found[0].body + 6 : found[0].end]
    else:
        start = end = max(part.end for part in segments[:2] if part.name in (b"\xd8", b"\xe0"))
        block = exif.BARE
    body = BEGIN + _merged(block, recipe, recipes.ROOM)
    return data[:start] + b"\xff\xe1" + struct.pack(">H", 2 + len(body)) + body + data[end:]


def _in_webp(data: bytes, recipe: Mapping[str, Any]) -> bytes:
    """In the EXIF chunk after the pixels; a simple file becomes an extended one, which alone has such chunks."""
    chunks = riff(data)
    found = next((part for part in chunks if part.name == b"EXIF"), None)
    block = exif.BARE if found is None else data[found.body : found.body + number(data, found.start + 4, 4, "little")]
    begin = BEGIN if block.startswith(BEGIN) else b""
    told = _chunk(b"EXIF", begin + _merged(block[len(begin) :], recipe, MOST))
    pieces = [_chunk(b"VP8X", _extended(data, chunks[0]))]
    kept = [part for part in chunks if part.name not in (b"VP8X", b"EXIF")]
    last = max((place for place, part in enumerate(kept) if part.name in PIXELS), default=-1)
    for place, part in enumerate(kept):
        pieces.append(data[part.start : part.end])
        if place == last:
            pieces.append(told)
    body = b"WEBP" + b"".join(pieces)
    return b"RIFF" + struct.pack("<I", len(body)) + body + data[chunks[-1].end :]


def _in_gif(data: bytes, recipe: Mapping[str, Any]) -> bytes:
    """As the first comment, which only the later version of the format has."""
    blocks = gif(data)
    text = recipes.to_text(recipe).encode()
    parts = [text[at : at + 255] for at in range(0, len(text), 255)]
    told = b"!\xfe" + b"".join(bytes([len(part)]) + part for part in parts) + b"\0"
    kept = [
        part for part in blocks if not (data[part.start : part.body] == b"!\xfe" and OURS in data[part.body : part.end])
    ]
    rest = b"".join(data[part.start : part.end] for part in kept)
    return b"GIF89a" + data[6 : blocks[0].start] + told + rest + data[blocks[-1].end :]


Writer = Callable[[bytes, Mapping[str, Any]], bytes]
WRITERS: Mapping[str, Writer] = {
    "image/png": _in_png,
    "image/jpeg": _in_jpeg,
    "image/webp": _in_webp,
    "image/gif": _in_gif,
    "video/mp4": tags.in_boxes,
    "video/quicktime": tags.in_boxes,
    "audio/mp4": tags.in_boxes,
    "video/webm": in_matroska,
    "audio/webm": in_matroska,
    "video/x-matroska": in_matroska,
    "audio/x-matroska": in_matroska,
    "audio/mpeg": tags.in_mp3,
    "audio/wav": tags.in_wav,
    "audio/flac": tags.in_flac,
    "audio/ogg": tags.in_ogg,
    "video/ogg": tags.in_ogg,
}


def _merged(block: bytes, recipe: Mapping[str, Any], room: int) -> bytes:
    """An EXIF block with the recipe, and AUTOMATIC1111's text where nobody else says anything and both fit."""
    told = Image.Exif()
    try:
        with quiet():
            told.load(BEGIN + block)
            description = _text(told.get(recipes.DESCRIPTION))
            commented = told.get_ifd(recipes.EXIF).get(recipes.COMMENT) is not None
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, struct.error) as problem:
        raise Cut(f"its EXIF is damaged: {problem}") from problem
    again = any(_text(told.get(tag)).startswith(recipes.MARK) for tag in (recipes.DESCRIPTION, recipes.HISTORY))
    free = not description or description.startswith(recipes.MARK)
    comment = None if commented and not again else recipes.comment_of(recipe)
    for chosen in (comment, None):
        made = exif.merged(block, recipes.to_text(recipe), chosen, free=free)
        if len(made) + len(BEGIN) <= room:
            return made
    raise Cut(f"the recipe takes {len(made)} bytes, {room} fit")


def _text(value: object) -> str:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else str(value or "")


def _extended(data: bytes, first: Part) -> bytes:
    """What an extended WebP says first: its flags and its size less one. A simple one says that in its pixels."""
    body = data[first.body : first.end]
    match first.name:
        case b"VP8X":
            return (number(body, 0, 10, "little") | HAS_EXIF).to_bytes(10, "little")
        case b"VP8L":
            bits = number(body, 1, 4, "little")
            width, height, alpha = bits & 0x3FFF, bits >> 14 & 0x3FFF, bits >> 28 & 1
        case b"VP8 ":
            sides = [number(body, at, 2, "little") & 0x3FFF for at in (6, 8)]  # without how they are to be scaled
            width, height, alpha = max(sides[0], 1) - 1, max(sides[1], 1) - 1, 0
        case _:
            raise Cut("it does not begin with pixels")
    flags = HAS_EXIF | (ALPHA if alpha else 0)
    return bytes([flags, 0, 0, 0]) + width.to_bytes(3, "little") + height.to_bytes(3, "little")


def _chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)
