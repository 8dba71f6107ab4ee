"""How often a deep part is computed: as the request says, or by what was measured."""

from dataclasses import replace

import pytest
import torch

from triptych.errors import InvalidField
from triptych.families import cards, load
from triptych.families.fast import every
from triptych.model import generate, prepared
from triptych.types import Request

MEASURED = [name for name, card in cards().items() if "drift" in card.settings]


@pytest.fixture
def card():
    """A card of which was measured what is made up here."""
    card = cards()["mini-image"]
    return replace(card, settings={**card.settings, "drift": [[2, 40.0], [3, 30.0], [4, 25.0]]})


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 1),
        ({"fast": 3}, 3),
        ({"max_drift": 50.0}, 1),
        ({"max_drift": 40.0}, 2),
        ({"max_drift": 26.0}, 3),
        ({"max_drift": 0.0}, 4),
        ({"fast": 1, "max_drift": 31.0}, 2),
    ],
)
def test_what_is_asked(card, options, expected):
    assert every(card, card.resolve(Request(card.name, "a red heart", options=options))) == expected


def test_only_one_of_them_is_told(card):
    with pytest.raises(InvalidField, match="max_drift chooses fast"):
        every(card, card.resolve(Request(card.name, "a red heart", options={"fast": 2, "max_drift": 30.0})))


@pytest.mark.parametrize("name", cards())
def test_a_drift_is_bounded_only_where_it_was_measured(name):
    card = cards()[name]
    assert ("max_drift" in card.fields) == ("drift" in card.settings)
    assert "fast" in card.fields or "max_drift" not in card.fields


@pytest.mark.parametrize("name", MEASURED)
def test_what_was_measured_falls_as_it_gets_faster(name):
    numbers, kept = zip(*cards()[name].settings["drift"], strict=True)
    assert list(numbers) == sorted(numbers)
    assert list(kept) == sorted(kept, reverse=True)


def walked(model, **options):
    request = model.card.resolve(Request(model.card.name, "a red heart", seed=1, steps=8, options=options))
    *_, last = generate(prepared(model, request, {}), request)
    return last.x_t


def test_a_small_model_is_exact_until_it_is_asked_to_be_fast(monkeypatch):
    model = load(cards()["mini-image"], "cpu", "float32")
    exact, calls = walked(model), []
    network = model.denoiser.network
    was = network.forward
    monkeypatch.setattr(network, "forward", lambda *given: calls.append(1) or was(*given))
    assert torch.equal(walked(model, fast=1), exact)
    assert len(calls) == 2 * 8  # the prompt and the empty one, of other lengths
    calls.clear()
    fast = walked(model, fast=2)
    assert len(calls) == 2 * 5
    assert 0 < torch.dist(fast, exact) < 0.2 * exact.norm()
