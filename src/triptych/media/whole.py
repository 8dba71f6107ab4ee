"""Whether bytes that came from somewhere are a whole file of the medium that was asked for.

First the layout is followed to its end, which finds what was cut; then pictures are decoded, and clips and sounds are
read to their last packet, their key frames and all of their sound decoded. What a format does not say cannot be
missed: MP3 without a count of frames, or a stream of unknown length, that ends exactly between two of its parts.
"""

import codecs
import io
import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, final

import av
from PIL import ImageSequence

from triptych import media
from triptych.errors import FileProblem
from triptych.media import image
from triptych.media.chunks import Cut, boxes, flac, gif, jpeg, mp3, number, ogg, png, riff
from triptych.media.matroska import ebml
from triptych.media.video import cover
from triptych.types import EMPTY, Artifact, Medium

__all__ = ["checked"]

WALKS: Mapping[str, Callable[[bytes], Any]] = {
    "image/png": png,
    "image/jpeg": jpeg,
    "image/webp": riff,
    "image/gif": gif,
    "image/avif": boxes,
    "video/mp4": boxes,
    "video/quicktime": boxes,
    "audio/mp4": boxes,
    "video/webm": ebml,
    "audio/webm": ebml,
    "video/x-matroska": ebml,
    "audio/x-matroska": ebml,
    "audio/mpeg": mp3,
    "audio/wav": riff,
    "audio/flac": flac,
    "audio/ogg": ogg,
    "video/ogg": ogg,
}
MOVING = ("image/gif", "image/webp", "image/png", "image/avif")  # which may have several frames
SLACK, SHARE = 0.5, 0.1  # seconds, and of the whole, by which a file may be shorter than it says
BROKEN = 0.02  # of the packets, and one: what may be undecodable in a file all of which is there
HEAD = 4096  # bytes that are looked at for text


def checked(data: bytes, where: str, medium: Medium) -> Artifact:
    """The bytes as what they are by their content: a whole file of this medium; for a clip, an animated GIF, WebP or
    PNG will do. Raises FileProblem that says what came, but not what a text said."""
    came = _words(data)
    if came is not None:
        raise FileProblem(f"{where} is no {medium}: {came} came.")
    try:
        found = replace(media.artifact(data, where), recipe=EMPTY)
        WALKS.get(found.mime, len)(data)
        _played(found, where, medium)
    except Cut as problem:
        raise FileProblem(f"{where} ({found.mime}) is cut short or damaged: {problem}.") from problem
    except FileProblem as problem:
        raise FileProblem(f"{problem} What came: {len(data)} bytes that begin with {data[:4].hex(' ')}.") from problem
    return found


def _words(data: bytes) -> str | None:
    """What kind of text this is; None where it is none."""
    if not data:
        return "nothing (0 bytes)"
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(data[:HEAD]).strip().lower()
    except UnicodeDecodeError:
        return None
    if any(mark < " " and not mark.isspace() for mark in text):
        return None
    if text.startswith(("<!doctype html", "<html")):
        kind = "an HTML page"
    elif text.startswith("<"):
        kind = "an SVG drawing" if "<svg" in text else "XML"
    else:
        kind = "JSON" if _is_json(data) else "text"
    return f"{kind} of {len(data)} bytes"


def _is_json(data: bytes) -> bool:
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return False
    return True


def _played(found: Artifact, where: str, medium: Medium) -> None:
    """Decodes it as far as it takes to know that all of it is there. Raises FileProblem."""
    kind = found.mime.partition("/")[0]
    if kind == "image":
        moving = found.mime in MOVING and _frames(found, where) > 1
        if medium != "image" and not (medium == "video" and moving):
            raise FileProblem(f"{where} is no {medium} but {found.mime}.")
        return
    if kind != medium:
        raise FileProblem(f"{where} is no {medium} but {found.mime}.")
    try:
        options = {"ignore_editlist": "1"}  # what is cut out of the film is in the file all the same
        with av.open(io.BytesIO(found.data), "r", options=options, metadata_errors="replace") as container:
            _read(container, found, where)
    except (av.FFmpegError, ValueError, OverflowError) as problem:
        raise FileProblem(f"{where} ({found.mime}) is damaged: {problem}.") from problem


def _frames(found: Artifact, where: str) -> int:
    """How many there are, all of them decoded. Raises FileProblem."""
    opened, count = image.opened(found.data, where), 0
    try:
        with image.quiet():
            for frame in ImageSequence.Iterator(opened):
                frame.load()
                count += 1
    except image.BROKEN as problem:
        raise FileProblem(f"{where} ({found.mime}) is cut short in its frame {count + 1}: {problem}.") from problem
    return count


def _read(container: av.container.InputContainer, found: Artifact, where: str) -> None:
    """Goes through all packets of sound and pictures, and holds what is there against what is said."""
    streams = [one for one in (*container.streams.video, *container.streams.audio) if _plays(one)]
    if not any(found.mime.startswith(stream.type) for stream in streams):
        raise FileProblem(f"{where} ({found.mime}) has no codec that is known here.")
    read = _counts(container, streams)
    problem = f"{where} ({found.mime}) is cut short or damaged:"
    for stream in streams:
        if read.packets[stream.index] < stream.frames:
            told = f"{read.packets[stream.index]} packets of {stream.frames}"
            raise FileProblem(f"{problem} its {stream.type} has {told}.")
    if not any(read.decoded[stream.index] for stream in streams if found.mime.startswith(stream.type)):
        raise FileProblem(f"{problem} nothing in it can be decoded.")
    cut = 0 if found.mime == "audio/wav" else read.cut  # whose last packet is marked where its length was not known
    if cut or read.failed > 1 + BROKEN * read.packets.total():
        raise FileProblem(f"{problem} {read.failed + cut} of {read.packets.total()} packets are not whole.")
    said = (container.duration or 0) / av.time_base
    if read.seconds < said * (1 - SHARE) - SLACK:
        raise FileProblem(f"{problem} it says {said:.1f} s and has {read.seconds:.1f} s.")
    if found.mime == "audio/flac" and read.decoded.total() < (least := _samples(found.data)):
        raise FileProblem(f"{problem} it has {read.decoded.total()} samples of {least}.")


def _plays(stream: av.stream.Stream) -> bool:
    """Whether it can be decoded here, and is no cover."""
    return stream.codec_context is not None and not (stream.type == "video" and cover(stream))


@final
@dataclass(slots=True)
class _Read:
    """What was read: of each stream, how many packets there are and how many key frames or samples came of them; how
    many packets could not be decoded, and how many are not whole; and from when to when they last."""

    packets: Counter[int] = field(default_factory=Counter)
    decoded: Counter[int] = field(default_factory=Counter)
    failed: int = 0
    cut: int = 0
    times: list[float] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """From the first one's begin to the last one's end."""
        return max(self.times, default=0) - min(self.times, default=0)


def _counts(container: av.container.InputContainer, streams: list[av.stream.Stream]) -> _Read:
    read = _Read()
    for stream in streams:
        if stream.type == "video":
            stream.codec_context.skip_frame = "NONKEY"
    for packet in container.demux(streams):
        at = packet.stream.index
        read.packets[at] += packet.size > 0
        read.cut += packet.is_corrupt
        if packet.pts is not None:
            read.times += [float(time * packet.time_base) for time in (packet.pts, packet.pts + (packet.duration or 0))]
        try:
            for frame in packet.decode():
                read.decoded[at] += frame.samples if isinstance(frame, av.AudioFrame) else 1
        except av.FFmpegError:
            read.failed += 1
    return read


def _samples(data: bytes) -> int:
    """How many a FLAC file says that it has; 0 stands for unknown."""
    return number(data, flac(data)[0].body + 13, 5) & (1 << 36) - 1
