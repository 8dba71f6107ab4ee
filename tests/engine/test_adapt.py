"""Changes of low rank: trained beside frozen weights, and merged into them."""

import pytest
import torch
from torch import nn

from triptych.engine.adapt import adapt, changes, merge


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(4, 6, 3, padding=1), nn.GroupNorm(2, 6), nn.Conv2d(6, 5, 1), nn.Flatten(), nn.Linear(80, 7)
    )


def test_an_adapted_network_starts_as_what_it_was_and_trains_its_changes_alone():
    plain, adapted, x = network(), network(), torch.randn(2, 4, 4, 4)
    adapt(adapted, 2)
    torch.testing.assert_close(adapted(x), plain(x))
    trained = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert all(".parametrizations.weight.0." in name or name.endswith("bias") or name == "1.weight" for name in trained)


def test_what_is_named_is_trained_whole():
    adapted = network()
    adapt(adapted, 2, whole=("4",))
    assert adapted[4].weight.requires_grad
    assert changes(adapted).keys() == {f"{n}.weight.low.{part}" for n in (0, 2) for part in ("down", "up")}


def test_merged_changes_give_what_the_adapted_network_gave():
    plain, adapted, x = network(), network(), torch.randn(2, 4, 4, 4)
    adapt(adapted, 2)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter)
    found = changes(adapted)
    assert found.keys() == {f"{n}.weight.low.{part}" for n in (0, 2, 4) for part in ("down", "up")}
    own = {name: p for name, p in adapted.named_parameters() if "parametrizations" not in name}
    plain.load_state_dict(merge(plain.state_dict() | own, found))
    torch.testing.assert_close(plain(x), adapted(x), rtol=1e-4, atol=1e-4)


def test_a_change_of_no_weight_is_an_error():
    with pytest.raises(KeyError, match=r"nothing\.weight"):
        merge({}, {"nothing.weight.low.up": torch.ones(2, 1), "nothing.weight.low.down": torch.ones(1, 2)})
