"""triptych make: from words to a file."""

from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from triptych.cli.options import (
    Device,
    Dtype,
    Extend,
    Guidance,
    Hires,
    HiresSteps,
    HiresStrength,
    Init,
    Json,
    Mask,
    Named,
    Negative,
    Out,
    Sampler,
    Seed,
    Size,
    Spacing,
    Steps,
    Strength,
    Which,
)

__all__ = ["make"]

PREVIEW = 0.5  # seconds between previews
FAST = 3  # every how manieth step is computed in full: see docs/fast.md


def make(
    prompt: Annotated[str, Argument(help="What to make")],
    model: Which = None,
    image: Annotated[bool, Option("--image", help="Make a picture (the default, unless -o says else)")] = False,
    video: Annotated[bool, Option("--video", help="Make a clip")] = False,
    audio: Annotated[bool, Option("--audio", help="Make a sound")] = False,
    out: Out = None,
    seed: Seed = None,
    steps: Steps = None,
    guidance: Guidance = None,
    sampler: Sampler = None,
    spacing: Spacing = None,
    negative: Negative = None,
    size: Size = None,
    duration: Annotated[float | None, Option(metavar="SECONDS", help="How long a clip or a sound is")] = None,
    fps: Annotated[int | None, Option(help="Frames a second of a clip")] = None,
    count: Annotated[int | None, Option(help="How many; seeds count up")] = None,
    init: Init = None,
    strength: Strength = None,
    mask: Mask = None,
    extend: Extend = None,
    hires: Hires = None,
    hires_strength: HiresStrength = None,
    hires_steps: HiresSteps = None,
    loras: Annotated[
        list[str] | None, Option("--lora", metavar="FILE:STRENGTH", help="A file of small changes; may be repeated")
    ] = None,
    profile: Annotated[str | None, Option(help="Whose rules hold: native, diffusers, a1111, comfy")] = None,
    fast: Annotated[bool, Option("--fast", help="About twice as fast, and nearly the same")] = False,
    device: Device = None,
    dtype: Dtype = None,
    preview: Annotated[bool, Option("--preview", help="Show the picture as it comes out of the noise")] = False,
    as_json: Json = False,
    trace: Annotated[
        Path | None, Option(metavar="FILE", help="Draw the first one's path: .png .mp4 .gif .webp")
    ] = None,
    option: Named = None,
) -> None:
    """Make something from a prompt. What a model takes, and within which limits: triptych models."""
    from triptych import client
    from triptych.cli import options, places, produce

    medium = options.medium(image, video, audio)
    service = client.shared()
    card = client.choose(service, model, medium or (None if model else places.medium(out)))
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
    said |= {"extend": extend, "hires": hires, "hires_strength": hires_strength, "hires_steps": hires_steps}
    said |= {"loras": ", ".join(loras or []) or None, "profile": profile, "fast": FAST if fast else None}
    said |= options.size(size) | ({"preview_every": PREVIEW} if preview else {})
    said |= options.options(option or [], card, said)
    plan = places.plan(out, card.media)
    request = client.request(card, prompt, **said)
    produce.produce(service, service.submit(request), produce.Wish(plan, trace, as_json))
