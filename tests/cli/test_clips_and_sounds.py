"""Clips and sounds of the embedded models from the command line: files, recipes, again, inits, errors."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import triptych
from triptych.media import audio, video

SHORT = ("--steps", 2, "--duration", 0.5)


def frames(path):
    return video.decode(Path(path).read_bytes(), str(path)).frames


def sound(path):
    return audio.decode(Path(path).read_bytes(), str(path))


@pytest.mark.parametrize("name", ["heart.mp4", "heart.webm", "heart.gif", "heart.mkv"])
def test_the_extension_says_that_a_clip_is_wanted(ask, name):
    code, told = ask("make", "a heart beating", "-o", name, "--seed", 1, *SHORT)
    assert (code, told["files"]) == (0, [name])
    assert frames(name).shape == (6, 128, 128, 3)
    assert triptych.recipe(name)["request"]["model"] == "mini-video"


def test_webp_moves_where_a_clip_is_asked_for(ask):
    ask("make", "a heart beating", "--video", "-o", "x.webp", "--seed", 1, *SHORT)
    with Image.open("x.webp") as image:
        assert image.n_frames == 6


def test_more_frames_a_second_are_more_frames(ask):
    ask("make", "a heart beating", "-o", "x.mkv", "--fps", 20, "--seed", 1, *SHORT)
    clip = video.decode(Path("x.mkv").read_bytes())
    assert (len(clip.frames), clip.rate) == (10, 20)


def test_a_clip_again_is_the_same_clip(ask):
    ask("make", "a cat walking", "-o", "x.mkv", "--seed", 4, *SHORT)
    code, told = ask("again", "x.mkv", "-o", "y.mkv")
    assert (code, told["warnings"]) == (0, [])
    np.testing.assert_array_equal(frames("x.mkv"), frames("y.mkv"))


def test_a_picture_is_where_a_clip_begins(ask):
    Image.new("RGB", (128, 128), (250, 240, 40)).save("yellow.png")
    code, told = ask("make", "a sun spinning", "-o", "x.mkv", "--init", "yellow.png", "--seed", 1, "--steps", 6)
    assert code == 0
    assert told["recipe"]["inputs"].keys() == {"init"}
    first = frames("x.mkv")[0].reshape(-1, 3).mean(0)
    assert first[2] < 140 < first[0]  # yellow, though prompts alone give white grounds


def test_a_clip_of_unknown_length_is_refused(call):
    code, _, err = call("make", "x", "--video", "--duration", 60)
    assert code == 2
    assert "0.5 to 6 seconds" in err


@pytest.mark.parametrize(
    ("name", "channels"), [("piano.wav", 1), ("piano.flac", 1), ("piano.ogg", 1), ("piano.mp3", 1)]
)
def test_the_extension_says_that_a_sound_is_wanted(ask, name, channels):
    code, told = ask("make", "slow piano in c major", "-o", name, "--seed", 1, "--steps", 2, "--duration", 1)
    assert (code, told["files"]) == (0, [name])
    made = sound(name)
    assert made.rate == 32_000
    assert made.samples.shape[1] == channels
    assert len(made.samples) / made.rate == pytest.approx(1, abs=0.1)
    assert 0.02 < np.abs(made.samples).max() < 1
    assert triptych.recipe(name)["request"]["prompt"] == "slow piano in c major"


def test_a_sound_lasts_exactly_as_long_as_asked(ask):
    ask("make", "rain", "--audio", "-o", "x.wav", "--duration", 1.3, "--steps", 2)
    assert len(sound("x.wav").samples) == 1.3 * 32_000


def test_a_sound_without_a_name_is_a_wav(ask):
    _, told = ask("make", "rain", "--audio", "--seed", 3, "--duration", 1, "--steps", 2)
    assert told["files"] == ["rain-3.wav"]


def test_a_sound_again_is_the_same_sound(ask):
    ask("make", "a dog barking", "-o", "x.flac", "--seed", 4, "--duration", 1, "--steps", 3)
    code, told = ask("again", "x.flac", "-o", "y.flac")
    assert (code, told["warnings"]) == (0, [])
    np.testing.assert_array_equal(sound("x.flac").samples, sound("y.flac").samples)


def test_a_sound_may_start_from_a_sound(ask):
    time = np.arange(44_100 * 2) / 44_100
    tone = audio.Sound((0.3 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)[:, None], 44_100)
    Path("tone.ogg").write_bytes(audio.encode(tone, "audio/ogg", {}))
    arguments = ("make", "flute note", "--audio", "--init", "tone.ogg", "--duration", 2, "--seed", 1)
    _, near = ask(*arguments, "--strength", 0.15, "-o", "near.wav")
    ask(*arguments, "--strength", 1, "-o", "far.wav")
    assert near["recipe"]["inputs"].keys() == {"init"}

    def share(path):
        """Of the power that lies about 440 Hz."""
        power = np.abs(np.fft.rfft(sound(path).samples[:, 0])) ** 2
        return power[860:901].sum() / power.sum()  # half a hertz a bin

    assert share("near.wav") > 0.5 > share("far.wav")


def test_a_sound_of_another_length_is_told_of(ask):
    Path("s.wav").write_bytes(
        audio.encode(audio.Sound(np.zeros((16_000, 1), np.float32) + 0.1, 16_000), "audio/wav", {})
    )
    _, told = ask("make", "rain", "--audio", "--init", "s.wav", "--duration", 2, "--steps", 4)
    assert "silence after it" in told["warnings"][0]


@pytest.mark.parametrize(
    ("init", "medium", "told"),
    [("s.wav", "--image", "no picture"), ("s.wav", "--video", "no picture"), ("p.png", "--audio", "no sound")],
)
def test_what_cannot_be_started_from_is_said_so(call, init, medium, told):
    Image.new("RGB", (64, 64), "red").save("p.png")
    Path("s.wav").write_bytes(audio.encode(audio.Sound(np.zeros((100, 1), np.float32), 8000), "audio/wav", {}))
    code, _, err = call("make", "x", medium, "--init", init)
    assert code == 2
    assert told in err


def test_a_sound_is_drawn(call):
    tone = audio.Sound(np.sin(np.arange(32_000) * 0.2).astype(np.float32)[:, None] * 0.3, 32_000)
    Path("tone.mp3").write_bytes(audio.encode(tone, "audio/mpeg", {}))
    assert call("show", "--plot", "tone.mp3")[:2] == (0, "tone.png\n")
    assert call("show", "--plot", "tone.mp3")[:2] == (0, "tone-2.png\n")
    assert call("show", "--plot", "tone.mp3", "-o", "drawn.webp")[:2] == (0, "drawn.webp\n")
    assert call("show", "--plot", "tone.mp3", "-o", "drawn.webp", "--json")[:2] == (0, '{"files": ["drawn.webp"]}\n')
    with Image.open("drawn.webp") as image:
        assert image.size == (800, 420)
    code, _, err = call("show", "tone.mp3", "-o", "drawn.webp")
    assert code == 2
    assert "only with --plot" in err


def test_what_has_no_sound_cannot_be_drawn(call):
    Image.new("RGB", (8, 8)).save("p.png")
    code, _, err = call("show", "--plot", "p.png")
    assert code == 2
    assert "no sound" in err
    assert not Path("p-2.png").exists()


def test_previews_of_sounds_and_clips_are_pictures(home):
    for model in ("mini-audio", "mini-video"):
        shown = [
            event.preview
            for event in triptych.load(model).stream("rain", seed=1, steps=4, duration=1, preview_every=0.01)
            if isinstance(event, triptych.Progress) and event.preview is not None
        ]
        assert shown
        assert all(preview.mime == "image/png" for preview in shown)


@pytest.mark.parametrize("model", ["mini-video", "mini-audio"])
def test_a_trace_of_anything_is_a_picture(ask, model):
    code, told = ask("make", "rain", "-m", model, "--trace", "trace.png", "--steps", 2, "--duration", 1)
    assert (code, told["trace"]) == (0, "trace.png")
    with Image.open("trace.png") as image:
        assert image.width > 200


def test_several_clips_have_names_of_their_own(ask):
    _, told = ask("make", "a star spinning", "-o", "x.mkv", "--count", 2, "--seed", 5, *SHORT)
    assert told["files"] == ["x-1.mkv", "x-2.mkv"]
    code, again = ask("again", "x-2.mkv", "-o", "y.mkv")
    assert code == 0
    assert again["warnings"] == []
    np.testing.assert_array_equal(frames("x-2.mkv"), frames("y.mkv"))
