"""A recipe in files that others made: nothing else changes in them; and what is no whole file is found out."""

import io
import random
import struct
import zlib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import vendors
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageSequence
from sd_parsers import ParserManager
from vendors import MAKERS, made

from triptych import media
from triptych.client import Media
from triptych.errors import FileProblem, NoRecipe
from triptych.media import chunks, image, matroska, tags, video
from triptych.media.tagged import checked, tagged
from triptych.types import Artifact

PICTURES = [name for name, (mime, _) in MAKERS.items() if mime.startswith("image/")]
CONTAINERS = [name for name in MAKERS if name not in PICTURES]
SOUNDS = [name for name, (mime, _) in MAKERS.items() if mime.startswith("audio/")]
UNKNOWN_END = {
    "wav, streamed",
    "wav, streamed with zeros",
    "mp4, endless",
    "webm, live",
    "matroska, piped",
}  # nothing in them says where they end
DEAF = ("m4a", "ogg, FLAC", "mp3, ID3v2.4 with foot")  # what libsndfile does not read in the first place
MAGIC = [made(name).data[:size] for name in MAKERS for size in (4, 12, 16, 40)]


def wanted(name):
    """The medium that this file is."""
    return "image" if name == "gif, old" else media.medium(made(name))


def pixels(data):
    opened = Image.open(io.BytesIO(data))
    return [(frame.mode, frame.size, frame.tobytes(), frame.palette and frame.palette.tobytes())
            for frame in ImageSequence.Iterator(opened)]  # fmt: skip


def packets(data):
    """Of each stream its parameters and its packets, byte for byte and with their times."""
    with av.open(io.BytesIO(data)) as container:
        found = {
            one.index: [(one.type, one.codec_context.name, one.codec_context.extradata)] for one in container.streams
        }
        for packet in container.demux():
            if packet.size:
                times = [None if time is None else time * packet.time_base for time in (packet.pts, packet.duration)]
                found[packet.stream.index].append((bytes(packet), times, packet.is_keyframe))
    assert all(len(rows) > 1 for rows in found.values())
    return found


def parsed(data, opened=[]):  # noqa: B006  # sd-parsers remembers pictures by their id, so none may be forgotten
    opened.append(Image.open(io.BytesIO(data)))
    return ParserManager().parse(opened[-1])


def other(recipe):
    return {**recipe, "request": {**recipe["request"], "prompt": "another one", "seed": 5}}


@pytest.mark.parametrize("name", PICTURES)
def test_every_pixel_stays(name, recipe):
    assert pixels(tagged(made(name), recipe).data) == pixels(made(name).data)


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_packet_stays(name, recipe):
    assert packets(tagged(made(name), recipe).data) == packets(made(name).data)


@pytest.mark.parametrize("name", [name for name in SOUNDS if name not in DEAF])
def test_another_library_hears_the_same(name, recipe):
    """libsndfile, with libFLAC, libvorbis, libopus and libmpg123, none of which PyAV has."""
    was, rate = soundfile.read(io.BytesIO(made(name).data), dtype="float64")
    now, same = soundfile.read(io.BytesIO(tagged(made(name), recipe).data), dtype="float64")
    assert rate == same
    np.testing.assert_array_equal(now, was)


@pytest.mark.parametrize("name", MAKERS)
def test_the_recipe_comes_back(name, recipe):
    with pytest.raises(NoRecipe):
        media.read_recipe(made(name).data, "it")
    now = tagged(made(name), recipe)
    assert (now.mime, now.recipe) == (made(name).mime, recipe)
    assert media.read_recipe(now.data, "it") == recipe


@pytest.mark.parametrize("name", MAKERS)
def test_a_long_recipe_comes_back_too(name, recipe):
    """Longer than a page of Ogg, a block of GIF and 16 bits."""
    long = {**recipe, "request": {**recipe["request"], "prompt": "a fox, " * 15_000}}
    now = tagged(made(name), long)
    assert now.recipe == long
    if now.mime == "image/jpeg":  # which has no room for it
        assert now.data == made(name).data
    else:
        assert media.read_recipe(now.data, "it") == long
        assert checked(now.data, "it", wanted(name)).mime == now.mime


@pytest.mark.parametrize("name", MAKERS)
def test_a_later_recipe_takes_the_place(name, recipe):
    once, twice = tagged(made(name), other(recipe)), tagged(tagged(made(name), recipe), other(recipe))
    assert media.read_recipe(twice.data, "it") == other(recipe)
    if once.mime not in ("image/jpeg", "image/webp"):  # where the first one stays, unread
        assert once.data == twice.data


@pytest.mark.parametrize("name", MAKERS)
def test_what_is_tagged_is_whole(name, recipe):
    now = tagged(made(name), recipe)
    found = checked(now.data, "it", wanted(name))
    assert (found.mime, found.data, found.recipe) == (now.mime, now.data, {})


@pytest.mark.parametrize("name", MAKERS)
def test_without_a_recipe_nothing_changes(name):
    assert tagged(made(name), {}) == made(name)


def bodies(data, parts):
    return [(part.name, data[part.start : part.end]) for part in parts]


def test_the_other_chunks_of_a_png_stay(recipe):
    was, now = made("png, signed").data, tagged(made("png, signed"), recipe).data
    before, after = bodies(was, chunks.png(was)), bodies(now, chunks.png(now))
    assert {b"caBX", b"iTXt", b"iCCP", b"tEXt", b"IDAT"} <= {name for name, _ in before}
    assert sum(name == b"IDAT" for name, _ in before) > 1
    fresh = [row for row in after if row not in before]
    assert [body[8:].partition(b"\0")[0] for _, body in fresh] == [b"parameters", b"triptych"]
    assert [row for row in after if row not in fresh] == before
    assert after.index(fresh[1]) + 1 == [name for name, _ in after].index(b"IDAT")
    with Image.open(io.BytesIO(now)) as opened:
        assert "triptych" in opened.info  # before a single pixel is read
        opened.verify()


@pytest.mark.parametrize("name", [name for name in PICTURES if name.startswith("jpeg")])
def test_the_other_segments_of_a_jpeg_stay(name, recipe):
    was, now = made(name).data, tagged(made(name), recipe).data
    rows = [[row for row in bodies(data, chunks.jpeg(data)) if row[1][4:10] != b"Exif\0\0"] for data in (was, now)]
    assert rows[0] == rows[1]
    if name not in ("jpeg", "jpeg, grey", "jpeg, more pictures"):
        assert vendors.JUMBF in now
        assert vendors.XMP in now
        assert Image.open(io.BytesIO(now)).info["icc_profile"] == Image.open(io.BytesIO(was)).info["icc_profile"]


def told(data):
    """All that EXIF says, in both of its directories."""
    block = Image.open(io.BytesIO(data)).getexif()
    return {**{tag: value for tag, value in block.items() if tag != 0x8769}, "inner": dict(block.get_ifd(0x8769))}


@pytest.mark.parametrize("name", [name for name in PICTURES if ", exif" in name])
def test_what_exif_said_stays(name, recipe):
    was, now = told(made(name).data), told(tagged(made(name), recipe).data)
    assert (
        was.items() - {("inner", None)}
        if False
        else all(now[tag] == value for tag, value in was.items() if tag != "inner")
    )
    assert was["inner"].items() <= now["inner"].items()
    fresh = now.keys() - was.keys()
    assert fresh == ({0x010E} if "without description" in name else {0x9213})
    assert now["inner"].keys() - was["inner"].keys() == {0x9286}


def test_a_block_of_exif_stays_byte_for_byte(recipe):
    for big in (False, True):
        data = vendors.signed_jpeg(exif=vendors.vendors_exif(big))
        now = tagged(Artifact("image/jpeg", data), recipe).data
        block = Image.open(io.BytesIO(data)).info["exif"]
        fresh = Image.open(io.BytesIO(now)).info["exif"]
        assert fresh[:10] == block[:10]
        assert fresh[14 : len(block)] == block[14:]  # all but where the directory is


@pytest.mark.parametrize("name", [name for name in PICTURES if name.startswith("webp")])
def test_the_other_chunks_of_a_webp_stay(name, recipe):
    was, now = made(name).data, tagged(made(name), recipe).data
    rows = [[row for row in bodies(data, chunks.riff(data)) if row[0] not in (b"VP8X", b"EXIF")] for data in (was, now)]
    assert rows[0] == rows[1]
    opened = Image.open(io.BytesIO(now))
    assert opened.size == Image.open(io.BytesIO(was)).size
    assert opened.info.get("xmp") == Image.open(io.BytesIO(was)).info.get("xmp")
    assert struct.unpack("<I", now[4:8])[0] == len(now) - 8


@pytest.mark.parametrize("name", [name for name in CONTAINERS if name[:3] in ("mp4", "mov", "m4a")])
def test_no_byte_of_an_mp4_moves(name, recipe):
    was, now = made(name).data, tagged(made(name), recipe).data
    *boxes, last = chunks.boxes(was)
    kept = last.start if last.name == b"mfra" else len(was)
    if name == "mp4, endless":  # the pixels now say how many they are
        was = was[: last.start] + now[last.start : last.start + 4] + was[last.start + 4 :]
    assert now[:kept] == was[:kept]
    assert now.endswith(was[kept:])
    names = [part.name for part in chunks.boxes(now)]
    assert sorted(names) == sorted([*(part.name for part in boxes), last.name, b"meta"])


@pytest.mark.parametrize("name", [name for name in CONTAINERS if name.startswith(("webm", "matroska"))])
def test_no_element_of_a_matroska_moves(name, recipe):
    """Nor what its index says, and the checksum of the index is right."""
    was, now = made(name).data, tagged(made(name), recipe).data
    before, after = (matroska.ebml(data) for data in (was, now))
    if name == "webm, recorded":
        at = [part.name for part in before].index(matroska.CLUSTER)
        assert now.startswith(was[: before[at].start])
        assert now.endswith(was[before[at].start :])
        return
    changed = [one for one, other in zip(before, after, strict=False) if bodies(was, [one]) != bodies(now, [other])]
    assert [part.name for part in changed] == [matroska.SEGMENT, matroska.SEEK_HEAD, matroska.VOID][-len(changed) :]
    assert [(part.start, part.end) for part in before if part not in changed] == [
        (part.start, part.end) for part in after[:-1] if part.name not in {one.name for one in changed}
    ]
    [head] = [part for part in after if part.name == matroska.SEEK_HEAD]
    body = now[head.body : head.end]
    assert struct.pack(">Q", after[-1].start - after[1].body) in body
    if body.startswith(matroska.CRC):
        assert zlib.crc32(body[6:]) == struct.unpack("<I", body[2:6])[0]


@pytest.mark.parametrize("name", CONTAINERS)
def test_the_other_tags_stay(name, recipe):
    was, now = video.metadata(made(name).data), video.metadata(tagged(made(name), recipe).data)
    assert was.items() <= now.items()
    [fresh] = now.keys() - was.keys()
    assert fresh == ("triptych" if "comment" in was or wanted(name) == "video" or name == "m4a" else "comment")


@pytest.mark.parametrize("name", [name for name in SOUNDS if "ID3v2" in name])
def test_frames_of_id3_stay(name, recipe):
    was, now = made(name).data, tagged(made(name), recipe).data
    assert vendors.JUMBF in now
    head = 20 if "more head" in name else 10
    end = chunks.id3(was) - (10 if "foot" in name else 0)
    assert was[head:end] in now
    assert now.endswith(was[chunks.id3(was) :])
    if "foot" in name:
        end = chunks.id3(now)
        assert now[end - 10 : end] == b"3DI" + now[3:10]


@pytest.mark.parametrize("name", [name for name in SOUNDS if name.startswith("wav")])
def test_the_other_chunks_of_a_wav_stay(name, recipe):
    was, now = made(name).data, tagged(made(name), recipe).data
    before, after = bodies(was, chunks.riff(was)), bodies(now, chunks.riff(now))
    assert [row for row in after if row in before] == [row for row in before if row[0] != b"id3 " or row in after]
    assert len([row for row in after if row not in before]) == 1
    if "streamed" not in name:
        assert struct.unpack("<I", now[4:8])[0] == len(now) - 8


def test_pages_of_ogg_are_numbered_on(recipe):
    long = {**recipe, "request": {**recipe["request"], "prompt": "a fox " * 30_000}}
    for name in ("ogg, Vorbis", "ogg, Opus", "ogg, FLAC"):
        now = tagged(made(name), long).data
        pages = chunks.ogg(now)
        assert len(pages) > len(chunks.ogg(made(name).data))
        counts = [struct.unpack("<I", now[page.start + 18 : page.start + 22])[0] for page in pages]
        assert counts == list(range(counts[0], counts[0] + len(counts)))


def test_pages_of_other_streams_stay(recipe):
    """Two songs one after the other in one file, of which the first one is tagged."""
    second = bytearray(made("ogg, Opus").data)
    pieces = []
    for page in chunks.ogg(bytes(second)):
        piece = bytes(second[page.start : page.end])
        bare = piece[:14] + b"OURS" + piece[18:22] + bytes(4) + piece[26:]
        pieces.append(bare[:22] + struct.pack("<I", chunks.ogg_crc(bare)) + bare[26:])
    chained = made("ogg, Opus").data + b"".join(pieces)
    now = tags.in_ogg(chained, recipe)
    assert now.endswith(b"".join(pieces))
    assert now[: -len(b"".join(pieces))] == tagged(made("ogg, Opus"), recipe).data


def test_prompt_readers_are_not_confused(recipe):
    plain = {**recipe, "request": {**recipe["request"], "prompt": "a red fox"}}
    for name in ("png, signed", "jpeg, progressive", "jpeg, exif", "webp, exif", "webp, lossy"):
        found = parsed(tagged(made(name), plain).data)
        assert found.generator.name == "AUTOMATIC1111"
        assert [one.value for one in found.prompts] == ["a red fox"]


def test_what_another_program_says_stays_the_only_parameters(recipe):
    from PIL.PngImagePlugin import PngInfo

    theirs = "a cat\nSteps: 1, Sampler: Euler, CFG scale: 2, Seed: 2, Size: 8x8"
    info = PngInfo()
    info.add_text("parameters", theirs)
    comment = Image.Exif()
    comment.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + theirs.encode("utf-16-be")
    for file in (
        Artifact("image/png", vendors.saved(vendors.picture(), "PNG", pnginfo=info)),
        Artifact("image/jpeg", vendors.saved(vendors.picture(), "JPEG", exif=comment.tobytes())),
        Artifact("image/webp", vendors.saved(vendors.picture(), "WEBP", exif=comment.tobytes())),
    ):
        for now in (tagged(file, recipe), tagged(file, other(recipe))):
            assert media.read_parameters(now.data, "it") == theirs
            assert media.read_recipe(now.data, "it") == now.recipe
            [prompt] = parsed(now.data).prompts
            assert prompt.value == "a cat"


def test_what_cannot_carry_it_stays(recipe):
    bmp = vendors.saved(vendors.picture(), "BMP")
    now = tagged(checked(bmp, "it", "image"), recipe)
    assert (now.mime, now.data, now.recipe) == ("image/bmp", bmp, recipe)


@pytest.mark.parametrize("name", MAKERS)
def test_a_whole_file_is_what_it_is(name):
    found = checked(made(name).data, "it", wanted(name))
    assert (found.mime, found.data, found.recipe) == (made(name).mime, made(name).data, {})


@pytest.mark.parametrize("name", [name for name in MAKERS if name not in UNKNOWN_END])
def test_what_was_cut_is_found(name):
    data, medium = made(name).data, wanted(name)
    chance = random.Random(name)
    near = range(len(data) - 20, len(data))
    places = {*range(24), *near, *(chance.randrange(len(data)) for _ in range(30))}
    for place in sorted(places):
        with pytest.raises(FileProblem):
            checked(data[:place], "it", medium)


def test_what_is_cut_between_two_parts_is_found():
    """Where the layout alone says nothing: the index comes first, and the clip, the song or the picture later."""
    mp4 = made("mp4, index first").data
    at = next(part for part in chunks.boxes(mp4) if part.name == b"mdat")
    endless = mp4[: at.start] + bytes(4) + mp4[at.start + 4 : at.start + (at.end - at.start) // 4]
    with pytest.raises(FileProblem, match="cut short"):  # it holds a quarter of what its index lists
        checked(endless, "it", "video")
    xing = made("mp3, Xing").data
    middle = chunks.mp3(xing)
    with pytest.raises(FileProblem, match=r"says that it has \d+ frames and has"):
        checked(xing[: middle[len(middle) // 2].end], "it", "audio")
    ogg = made("ogg, Vorbis").data
    with pytest.raises(FileProblem, match="last page is missing"):
        checked(ogg[: chunks.ogg(ogg)[-2].end], "it", "audio")


def test_a_file_that_says_more_seconds_than_it_has():
    """8 s in the header of a live Matroska, 2 s in it."""
    data = bytearray(made("matroska").data)
    at = data.index(b"\x44\x89\x88") + 3  # Duration, a double
    data[at : at + 8] = struct.pack(">d", 8000.0)
    with pytest.raises(FileProblem, match=r"says 8\.0 s and has 2\.0 s"):
        checked(bytes(data), "it", "video")


@pytest.mark.parametrize(
    ("data", "came"),
    [
        (b"", r"nothing \(0 bytes\)"),
        (b"<!DOCTYPE html><html><body>secret token</body></html>", "an HTML page of 53 bytes"),
        (b"\xef\xbb\xbf \n<html>secret", "an HTML page"),
        (b'{"error": {"message": "secret"}}', "JSON of 32 bytes"),
        (b"<?xml version='1.0'?><Error>secret</Error>", "XML"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'>secret</svg>", "an SVG drawing"),
        (b"secret: upstream connect error", "text of 30 bytes"),
        (b"\0\1\2\3" * 100, "400 bytes that begin with 00 01 02 03"),
    ],
)
@pytest.mark.parametrize("medium", ["image", "video", "audio"])
def test_what_is_no_medium_is_described_but_not_told(data, came, medium):
    with pytest.raises(FileProblem, match=came) as raised:
        checked(data, "the result", medium)
    assert "the result" in str(raised.value)
    assert "secret" not in str(raised.value)


def test_another_medium_is_refused():
    for name in MAKERS:
        for medium in {"image", "video", "audio"} - {wanted(name)}:
            moving = made(name).mime.startswith("image/") and ("animated" in name or name.startswith("gif"))
            if moving and (medium == "image" or (medium == "video" and name != "gif, old")):
                assert checked(made(name).data, "it", medium).mime == made(name).mime
            else:
                with pytest.raises(FileProblem, match=f"no {medium} but {made(name).mime}"):
                    checked(made(name).data, "it", medium)


def test_covers_make_no_clip():
    assert checked(made("flac, cover").data, "it", "audio").mime == "audio/flac"


def test_a_scratch_does_not_make_it_worthless():
    """One packet that cannot be decoded, in a file all of which is there."""
    frame = chunks.mp3(made("mp3").data)[30]
    song = bytearray(made("mp3").data)
    song[frame.start + 4 : frame.end] = b"\xff" * (frame.end - frame.start - 4)
    assert checked(bytes(song), "it", "audio").mime == "audio/mpeg"


def test_tags_that_are_no_utf8_do_no_harm(recipe):
    song = vendors.wav_with(vendors.listed(b"INAM", b"\xe4\xf6\xfc\0"))
    now = tagged(checked(song, "it", "audio"), recipe)
    assert media.read_recipe(now.data, "it") == recipe


@settings(max_examples=150, deadline=None)
@given(
    begin=st.sampled_from([b"", *MAGIC]),
    rest=st.binary(max_size=400),
    medium=st.sampled_from(["image", "video", "audio"]),
)
def test_random_bytes_raise_nothing_else(begin, rest, medium):
    with suppress(FileProblem):  # the head of a stream of unknown length and one sample is a sound
        checked(begin + rest, "it", medium)


@settings(max_examples=150, deadline=None)
@given(name=st.sampled_from(sorted(MAKERS)), at=st.lists(st.integers(0, 2000), max_size=8), value=st.integers(0, 255))
def test_damaged_files_raise_nothing_else(name, at, value):
    recipe = {
        "triptych": 1,
        "request": {"prompt": "a"},
        "model": {"name": "m", "weights": {}},
        "versions": {"triptych": "0"},
    }
    data = bytearray(made(name).data[:100_000])
    for place in at:
        data[place % len(data)] = value
    file = Artifact(made(name).mime, bytes(data))
    assert tagged(file, recipe).recipe == recipe
    with suppress(FileProblem):
        assert checked(file.data, "it", wanted(name)).data == file.data


@pytest.mark.parametrize("mime", sorted({mime for mime, _ in MAKERS.values()}))
def test_what_is_hardly_a_file_does_no_harm(mime, recipe):
    for name in MAKERS:
        for size in (0, 1, 3, 4, 8, 10, 11, 12, 13, 16, 20, 24, 28, 33, 40):
            now = tagged(Artifact(mime, made(name).data[:size]), recipe)
            assert (now.mime, now.recipe) == (mime, recipe)


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("png, signed", ".png"),
        ("jpeg, exif", ".jpg"),
        ("jpeg, progressive", ".jpeg"),
        ("webp, lossy", ".webp"),
        ("webp, animated", ".webp"),
        ("gif", ".gif"),
        ("mp4, index first", ".mp4"),
        ("mov", ".mov"),
        ("m4a", ".m4a"),
        ("webm", ".webm"),
        ("matroska", ".mkv"),
        ("mp3, Xing", ".mp3"),
        ("wav", ".wav"),
        ("flac", ".flac"),
        ("ogg, Opus", ".ogg"),
    ],
)
def test_a_file_is_saved_bit_for_bit(name, ending, recipe, tmp_path):
    now = tagged(checked(made(name).data, "it", wanted(name)), recipe)
    place = Media(now).save(tmp_path / f"file{ending.upper()}")
    assert place.read_bytes() == now.data
    assert media.extension(now.mime) == {".jpeg": ".jpg"}.get(ending, ending)


@pytest.mark.parametrize(
    ("name", "ending", "mime"),
    [
        ("jpeg, exif", ".png", "image/png"),
        ("png, transparent", ".jpg", "image/jpeg"),
        ("png, 16 bits", ".webp", "image/webp"),
        ("webp, animated", ".gif", "image/gif"),
        ("gif", ".mp4", "video/mp4"),
        ("mp4, index first", ".webm", "video/webm"),
        ("mov", ".mp4", "video/mp4"),
        ("mp3, Xing", ".wav", "audio/wav"),
        ("m4a", ".mp3", "audio/mpeg"),
    ],
)
def test_another_extension_converts_and_keeps_the_recipe(name, ending, mime, recipe, tmp_path):
    place = Media(tagged(made(name), recipe)).save(tmp_path / f"file{ending}")
    found = media.artifact(place.read_bytes(), str(place))
    assert found.mime == mime
    assert media.read_recipe(found.data, "it") == recipe


def test_what_is_transparent_lies_on_white_in_a_jpeg(tmp_path, recipe):
    clear = Artifact("image/png", vendors.saved(Image.new("RGBA", (16, 16), (0, 0, 0, 0)), "PNG"), recipe)
    assert image.opened(Media(clear).save(tmp_path / "a.jpg").read_bytes()).getpixel((8, 8)) == (255, 255, 255)
    assert image.opened(Media(clear).save(tmp_path / "a.webp").read_bytes()).getpixel((8, 8))[3] == 0


def test_a_turned_photograph_is_upright_as_png(tmp_path, recipe):
    block = Image.Exif()
    block[0x0112] = 6  # a quarter to the right
    photo = Artifact("image/jpeg", vendors.saved(vendors.picture(size=(40, 24)), "JPEG", exif=block.tobytes()))
    assert image.opened(Media(tagged(photo, recipe)).save(tmp_path / "a.png").read_bytes()).size == (24, 40)


def test_a_clip_that_is_converted_is_still_heard(recipe):
    for start in ("mp4, index first", "webm"):
        was = media.convert(replace(made(start), recipe=recipe), "video/x-matroska")
        for mime in ("video/mp4", "video/webm", "video/x-matroska"):
            now = media.convert(was, mime) if mime != was.mime else was
            heard = media.audio.heard(now.data)
            assert heard.samples.shape[1] == 2
            assert len(heard.samples) / heard.rate == pytest.approx(2, abs=0.15)
            for channel, hertz in ((0, 220), (1, 330)):
                wave = heard.samples[:, channel]
                loudest = np.abs(np.fft.rfft(wave)).argmax() * heard.rate / len(wave)
                assert loudest == pytest.approx(hertz, abs=1)
                assert np.sqrt(np.mean(wave[2000:-4000] ** 2)) == pytest.approx(0.4 / np.sqrt(2), rel=0.03)


def test_extensions_of_what_is_unknown():
    assert media.extension("audio/x-aiff") == ".aiff"
    for mime in {mime for mime, _ in MAKERS.values()}:
        assert media.extension(mime).startswith(".")


def test_a_picture_that_stands_still_is_an_image():
    assert media.medium(made("webp, lossy")) == "image"
    assert media.medium(made("webp, animated")) == "video"
    with pytest.raises(FileProblem, match="an image is saved as"):
        media.saved(made("webp, lossy"), Path("a.mp4"))
    with pytest.raises(FileProblem, match="no video but image/webp"):
        checked(made("webp, lossy").data, "it", "video")
    assert image.fitting(made("png, transparent").data, "image/png").mode == "RGBA"
