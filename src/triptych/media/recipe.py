"""The recipe inside a file: how it is written and how it is read back.

PNG: text chunks `triptych` (JSON) and `parameters` (AUTOMATIC1111's text). WebP and JPEG: EXIF ImageDescription (JSON)
and UserComment (AUTOMATIC1111's text, as its own files have it). GIF and sounds: the comment. MP4, WebM and Matroska:
the tag `triptych`. Where somebody else's description or comment is: EXIF ImageHistory and the tag `triptych`. The JSON
comes back exactly.
"""

import json
from collections.abc import Mapping
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from triptych.errors import FileProblem, NoRecipe
from triptych.media.parameters import parameters

__all__ = [
    "FORMAT",
    "KEY",
    "MARK",
    "comment_of",
    "exif",
    "find_parameters",
    "find_prompt",
    "find_recipe",
    "from_text",
    "nothing",
    "png_text",
    "to_text",
]

KEY = "triptych"  # of the recipe, in whatever a file has for text
MARK = f'{{"{KEY}":'  # how it begins, by which it is told from what others write there
FORMAT = 1  # the version of the recipe on disk, under the key "triptych"
DESCRIPTION, HISTORY, COMMENT, EXIF = 0x010E, 0x9213, 0x9286, 0x8769
MAKER, DEVICE = 0x010F, 0x0110  # where ComfyUI puts text in a WebP
UNICODE, ASCII = b"UNICODE\0", b"ASCII\0\0\0"
ROOM = 65_000  # bytes that a JPEG has for EXIF


def to_text(recipe: Mapping[str, Any]) -> str:
    """The recipe as JSON in plain ASCII, so that every container carries every prompt."""
    return json.dumps(recipe, separators=(",", ":"))


def from_text(text: str, where: str) -> dict[str, Any]:
    """The recipe of this JSON. Raises FileProblem where it is none, or of a version that is unknown here."""
    try:
        recipe = json.loads(text)
    except ValueError as problem:
        raise FileProblem(f"{where}: the recipe inside is damaged ({problem}).") from problem
    if not isinstance(recipe, dict) or not isinstance(recipe.get("request"), dict):
        raise FileProblem(f"{where}: the recipe inside is damaged (no request in it).")
    if recipe.get("triptych") != FORMAT:
        found = recipe.get("triptych")
        raise FileProblem(f"{where}: recipe of version {found!r}; this triptych reads version {FORMAT}. Update it.")
    return recipe


def png_text(recipe: Mapping[str, Any]) -> PngInfo:
    """What a PNG of this recipe says in its text chunks."""
    info = PngInfo()
    if recipe:
        info.add_text("parameters", parameters(recipe))
        info.add_text("triptych", to_text(recipe))
    return info


def exif(recipe: Mapping[str, Any]) -> bytes:
    """The EXIF block of a WebP or JPEG. The parameters give way where both do not fit. Raises FileProblem."""
    if not recipe:
        return b""
    block = Image.Exif()
    block[DESCRIPTION] = to_text(recipe)
    comment = block.get_ifd(EXIF)
    comment[COMMENT] = comment_of(recipe)
    if len(block.tobytes()) > ROOM:
        del comment[COMMENT]
    data = block.tobytes()
    if len(data) > ROOM:
        raise FileProblem(f"the recipe takes {len(data)} bytes, {ROOM} fit into EXIF. Save as .png instead.")
    return data


def comment_of(recipe: Mapping[str, Any]) -> bytes:
    """AUTOMATIC1111's text as its own files have it in EXIF."""
    return UNICODE + parameters(recipe).encode("utf-16-be")


def find_recipe(image: Image.Image, where: str) -> dict[str, Any]:
    """The recipe in an opened picture. Raises NoRecipe or FileProblem."""
    text = image.info.get(KEY)
    if isinstance(text, str):
        return from_text(text, where)
    block = image.getexif()
    for told in (block.get(DESCRIPTION), block.get(HISTORY), image.info.get("comment")):  # the last is a GIF's
        text = told.decode("ascii", "replace") if isinstance(told, bytes) else told
        if isinstance(text, str) and text.startswith(MARK):
            return from_text(text.partition("\n")[0], where)  # a GIF's other comments follow
    raise nothing(where)


def nothing(where: str) -> NoRecipe:
    """What is raised where no recipe is."""
    return NoRecipe(f"{where} does not say how it was made: no recipe of triptych is in it.")


def find_parameters(image: Image.Image) -> str | None:
    """AUTOMATIC1111's text, whoever wrote it."""
    text = image.info.get("parameters")
    if isinstance(text, str):
        return text
    comment = image.getexif().get_ifd(EXIF).get(COMMENT)
    for mark, encoding in ((UNICODE, "utf-16-be"), (ASCII, "utf-8")):
        if isinstance(comment, bytes) and comment.startswith(mark):
            return comment[len(mark) :].decode(encoding, "replace")
    return None


def find_prompt(image: Image.Image) -> str | None:
    """ComfyUI's graph as JSON, whoever wrote it."""
    text = image.info.get("prompt")
    if isinstance(text, str):
        return text
    for tag in (DEVICE, MAKER, DESCRIPTION):
        text = image.getexif().get(tag)
        if isinstance(text, str) and text[:7].lower() == "prompt:":
            return text[7:]
    return None
