"""Clips: frames (T, H, W, 3) to MP4, WebM, Matroska, GIF and WebP with the recipe inside, and back.

MP4 is H.264 in 4:2:0, which every browser plays; WebM is VP9; Matroska is FFV1, which loses nothing and so is what
results are kept as until they are saved. GIF and WebP repeat for ever.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, final

import av
import numpy
from numpy.typing import NDArray
from PIL import Image, ImageSequence

from triptych.errors import FileProblem
from triptych.media.image import opened
from triptych.media.recipe import KEY, exif, to_text

if TYPE_CHECKING:
    from torch import Tensor

    from triptych.media.audio import Sound

__all__ = ["LOSSLESS", "Clip", "clips", "cover", "decode", "encode", "kind", "metadata"]

LOSSLESS = "video/x-matroska"
KINDS = {
    "mp4": "mp4",
    "matroska": "x-matroska",
    "wav": "wav",
    "flac": "flac",
    "ogg": "ogg",
    "mp3": "mpeg",
    "aac": "aac",
}
OWN = {b"webm": ("x-matroska", "webm"), b"ftypqt  ": ("mp4", "quicktime")}  # kinds told apart by how they begin
OPUS = 48_000  # samples a second, of the rates that it knows the one that loses nothing
LAYOUTS = {1: "mono", 2: "stereo"}
LARGEST = 4_000_000_000  # bytes of frames that are read from one file


@final
@dataclass(frozen=True, slots=True)
class _Container:
    """What PyAV is told to write."""

    suffix: str
    codec: str
    pixels: str
    options: Mapping[str, str]
    sound: str  # the codec for it
    even: bool = True  # whether the codec wants even sides
    flags: Mapping[str, str] = field(default_factory=dict)  # of the container


MOVIE = {"movflags": "+faststart+use_metadata_tags"}  # the index first, and tags of any name
CONTAINERS = {
    "video/mp4": _Container(".mp4", "libx264", "yuv420p", {"crf": "14", "preset": "medium"}, "aac", flags=MOVIE),
    "video/webm": _Container(
        ".webm", "libvpx-vp9", "yuv420p", {"crf": "18", "b": "0", "cpu-used": "2", "row-mt": "1"}, "libopus"
    ),
    LOSSLESS: _Container(".mkv", "ffv1", "bgr0", {}, "pcm_f32le", even=False),
}


@final
@dataclass(frozen=True, slots=True)
class Clip:
    """frames (T, H, W, 3) uint8, rate a second."""

    frames: NDArray[numpy.uint8]
    rate: float


def clips(x: "Tensor", rate: float) -> list[Clip]:
    """Samples (B, 3, T, H, W) in [-1, 1] as B clips; -1 is 0, 1 is 255, nearest in between."""
    import torch

    pixels = ((x.detach().float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu()
    return [Clip(numpy.ascontiguousarray(numpy.moveaxis(one.numpy(), 0, -1)), rate) for one in pixels]


def encode(clip: Clip, mime: str, recipe: Mapping[str, Any], quality: int = 90, sound: "Sound | None" = None) -> bytes:
    """The clip as a file of this type; quality: of WebP, up to 100; sound: what is heard, where the type has any."""
    if mime in CONTAINERS:
        return _contained(clip, CONTAINERS[mime], recipe, sound)
    first, *rest = [Image.fromarray(frame) for frame in clip.frames]
    out, told = io.BytesIO(), to_text(recipe).encode() if recipe else b""
    timing: dict[str, Any] = {"save_all": True, "append_images": rest, "duration": round(1000 / clip.rate), "loop": 0}
    if mime == "image/gif":
        first.save(out, "GIF", comment=told, **timing)
    else:
        first.save(out, "WEBP", quality=quality, method=4, exif=exif(recipe), **timing)
    return out.getvalue()


def decode(data: bytes, where: str = "the file") -> Clip:
    """The clip in a file. Raises FileProblem where there is none, or it is damaged."""
    if _is_picture(data):
        image = opened(data, where)
        try:
            frames = [numpy.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)]
        except (OSError, SyntaxError, ValueError, EOFError, IndexError) as problem:
            raise FileProblem(f"{where} is a damaged or truncated clip: {problem}.") from problem
        return Clip(numpy.stack(frames), 1000 / (image.info.get("duration") or 100))
    try:
        with av.open(io.BytesIO(data), "r", metadata_errors="replace") as container:
            if not container.streams.video:
                raise FileProblem(f"{where} has no pictures in it.")
            stream = container.streams.video[0]
            if stream.width * stream.height * 3 * max(stream.frames, 1) > LARGEST:
                raise FileProblem(f"{where} is too large: {stream.frames} frames of {stream.width} x {stream.height}.")
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
            rate = float(stream.average_rate or 25)
    except (av.FFmpegError, ValueError) as problem:
        raise FileProblem(f"{where} is no clip that can be read, or is damaged: {problem}.") from problem
    if not frames:
        raise FileProblem(f"{where} has no frames in it.")
    return Clip(numpy.stack(frames), rate)


def metadata(data: bytes, where: str = "the file") -> dict[str, str]:
    """What a container of clips or sounds says of itself, by keys in lower case. Raises FileProblem."""
    try:
        with av.open(io.BytesIO(data), "r", metadata_errors="replace") as container:
            found = dict(container.metadata)
            for stream in container.streams:  # where Ogg keeps its comments
                found |= stream.metadata
    except (av.FFmpegError, ValueError) as problem:
        raise FileProblem(f"{where} is no picture, clip or sound that can be read: {problem}.") from problem
    return {name.lower(): value for name, value in found.items()}


def kind(data: bytes, where: str = "the file") -> str:
    """The mime type of a clip or a sound, by its container and what streams it has. Raises FileProblem."""
    try:
        with av.open(io.BytesIO(data), "r", metadata_errors="replace") as container:
            names = container.format.name.split(",")
            moving = any(not cover(stream) for stream in container.streams.video)
    except (av.FFmpegError, ValueError) as problem:
        raise FileProblem(f"{where} is no picture, clip or sound that can be read: {problem}.") from problem
    known = next((mime for name, mime in KINDS.items() if name in names), f"x-{names[0]}")
    known = next((mime for mark, (name, mime) in OWN.items() if name == known and mark in data[:64]), known)
    return f"{'video' if moving else 'audio'}/{known}"


def cover(stream: av.stream.Stream) -> bool:
    """Whether this is no clip but the picture on the sleeve."""
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _is_picture(data: bytes) -> bool:
    return data[:4] in (b"GIF8", b"RIFF", b"\x89PNG") and data[8:12] != b"WAVE"


def _contained(clip: Clip, kind: _Container, recipe: Mapping[str, Any], sound: "Sound | None") -> bytes:
    with TemporaryDirectory(prefix="triptych-") as folder:  # a file that begins with its index is written twice
        path = Path(folder) / f"clip{kind.suffix}"
        with av.open(path, "w", options=dict(kind.flags)) as container:
            if recipe:
                container.metadata[KEY] = to_text(recipe)
            stream = container.add_stream(kind.codec, rate=_fraction(clip.rate), options=dict(kind.options))
            assert isinstance(stream, av.VideoStream)
            frames = _even(clip.frames) if kind.even else clip.frames
            stream.height, stream.width = frames.shape[1:3]
            stream.pix_fmt = kind.pixels
            heard = None if sound is None else container.add_stream(kind.sound, **_as_heard(kind, sound))
            for pixels in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode())
            if sound is not None and isinstance(heard, av.AudioStream):
                container.mux(heard.encode(_frame(sound)))
                container.mux(heard.encode())
        return path.read_bytes()


def _as_heard(kind: _Container, sound: "Sound") -> dict[str, Any]:
    return {"rate": OPUS if kind.sound == "libopus" else sound.rate, "layout": LAYOUTS[sound.samples.shape[1]]}


def _frame(sound: "Sound") -> av.AudioFrame:
    """All of it as one; the encoder cuts it, and changes its rate."""
    planes = numpy.ascontiguousarray(sound.samples.T)
    frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout=LAYOUTS[len(planes)])
    frame.sample_rate = sound.rate
    return frame


def _even(frames: NDArray[numpy.uint8]) -> NDArray[numpy.uint8]:
    """Sides of even length: the last row and column are said twice."""
    height, width = frames.shape[1:3]
    return numpy.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def _fraction(rate: float) -> Fraction:
    return Fraction(rate).limit_denominator(1001)
