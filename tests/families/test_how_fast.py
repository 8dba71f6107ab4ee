"""How often a deep part is computed: as the request says."""

import pytest
import torch

from triptych.families import cards, load
from triptych.model import generate, prepared
from triptych.providers.here.drift import EXACT
from triptych.types import Request

MEASURED = [name for name, card in cards().items() if "drift" in card.settings]


@pytest.mark.parametrize("name", cards())
def test_exact_is_the_default(name):
    for option, exact in EXACT.items():
        if option in cards()[name].fields:
            assert cards()[name].fields[option].default == exact


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
