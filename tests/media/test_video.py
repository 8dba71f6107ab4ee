"""Clips as files: every container plays back what went in, with the recipe inside."""

import io
from contextlib import suppress

import av
import numpy as np
import pytest
import torch

from triptych.errors import FileProblem, NoRecipe
from triptych.media import EXTENSIONS, convert, read_recipe
from triptych.media.video import LOSSLESS, Clip, clips, decode, encode
from triptych.types import Artifact

RECIPE = {
    "triptych": 1,
    "request": {"prompt": "a heart beating; ünïcode {}=", "seed": 7},
    "model": {"name": "m", "weights": {}},
    "versions": {"triptych": "0"},
}


def moving(frames: int = 12, size: tuple[int, int] = (64, 48), rate: float = 12) -> Clip:
    """A soft disc that goes from left to right over a gradient."""
    height, width = size
    down, across = np.mgrid[:height, :width].astype(np.float32)
    found = []
    for n in range(frames):
        near = np.exp(-((down - height / 2) ** 2 + (across - n * width / frames) ** 2) / 40)
        found.append(np.stack([255 * near, 255 * across / width, 255 * down / height], -1))
    return Clip(np.stack(found).round().astype(np.uint8), rate)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


@pytest.mark.parametrize(
    ("mime", "least"), [("video/mp4", 32), ("video/webm", 32), ("image/webp", 32), ("image/gif", 22)]
)
def test_what_is_written_is_read_again(mime, least):
    clip = moving()
    again = decode(encode(clip, mime, RECIPE))
    assert again.frames.shape == clip.frames.shape
    assert again.rate == pytest.approx(12, rel=0.05)  # GIF and WebP count whole hundredths and thousandths of a second
    assert psnr(clip.frames, again.frames) > least


def test_matroska_loses_nothing():
    clip = moving(size=(33, 47))
    np.testing.assert_array_equal(decode(encode(clip, LOSSLESS, RECIPE)).frames, clip.frames)


@pytest.mark.parametrize("mime", sorted(set(EXTENSIONS["video"].values())))
def test_the_recipe_comes_back_exactly_from_every_format(mime):
    assert read_recipe(encode(moving(), mime, RECIPE), "the file") == RECIPE


def test_mp4_is_what_browsers_play():
    data = encode(moving(size=(33, 47)), "video/mp4", RECIPE)
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.height, stream.width) == (34, 48)
    assert data.index(b"moov") < data.index(b"mdat")  # the index first: it plays while it loads


def test_a_clip_without_recipe_says_so():
    with pytest.raises(NoRecipe):
        read_recipe(encode(moving(), "video/mp4", {}), "the file")


@pytest.mark.parametrize("mime", ["video/mp4", "video/webm", LOSSLESS, "image/gif", "image/webp"])
def test_a_clip_cut_short_or_garbled_is_an_error_or_shorter(mime):
    data = encode(moving(), mime, RECIPE)
    for damaged in (data[: len(data) // 2], data[:40], data[:8]):
        with suppress(FileProblem):
            assert 1 <= len(decode(damaged).frames) <= 12


@pytest.mark.parametrize("data", [b"", b"no clip at all", b"\x00" * 1000])
def test_what_is_no_clip_is_refused(data):
    with pytest.raises(FileProblem, match="that file"):
        decode(data, "that file")
    with pytest.raises(FileProblem, match="that file"):
        read_recipe(data, "that file")


def test_samples_become_frames():
    x = torch.linspace(-1.2, 1.2, 2 * 3 * 4 * 6 * 8).reshape(2, 3, 4, 6, 8)
    first, second = clips(x, 12)
    assert first.frames.shape == (4, 6, 8, 3)
    assert first.frames.min() == 0
    assert second.frames.max() == 255


def test_a_result_is_converted_to_what_its_name_says():
    kept = Artifact(LOSSLESS, encode(moving(), LOSSLESS, RECIPE), RECIPE)
    made = convert(kept, "image/gif")
    assert made.mime == "image/gif"
    assert read_recipe(made.data, "the file") == RECIPE
