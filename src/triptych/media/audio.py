"""Sounds: samples (N, C) to WAV, FLAC, Ogg Vorbis and MP3 with the recipe inside, and back, at one loudness.

WAV has 16 bits, FLAC 24, which is what results are kept as until they are saved. The recipe is the comment, which all
four have. Any file that has sound in it is read, clips too.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import av
import numpy
import soundfile
from numpy.typing import NDArray

from triptych.errors import FileProblem
from triptych.media.recipe import to_text

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["LEVEL", "LOSSLESS", "PEAK", "Sound", "decode", "encode", "heard", "levelled", "samples", "sounds"]

LOSSLESS = "audio/flac"
LEVEL, PEAK = 0.12, 0.89  # root of the mean square, and the most that any sample may be: lossy codecs overshoot
FADE = 0.01  # seconds at the end, so that what is cut off does not click
LONGEST = 3600.0  # seconds that are read from one file


@final
@dataclass(frozen=True, slots=True)
class _Format:
    """What libsndfile is told to write."""

    name: str
    subtype: str
    options: Mapping[str, float]


FORMATS = {
    "audio/wav": _Format("WAV", "PCM_16", {}),
    LOSSLESS: _Format("FLAC", "PCM_24", {}),
    "audio/ogg": _Format("OGG", "VORBIS", {"compression_level": 0.2}),
    "audio/mpeg": _Format("MP3", "MPEG_LAYER_III", {"compression_level": 0.2}),
}


@final
@dataclass(frozen=True, slots=True)
class Sound:
    """samples (N, C) float32 in [-1, 1], rate a second."""

    samples: NDArray[numpy.float32]
    rate: int


def sounds(x: "Tensor", rate: float, length: int) -> list[Sound]:
    """Samples (B, C, N) as B sounds of the first `length` samples, levelled, with a short fade at the end."""
    whole = x.detach().float().cpu().numpy()[..., :length]
    fade = numpy.ones(whole.shape[-1], numpy.float32)
    ramp = min(round(FADE * rate), len(fade))
    fade[len(fade) - ramp :] = numpy.linspace(1, 0, ramp)
    return [Sound(levelled(numpy.ascontiguousarray((one * fade).T)), round(rate)) for one in whole]


def levelled(x: NDArray[numpy.float32]) -> NDArray[numpy.float32]:
    """At LEVEL on average where that leaves every sample within PEAK, else as loud as PEAK allows."""
    loud, most = float(numpy.sqrt(numpy.mean(numpy.square(x)))), float(numpy.abs(x).max(initial=0))
    if most < 1e-6:
        return x
    return numpy.asarray(x * min(LEVEL / loud, PEAK / most), numpy.float32)


def encode(sound: Sound, mime: str, recipe: Mapping[str, Any]) -> bytes:
    """The sound as a file of this type."""
    kind, out = FORMATS[mime], io.BytesIO()
    channels = sound.samples.shape[1]
    with soundfile.SoundFile(
        out, "w", sound.rate, channels, subtype=kind.subtype, format=kind.name, **kind.options
    ) as file:
        if recipe:
            file.comment = to_text(recipe)
        file.write(sound.samples)
    return out.getvalue()


def decode(data: bytes, where: str = "the file", rate: int | None = None, channels: int | None = None) -> Sound:
    """The sound in a file, resampled and mixed where that is asked for. Raises FileProblem."""
    try:
        with av.open(io.BytesIO(data), "r", metadata_errors="replace") as container:
            if not container.streams.audio:
                raise FileProblem(f"{where} has no sound in it.")
            stream = container.streams.audio[0]
            if container.duration is not None and container.duration / av.time_base > LONGEST:
                raise FileProblem(f"{where} lasts more than {LONGEST:.0f} s; cut it first.")
            layout = {None: stream.layout.name, 1: "mono", 2: "stereo"}[channels]
            to = av.AudioResampler("fltp", layout, rate or stream.rate)
            frames = [part for frame in container.decode(stream) for part in to.resample(frame)]
            frames += to.resample(None)
            found = [frame.to_ndarray() for frame in frames if frame.samples]
    except (av.FFmpegError, ValueError) as problem:
        raise FileProblem(f"{where} is no sound that can be read, or is damaged: {problem}.") from problem
    if not found:
        raise FileProblem(f"{where} has no samples in it.")
    return Sound(numpy.ascontiguousarray(numpy.concatenate(found, axis=1).T), rate or stream.rate)


def heard(data: bytes, where: str = "the file") -> Sound | None:
    """The sound in a clip, mixed to two channels where it has more; None where it has none. Raises FileProblem."""
    try:
        with av.open(io.BytesIO(data), "r", metadata_errors="replace") as container:
            streams = container.streams.audio
            channels = streams[0].channels if streams else 0
    except (av.FFmpegError, ValueError) as problem:
        raise FileProblem(f"{where} is no clip that can be read, or is damaged: {problem}.") from problem
    return decode(data, where, channels=min(channels, 2)) if channels else None


def samples(data: bytes, length: int, rate: float, where: str = "the file") -> "Tensor":
    """A file as (1, 1, length): mixed to one channel, its end cut or silence after it, levelled."""
    import torch

    found = decode(data, where, round(rate), 1).samples[:length]
    padded = numpy.pad(found, ((0, length - len(found)), (0, 0)))
    return torch.from_numpy(levelled(padded).T.copy())[None]
