"""The training loop: a generator that yields after every step, so that its consumer shows, stops and looks.

What is trained is a `Task`: modules, batches and a loss. The loop owns the rest: AdamW (arXiv:1711.05101), warm-up and
cool-down of the rate, clipping, an exponential moving average, checkpoints to resume from, the curve, sample sheets.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, final

import torch
from torch import Tensor, nn

from triptych.errors import NotFinite
from triptych.train.checkpoint import Checkpoint, restore, save
from triptych.train.curve import Curve
from triptych.train.ema import Average

__all__ = ["Settings", "Task", "TrainProgress", "fit"]


class Task(Protocol):
    """What is trained: its modules, a stream of batches and the loss of one."""

    @property
    def modules(self) -> nn.Module: ...

    def batches(self, first: int) -> Iterator[Any]:
        """Batches from step `first` on; the same step always gives the same batch."""
        ...

    def loss(self, batch: Any, generator: torch.Generator) -> Tensor:
        """() the mean loss of a batch; generator: for times and noise."""
        ...

    def show(self, path: Path) -> None:
        """Writes a picture of what the modules can do by now."""
        ...


@final
@dataclass(frozen=True, slots=True)
class Settings:
    """How long and how fast; a recipe's table of the same name."""

    steps: int
    batch: int
    rate: float = 1e-3  # of AdamW, after warm-up
    warm_up: int = 300  # steps
    cool_down: int = 0  # last steps over which the rate falls to zero
    decay: float = 0.01  # of weights
    average: float = 0.98  # decay of the moving average, each time that it is moved
    average_every: int = 10  # steps; a pass over all weights costs as much as a layer
    clip: float = 1.0  # largest norm of the gradient
    show_every: int = 500  # steps
    save_every: float = 300.0  # seconds

    def rate_at(self, step: int) -> float:
        """The learning rate of a step: linear up, constant, cosine down."""
        up = min(1.0, (step + 1) / max(1, self.warm_up))
        left = (self.steps - step) / max(1, self.cool_down)
        down = 0.5 - 0.5 * math.cos(math.pi * min(1.0, left)) if self.cool_down else 1.0
        return self.rate * up * down


@final
@dataclass(frozen=True, slots=True)
class TrainProgress:
    """One step done."""

    stage: str
    step: int
    steps: int
    loss: float
    samples_per_second: float
    files: Mapping[str, Path] = field(default_factory=dict)


def fit(stage: str, task: Task, settings: Settings, folder: Path) -> Iterator[TrainProgress]:
    """Trains in `folder`, going on from its checkpoint where it has one; ends with the average in the modules.

    Raises NotFinite where the loss is no number; the checkpoint before it is kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    optimiser = torch.optim.AdamW(
        _groups(task.modules, settings.decay), lr=settings.rate, betas=(0.9, 0.99), fused=True
    )
    average, step = _begin(folder / "checkpoint.safetensors", task.modules, optimiser, settings)
    with closing(Curve(folder / "losses.csv", step)) as curve:
        write = _writer(folder, task, optimiser, average, curve)
        saved = time.monotonic()
        for batch in task.batches(step):
            if step >= settings.steps:
                break
            started = time.monotonic()
            loss = _step(stage, task, batch, optimiser, settings, step)
            if step % settings.average_every == 0:
                average.update(task.modules, step // settings.average_every)
            step += 1
            curve.add(step, loss)
            if step % settings.show_every == 0 or step == settings.steps:
                with average.swapped(task.modules):
                    task.show(folder / f"step-{step:06d}.png")
            if time.monotonic() - saved > settings.save_every or step == settings.steps:
                write(step)
                saved = time.monotonic()
            try:
                yield TrainProgress(stage, step, settings.steps, loss, settings.batch / (time.monotonic() - started))
            except GeneratorExit:  # stopped on request: the next run goes on from this very step
                write(step)
                raise
    average.copy_to(task.modules)


def _begin(path: Path, modules: nn.Module, optimiser: torch.optim.Optimizer, settings: Settings) -> tuple[Average, int]:
    if not path.exists():
        return Average(modules, settings.average), 0
    tensors, step = restore(path, modules, optimiser)
    average = Average(modules, settings.average)
    average.load_state_dict(tensors)
    return average, step


def _writer(
    folder: Path, task: Task, optimiser: torch.optim.Optimizer, average: Average, curve: Curve
) -> Callable[[int], None]:
    def write(step: int) -> None:
        checkpoint = Checkpoint(task.modules, average.state_dict(), optimiser, step)
        save(folder / "checkpoint.safetensors", checkpoint)
        curve.write(folder / "curve.png")

    return write


def _step(stage: str, task: Task, batch: Any, optimiser: torch.optim.Optimizer, settings: Settings, step: int) -> float:
    for group in optimiser.param_groups:
        group["lr"] = settings.rate_at(step)
    # Every step has its own generator, so that a resumed run draws what the uninterrupted one would have drawn.
    loss = task.loss(batch, torch.Generator("cpu").manual_seed(step))
    value = loss.item()
    if not math.isfinite(value):
        raise NotFinite(f"training the {stage}", step, "Lower the rate and resume from the last checkpoint.")
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(task.modules.parameters(), settings.clip)
    optimiser.step()
    return value


def _groups(modules: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices and kernels, none for biases, norms and positions."""
    trained = [p for p in modules.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
