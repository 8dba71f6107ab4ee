"""Pictures: bytes to samples (1, 3, H, W) in [-1, 1] and back, as PNG, WebP or JPEG with the recipe inside.

Only the two functions that touch samples import the tensor library.
"""

import io
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy
from PIL import Image, ImageOps, UnidentifiedImageError

from triptych.errors import FileProblem
from triptych.media import recipe as recipes

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "encode",
    "fitting",
    "known",
    "opened",
    "picture",
    "pictures",
    "quiet",
    "resized",
    "samples",
    "tensor",
    "weights",
]

LARGEST = 100_000_000  # pixels that are read from one file
READ = ("PNG", "WEBP", "JPEG", "GIF", "TIFF", "BMP", "AVIF")
FORMATS = {"image/png": "PNG", "image/webp": "WEBP", "image/jpeg": "JPEG"}
OTHERS = (
    b"ftyp",
    b"\x1aE\xdf\xa3",
    b"WAVE",
    b"AIFF",
    b"AIFC",
    b"AVI ",
    b"fLaC",
    b"OggS",
    b"ID3",
)  # in what begins clips
FRAMES = (b"\xff\xfb", b"\xff\xfa", b"\xff\xf3", b"\xff\xf2", b"\xff\xf1", b"\xff\xf9")  # what begins MP3 and AAC
BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, RuntimeError, Image.DecompressionBombError)
KEPT = ("RGB", "RGBA", "L", "LA", "P")  # modes that PNG and WebP hold
SIXTEEN = ("I;16", "I;16L", "I;16B", "I")


def opened(data: bytes, where: str = "the file") -> Image.Image:
    """The picture, wholly read. Raises FileProblem where it is none, is cut short or is too large."""
    try:
        with quiet():
            image = Image.open(io.BytesIO(data), formats=READ)
            if image.width * image.height > LARGEST:
                raise FileProblem(f"{where} has {image.width} x {image.height} pixels; at most {LARGEST} are read.")
            image.load()
            image.getexif()
    except UnidentifiedImageError as problem:
        kinds = ", ".join(READ)
        raise FileProblem(f"{where} is no picture that can be read ({len(data)} bytes); {kinds} can.") from problem
    except BROKEN as problem:
        raise FileProblem(f"{where} is a damaged or truncated picture: {problem}.") from problem
    return image


def known(data: bytes) -> bool:
    """Whether this is meant to be a picture, damaged or not; else it may be a clip or a sound."""
    try:
        with quiet():
            return Image.open(io.BytesIO(data), formats=READ) is not None
    except UnidentifiedImageError:
        return not (data.startswith(FRAMES) or any(mark in data[:16] for mark in OTHERS))
    except BROKEN:
        return True


@contextmanager
def quiet() -> Iterator[None]:
    """Pillow's warnings about what is damaged: either it fails as well, or it does not matter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def encode(image: Image.Image, mime: str, recipe: Mapping[str, Any]) -> bytes:
    """An RGB picture as a file. PNG and WebP are lossless, JPEG is of quality 95 without chroma subsampling."""
    out = io.BytesIO()
    match FORMATS[mime]:
        case "PNG":
            image.save(out, "PNG", pnginfo=recipes.png_text(recipe), compress_level=6)
        case "WEBP":
            image.save(out, "WEBP", lossless=True, quality=80, exif=recipes.exif(recipe))
        case _:
            image.convert("RGB").save(out, "JPEG", quality=95, subsampling=0, exif=recipes.exif(recipe))
    return out.getvalue()


def fitting(data: bytes, mime: str, where: str = "the file") -> Image.Image:
    """A file as a picture that a file of this type can hold, upright; transparency stays where the type has it."""
    with quiet():
        image = ImageOps.exif_transpose(opened(data, where))
    return image if image.mode in KEPT and mime != "image/jpeg" else picture(data, where)


def pictures(x: "Tensor") -> list[Image.Image]:
    """Samples (B, 3, H, W) in [-1, 1] as B pictures; -1 is 0, 1 is 255, nearest in between."""
    import torch

    pixels = ((x.detach().float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu()
    return [Image.fromarray(numpy.ascontiguousarray(numpy.moveaxis(one.numpy(), 0, -1))) for one in pixels]


def picture(data: bytes, where: str = "the file") -> Image.Image:
    """A file as RGB, upright; what is transparent lies on white, and 16 bits a channel become 8."""
    image = opened(data, where)
    if image.mode in SIXTEEN:
        image = Image.fromarray((numpy.asarray(image).astype(numpy.uint32) >> 8).astype(numpy.uint8))
    with quiet():
        image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def samples(data: bytes, size: tuple[int, int], where: str = "the file") -> "Tensor":
    """A file as (1, 3, H, W) in [-1, 1] of this (height, width): scaled to cover it, then cropped about the centre."""
    return tensor(_covering(picture(data, where), size, Image.Resampling.LANCZOS)) * 2 - 1


def weights(data: bytes, size: tuple[int, int], where: str = "the mask") -> "Tensor":
    """A mask file as (1, 1, H, W) in [0, 1] of this (height, width): white is 1; fitted like `samples`."""
    return tensor(_covering(picture(data, where).convert("L"), size, Image.Resampling.BILINEAR))


def resized(x: "Tensor", size: tuple[int, int]) -> "Tensor":
    """Samples (B, 3, H, W) in [-1, 1] at another (width, height) in pixels, by Lanczos' filter on 8 bits."""
    import torch

    return torch.cat([tensor(one.resize(size, Image.Resampling.LANCZOS)) for one in pictures(x)]) * 2 - 1


def _covering(image: Image.Image, size: tuple[int, int], filter: Image.Resampling) -> Image.Image:
    height, width = size
    return image if image.size == (width, height) else ImageOps.fit(image, (width, height), filter)


def tensor(image: Image.Image) -> "Tensor":
    """(1, C, H, W) in [0, 1]."""
    import torch

    pixels = numpy.asarray(image)
    channels = pixels[..., None] if pixels.ndim == 2 else pixels
    return torch.from_numpy(numpy.moveaxis(channels, -1, 0).copy()).float()[None] / 255
