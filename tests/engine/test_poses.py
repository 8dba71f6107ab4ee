"""Latents laid along a course: exact for shifts and quarter turns, and a course is learnt from words."""

import math

import pytest
import torch

from triptych.engine.poses import POSE, Course, backwards, laid, still


def pose(x=0.0, y=0.0, scale=1.0, turn=0.0, alpha=1.0):
    angle = 2 * math.pi * turn
    return torch.tensor([[[x, y, math.log2(scale), math.cos(angle), math.sin(angle), alpha]]])


@pytest.fixture
def picture():
    """One bright place, right of and above the middle, on black."""
    x = torch.zeros(1, 2, 16, 16)
    x[..., 5, 11] = 1
    return x


def test_what_stays_where_it_is_is_left_as_it_is_but_for_its_edge(picture):
    found = laid(picture + 0.3, backwards(still(1, 3)))
    assert found.shape == (1, 2, 3, 16, 16)
    torch.testing.assert_close(found[:, :, 1], picture + 0.3, atol=1e-5, rtol=0)
    edged = picture.clone()
    edged[..., 0, :] = 5
    torch.testing.assert_close(laid(edged, backwards(still(1, 1)))[:, :, 0], picture, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("given", "row", "column"),
    [
        (pose(x=0.25), 5, 15),  # a quarter of sixteen to the right
        (pose(x=-0.25), 5, 7),
        (pose(y=0.25), 9, 11),  # down
        (pose(turn=0.25), 11, 10),  # a quarter turn clockwise: from above right to below right
        (pose(turn=0.5), 10, 4),
    ],
)
def test_poses_mean_what_they_say(picture, given, row, column):
    found = laid(picture, backwards(given))[0, 0, 0]
    assert divmod(int(found.argmax()), 16) == (row, column)
    assert found.max() == pytest.approx(1, abs=1e-4)


def test_what_is_half_as_large_is_half_as_far_from_the_middle():
    x = torch.zeros(1, 1, 16, 16)
    x[..., 2:14, 2:14] = 1
    found = laid(x, backwards(pose(scale=0.5)))[0, 0, 0]
    assert found.sum() == pytest.approx(36, rel=0.1)
    assert found[8, 8] == 1


def test_what_fades_becomes_its_corners():
    x = torch.full((1, 1, 8, 8), 0.5)
    x[..., 3:5, 3:5] = 1
    gone = laid(x, backwards(pose()), torch.zeros(1, 1))
    torch.testing.assert_close(gone, torch.full_like(gone, 0.5))
    half = laid(x, backwards(pose()), torch.full((1, 1), 0.5))
    assert half[0, 0, 0, 3, 3] == pytest.approx(0.75)


def test_maps_are_undone_by_their_inverses(picture):
    maps = backwards(pose(0.1, -0.2, 0.8, 0.125))
    there = laid(picture, torch.linalg.inv(maps) @ maps)
    torch.testing.assert_close(there[:, :, 0], picture, atol=1e-4, rtol=0)


def test_a_course_is_learnt_from_words():
    torch.manual_seed(0)
    course, tokens = Course(8, heads=2, hidden=32), torch.randn(2, 3, 8)
    mask, seconds = torch.tensor([[True, True, True], [True, True, False]]), torch.arange(12)[None] / 4
    wanted = torch.zeros(2, 12, POSE)
    wanted[0, :, 0], wanted[1, :, 1] = torch.sin(2 * math.pi * seconds[0] / 3), torch.linspace(-0.5, 0.5, 12)
    optimiser = torch.optim.Adam(course.parameters(), 1e-2)
    for _ in range(150):
        loss = (course(tokens, mask, seconds.expand(2, 12)) - wanted).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.03
    padded = tokens.clone()
    padded[1, 2] = 100  # is no word
    torch.testing.assert_close(course(padded, mask, seconds), course(tokens, mask, seconds))
    later = course(tokens, mask, seconds + 3)
    torch.testing.assert_close(later, course(tokens, mask, seconds), atol=1e-3, rtol=1e-3)
