"""What a request to OpenAI may say together: sizes, pictures and their masks, and what excludes what."""

import io
from typing import TYPE_CHECKING

from triptych.errors import FileProblem, InvalidField
from triptych.providers.wire.inputs import PICTURES, check_bytes, check_type, named, size
from triptych.types import Artifact, Card, Request

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["check", "cut_out", "pictures"]

PIXELS = (655_360, 8_294_400)  # of GPT Image 2 and later
RATIO = 3
MB = 1_000_000
LARGEST, LARGEST_MASK = 50 * MB, 4 * MB
MOST = 16  # pictures beside the mask and the markup
HALF = 128  # of 255: a mask is white from here on
TURNED = 0x0112  # EXIF's orientation
PNG = ("image/png",)


def check(card: Card, request: Request) -> None:
    """Raises InvalidField where parts of a resolved request do not fit together."""
    _check_size(card, request)
    if card.settings.get("wire") == "videos":
        _check_clip(card, request)
        return
    for name, artifact in pictures(request):
        check_type(name, artifact, PICTURES)
        check_bytes(name, artifact, LARGEST)
    if len(pictures(request)) > MOST:
        raise InvalidField("reference", f"{len(pictures(request))} pictures", f"at most {MOST}, the init among them,")
    _check_options(request)
    _check_overlays(request)
    if card.name == "dall-e-2" and "init" in request.inputs:
        _check_square(request)


def pictures(request: Request) -> list[tuple[str, Artifact]]:
    """What is to be changed, then what shall be in it, by name."""
    init = [("init", request.inputs["init"])] if "init" in request.inputs else []
    return [*init, *named(request, "reference")]


def cut_out(mask: Artifact) -> Artifact:
    """Our mask, white where the init may change, as OpenAI's: a PNG that is transparent there, and opaque elsewhere.

    Raises InvalidField where nothing in it is white.
    """
    from PIL import Image

    from triptych.media import image

    try:
        bright = image.picture(mask.data, "the mask").convert("L")
    except FileProblem as problem:
        raise InvalidField("mask", f"a file of type {mask.mime}", "a picture", str(problem)) from None
    kept = bright.point([255 if level < HALF else 0 for level in range(256)])
    if kept.getextrema() == (255, 255):
        raise InvalidField("mask", "one without white", "one that is white where the init may change")
    made, out = Image.new("RGBA", bright.size), io.BytesIO()
    made.putalpha(kept)
    made.save(out, "PNG", optimize=True)
    return Artifact("image/png", out.getvalue())


def _check_size(card: Card, request: Request) -> None:
    width, height = request.width or 0, request.height or 0
    given = f"{width}x{height}"
    if request.options.get("size") == "auto":
        defaults = {axis.name: axis.default for axis in card.axes}
        if (width, height) != (defaults["width"], defaults["height"]):
            raise InvalidField("size", f"auto beside {given}", "one of the two")
        return
    sizes = card.settings.get("sizes")
    if sizes is not None:
        if given not in sizes:
            raise InvalidField("size", given, f"for {card.name} one of {', '.join(sizes)}")
        return
    if max(width, height) > RATIO * min(width, height):
        raise InvalidField("size", given, f"sides of at most {RATIO} to 1")
    least, most = PIXELS
    if not least <= width * height <= most:
        allowed = f"from {least} to {most} pixels in all (1024x640 to 3840x2160)"
        raise InvalidField("size", f"{given}, {width * height} pixels,", allowed)


def _check_options(request: Request) -> None:
    options, given = request.options, pictures(request)
    format = options.get("output_format", "png")
    if options.get("background") == "transparent" and format == "jpeg":
        raise InvalidField("background", "transparent", "opaque with jpeg", "Ask for png or webp.")
    if "output_compression" in options and format == "png":
        advice = "Ask for it with output_format webp or jpeg."
        raise InvalidField("output_compression", options["output_compression"], "none of a png", advice)
    if "moderation" in options and given:
        raise InvalidField("moderation", options["moderation"], "none beside pictures: OpenAI takes it without them")
    if "input_fidelity" in options and not given:
        raise InvalidField("input_fidelity", options["input_fidelity"], "none without an init or a reference")
    if "partial_images" in options and request.count > 1:
        raise InvalidField(
            "count", request.count, "1 beside partial_images", "Leave the previews, or ask once for each."
        )


def _check_overlays(request: Request) -> None:
    """Mask and markup lie on the init."""
    overlays = [name for name in ("mask", "markup") if name in request.inputs]
    if not overlays:
        return
    if len(overlays) > 1:
        raise InvalidField("markup", "beside a mask", "one of the two")
    name = overlays[0]
    overlay, init = request.inputs[name], request.inputs.get("init")
    if init is None:
        raise InvalidField(name, f"a file of type {overlay.mime}", "none without an init to lay it on")
    if _read("init", init).getexif().get(TURNED, 1) != 1:
        advice = "Save it upright, and make the other one fit."
        raise InvalidField("init", "a picture that is turned by its EXIF", f"an upright one beside a {name}", advice)
    if size(name, overlay) != size("init", init):
        shown, wanted = ("{}x{}".format(*size(*pair)) for pair in ((name, overlay), ("init", init)))
        raise InvalidField(name, shown, f"the init's size, {wanted},", "It is not resized here.")
    if name == "mask":
        check_bytes("mask", cut_out(overlay), LARGEST_MASK)
        return
    check_type("markup", overlay, PNG)
    check_bytes("markup", overlay, LARGEST)
    if not _clear(_read("markup", overlay)):
        raise InvalidField("markup", "an opaque picture", "a PNG that is transparent where it marks nothing")


def _check_square(request: Request) -> None:
    """Of DALL-E 2."""
    init = request.inputs["init"]
    check_type("init", init, PNG)
    check_bytes("init", init, LARGEST_MASK)
    width, height = size("init", init)
    if width != height:
        raise InvalidField("init", f"{width}x{height}", "for dall-e-2 a square")
    if "mask" not in request.inputs and not _clear(_read("init", init)):
        raise InvalidField("mask", None, "a mask, or an init that is transparent where it may change,")


def _check_clip(card: Card, request: Request) -> None:
    if "remix" in request.options:
        defaults = {axis.name: axis.default for axis in card.axes}
        others = [name for name, usual in defaults.items() if getattr(request, name) != usual]
        if others or request.inputs:
            named_first = [*others, *request.inputs][0]
            allowed = "a prompt and nothing else beside remix: the clip stays as long and large as it was"
            raise InvalidField(named_first, "given", allowed)
    if "init" in request.inputs:
        init = request.inputs["init"]
        check_type("init", init, PICTURES)
        if size("init", init) != (request.width, request.height):
            shown, wanted = "{}x{}".format(*size("init", init)), f"{request.width}x{request.height}"
            raise InvalidField("init", shown, f"a first frame of the clip's size, {wanted},", "It is not resized here.")


def _read(name: str, artifact: Artifact) -> "Image":
    from triptych.media import image

    try:
        return image.opened(artifact.data, name)
    except FileProblem as problem:
        raise InvalidField(name, f"a file of type {artifact.mime}", "a picture", str(problem)) from None


def _clear(picture: "Image") -> bool:
    """Whether anything in it is transparent."""
    if not picture.has_transparency_data:
        return False
    least, _ = picture.convert("RGBA").getchannel("A").getextrema()
    return least != 255
