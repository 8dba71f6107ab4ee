"""Loops: a memory of sequences gives back what it was filled with, at any moment, as surely as it is asked for."""

import pytest
import torch

from triptych.engine.loops import Loops
from triptych.engine.poses import LOOP

GRID, LENGTH = (2, 3, 3), 12


@pytest.fixture
def filled():
    """A memory whose keys are unit vectors, and what it remembers: each a still and one thing that comes and goes."""
    torch.manual_seed(0)
    turns = torch.stack([torch.ones(LENGTH), torch.linspace(0, 6.2832, LENGTH + 1)[:-1].sin()])
    sequences = torch.einsum("kt,nkcyx->nctyx", turns, torch.randn(3, 2, *GRID))
    loops = Loops(8, GRID, slots=3, length=LENGTH, modes=2, rank=6)
    loops.remember(list(sequences))
    with torch.no_grad():
        loops.query.weight.copy_(torch.eye(8))
        loops.query.bias.zero_()
        loops.keys.copy_(50 * torch.eye(8)[:4])
    return loops, sequences


def test_loops_are_given_back(filled):
    loops, sequences = filled
    seconds = (torch.arange(LENGTH) * LOOP / LENGTH).expand(3, LENGTH)
    found, sure = loops(torch.eye(8)[:3], seconds)
    torch.testing.assert_close(found, sequences, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(sure, torch.ones(3), atol=1e-4, rtol=0)


def test_after_its_end_a_loop_begins_again_and_between_members_it_goes_over(filled):
    loops, sequences = filled
    found, _ = loops(torch.eye(8)[:1], torch.tensor([[LOOP, 1.5 * LOOP / LENGTH, LOOP - 0.5 * LOOP / LENGTH]]))
    expected = [sequences[0, :, 0], sequences[0, :, 1:3].mean(1), sequences[0, :, [0, -1]].mean(1)]
    torch.testing.assert_close(found[0], torch.stack(expected, 1), atol=1e-3, rtol=1e-3)


def test_what_does_not_move_by_itself_is_said_to(filled):
    loops, _ = filled
    _, sure = loops(torch.eye(8)[3:4], torch.zeros(1, 1))
    assert sure.item() == pytest.approx(0, abs=1e-4)
