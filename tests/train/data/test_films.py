"""Clips, motions and films: loops that close, captions that say what moves, and nothing that is withheld."""

import numpy as np
import pytest

from triptych.train.data.clips import FRAMES, sampled
from triptych.train.data.films import Films, lay, verbs
from triptych.train.data.motions import MOTIONS


@pytest.fixture(scope="module")
def many(folder):
    films = Films(folder, size=48)
    return [films.film(seed) for seed in range(120)]


def centre(frame):
    """(x, y) of what differs from the corner, as shares of the frame; None where nothing does."""
    drawn = np.abs(frame.astype(int) - frame[0, 0]).sum(-1) > 60
    if not drawn.any():
        return None
    down, across = np.nonzero(drawn)
    return across.mean() / frame.shape[1], down.mean() / frame.shape[0]


@pytest.mark.parametrize(("milliseconds", "rounds"), [(300, 1), (100, 3), (33, 9)])
def test_a_loop_is_repeated_whole_within_three_seconds(animated, milliseconds, rounds):
    frames = sampled(animated(1, milliseconds))
    assert frames.shape == (FRAMES, 128, 128, 4)
    right = np.array([frame[..., 3][:, 64:].sum(dtype=float) for frame in frames])
    spectrum = np.abs(np.fft.rfft(right - right.mean()))
    assert spectrum.argmax() == rounds


def test_a_film_depends_on_its_seed_alone(many, folder):
    again = Films(folder, size=48).film(17)
    assert again.caption == many[17].caption
    np.testing.assert_array_equal(again.pixels, many[17].pixels)


def test_half_of_the_films_are_animated_pictures(many):
    share = np.mean([film.motion == "" for film in many])
    assert share == pytest.approx(0.5, abs=0.12)


def test_training_never_sees_withheld_motions_and_evaluation_nothing_else(many, folder):
    split = Films(folder, size=48).repertoire.split
    assert all(split.moves(film.codes[0], film.motion) for film in many if film.motion)
    held = Films(folder, size=48, motion="up", held_out=True)
    assert not any(split.moves(film.codes[0], film.motion) for film in map(held.film, range(5)))


@pytest.mark.parametrize(
    ("motion", "way"), [("right", (1, 0)), ("left", (-1, 0)), ("up", (0, -1)), ("down", (0, 1)), ("roll left", (-1, 0))]
)
def test_what_moves_one_way_moves_that_way(folder, motion, way):
    film = Films(folder, size=64, motion=motion).film(3)
    places = [centre(frame) for frame in film.pixels[:6]]
    moved = np.subtract(places[5], places[0])
    assert np.dot(moved, way) > 0.08
    assert abs(moved[0] * way[1]) + abs(moved[1] * way[0]) < 0.03


@pytest.mark.parametrize("name", sorted(set(MOTIONS) - {"zoom in", "zoom out", "fade in", "fade out"}))
def test_loops_close(name):
    motion = MOTIONS[name]
    end, start = motion.pose(1 - 1e-9), motion.pose(0.0)
    assert (end.x, end.y, end.scale, end.alpha) == pytest.approx((start.x, start.y, start.scale, start.alpha), abs=1e-6)
    assert (end.turn - start.turn) % 1 == pytest.approx(0, abs=1e-6) or (end.turn - start.turn) % 1 > 1 - 1e-6


def test_captions_say_how_a_still_moves(many):
    for film in (film for film in many if film.motion):
        words = [phrase.format("").split()[-1] for phrase in (*MOTIONS[film.motion].said, *MOTIONS[film.motion].bare)]
        words += [phrase.format("").split()[0] for phrase in MOTIONS[film.motion].bare]
        assert any(word in film.caption for word in words), (film.motion, film.caption)


def test_what_lies_outside_the_frame_is_cut():
    canvas, dot = np.zeros((8, 8, 3), np.uint8), np.full((4, 4, 4), 255, np.uint8)
    lay(canvas, dot, (20, 4))
    lay(canvas, dot, (4, -20))
    assert not canvas.any()
    lay(canvas, dot, (8, 8), alpha=0.5)
    assert canvas[7, 7].tolist() == [128, 128, 128]
    assert canvas[:6].max() == 0


def test_verbs_are_given_by_label():
    assert all(label and all(doing) for label, doing in verbs().items())


def test_a_script_says_what_its_film_says_and_draws_nothing(many, folder):
    films = Films(folder, size=48)
    for seed in range(12):
        script = films.script(seed)
        assert (script.caption, script.codes, script.motion) == (
            many[seed].caption,
            many[seed].codes,
            many[seed].motion,
        )
        np.testing.assert_array_equal(script.poses, many[seed].poses)
        assert not script.pixels.size


def test_poses_say_where_things_are(folder):
    film = Films(folder, size=64, motion="right").film(3)
    for frame, pose in zip(film.pixels[:5], film.poses[:5], strict=True):
        assert centre(frame)[0] == pytest.approx(0.5 + pose[0], abs=0.08)


def test_what_goes_fast_is_said_to(folder):
    films = Films(folder, size=48, motion="bounce")
    for script in map(films.script, range(20)):
        height = -script.poses[:, 1]
        rounds = np.abs(np.fft.rfft(height - height.mean())).argmax()
        assert ("fast" in script.caption) == (rounds == MOTIONS["bounce"].cycles[1])
