"""Files of every medium, picked by mime type: which there are, what recipe is inside, one turned into another."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from triptych.errors import FileProblem
from triptych.types import Artifact

__all__ = ["EXTENSIONS", "artifact", "convert", "exactly", "extension", "mime", "read_parameters", "read_recipe"]

EXTENSIONS: Mapping[str, Mapping[str, str]] = {  # of each medium: what a result may be saved as
    "image": {".png": "image/png", ".webp": "image/webp", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"},
}


def mime(path: Path, medium: str = "image") -> str:
    """The mime type that a name stands for. Raises FileProblem that lists the known extensions."""
    known = EXTENSIONS[medium]
    found = known.get(path.suffix.lower())
    if found is None:
        given = f"extension {path.suffix!r}" if path.suffix else "a name without extension"
        raise FileProblem(f"{path}: {given} given; an {medium} is saved as {', '.join(known)}.")
    return found


def extension(mime: str) -> str:
    """The extension that files of this mime type get."""
    return next(name for known in EXTENSIONS.values() for name, kind in known.items() if kind == mime)


def convert(artifact: Artifact, mime: str) -> Artifact:
    """The same picture in another format, its recipe kept. Raises FileProblem."""
    from triptych.media import image

    if artifact.mime == mime:
        return artifact
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
    """The recipe inside a file. Raises NoRecipe, or FileProblem where it is no picture at all."""
    from triptych.media import image, recipe

    with image.quiet():
        return recipe.find_recipe(image.opened(data, where), where)


def read_parameters(data: bytes, where: str) -> str | None:
    """AUTOMATIC1111's text inside a file, whoever wrote it; None where there is none. Raises FileProblem."""
    from triptych.media import image, recipe

    with image.quiet():
        return recipe.find_parameters(image.opened(data, where))
