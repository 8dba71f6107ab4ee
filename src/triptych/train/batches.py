"""Batches of captioned pictures or sounds for training, the same for a step whenever it is asked for."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, Protocol, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from triptych.engine.pitch import LOWEST, NOTES

__all__ = ["Batch", "Clip", "Film", "Scene", "heard", "moving", "seen", "stream"]


class Example(Protocol):
    """What one seed gives."""

    @property
    def caption(self) -> str: ...

    @property
    def codes(self) -> tuple[str, ...]:
        """What it shows, or is a sound of."""
        ...


class Scene(Example, Protocol):
    """An example that is seen."""

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """(*S, 3): (H, W, 3), or (T, H, W, 3) of one that moves."""
        ...


class Film(Scene, Protocol):
    """One that moves."""

    @property
    def poses(self) -> NDArray[np.float32]:
        """(T, POSE) where what it shows is."""
        ...

    @property
    def motion(self) -> str:
        """What it was made to do, "" where it moves by itself."""
        ...

    @property
    def still(self) -> str:
        """What one would say of a still of it."""
        ...


class Clip(Example, Protocol):
    """An example that is heard."""

    @property
    def samples(self) -> NDArray[np.float32]:
        """(N,) in [-1, 1]."""
        ...

    @property
    def pulse(self) -> float:
        """How many beats a second it has, 0 for none."""
        ...

    @property
    def notes(self) -> Sequence[int]:
        """Those that it has, as MIDI numbers them."""
        ...


@final
@dataclass(frozen=True, slots=True)
class Batch:
    """Samples (B, c, *S) in [-1, 1], their captions, and the codes of what each shows.

    Of what moves: poses (B, T, POSE), where it is; own (B,), whether it moves by itself; stills, what one would say of
    stills of it. Of what is heard: pulses (B,), beats a second; notes (B, NOTES), 1 for those that it has.
    """

    samples: Tensor
    captions: list[str]
    codes: list[tuple[str, ...]]
    poses: Tensor | None = None
    own: Tensor | None = None
    stills: Sequence[str] = ()
    pulses: Tensor | None = None
    notes: Tensor | None = None


@final
class _Seeded(Dataset[Any]):
    """Example number n is that of seed n."""

    def __init__(self, example: Callable[[int], Any]) -> None:
        self.example = example

    def __getitem__(self, index: int) -> Any:
        return self.example(index)


def seen(scenes: Sequence[Scene]) -> Batch:
    """Samples (B, 3, *S)."""
    pixels = torch.from_numpy(np.stack([scene.pixels for scene in scenes])).movedim(-1, 1)
    return Batch(pixels.float() / 127.5 - 1, [scene.caption for scene in scenes], [scene.codes for scene in scenes])


def moving(films: Sequence[Film]) -> Batch:
    """Samples (B, 3, T, H, W), and what goes with them."""
    poses = torch.from_numpy(np.stack([film.poses for film in films]))
    own = torch.tensor([not film.motion for film in films])
    return replace(seen(films), poses=poses, own=own, stills=[film.still for film in films])


def heard(clips: Sequence[Clip]) -> Batch:
    """Samples (B, 1, N), pulses, and notes."""
    samples = torch.from_numpy(np.stack([clip.samples for clip in clips]))[:, None]
    pulses = torch.tensor([clip.pulse for clip in clips])
    notes = torch.zeros(len(clips), NOTES, dtype=torch.uint8)
    for row, clip in zip(notes, clips, strict=True):
        row[[note - LOWEST for note in clip.notes]] = 1
    said, codes = [clip.caption for clip in clips], [clip.codes for clip in clips]
    return Batch(samples, said, codes, pulses=pulses, notes=notes)


def stream(
    example: Callable[[int], Any],
    batch: int,
    first: int,
    workers: int = 1,
    collate: Callable[[Sequence[Any]], Batch] = seen,
) -> Iterator[Batch]:
    """Endless batches from step `first` on: step n holds the examples of seeds n batch ... (n + 1) batch - 1.

    workers: processes that make examples ahead; 0 makes them in this one.
    """
    seeds = (range(n * batch, (n + 1) * batch) for n in count(first))
    loader = DataLoader(_Seeded(example), batch_sampler=seeds, num_workers=workers, collate_fn=collate)  # type: ignore[arg-type]
    return iter(loader)
