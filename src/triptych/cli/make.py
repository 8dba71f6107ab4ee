"""triptych make: from words to a file."""

from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from triptych.cli.options import Device, Dtype, Json, Out

__all__ = ["make"]

PREVIEW = 0.5  # seconds between previews


def make(
    prompt: Annotated[str, Argument(help="What to make")],
    model: Annotated[str | None, Option("--model", "-m", help="See: triptych models")] = None,
    image: Annotated[bool, Option("--image", help="Make a picture (the default, unless -o says else)")] = False,
    video: Annotated[bool, Option("--video", help="Make a clip")] = False,
    audio: Annotated[bool, Option("--audio", help="Make a sound")] = False,
    out: Out = None,
    seed: Annotated[int | None, Option(help="Same seed, same result; random if not given")] = None,
    steps: Annotated[int | None, Option(help="More are slower and finer")] = None,
    guidance: Annotated[float | None, Option(help="How closely to follow the prompt; 1 means no guidance")] = None,
    sampler: Annotated[str | None, Option(help="How the path is walked")] = None,
    spacing: Annotated[str | None, Option(help="How the steps are spread over the path")] = None,
    negative: Annotated[str | None, Option(metavar="TEXT", help="What to lead away from")] = None,
    size: Annotated[str | None, Option(metavar="WxH", help="Pixels")] = None,
    duration: Annotated[float | None, Option(metavar="SECONDS", help="How long a clip or a sound is")] = None,
    fps: Annotated[int | None, Option(help="Frames a second of a clip")] = None,
    count: Annotated[int | None, Option(help="How many; seeds count up")] = None,
    init: Annotated[Path | None, Option(metavar="FILE", help="What to start from; of a clip the first frame")] = None,
    strength: Annotated[float | None, Option(help="How much of the init may change, up to 1")] = None,
    mask: Annotated[Path | None, Option(metavar="FILE", help="White where the init may change")] = None,
    device: Device = None,
    dtype: Dtype = None,
    preview: Annotated[bool, Option("--preview", help="Show the picture as it comes out of the noise")] = False,
    as_json: Json = False,
    trace: Annotated[
        Path | None, Option(metavar="FILE", help="Draw the first one's path: .png .mp4 .gif .webp")
    ] = None,
    option: Annotated[list[str] | None, Option(metavar="NAME=VALUE", help="Whatever else the model takes")] = None,
) -> None:
    """Make something from a prompt. What a model takes, and within which limits: triptych models."""
    from triptych import client
    from triptych.cli import options, places, produce

    medium = options.medium(image, video, audio)
    service = client.shared()
    card = client.choose(service.cards(), model, medium or (None if model else places.medium(out)))
    said: dict[str, Any] = {"seed": seed, "steps": steps, "guidance_scale": guidance, "sampler": sampler}
    said |= {"spacing": spacing, "negative_prompt": negative, "count": count, "init": init, "strength": strength}
    said |= {
        "duration": duration,
        "fps": fps,
        "mask": mask,
        "device": device,
        "dtype": dtype,
        "trace": places.trace_kind(trace),
    }
    said |= options.size(size) | ({"preview_every": PREVIEW} if preview else {})
    said |= options.options(option or [], card, said)
    plan = places.plan(out, card.media)
    request = client.request(card, prompt, **said)
    produce.produce(service, service.submit(request), produce.Wish(plan, trace, as_json))
