"""Pictures: what goes in comes out, and what is no picture is refused."""

import io
import struct
import zlib
from contextlib import suppress
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image

from triptych import media
from triptych.errors import FileProblem
from triptych.media import image
from triptych.types import Artifact

LOSSLESS = ["image/png", "image/webp"]


def file(picture, kind="PNG", **options):
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


@pytest.fixture
def noise():
    return Image.fromarray(numpy.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=numpy.uint8))


@pytest.mark.parametrize("mime", LOSSLESS)
def test_every_level_survives(mime):
    x = (torch.arange(256).float() / 127.5 - 1).reshape(1, 1, 16, 16).repeat(2, 3, 1, 1)
    for picture in image.pictures(x):
        back = image.samples(image.encode(picture, mime, {}), (16, 16))
        assert back.shape == (1, 3, 16, 16)
        torch.testing.assert_close(back, x[:1], atol=1e-6, rtol=0)


def test_values_outside_are_clamped_and_the_rest_rounded():
    x = torch.tensor([-3.0, -1.0, 0.0, 1.0, 7.0, 0.999]).reshape(1, 1, 1, 6).repeat(1, 3, 1, 1)
    assert numpy.asarray(image.pictures(x)[0])[0, :, 0].tolist() == [0, 0, 128, 255, 255, 255]


@pytest.mark.parametrize("mime", media.EXTENSIONS["image"].values())
@pytest.mark.parametrize("start", media.EXTENSIONS["image"].values())
def test_conversion_keeps_size_and_recipe(noise, mime, start, recipe):
    made = Artifact(start, image.encode(noise, start, recipe), recipe)
    other = media.convert(made, mime)
    assert (other.mime, other.recipe) == (mime, recipe)
    assert image.opened(other.data).size == noise.size
    assert media.read_recipe(other.data, "x") == recipe
    if {start, mime} <= set(LOSSLESS):
        assert image.picture(other.data).tobytes() == noise.tobytes()


def test_jpegs_are_close(noise):
    smooth = noise.resize((8, 8)).resize((64, 64), Image.Resampling.BICUBIC)
    back = image.picture(image.encode(smooth, "image/jpeg", {}))
    assert abs(numpy.asarray(back).astype(int) - numpy.asarray(smooth)).mean() < 3


def test_what_is_transparent_lies_on_white():
    picture = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    picture.putpixel((1, 0), (10, 20, 30, 255))
    for one in (picture, picture.convert("P"), picture.convert("LA")):
        assert image.picture(file(one)).getpixel((0, 0)) == (255, 255, 255)
    assert image.picture(file(picture)).getpixel((1, 0)) == (10, 20, 30)


def test_sixteen_bits_become_eight():
    levels = numpy.array([[0, 257, 32896, 65535]], dtype=numpy.uint16)
    picture = image.picture(file(Image.fromarray(levels)))
    assert [picture.getpixel((x, 0))[0] for x in range(4)] == [0, 1, 128, 255]


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_every_mode_is_read(mode, kind):
    if (mode, kind) == ("CMYK", "PNG"):
        pytest.skip("no such files")
    assert image.samples(file(Image.new(mode, (5, 4)), kind), (4, 5)).shape == (1, 3, 4, 5)


def test_cameras_that_lay_on_their_side(noise):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned a quarter
    assert image.picture(file(noise, "JPEG", exif=exif)).size == (24, 40)


def test_fitting_scales_to_cover_and_crops_about_the_centre():
    picture = Image.new("RGB", (300, 100), "black")
    picture.paste((255, 255, 255), (100, 0, 200, 100))
    x = image.samples(file(picture), (50, 50))
    assert x.shape == (1, 3, 50, 50)
    assert x[..., 2:-2].min() > 0.9  # the white middle, and nothing beside it


def test_masks_are_white_where_one():
    picture = Image.new("L", (16, 8))
    picture.paste(255, (8, 0, 16, 8))
    x = image.weights(file(picture), (8, 16))
    assert x.shape == (1, 1, 8, 16)
    assert torch.equal(x[0, 0, 0], torch.cat([torch.zeros(8), torch.ones(8)]))


@pytest.mark.parametrize(
    "data",
    [b"", b"hello", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.7", b"\x89PNG\r\n\x1a\n", b"%!PS-Adobe\n"],
)
def test_what_is_no_picture_is_refused(data):
    for reading in (image.opened, image.picture, lambda data: media.artifact(data, "file.png")):
        with pytest.raises(FileProblem, match="picture"):
            reading(data)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG", "GIF", "TIFF", "BMP"])
def test_cut_short_anywhere_is_refused(noise, kind):
    data = file(noise, kind)
    for size in {*range(0, len(data) - 12, max(1, len(data) // 97)), len(data) // 2}:
        with pytest.raises(FileProblem, match=r"no picture|damaged"):
            image.opened(data[:size], "cut")


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG", "GIF", "TIFF", "BMP", "AVIF"])
def test_damage_is_refused_or_survived_but_never_a_crash(noise, kind, recipe):
    known = {"PNG": "image/png", "WEBP": "image/webp", "JPEG": "image/jpeg"}
    data = image.encode(noise, known[kind], recipe) if kind in known else file(noise, kind)
    random = numpy.random.default_rng(1)
    for _ in range(200):
        broken = bytearray(data)
        for place in random.integers(0, len(data), 4):
            broken[place] ^= int(random.integers(1, 256))
        for reading in (image.picture, lambda data: media.read_recipe(data, "x"), media_text):
            with suppress(FileProblem):
                reading(bytes(broken))


def media_text(data):
    return media.read_parameters(data, "x")


def test_bombs_are_refused_before_they_are_unpacked():
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    with pytest.raises(FileProblem, match=r"60000 x 60000|damaged"):
        image.opened(data)


def test_names_and_types():
    assert media.mime(Path("a.JPG")) == "image/jpeg"
    assert media.extension("image/jpeg") == ".jpg"
    for name in ("a.bmp", "a", "a.png.txt"):
        with pytest.raises(FileProblem, match=r"\.png, \.webp, \.jpg, \.jpeg"):
            media.mime(Path(name))


def test_an_artifact_knows_its_type_and_where_it_came_from(noise):
    found = media.artifact(file(noise, "WEBP"), "/home/somebody/fox.png")
    assert (found.mime, found.recipe) == ("image/webp", {"file": "fox.png"})
