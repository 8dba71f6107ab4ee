"""triptych make: from words to a file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from triptych.cli.flags import PICTURE, flagged
from triptych.cli.options import DryRun, Json, Named, Out, Successor, Unpriced, Which

if TYPE_CHECKING:
    from triptych.types import Card

__all__ = ["make"]

AUTO = "auto"  # the model that the catalogue chooses
PREVIEW = 0.5  # seconds between previews


@flagged(*PICTURE, "last_frame", "duration", "fps", "count")
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
    dry_run: DryRun = False,
    successor: Successor = False,
    unpriced: Unpriced = False,
    *,
    said: dict[str, Any],
) -> None:
    """Make something from a prompt. What a model takes, and within which limits: triptych models."""
    from triptych import client
    from triptych.cli import options, places, produce
    from triptych.cli.before import chosen, followed, foretold

    service = client.shared()
    wanted = options.medium(image, video, audio) or (None if model not in (None, AUTO) else places.medium(out))
    if model == AUTO:
        model = chosen(service, prompt, wanted, said, as_json)
    elif model is not None and successor:
        model = followed(service, model, as_json)
    card = client.choose(service, model, wanted)
    said |= {"trace": places.trace_kind(trace)} | (_previews(card) if preview else {})
    said |= options.options(option or [], card, said)
    plan = places.plan(out, card.media)
    request = client.request(card, prompt, **said)
    if dry_run:
        foretold(service, [request], as_json)
        return
    produce.produce(service, service.submit(request, unpriced=unpriced), produce.Wish(plan, trace, as_json))


def _previews(card: "Card") -> dict[str, Any]:
    """The field by which a model shows what it is at. Raises RequestError where it has none."""
    if "preview_every" in card.fields:
        return {"preview_every": PREVIEW}
    from triptych.errors import RequestError

    own = "; it sends pictures on the way with --option partial_images=1" if "partial_images" in card.fields else ""
    raise RequestError(f"--preview: {card.name} tells nothing of what it makes step by step{own}. Leave --preview out.")
