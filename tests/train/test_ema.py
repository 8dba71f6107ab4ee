"""Averages of weights against their closed forms."""

import pytest
import torch
from torch import nn

from triptych.train.ema import Average, Power, Warmed


def module(value: float = 0.0) -> nn.Module:
    made = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    fill(made, value)
    made[0].bias.requires_grad_(False)
    return made


@torch.no_grad()
def fill(made: nn.Module, value: float) -> None:
    for parameter in made.parameters():
        parameter.fill_(value)


def test_a_constant_is_its_own_average():
    made = module(3.0)
    average = Average(made, 0.99)
    for step in range(50):
        average.update(made, step)
    for value in average.state_dict().values():
        torch.testing.assert_close(value, torch.full_like(value, 3.0))


def test_it_is_the_weighted_sum_of_what_it_saw():
    """Weights of the values w_0 (at the start), w_1, ...: (1 - d_i) times all later decays."""
    made, decay = module(1.0), Warmed(0.9)
    average = Average(made, 0.9)
    expected = 1.0
    for step, value in enumerate([2.0, -1.0, 5.0, 0.5]):
        fill(made, value)
        average.update(made, step)
        expected = decay(step) * expected + (1 - decay(step)) * value
    assert average.state_dict()["0.weight"][0, 0].item() == pytest.approx(expected)


def test_the_decay_warms_up():
    decay = Warmed(0.999)
    assert decay(0) == pytest.approx(0.1)
    assert decay(90) == pytest.approx(0.91)
    assert decay(10**6) == 0.999
    assert [decay(n) for n in range(100)] == sorted(decay(n) for n in range(100))


@pytest.mark.parametrize("width", [0.05, 0.1, 0.2])
def test_the_power_average_has_the_width_it_was_asked(width):
    """The weight of step i in the average after n steps has standard deviation width n: arXiv:2312.02696, eq. 3."""
    decay, steps = Power(width), 4000
    weights = torch.ones(steps, dtype=torch.float64)
    for step in range(steps):
        weights[:step] *= decay(step)
        weights[step] = 1 - decay(step)
    position = torch.arange(steps, dtype=torch.float64) / steps
    mean = (weights * position).sum()
    assert weights.sum().item() == pytest.approx(1)
    assert (weights * (position - mean).square()).sum().sqrt().item() == pytest.approx(width, rel=0.01)


def test_power_gammas_are_the_papers():
    assert Power(0.05).gamma == pytest.approx(16.97, abs=0.01)
    assert Power(0.1).gamma == pytest.approx(6.94, abs=0.01)


def test_a_power_average_forgets_the_start_at_once():
    made = module(100.0)
    average = Average(made, Power(0.1))
    fill(made, 2.0)
    average.update(made, 0)
    assert average.state_dict()["0.weight"][0, 0].item() == 2.0


def test_frozen_parameters_are_left_alone():
    assert set(Average(module(), 0.9).state_dict()) == {"0.weight", "1.weight", "1.bias"}


def test_swapping_in_and_out_even_through_an_error():
    made = module(1.0)
    average = Average(made, 0.9)
    fill(made, 7.0)

    def stop() -> None:
        with average.swapped(made):
            assert made[0].weight.unique().tolist() == [1.0]
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        stop()
    assert made[0].weight.unique().tolist() == [7.0]
    average.copy_to(made)
    assert made[0].weight.unique().tolist() == [1.0]
    assert made[0].bias.unique().tolist() == [7.0]


def test_an_average_goes_on_from_its_state():
    made = module(1.0)
    average, resumed = Average(made, 0.9), Average(module(5.0), 0.9)
    fill(made, 2.0)
    average.update(made, 0)
    resumed.load_state_dict({name: value.clone() for name, value in average.state_dict().items()})
    for each in (average, resumed):
        each.update(made, 1)
    for name, value in average.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name])
    with pytest.raises(ValueError, match="other parameters"):
        resumed.load_state_dict({"elsewhere": torch.zeros(1)})
