"""Prompts to what the flow-matching transformers are told: by CLIP's towers, by T5's, or by both."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from triptych.engine.conditioning import Conditioning
from triptych.engine.text.clip import ClipText
from triptych.engine.text.t5 import T5Text
from triptych.families import loras, place
from triptych.families.flow import Parts, Tuned
from triptych.families.prompts import Remembered, spoken
from triptych.model import Script
from triptych.profiles import profile
from triptych.text import t5_tokens
from triptych.text.encode import RULES, ClipEncoder, Rule, Tower, Turn
from triptych.text.t5_encode import T5Encoder, T5Tower
from triptych.types import Request
from triptych.weights.digest import sampled
from triptych.weights.loading import Component
from triptych.weights.offload import Rooms

__all__ = ["Ears", "Listener", "Shown", "as_it_is", "merged", "t5_encoder"]

Shown = Callable[[Request, Mapping[str, Tensor]], Callable[[str, Conditioning], Conditioning]]
"""(request, what the network is shown) -> from a prompt and what its words say to what the network is told in all."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class Ears:
    """CLIP's towers: how each is listened to, and where it is. tokens: whether the network attends to their words."""

    towers: Sequence[tuple[Component[ClipText], int, bool, int]]  # skip, normed, pad: as of `Tower`
    names: Sequence[str]
    rooms: Rooms
    tokens: bool

    def __call__(self, texts: Sequence[str], steps: int, rule: Rule) -> tuple[Turn, ...]:
        """What B prompts say in each of so many steps."""
        self.rooms.use(self.names)
        heard = [Tower(one.module, skip, normed, pad, pooled=True) for one, skip, normed, pad in self.towers]
        return ClipEncoder(heard, rule)(texts, steps)


@final
class Listener:
    """A prompt, and whatever else of a request the network is told.

    width: of its tokens; silence: how many zeros stand in place of T5's words where there is no T5; shown: what else it
    is told.
    """

    def __init__(self, ears: Ears, t5: T5Encoder | None, width: int, silence: int, shown: Shown, device: str) -> None:
        self._ears, self._t5, self._width, self._silence = ears, t5, width, silence
        self._shown, self._device = shown, device
        self._remembered = Remembered(self._told)

    def __call__(self, request: Request, prompt: str, **seen: Tensor) -> Script:
        """seen: `init` (1, 3, H, W) and `mask` (1, 1, H, W), of networks that are shown them. Raises InvalidField."""
        return self._remembered(request, prompt, **seen)

    def cut(self, request: Request) -> tuple[str, ...]:
        """What of the prompts does not fit into T5's sequence."""
        texts = [spoken(request, request.prompt), request.negative_prompt or ""]
        return () if self._t5 is None else self._t5.cut(texts, request.steps or 1)

    @torch.inference_mode()
    def _told(self, request: Request, texts: Sequence[str], **seen: Tensor) -> dict[str, Script]:
        said, steps = [spoken(request, text) for text in texts], request.steps or 1
        rule = RULES[profile(request.options.get("profile")).reading]
        heard = self._ears(said, steps, rule)
        read = (Turn(steps, self._nothing(len(said))),) if self._t5 is None else self._t5(said, steps)
        turns = merged(heard, read)
        starts, whole = [0, *(last for last, _, _ in turns[:-1])], self._shown(request, seen)
        found: dict[str, Script] = {}
        for row, text in enumerate(texts):
            conds = [whole(text, self._joined(a, b, row)) for _, a, b in turns]
            found[text] = Script(tuple(zip(starts, conds, strict=True)))
        return found

    def _nothing(self, rows: int) -> Conditioning:
        return Conditioning(tokens=torch.zeros(rows, self._silence, self._width, device=self._device))

    def _joined(self, heard: Conditioning, read: Conditioning, row: int) -> Conditioning:
        """What both say of one row: CLIP's words, widened by zeros, before T5's."""
        one, own = slice(row, row + 1), read.tokens
        assert heard.tokens is not None, "an encoder of prompts gives tokens"
        assert heard.vector is not None, "towers whose pooled vectors are taken"
        assert own is not None, "an encoder of prompts gives tokens"
        tokens = own[one]
        if self._ears.tokens:
            words = torch.nn.functional.pad(heard.tokens[one], (0, self._width - heard.tokens.shape[-1]))
            tokens = torch.cat([words, tokens.to(words.dtype)], dim=1)
        return Conditioning(tokens=tokens, vector=heard.vector[one].float())


def t5_encoder(request: Request, parts: Parts, tower: Tuned | None, rooms: Rooms) -> T5Encoder | None:
    """What tells T5's words of a request, where there is T5."""
    if tower is None:
        return None
    component, options = tower.component, request.options

    def come() -> T5Text:
        rooms.use([tower.name])
        found: T5Text = component.module
        return found

    named = options.get("t5_tokenizer")
    root = parts.root(options.get("t5"))
    words = component.module.shared.num_embeddings
    tokens = t5_tokens.find(place(named) if named else None, root, words)
    length = options["t5_tokens"]
    heard = T5Tower(come, parts.device, parts.dtype, length, length, name=_known(request, tower))
    return T5Encoder(heard, tokens, RULES[profile(options["profile"]).reading], parts.kept)


def _known(request: Request, tower: Tuned) -> str:
    """What tells what a tower says from what another would, "" where files of small changes may act in it."""
    if loras.named(request):
        return ""
    bits = str(request.options.get("quantize_t5"))
    return "\n".join(["t5", bits, tower.component.device, *map(sampled, tower.component.files)])


def as_it_is(request: Request, seen: Mapping[str, Tensor]) -> Callable[[str, Conditioning], Conditioning]:
    """Words are all that is told."""
    return lambda text, cond: cond


def merged(one: Sequence[Turn], other: Sequence[Turn]) -> list[tuple[int, Conditioning, Conditioning]]:
    """Two ways of telling the same prompts as one: up to which step, and what each says then."""
    ends = sorted({turn.last for turn in (*one, *other)})

    def at(turns: Sequence[Turn], step: int) -> Conditioning:
        return next(turn.cond for turn in turns if turn.last >= step)

    return [(end, at(one, end), at(other, end)) for end in ends]
