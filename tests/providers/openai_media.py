"""Small pictures and clips for the tests of OpenAI's wire, and how they are asked for."""

import asyncio
import functools
import io

import av
import numpy
from PIL import Image

from triptych import media
from triptych.types import Artifact


@functools.cache
def png(size=(64, 64), mode="RGB", colour="teal", kind="PNG", turned=False):
    out = io.BytesIO()
    picture = Image.new(mode, size, colour)
    exif = picture.getexif()
    if turned:
        exif[0x0112] = 6
    picture.save(out, kind, exif=exif)
    return out.getvalue()


def file(*args, **rest):
    mime = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}.get(rest.get("kind", "PNG"), "image/gif")
    return Artifact(mime, png(*args, **rest))


def half_white(size=(64, 64)):
    """A mask that lets the left half change."""
    picture = Image.new("L", size, 0)
    picture.paste(255, (0, 0, size[0] // 2, size[1]))
    out = io.BytesIO()
    picture.save(out, "PNG")
    return Artifact("image/png", out.getvalue())


@functools.cache
def mp4():
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as clip:
        stream = clip.add_stream("libx264", rate=8)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for shade in range(8):
            frame = av.VideoFrame.from_ndarray(numpy.full((64, 64, 3), shade * 30, numpy.uint8), format="rgb24")
            clip.mux(stream.encode(frame))
        clip.mux(stream.encode())
    return out.getvalue()


def recipe_of(data):
    return media.read_recipe(data, "the result")


async def submitted(provider, request):
    return await provider.submit((await provider.resolve(request)).request)


def events_of(provider, request):
    """Submit and watch, in one event loop: what is streamed lives no longer."""

    async def all_of_it():
        ticket = await submitted(provider, request)
        return [event async for event in provider.watch(ticket)]

    return asyncio.run(all_of_it())
