"""All that a card allows to be asked for: nothing, every field at each of its values, and as much as goes together."""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

from openai_media import file, half_white
from wares import captured, clip, wav

from triptych.errors import InvalidField
from triptych.types import Artifact, Request

PROMPT = "[# Sources <FIRST_FRAME>@Image1] [# References <IMAGE_REF_0>@Image2] a red fox walks"
PLANS = {
    kind: captured("elevenlabs")[f"music of {kind}"]["json"]["composition_plan"] for kind in ("sections", "chunks")
}
WORDS = {  # what stands in fields that take any text
    "negative_prompt": "blur",
    "remix": "video_1",
    "safety_identifier": "u1",
    "previous_interaction_id": "v1_abc",
    "draft_cache": "https://x/y",
    "version": "1",
    "search_prompt": "the dog",
    "select_prompt": "the dog",
    "finetune_id": "tune1",
    "loras": '[{"path": "https://example.com/a.safetensors", "scale": 0.5}]',
}
SEVERAL = {"keyframe_seconds": ("0", "0, 1.5, 5"), "mask_start": (0, 5), "mask_end": (3, 190)}
PLAIN = ("prompt", "negative_prompt", "count", "seed", "steps", "guidance_scale", "strength")
AXES = ("height", "width", "duration")
CLIPS = {("init", "google"), ("reference", "google"), ("init", "bfl")}  # what may be a clip, of cards of clips
FURTHER = ((3840, 2160), (1024, 640), (640, 1920))  # sizes in pixels beside the least and the largest


def side(card):
    """Width and height of the pictures that go along."""
    return (720, 1280) if card.name.startswith("sora") else (256, 256)


def picture(card, name):
    match name:
        case "mask":
            return half_white(side(card))
        case "markup":
            return file(side(card), mode="RGBA", colour=(255, 0, 0, 0))
    return file(side(card))


def files(card, name):
    """What an input of a card is tried with."""
    if "longest" in card.settings:  # seconds
        return [wav()]
    moves = card.media == "video" and (name, card.family) in CLIPS
    return [picture(card, name), *([Artifact("video/mp4", clip())] if moves else [])]


def values(card, name):
    """What a field is tried with: all its choices, or its ends."""
    entry = card.fields[name]
    if entry.kind == "artifact":
        return files(card, name)
    if name == "count":
        return [10 if entry.maximum == 100 else 2]
    if name in SEVERAL:
        return list(SEVERAL[name])
    if name == "composition_plan":
        return [json.dumps(PLANS[card.settings["plan"]])]
    ends = [int(end) if entry.kind == "int" else end for end in (entry.minimum, entry.maximum) if end is not None]
    return list(entry.choices) or ([WORDS[name]] if entry.kind == "str" else ends or [7])


NUMBERED = re.compile(r"_\d+$")  # the same as the one without a number: these go along with all that go together
# what a field may need beside it: the first or the last value of others
GROUNDS: tuple[Mapping[str, int], ...] = (
    {},
    {"init": 0},
    {"init": -1},
    {"init": 0, "mask": 0},
    {"reference": 0},
    {"init": 0, "reference": 0},
    {"init": 0, "keyframe": 0, "last_frame": 0},
    {"init": 0, "top": -1},
    {"init": 0, "left": -1},
    {"init": 0, "right": -1},
    {"init": 0, "search_prompt": 0},
    {"init": 0, "select_prompt": 0},
    {"control": 0},
    {"output_format": 1},
    {"composition_plan": 0},
    {"draft_cache": 0},
)


def sizes(card):
    """Widths, heights and seconds that the axes allow: the ends of each."""
    axes = {axis.name: (axis.minimum, axis.maximum) for axis in card.axes}
    named = [tuple(map(int, told.split("x"))) for told in card.settings.get("sizes", ())]
    pairs = named or [(w, h) for w in axes.get("width", ()) for h in axes.get("height", ())]
    found = [{"width": width, "height": height} for width, height in (*pairs, *FURTHER) if "width" in axes]
    return found + [{"duration": end} for end in axes.get("duration", ())]


def asked(card, changes, request=None):
    """A request with these things more."""
    request = request or Request(card.name, PROMPT if "prompt" in card.fields else "")
    own = {name: value for name, value in changes.items() if name in (*PLAIN, *AXES)}
    inputs = {name: value for name, value in changes.items() if isinstance(value, Artifact)}
    options = {name: value for name, value in changes.items() if name not in {**own, **inputs}}
    if "composition_plan" in changes:
        own["prompt"] = ""
    inputs, options = {**request.inputs, **inputs}, {**request.options, **options}
    return replace(request, inputs=inputs, options=options, **own)


async def allowed(provider, request):
    """It, resolved; None where we refuse it ourselves."""
    with suppress(InvalidField):
        return (await provider.resolve(request)).request
    return None


async def first_allowed(provider, tried):
    for one in tried:
        if found := await allowed(provider, one):
            return found
    return None


async def requests(provider, card):
    """Resolved requests: on every ground, with every field at each of its values, and with all that go together."""
    told = {name: values(card, name) for name in card.fields if name != "prompt"}
    bases = [
        asked(card, {name: told[name][at] for name, at in one.items()})
        for one in GROUNDS
        if all(len(told.get(name, ())) > max(at, 0) for name, at in one.items())
    ]
    bases = [one for one in bases if await allowed(provider, one)]
    each = [{name: value} for name, found in told.items() if not NUMBERED.search(name) for value in found]
    for one in bases:
        yield await allowed(provider, one)
    for changes in [*each, *sizes(card)]:
        found = await first_allowed(provider, [asked(card, changes, base) for base in bases])
        assert found or "width" in changes, f"{card.name} is not asked for {changes}"
        if found:
            yield found
    full = [await fullest(provider, card, base, told, at) for base in bases for at in (0, -1)]
    for one in {_alike(one): one for one in full}.values():
        yield one


def _alike(request):
    """What is the same for two requests that differ by their seeds alone."""
    given = [(name, one.mime) for name, one in request.inputs.items()]
    return f"{replace(request, seed=None, inputs={})} {sorted(given)}"


async def fullest(provider, card, request, told, at):
    """With as much more as goes together, from the first field on or from the last."""
    for name in list(told)[:: at or 1]:
        more = asked(card, {name: told[name][at]}, request)
        if name not in {**request.inputs, **request.options} and await allowed(provider, more):
            request = more
    return await allowed(provider, request)
