"""Small real files of every medium, a Remote that does not wait, and what the descriptions in ../shared/specs say."""

import asyncio
import io
import json
from functools import cache
from pathlib import Path

import jsonschema
import numpy
import pytest
import soundfile
from loopback import account
from PIL import Image

from triptych.media import video
from triptych.providers.remote import Remote
from triptych.providers.wire.http import Pace
from triptych.types import Artifact, Ticket

SPECS = Path(__file__).parents[2].parent / "shared" / "specs"
CAPTURES = Path(__file__).parent / "captures"


async def at_once(seconds, stop):
    """Waits for nothing, however long a vendor asks for."""
    await asyncio.sleep(0)


def remote(vendor, url, folder, **rest):
    told = account(vendor.name, url, **rest)
    return Remote(vendor, lambda: told, folder, Pace(tries=3, wait=at_once))


def run(provider, request):
    """The Result of a request."""
    return asyncio.run(_run(provider, request))


async def _run(provider, request):
    ticket = await provider.submit((await provider.resolve(request)).request)
    return [event async for event in provider.watch(ticket)][-1]


def submit(provider, request):
    async def submitted():
        return await provider.submit((await provider.resolve(request)).request)

    return asyncio.run(submitted())


def watch(provider, ticket):
    async def watched():
        return [event async for event in provider.watch(ticket)]

    return asyncio.run(watched())


def again(ticket):
    """The ticket as it comes back after a restart."""
    return Ticket(ticket.provider, ticket.request, json.loads(json.dumps(dict(ticket.handle))), ticket.state)


@cache
def picture(width=320, height=256, kind="PNG", mode="RGB"):
    buffer = io.BytesIO()
    ramp = numpy.add.outer(numpy.arange(height), numpy.arange(width)) % 256
    Image.fromarray(ramp.astype("uint8")).convert(mode).save(buffer, kind)
    return buffer.getvalue()


def png(width=320, height=256):
    return Artifact("image/png", picture(width, height))


def jpeg(width=320, height=256):
    return Artifact("image/jpeg", picture(width, height, "JPEG"))


@cache
def sound(kind="MP3", subtype="MPEG_LAYER_III", seconds=1.0, rate=44100):
    buffer = io.BytesIO()
    wave = 0.3 * numpy.sin(numpy.arange(int(seconds * rate)) * 0.05)
    soundfile.write(buffer, numpy.stack([wave, wave], 1), rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def wav(seconds=7.0):
    return Artifact("audio/wav", sound("WAV", "PCM_16", seconds, 8000))


@cache
def clip():
    frames = numpy.random.default_rng(0).integers(0, 255, (6, 32, 32, 3)).astype(numpy.uint8)
    return video.encode(video.Clip(frames, 24.0), "video/mp4", {})


def fits(spec, path, value, kind="application/json", method="post"):
    """Raises where the body of a request is not as a description of the vendor's interface says."""
    if not (SPECS / spec).exists():
        pytest.skip(f"{SPECS / spec} is not here")
    told = json.loads((SPECS / spec).read_text())
    schema = told["paths"][path][method]["requestBody"]["content"][kind]["schema"]
    jsonschema.validate(value, {**schema, "components": told.get("components", {})})


def captured(name):
    """What the vendor's own client sent, by case."""
    return {one["case"]: one for one in json.loads((CAPTURES / f"{name}.json").read_text())["cases"]}
