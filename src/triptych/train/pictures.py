"""Batches of captioned pictures for training, the same for a step whenever it is asked for."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Protocol, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

__all__ = ["Batch", "Scene", "stream"]


class Scene(Protocol):
    """One training example."""

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """(*S, 3): (H, W, 3), or (T, H, W, 3) of one that moves."""
        ...

    @property
    def caption(self) -> str: ...

    @property
    def codes(self) -> tuple[str, ...]:
        """What it shows."""
        ...


@final
@dataclass(frozen=True, slots=True)
class Batch:
    """Samples (B, 3, *S) in [-1, 1], their captions, and the codes of what each shows."""

    samples: Tensor
    captions: list[str]
    codes: list[tuple[str, ...]]


@final
class _Seeded(Dataset[Scene]):
    """Example number n is the scene of seed n."""

    def __init__(self, scene: Callable[[int], Scene]) -> None:
        self.scene = scene

    def __getitem__(self, index: int) -> Scene:
        return self.scene(index)


def stream(scene: Callable[[int], Scene], batch: int, first: int, workers: int = 1) -> Iterator[Batch]:
    """Endless batches from step `first` on: step n holds the scenes of seeds n batch ... (n + 1) batch - 1.

    workers: processes that draw ahead; 0 draws in this one.
    """
    seeds = (range(n * batch, (n + 1) * batch) for n in count(first))
    loader = DataLoader(_Seeded(scene), batch_sampler=seeds, num_workers=workers, collate_fn=_collate)  # type: ignore[arg-type]
    return iter(loader)


def _collate(scenes: list[Scene]) -> Batch:
    pixels = torch.from_numpy(np.stack([scene.pixels for scene in scenes])).movedim(-1, 1)
    return Batch(pixels.float() / 127.5 - 1, [scene.caption for scene in scenes], [scene.codes for scene in scenes])
