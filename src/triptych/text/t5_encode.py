"""Prompts to what a network attends to, by one of T5's towers: one sequence each, which is padded and not chunked.

A weight moves a token away from what nothing at all says, whichever program's rule is read by: multiplied and brought
back to its mean, as AUTOMATIC1111 does with CLIP, it would be thrown about, since what T5 says has a mean near 0.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import final

import torch
from torch import Tensor

from triptych.engine.conditioning import Conditioning
from triptych.engine.text.t5 import T5Text
from triptych.errors import FileProblem
from triptych.text.encode import Rule, Turn
from triptych.text.kept import Kept, key
from triptych.text.t5_tokens import Row, Tokens, row

__all__ = ["T5Encoder", "T5Tower"]

AT_ONCE = 8  # texts that a tower is told together: each takes heads L^2 scores


@final
@dataclass(frozen=True, slots=True, eq=False)
class T5Tower:
    """How a model listens to a tower. come: the tower, which need not be in memory before; name: of its weights.

    length: how many tokens a text is filled up to; most: how many it may have, None for any number; masked: whether
    padding is hidden, from the tower and from the network, which Flux and Stable Diffusion 3 do not do.
    """

    come: Callable[[], T5Text]
    device: str
    dtype: torch.dtype
    length: int
    most: int | None
    masked: bool = False
    name: str = ""


@final
class T5Encoder:
    """Prompts to conditionings, by one tower. kept: where what it said is kept, which needs the tower's name."""

    def __init__(self, tower: T5Tower, tokens: Tokens, rule: Rule, kept: Kept | None = None) -> None:
        self.tower, self.tokens, self.rule = tower, tokens, rule
        self._kept = kept if tower.name else None

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str], steps: int) -> tuple[Turn, ...]:
        """What B prompts say in each of so many steps, one turn if they do not change.

        Tokens (B, L, D) with the same L in every turn, `length` or more, and where the tower is masked the mask (B, L).
        Raises InvalidField for what the rule refuses.
        """
        said = self._said(texts, steps)
        rows = {text: self.row(text) for text in dict.fromkeys(text for told in said for text in told)}
        length = max(self.tower.length, *(len(one.ids) for one in rows.values()))
        heard = self._weighed(list(rows.values()), length)
        hidden = dict(zip(rows, heard, strict=True))
        conds = {told: self._cond([(rows[text], hidden[text]) for text in told]) for told in dict.fromkeys(said)}
        ends = [step for step, (one, other) in enumerate(pairwise(said), 1) if one != other] + [steps]
        return tuple(Turn(step, conds[said[step - 1]]) for step in ends)

    def row(self, text: str) -> Row:
        """What a text that does not change is read as."""
        return row(self.rule.sections(text), self.tokens, self.tower.most)

    def cut(self, texts: Sequence[str], steps: int) -> tuple[str, ...]:
        """Everything that prompts say in any of so many steps and that does not fit in, for a warning."""
        rows = [self.row(text) for text in dict.fromkeys(text for told in self._said(texts, steps) for text in told)]
        return tuple(dict.fromkeys(one.cut for one in rows if one.cut))

    def _said(self, texts: Sequence[str], steps: int) -> list[tuple[str, ...]]:
        """What the prompts are at each step."""
        prompts = [self.rule.read(text) for text in texts]
        return [tuple(prompt.at(step, steps) for prompt in prompts) for step in range(1, steps + 1)]

    def _cond(self, heard: Sequence[tuple[Row, Tensor]]) -> Conditioning:
        tokens = torch.stack([hidden for _, hidden in heard])
        counts = torch.tensor([[len(one.ids)] for one, _ in heard], device=tokens.device)
        mask = torch.arange(tokens.shape[1], device=tokens.device) < counts
        return Conditioning(tokens=tokens, mask=mask if self.tower.masked else None)

    def _weighed(self, rows: Sequence[Row], length: int) -> list[Tensor]:
        """(L, D) of each row, as far from what nothing says as its weights tell."""
        empty = self.row("")
        weighted = [one for one in rows if any(weight != 1 for weight in one.weights)]
        heard = self._heard([*rows, empty] if weighted else rows, length)
        found = []
        for one in rows:
            hidden = heard[one.ids]
            if one in weighted:
                weights = torch.tensor([*one.weights] + [1.0] * (length - len(one.ids)), device=hidden.device)
                hidden = torch.lerp(heard[empty.ids].float(), hidden.float(), weights[:, None]).to(hidden.dtype)
            found.append(hidden)
        return found

    def _heard(self, rows: Sequence[Row], length: int) -> Mapping[tuple[int, ...], Tensor]:
        """What the tower says of each row, (L, D) by its ids: as it is kept, or else all others together."""
        found: dict[tuple[int, ...], Tensor] = {}
        lacking: list[Row] = []
        for one in {one.ids: one for one in rows}.values():
            before = self._kept.recall(self._key(one, length)) if self._kept else None
            if before is None or before.shape[0] != length:
                lacking.append(one)
            else:
                found[one.ids] = before.to(self.tower.device)
        for several in (lacking[start : start + AT_ONCE] for start in range(0, len(lacking), AT_ONCE)):
            for one, hidden in zip(several, self._told(several, length), strict=True):
                found[one.ids] = hidden
                if self._kept:
                    with suppress(FileProblem):  # what cannot be kept is told anew the next time
                        self._kept.keep(self._key(one, length), hidden)
        return found

    def _told(self, rows: Sequence[Row], length: int) -> Tensor:
        """N rows to (N, L, D)."""
        ids = torch.tensor([one.padded(length) for one in rows], device=self.tower.device)
        counts = torch.tensor([[len(one.ids)] for one in rows], device=self.tower.device)
        mask = torch.arange(length, device=self.tower.device) < counts if self.tower.masked else None
        said: Tensor = self.tower.come()(ids, mask)
        return said.to(self.tower.dtype)

    def _key(self, one: Row, length: int) -> str:
        return key(self.tower.name, one.padded(length), self.tower.masked, self.tower.dtype)
