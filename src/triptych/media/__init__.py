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

    from triptych.media.video import Clip

__all__ = [
    "EXTENSIONS",
    "SHOWN",
    "artifact",
    "convert",
    "exactly",
    "extension",
    "keep",
    "medium",
    "mime",
    "pieces",
    "read_parameters",
    "read_recipe",
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
}


SHOWN: Mapping[Medium, str] = {"image": "image/png", "video": "video/mp4"}  # of each medium: what a browser plays


def medium(artifact: Artifact) -> Medium:
    """What an artifact of a model is, by its mime type."""
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
    return next(name for known in EXTENSIONS.values() for name, kind in known.items() if kind == mime)


def pieces(medium: Medium, samples: "Tensor", rate: float) -> "list[Image.Image | Clip]":
    """Samples (B, c, *S) in [-1, 1] one by one; rate: a second, of a clip's frames."""
    from triptych.media import image, video

    return list(video.clips(samples, rate) if medium == "video" else image.pictures(samples))


def keep(piece: "Image.Image | Clip", recipe: Mapping[str, Any]) -> Artifact:
    """A piece in the format of its medium that loses nothing, the recipe inside."""
    from triptych.media import image, video

    if isinstance(piece, video.Clip):
        return Artifact(video.LOSSLESS, video.encode(piece, video.LOSSLESS, recipe), recipe)
    return Artifact("image/png", image.encode(piece, "image/png", recipe), recipe)


def convert(artifact: Artifact, mime: str) -> Artifact:
    """The same thing in another format, its recipe kept. Raises FileProblem."""
    if artifact.mime == mime:
        return artifact
    if artifact.mime.startswith("video/"):
        from triptych.media import video

        data = video.encode(video.decode(artifact.data), mime, artifact.recipe)
    else:
        from triptych.media import image

        data = image.encode(image.opened(artifact.data), mime, artifact.recipe)
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

    opened = image.opened(data, where)
    kind = Image.MIME.get(opened.format or "", "application/octet-stream")
    return Artifact(kind, data, {"file": Path(where).name})


def read_recipe(data: bytes, where: str) -> dict[str, Any]:
    """The recipe inside a file. Raises NoRecipe, or FileProblem where nothing can be read from it."""
    from triptych.media import image, recipe

    if image.known(data):
        with image.quiet():
            return recipe.find_recipe(image.opened(data, where), where)
    from triptych.media import video

    text = video.metadata(data, where).get(recipe.KEY)
    if text is None:
        raise recipe.nothing(where)
    return recipe.from_text(text, where)


def read_parameters(data: bytes, where: str) -> str | None:
    """AUTOMATIC1111's text inside a file, whoever wrote it; None where there is none. Raises FileProblem."""
    from triptych.media import image, recipe

    if not image.known(data):
        return None
    with image.quiet():
        return recipe.find_parameters(image.opened(data, where))
