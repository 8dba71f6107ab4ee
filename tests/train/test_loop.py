"""The loop: it learns, stops and goes on as if it had never stopped, and refuses to go on from no number."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from triptych.errors import NotFinite
from triptych.train.loop import Settings, fit


class Line:
    """y = 2 x - 1 from noisy points."""

    def __init__(self, broken_at: int | None = None) -> None:
        torch.manual_seed(0)
        self.modules, self.broken_at, self.shown = nn.Linear(1, 1), broken_at, []

    def batches(self, first):
        step = first
        while True:
            yield step
            step += 1

    def loss(self, batch, generator):
        x = torch.randn(64, 1, generator=generator)
        loss = (self.modules(x) - (2 * x - 1)).square().mean()
        return loss * float("nan") if batch == self.broken_at else loss

    def show(self, path):
        self.shown.append(path.name)


def settings(steps=60, **more):
    return Settings(**{"steps": steps, "batch": 64, "rate": 0.05, "warm_up": 5, "show_every": 20, **more})


def weights(task):
    return torch.cat([parameter.detach().flatten() for parameter in task.modules.parameters()])


def test_it_learns_and_ends_with_the_average(tmp_path):
    task = Line()
    losses = [progress.loss for progress in fit("line", task, settings(400, average=0.8), tmp_path)]
    assert losses[-1] < 1e-3 < losses[0]
    torch.testing.assert_close(weights(task), torch.tensor([2.0, -1.0]), rtol=0, atol=0.05)
    assert task.shown[0] == "step-000020.png"
    assert (tmp_path / "curve.png").stat().st_size > 1000
    assert len((tmp_path / "losses.csv").read_text().splitlines()) == 400


def test_a_run_that_was_stopped_ends_where_an_uninterrupted_one_does(tmp_path):
    whole, first, second = Line(), Line(), Line()
    list(fit("line", whole, settings(), tmp_path / "whole"))
    run = fit("line", first, settings(), tmp_path / "parts")
    for progress in run:
        if progress.step == 23:
            break
    run.close()
    steps = [progress.step for progress in fit("line", second, settings(), tmp_path / "parts")]
    assert steps[0] == 24
    torch.testing.assert_close(weights(second), weights(whole), rtol=0, atol=0)
    lines = [(tmp_path / name / "losses.csv").read_text() for name in ("whole", "parts")]
    assert lines[0] == lines[1]


def test_no_number_stops_and_keeps_the_checkpoint_before(tmp_path):
    with pytest.raises(NotFinite, match="training the line at step 30"):
        list(fit("line", Line(broken_at=30), settings(save_every=0.0), tmp_path))
    steps = [progress.step for progress in fit("line", Line(), settings(), tmp_path)]
    assert steps[0] == 31


def test_the_rate_rises_stays_and_falls():
    plan = settings(100, rate=1.0, warm_up=10, cool_down=20)
    rates = [plan.rate_at(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[10:80] == [1.0] * 70
    assert all(later < sooner for sooner, later in pairwise(rates[80:]))
    assert rates[99] < 0.02
