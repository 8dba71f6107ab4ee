"""Prompts to what a network attends to: chunks through text towers, and the weights of their tokens applied.

Stable Diffusion 1 listens to the last layer of CLIP ViT-L; SDXL (arXiv:2307.01952, section 2.1) to the last layer but
one of ViT-L and of ViT-bigG side by side, and to the pooled vector of the latter.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from types import MappingProxyType
from typing import Final, final

import torch
from einops import rearrange
from torch import Tensor

from triptych.engine.conditioning import Conditioning
from triptych.engine.text.clip import END, ClipText
from triptych.errors import InvalidField
from triptych.text.chunks import Chunk, chunked, framed, level
from triptych.text.inversion import Inversion, Inversions
from triptych.text.prompts import Sections, a1111, comfy, literal
from triptych.text.schedules import Prompt, read

__all__ = ["RULES", "ClipEncoder", "Rule", "Tower", "Turn"]

Weigh = Callable[[Tensor, Tensor, Callable[[], Tensor]], Tensor]
"""(hidden (N, L, D), weights (N, L), what an empty chunk gives (1, L, D)) -> (N, L, D)."""


def restored(hidden: Tensor, weights: Tensor, empty: Callable[[], Tensor]) -> Tensor:
    """Multiplied by the weights, then each chunk by one number that gives it the mean it had before, if it has one."""
    weighted = hidden * weights[..., None]
    before, after = (x.mean((1, 2), keepdim=True) for x in (hidden, weighted))
    return weighted * torch.where(after == 0, 1, before / after)


def interpolated(hidden: Tensor, weights: Tensor, empty: Callable[[], Tensor]) -> Tensor:
    """As far from what nothing at all says as the weights tell: empty + w (hidden - empty)."""
    return torch.lerp(empty(), hidden, weights[..., None])


def unweighted(hidden: Tensor, weights: Tensor, empty: Callable[[], Tensor]) -> Tensor:
    """As it is."""
    return hidden


def changing(text: str) -> Prompt:
    """A prompt that may change from step to step. Raises InvalidField for `AND`."""
    if _AND.search(text):
        advice = "Prompts joined by AND are not composed here: write one prompt, or `and` in small letters."
        raise InvalidField("prompt", "AND", "one prompt", advice)
    return read(text)


def constant(text: str) -> Prompt:
    """A prompt that never changes."""
    return Prompt((text,))


_AND: Final = re.compile(r"\bAND\b")


@final
@dataclass(frozen=True, slots=True)
class Rule:
    """How one program reads prompts, so that prompts written for it mean here what they mean there."""

    read: Callable[[str], Prompt]
    sections: Callable[[str], Sections]
    weigh: Weigh
    backtrack: int = 0  # of `chunked`
    whole: int = 0  # of `chunked`
    prefix: str = ""  # of `Inversions`


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "a1111": Rule(changing, a1111, restored, backtrack=20),
        "comfy": Rule(constant, comfy, interpolated, whole=8, prefix="embedding:"),
        "none": Rule(constant, literal, unweighted),
    }
)


@final
@dataclass(frozen=True, slots=True, eq=False)
class Tower:
    """How a model listens to a tower. Raises InvalidField for a layer that the tower does not have."""

    net: ClipText
    skip: int = 1  # which layer, counted from the end
    normed: bool = True  # whether the tower's final norm is applied to that layer
    pad: int = END  # the id after the end of a text: END for OpenAI's tower, 0 for OpenCLIP's
    pooled: bool = False  # whether the model also takes the pooled vector

    def __post_init__(self) -> None:
        if not 1 <= self.skip <= self.net.depth:
            raise InvalidField("clip_skip", self.skip, f"1 to {self.net.depth}", "1 is the last layer.")

    def __call__(self, ids: Tensor, extra: Tensor | None) -> tuple[Tensor, Tensor]:
        """ids (N, L), extra (M, D) as of `ClipText`: hidden (N, L, D) in float32, and pooled (N, D')."""
        encoded = self.net(ids, self.skip, extra)
        hidden = self.net.final_layer_norm(encoded.hidden) if self.normed else encoded.hidden
        return hidden.float(), encoded.pooled


@final
@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """What is said up to and including a step, counted from 1."""

    last: int
    cond: Conditioning


@final
class ClipEncoder:
    """Prompts to conditionings, by one or several towers side by side."""

    def __init__(self, towers: Sequence[Tower], rule: Rule, inversions: Sequence[Inversion] = ()) -> None:
        self.towers, self.rule = tuple(towers), rule
        self._inversions = Inversions(inversions, rule.prefix)

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str], steps: int) -> tuple[Turn, ...]:
        """What B prompts say in each of so many steps, one turn if they do not change.

        Tokens (B, 77 n, D) with the same n for all of them and in every turn, and the pooled vector (B, D') of the
        first chunk, if a tower's is taken. Raises InvalidField for what the rule refuses.
        """
        prompts = [self.rule.read(text) for text in texts]
        said = [tuple(prompt.at(step, steps) for prompt in prompts) for step in range(1, steps + 1)]
        distinct = list(dict.fromkeys(text for row in said for text in row))
        chunks = dict(zip(distinct, level([self.chunks(text) for text in distinct]), strict=True))
        conds = {row: self._encode([chunks[text] for text in row]) for row in dict.fromkeys(said)}
        ends = [step for step, (one, other) in enumerate(pairwise(said), 1) if one != other] + [steps]
        return tuple(Turn(step, conds[said[step - 1]]) for step in ends)

    def chunks(self, text: str) -> tuple[Chunk, ...]:
        """What a text that does not change is cut into."""
        rule = self.rule
        return chunked(rule.sections(text), self._inversions.items, backtrack=rule.backtrack, whole=rule.whole)

    def _encode(self, rows: Sequence[tuple[Chunk, ...]]) -> Conditioning:
        flat = [chunk for row in rows for chunk in row]
        heard = [self._hear(number, flat) for number in range(len(self.towers))]
        tokens = torch.cat([hidden for hidden, _ in heard], dim=-1)
        pooled = [
            vector[:: len(rows[0])] for tower, (_, vector) in zip(self.towers, heard, strict=True) if tower.pooled
        ]
        joined = rearrange(tokens, "(b n) l d -> b (n l) d", b=len(rows))
        return Conditioning(tokens=joined, vector=torch.cat(pooled, dim=-1) if pooled else None)

    def _hear(self, number: int, chunks: Sequence[Chunk]) -> tuple[Tensor, Tensor]:
        """What one tower says of N chunks: weighted hidden (N, L, D), and pooled (N, D')."""
        tower = self.towers[number]
        weight = tower.net.final_layer_norm.weight
        ids, weights = (x.to(weight.device) for x in framed(chunks, tower.pad))
        hidden, pooled = tower(ids, self._inversions.table(number))
        empty = partial(self._empty, tower, weight.device)
        return self.rule.weigh(hidden, weights, empty).to(weight.dtype), pooled

    def _empty(self, tower: Tower, device: torch.device) -> Tensor:
        ids, _ = framed([Chunk()], tower.pad)
        return tower(ids.to(device), None)[0]
