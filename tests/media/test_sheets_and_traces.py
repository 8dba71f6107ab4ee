"""Contact sheets and traces: the right pictures in the right places, in every format."""

import io

import av
import numpy
import pytest
import torch
from PIL import Image

from triptych.engine.path import Straight
from triptych.media import image, read_recipe
from triptych.media.sheet import grid, sheet
from triptych.media.trace import MIMES, Moment, projected, trace

TIMES = [0.75, 0.5, 0.25, 0.0]


def flat(colour, size=(30, 20)):
    return Image.new("RGB", size, colour)


def test_a_sheet_shows_every_picture_once():
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255)]
    picture = sheet([(f"no {n}", flat(colour)) for n, colour in enumerate(colours)], columns=3)
    counts = {colour: n for n, colour in picture.getcolors(1_000_000)}
    assert all(counts[colour] == 600 for colour in colours)


def test_long_captions_are_cut_and_titles_kept_inside():
    picture = grid([("a title " * 50, [("a caption " * 50, flat("red"))])], "a note\nof two lines " * 20)
    assert picture.width < 60
    assert numpy.asarray(picture)[:, -3:].min() == 255  # nothing runs over the edge


@pytest.fixture
def moments():
    """A path that shrinks the noise about a constant x_0."""
    x_0, eps = torch.full((1, 3, 16, 16), 0.5), torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return [Moment(t, Straight().perturb(x_0, eps, torch.tensor(t)), x_0) for t in TIMES], eps


@pytest.mark.parametrize("kind", MIMES)
def test_every_format_is_written(kind, moments, recipe):
    artifact = trace(kind, moments[0], Straight(), moments[1], lambda z: z, recipe)
    assert artifact.mime == MIMES[kind]
    if kind == "mp4":
        with av.open(io.BytesIO(artifact.data)) as container:
            frames = [frame.to_image() for frame in container.decode(video=0)]
            assert '"triptych":1' in container.metadata["triptych"]
        assert len(frames) > 2 * len(TIMES)
        assert frames[0].width % 2 == frames[0].height % 2 == 0
    else:
        assert read_recipe(artifact.data, "x") == recipe
        still = Image.open(io.BytesIO(artifact.data))
        assert getattr(still, "n_frames", 1) == (1 if kind == "png" else still.n_frames)
        assert kind == "png" or still.n_frames > len(TIMES)


def test_the_forward_row_is_the_result_noised(moments):
    shown = []

    def show(z):
        shown.append(z)
        return z

    trace("png", moments[0], Straight(), moments[1], show, {})
    forward, noisy, clean = shown[:4], shown[4:8], shown[8:]
    for there, back in zip(forward, reversed(noisy), strict=True):
        torch.testing.assert_close(there, back)  # the same noise, so the same pictures in the other order
    assert all(torch.equal(one, clean[0]) for one in clean)


def test_many_steps_become_few_columns(recipe):
    x = torch.zeros(1, 3, 16, 16)
    many = [Moment(t, x, x) for t in torch.linspace(0.99, 0, 100).tolist()]
    artifact = trace("png", many, Straight(), x, lambda z: z, recipe)
    assert image.opened(artifact.data).width < 250


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 16])
def test_projections_are_pictures_whatever_the_channels(channels):
    z = torch.randn(2, channels, 6, 5, generator=torch.Generator().manual_seed(0))
    x = projected(z)
    assert x.shape == (2, 3, 6, 5)
    assert x.abs().max() <= 1
    assert torch.equal(x, projected(z))
    torch.testing.assert_close(projected(3 * z + 5), x, atol=1e-4, rtol=1e-4)  # neither scale nor offset matter


def test_a_projection_finds_the_axis_that_varies():
    z = torch.zeros(1, 8, 4, 4)
    z[0, 5] = torch.linspace(-1, 1, 16).reshape(4, 4)
    x = projected(z)[0]
    assert torch.corrcoef(torch.stack([x[0].flatten(), z[0, 5].flatten()]))[0, 1].abs() > 0.99
    assert x[1:].abs().max() < 1e-3
