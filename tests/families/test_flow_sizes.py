"""Pictures of any size through the local machine: what is made at which size, what is shown at which, and extended."""

import asyncio
import io

import numpy as np
import pytest
import torch
from diffusers.pipelines.flux.pipeline_flux_kontext import PREFERRED_KONTEXT_RESOLUTIONS
from PIL import Image
from test_sd import SIZE, psnr
from tiny_flow import saved, theirs, without_deviation

from triptych.families import cards
from triptych.media import canvas, image
from triptych.providers.here import pictures
from triptych.providers.local import Local
from triptych.types import Artifact, Request, Result

OPTIONS = {"profile": "diffusers", "t5_tokens": 77, "dtype": "float32"}


def file(width, height):
    """A picture that changes along both sides."""
    across, down = np.linspace(0, 255, width)[None], np.linspace(0, 255, height)[:, None]
    channels = np.broadcast_arrays(across, down, (across + down) / 2)
    out = io.BytesIO()
    Image.fromarray(np.stack(channels, axis=-1).round().astype(np.uint8)).save(out, "PNG")
    return Artifact("image/png", out.getvalue())


@pytest.fixture
def local(tmp_path):
    return Local(tmp_path / "latents")


def made(local, model, **fields):
    """The picture of a request, and what is told with it."""

    async def events():
        request = Request(str(model), "a red fox", **{"seed": 7, "steps": 6, **fields})
        return [event async for event in local.watch(await local.submit(request))]

    result = asyncio.run(events())[-1]
    assert isinstance(result, Result)
    return image.picture(result.artifacts[0].data), result.warnings


def settled(local, **fields):
    return asyncio.run(local.submit(Request("flux1-kontext", "a red fox", seed=7, **fields))).request


@pytest.mark.parametrize("size", PREFERRED_KONTEXT_RESOLUTIONS)
def test_sizes_that_kontext_was_trained_for_are_kept(size):
    assert pictures.usual(cards()["flux1-kontext"], size) == size


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((1000, 700), (1232, 864)),
        ((4000, 3000), (1168, 880)),
        ((64, 64), (1024, 1024)),
        ((9000, 600), (3968, 272)),
    ],
)
def test_what_kontext_changes_is_made_at_its_aspect_near_a_megapixel(given, expected):
    width, height = pictures.usual(cards()["flux1-kontext"], given)
    assert (width, height) == expected
    assert abs(width * height / 2**20 - 1) < 0.04
    assert abs(width / height / (given[0] / given[1]) - 1) < 0.04


def test_what_is_too_wide_is_as_wide_as_can_be():
    assert pictures.usual(cards()["flux1-kontext"], (99000, 600)) == (4096, 64)


def test_no_size_is_asked(local):
    request = settled(local, inputs={"init": file(300, 210)})
    assert (request.width, request.height) == (1232, 864)
    request = settled(local, inputs={"init": file(300, 210)}, width=320, height=208)
    assert (request.width, request.height) == (320, 208)
    request = settled(local, inputs={"reference": file(300, 210)})
    assert (request.width, request.height) == (1024, 1024)


@pytest.fixture(scope="module")
def kontext(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kontext")
    return saved("flux1-kontext", folder)[0], folder


def test_references_keep_their_aspect(local, kontext):
    pipe, folder = kontext
    given = file(128, 512)  # which is shown at 32 times 16 by 128 times 16 pixels, and no less than 64
    wide = {"width": 128, "height": 128, "guidance_scale": 2.5}
    picture, warnings = made(local, folder, inputs={"reference": given}, options=OPTIONS, **wide)
    assert "the reference of 128 x 512 was scaled and cropped to 64 x 256" in warnings
    shown = image.samples(given.data, (256, 64)) / 2 + 0.5
    other = theirs(pipe, image=shown, guidance_scale=2.5, height=128, width=128, _auto_resize=False, max_area=128**2)
    assert psnr(np.asarray(picture) / 255, other) > 50


@pytest.fixture(scope="module")
def fill(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fill")
    return saved("flux1-fill", folder, without_deviation)[0], folder


def test_fill_draws_on_around_a_picture(local, fill):
    """By diffusers' pipeline on the same canvas, whatever is laid on its new part: none of it is seen."""
    pipe, folder = fill
    given, options = file(SIZE, SIZE), {**OPTIONS, "paste": "nothing", "extend": "left=32,bottom=16"}
    picture, _ = made(local, folder, options=options, inputs={"init": given}, guidance_scale=30.0)
    assert picture.size == (SIZE + 32, SIZE + 16)
    whole, mask = torch.rand(1, 3, SIZE + 16, SIZE + 32), seam(SIZE, SIZE, left=32, bottom=16)
    whole[..., :SIZE, 32:] = image.samples(given.data, (SIZE, SIZE)) / 2 + 0.5
    other = theirs(
        pipe, image=whole, mask_image=mask, guidance_scale=30.0, strength=1.0, height=SIZE + 16, width=SIZE + 32
    )
    assert psnr(np.asarray(picture) / 255, other) > 50


def seam(width, height, left, bottom):
    """The mask of an extension as the local machine makes it, (1, 1, H, W)."""
    around = canvas.Margins(left=left, bottom=bottom)
    return torch.from_numpy(canvas.seam((width, height), around, 4 * 8))[None, None]


def test_an_extension_keeps_the_old_pixels(local, fill):
    _, folder = fill
    given = file(SIZE, SIZE)
    picture, _ = made(local, folder, inputs={"init": given}, options={"extend": "right=64", "t5_tokens": 77})
    old = np.asarray(image.picture(given.data))
    assert np.array_equal(np.asarray(picture)[:, : SIZE - 40], old[:, : SIZE - 40])
