"""Files of every medium, picked by mime type: which there are, what recipe is inside, one turned into another."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from triptych.errors import FileProblem
from triptych.types import Artifact, Medium

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from triptych.media.audio import Sound
    from triptych.media.video import Clip

__all__ = [
    "EXTENSIONS",
    "FOREIGN",
    "SHOWN",
    "artifact",
    "convert",
    "exactly",
    "extension",
    "keep",
    "look",
    "medium",
    "mime",
    "pieces",
    "read_parameters",
    "read_recipe",
    "read_texts",
    "saved",
]

EXTENSIONS: Mapping[Medium, Mapping[str, str]] = {  # of each medium: what a result may be saved as
    "image": {".png": "image/png", ".webp": "image/webp", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"},
    "video": {
        ".mp4": "video/mp4",
        ".webm": "video/webm",
        ".gif": "image/gif",
        ".webp": "image/webp",
        ".mkv": "video/x-matroska",
    },
    "audio": {".wav": "audio/wav", ".flac": "audio/flac", ".ogg": "audio/ogg", ".mp3": "audio/mpeg"},
}
FOREIGN: Mapping[str, str] = {  # what may come from elsewhere and is kept as it came, but never written here
    ".mov": "video/quicktime",
    ".ogv": "video/ogg",
    ".m4a": "audio/mp4",
    ".aac": "audio/aac",
    ".weba": "audio/webm",
    ".mka": "audio/x-matroska",
    ".avif": "image/avif",
    ".tiff": "image/tiff",
    ".tif": "image/tiff",
    ".bmp": "image/bmp",
}
MIMES = {"MPO": "image/jpeg"}  # by Pillow's name: a JPEG with more pictures behind it
SHOWN: Mapping[Medium, str] = {  # of each medium: what a browser plays
    "image": "image/png",
    "video": "video/mp4",
    "audio": "audio/wav",
}


def medium(artifact: Artifact) -> Medium:
    """What an artifact of a model is, by its mime type; a GIF and a WebP that moves are clips."""
    if artifact.mime == "image/gif" or (artifact.mime == "image/webp" and _moves(artifact.data)):
        return "video"
    return next((kind for kind in EXTENSIONS if artifact.mime.startswith(f"{kind}/")), "image")


def mime(path: Path, medium: Medium = "image") -> str:
    """The mime type that a name stands for. Raises FileProblem that lists the known extensions."""
    known = EXTENSIONS[medium]
    found = known.get(path.suffix.lower())
    if found is None:
        given = f"extension {path.suffix!r}" if path.suffix else "a name without extension"
        article = "an" if medium[0] in "aeiou" else "a"
        raise FileProblem(f"{path}: {given} given; {article} {medium} is saved as {', '.join(known)}.")
    return found


def extension(mime: str) -> str:
    """The extension that files of this mime type get."""
    return next(iter(_extensions(mime)), f".{mime.partition('/')[2].removeprefix('x-')}")


def saved(artifact: Artifact, path: Path) -> Artifact:
    """The artifact in the format that the name's extension says: itself, bit for bit, where it is of that type already,
    else converted. Raises FileProblem."""
    if path.suffix.lower() in (*_extensions(artifact.mime), extension(artifact.mime)):
        return artifact
    return convert(artifact, mime(path, medium(artifact)))


def pieces(medium: Medium, samples: "Tensor", rate: float, seconds: float) -> "list[Image.Image | Clip | Sound]":
    """Samples (B, c, *S) in [-1, 1] one by one; rate: a second, of a clip's frames or a sound's samples; seconds: how
    long a sound shall be, of which a model may make a little more."""
    from triptych.media import audio, image, video

    match medium:
        case "video":
            return list(video.clips(samples, rate))
        case "audio":
            return list(audio.sounds(samples, rate, round(seconds * rate)))
        case _:
            return list(image.pictures(samples))


def look(medium: Medium, samples: "Tensor", rate: float) -> "list[Image.Image]":
    """Samples (B, c, *S) in [-1, 1] as B pictures: the frame in the middle of a clip, the spectrogram of a sound."""
    from triptych.media import audio, image, plot

    match medium:
        case "video":
            return image.pictures(samples[:, :, samples.shape[2] // 2])
        case "audio":
            return [plot.plot(sound, SMALL) for sound in audio.sounds(samples, rate, samples.shape[-1])]
        case _:
            return image.pictures(samples)


SMALL = (320, 200)  # pixels, of a sound that is looked at in passing


def keep(piece: "Image.Image | Clip | Sound", recipe: Mapping[str, Any]) -> Artifact:
    """A piece in the format of its medium that loses nothing, the recipe inside."""
    from triptych.media import audio, image, video

    if isinstance(piece, video.Clip):
        return Artifact(video.LOSSLESS, video.encode(piece, video.LOSSLESS, recipe), recipe)
    if isinstance(piece, audio.Sound):
        return Artifact(audio.LOSSLESS, audio.encode(piece, audio.LOSSLESS, recipe), recipe)
    return Artifact("image/png", image.encode(piece, "image/png", recipe), recipe)


def convert(artifact: Artifact, mime: str) -> Artifact:
    """The same thing in another format, its recipe kept. Raises FileProblem."""
    if artifact.mime == mime:
        return artifact
    kind = medium(artifact)
    if kind == "video":
        from triptych.media import audio, video

        sound = audio.heard(artifact.data) if artifact.mime.startswith("video/") else None
        data = video.encode(video.decode(artifact.data), mime, artifact.recipe, sound=sound)
    elif kind == "audio":
        from triptych.media import audio

        data = audio.encode(audio.decode(artifact.data), mime, artifact.recipe)
    else:
        from triptych.media import image

        data = image.encode(image.fitting(artifact.data, mime), mime, artifact.recipe)
    return replace(artifact, mime=mime, data=data)


def exactly(artifact: Artifact, path: Path) -> Artifact:
    """The artifact itself, if the name's extension says what it is: a clip is not converted. Raises FileProblem."""
    wanted = artifact.mime.partition("/")[2]
    if path.suffix.lower() != f".{wanted}":
        raise FileProblem(f"{path}: extension {path.suffix!r} given; this is a {artifact.mime}, name it .{wanted}.")
    return artifact


def artifact(data: bytes, where: str) -> Artifact:
    """A file's bytes with their true mime type and, as `recipe`, where they came from. Raises FileProblem."""
    from PIL import Image

    from triptych.media import image

    if not image.known(data):
        from triptych.media import video

        return Artifact(video.kind(data, where), data, {"file": Path(where).name})
    opened = image.opened(data, where)
    kind = MIMES.get(opened.format or "") or Image.MIME.get(opened.format or "", "application/octet-stream")
    return Artifact(kind, data, {"file": Path(where).name})


def read_recipe(data: bytes, where: str) -> dict[str, Any]:
    """The recipe inside a file. Raises NoRecipe, or FileProblem where nothing can be read from it."""
    from triptych.media import image, recipe

    if image.known(data):
        with image.quiet():
            return recipe.find_recipe(image.opened(data, where), where)
    from triptych.media import video

    told = video.metadata(data, where)
    text = told.get(recipe.KEY) or told.get("comment", "")  # the latter is what sounds have
    if not text.startswith(recipe.MARK):
        raise recipe.nothing(where)
    return recipe.from_text(text, where)


def read_texts(data: bytes, where: str) -> dict[str, str]:
    """What other programs wrote into a picture of how they made it: `parameters` of AUTOMATIC1111's web UI and its kin,
    `prompt` of ComfyUI. Raises FileProblem."""
    from triptych.media import image, recipe

    if not image.known(data):
        return {}
    with image.quiet():
        opened = image.opened(data, where)
        found = {"parameters": recipe.find_parameters(opened), "prompt": recipe.find_prompt(opened)}
    return {name: text for name, text in found.items() if text is not None}


def read_parameters(data: bytes, where: str) -> str | None:
    """AUTOMATIC1111's text inside a file, whoever wrote it; None where there is none. Raises FileProblem."""
    return read_texts(data, where).get("parameters")


def _extensions(mime: str) -> list[str]:
    return [name for known in (*EXTENSIONS.values(), FOREIGN) for name, kind in known.items() if kind == mime]


def _moves(webp: bytes) -> bool:
    """By the flag in the header of an extended WebP."""
    return webp[12:16] == b"VP8X" and bool(webp[20] & 2)
