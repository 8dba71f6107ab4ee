"""Encoded scenes, kept: composing and encoding a scene costs as much as a training step on its latents."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import final

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from triptych.engine.codec import Codec
from triptych.train.batches import Batch

__all__ = ["NOTHING", "Bank", "Encoded", "encoded", "means", "slots"]

AT_ONCE = 250  # pictures encoded together
SORTED = 32  # batches whose captions are sorted by length together, for less padding
SUBJECTS = 2  # the most kinds of things in a scene
NOTHING = -1  # the subject of a scene where it has fewer than it may


@final
@dataclass(frozen=True, slots=True)
class Encoded:
    """Latents (B, C, *S) float32, their captions, and their subjects (B, 2): the things that each shows, left or upper
    first, and NOTHING where it shows one kind of thing alone. poses (B, T, POSE): where they are, of what moves; pulses
    (B,): beats a second, and notes (B, NOTES): 1 for those that are there, of what is heard."""

    x_0: Tensor
    captions: list[str]
    subjects: Tensor
    poses: Tensor | None = None
    pulses: Tensor | None = None
    notes: Tensor | None = None


@final
@dataclass(frozen=True, slots=True)
class Bank:
    """Latents (N, C, *S) fp16, captions, subjects (N, 2), poses (N, T, POSE) of what moves, pulses (N,) and notes
    (N, NOTES) of sounds."""

    latents: Tensor
    captions: list[str]
    subjects: Tensor
    poses: Tensor | None = None
    pulses: Tensor | None = None
    notes: Tensor | None = None

    def batches(self, batch: int, first: int) -> Iterator[Encoded]:
        """Endless batches from step `first` on, every scene once an epoch, captions of like length together."""
        lengths = torch.tensor([len(caption) for caption in self.captions])
        per_epoch = len(self.captions) // batch
        epoch, order = -1, torch.empty(0)
        for step in count(first):
            if epoch != step // per_epoch:
                epoch = step // per_epoch
                order = _order(lengths, batch, torch.Generator().manual_seed(epoch))
            chosen = order[step % per_epoch]
            captions = [self.captions[n] for n in chosen.tolist()]
            beside = (None if x is None else x[chosen] for x in (self.poses, self.pulses, self.notes))
            yield Encoded(self.latents[chosen].float(), captions, self.subjects[chosen], *beside)


def _order(lengths: Tensor, batch: int, generator: torch.Generator) -> Tensor:
    """(N // batch, batch) indices."""
    shuffled = torch.randperm(len(lengths), generator=generator)[: len(lengths) // batch * batch]
    chunks = torch.split(shuffled, SORTED * batch)
    parts = [part[lengths[part].argsort(stable=True)].reshape(-1, batch) for part in chunks]
    together = torch.cat(parts)
    return together[torch.randperm(len(together), generator=generator)]


def slots(things: Sequence[str]) -> Callable[[Sequence[tuple[str, ...]]], Tensor]:
    """What turns the codes of what examples show into subjects (B, 2); things: the codes that have a slot, in order."""
    numbers = {code: n for n, code in enumerate(things)}

    def slotted(codes: Sequence[tuple[str, ...]]) -> Tensor:
        return torch.tensor([[*(numbers[code] for code in own), NOTHING][:SUBJECTS] for own in codes])

    return slotted


@torch.inference_mode()
def encoded(
    codec: Codec,
    batches: Callable[[int, int], Iterator[Batch]],
    things: Sequence[str],
    size: int,
    path: Path,
    at_once: int = AT_ONCE,
) -> Bank:
    """`size` scenes, encoded once and kept on disk; things: the codes that have a slot in the memory, in order."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        slotted = slots(things)
        latents, captions, subjects = list[Tensor](), list[str](), list[Tensor]()
        beside: dict[str, list[Tensor]] = {"poses": [], "pulses": [], "notes": []}
        for batch in islice(batches(at_once, 0), size // at_once):
            latents.append(_encode(codec, batch.samples).half())
            captions += batch.captions
            subjects.append(slotted(batch.codes))
            for name, found in (("poses", batch.poses), ("pulses", batch.pulses), ("notes", batch.notes)):
                beside[name] += [] if found is None else [found]
        tensors = {"latents": torch.cat(latents).contiguous(), "subjects": torch.cat(subjects)}
        tensors |= {name: torch.cat(parts) for name, parts in beside.items() if parts}
        save_file(tensors, path, metadata={"captions": json.dumps(captions)})
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
        return Bank(captions=json.loads(file.metadata()["captions"]), **tensors)


@torch.inference_mode()
def means(codec: Codec, batches: Callable[[int, int], Iterator[Batch]], things: int, copies: int) -> Tensor:
    """(things, C, *S): the mean latents of each thing; scene n of the stream shows thing n % things."""
    total, stream = torch.zeros(()), batches(things, 0)
    for _ in range(copies):
        parts = [_encode(codec, samples) for samples in torch.split(next(stream).samples, AT_ONCE)]
        total = total + torch.cat(parts) / copies
    return total


def _encode(codec: Codec, samples: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return codec.encode(samples)
