"""triptych make: from words to a file."""

from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from triptych.cli.flags import PICTURE, flagged
from triptych.cli.options import Json, Named, Out, Which

__all__ = ["make"]

PREVIEW = 0.5  # seconds between previews


@flagged(*PICTURE, "duration", "fps", "count")
def make(
    prompt: Annotated[str, Argument(help="What to make")],
    model: Which = None,
    image: Annotated[bool, Option("--image", help="Make a picture (the default, unless -o says else)")] = False,
    video: Annotated[bool, Option("--video", help="Make a clip")] = False,
    audio: Annotated[bool, Option("--audio", help="Make a sound")] = False,
    out: Out = None,
    preview: Annotated[bool, Option("--preview", help="Show the picture as it comes out of the noise")] = False,
    as_json: Json = False,
    trace: Annotated[
        Path | None, Option(metavar="FILE", help="Draw the first one's path: .png .mp4 .gif .webp")
    ] = None,
    option: Named = None,
    *,
    said: dict[str, Any],
) -> None:
    """Make something from a prompt. What a model takes, and within which limits: triptych models."""
    from triptych import client
    from triptych.cli import options, places, produce

    medium = options.medium(image, video, audio)
    service = client.shared()
    card = client.choose(service, model, medium or (None if model else places.medium(out)))
    said |= {"trace": places.trace_kind(trace)} | ({"preview_every": PREVIEW} if preview else {})
    said |= options.options(option or [], card, said)
    plan = places.plan(out, card.media)
    request = client.request(card, prompt, **said)
    produce.produce(service, service.submit(request), produce.Wish(plan, trace, as_json))
