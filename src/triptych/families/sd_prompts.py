"""Prompts, sizes and pictures to what the networks of Stable Diffusion are told."""

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from triptych.engine.codec import Codec
from triptych.engine.conditioning import Conditioning
from triptych.engine.nets.layers import sines
from triptych.engine.text.clip import ClipText
from triptych.families import place
from triptych.families.prompts import Remembered, listed, spoken
from triptych.families.sd_weights import Kind
from triptych.model import Script
from triptych.profiles import profile
from triptych.text import inversion
from triptych.text.encode import RULES, ClipEncoder, Tower, Turn
from triptych.types import Request
from triptych.weights.offload import Rooms

__all__ = ["PromptEncoder"]


@final
class PromptEncoder:
    """A prompt, the size, and for inpainting what is kept of a picture, to what the network is told."""

    def __init__(
        self, kind: Kind, towers: Sequence[ClipText], codec: Codec, device: str, rooms: Rooms, names: Sequence[str]
    ) -> None:
        """names: of the towers in these rooms."""
        self.kind, self.towers, self.codec = kind, tuple(towers), codec
        self._device, self._rooms, self._names = device, rooms, names
        self._remembered = Remembered(self._told)

    def __call__(self, request: Request, prompt: str, **seen: Tensor) -> Script:
        """seen: `init` (1, 3, H, W) and `mask` (1, 1, H, W), 1 where it may change. Raises InvalidField."""
        return self._remembered(request, prompt, **seen)

    @torch.inference_mode()
    def _told(self, request: Request, texts: Sequence[str], **seen: Tensor) -> dict[str, Script]:
        said = [spoken(request, text) for text in texts]
        turns = self._listening(request)(said, request.steps or 1)
        starts = [0, *(turn.last for turn in turns[:-1])]
        kept, found = self._kept(request, **seen), dict[str, Script]()
        for row, text in enumerate(texts):
            numbers = self._numbers(request, text == request.prompt)
            loud = float(not self.kind.silent or bool(said[row]) or request.options["profile"] == "comfy")
            conds = [_cond(turn, row, numbers, kept, loud) for turn in turns]
            found[text] = Script(tuple(zip(starts, conds, strict=True)))
        return found

    def _listening(self, request: Request) -> ClipEncoder:
        skip = request.options["clip_skip"]
        listening = [
            Tower(net, skip, one.normed, one.pad, one.pooled)
            for net, one in zip(self.towers, self.kind.towers, strict=True)
        ]
        widths = [net.width for net in self.towers]
        self._rooms.use(self._names)
        words = [inversion.load(place(file), widths) for file in listed(request.options.get("embeddings"))]
        return ClipEncoder(listening, RULES[profile(request.options["profile"]).reading], words)

    def _numbers(self, request: Request, wanted: bool) -> Tensor | None:
        """(1, 256 n) what is said of the size and, to the refiner, of the beauty, which for what is unwanted is low."""
        size = [float(request.height or 0), float(request.width or 0)]
        if not self.kind.numbers:
            return None
        last = size if self.kind.numbers == 6 else [WANTED if wanted else UNWANTED]
        return sines(torch.tensor([*size, 0.0, 0.0, *last], device=self._device)).reshape(1, -1)

    def _kept(self, request: Request, init: Tensor | None = None, mask: Tensor | None = None) -> Tensor | None:
        """(1, 5, h, w): where the picture may change, and the latents of what is kept of it; grey where nothing is."""
        if self.kind.shape.in_channels == 4:
            return None
        device = self._device
        shape = (1, 1, request.height or 0, request.width or 0)
        free = torch.ones(shape, device=device) if mask is None or init is None else (mask >= 0.5).float()
        picture = torch.zeros(1, 3, *shape[2:], device=device) if init is None else init
        small = interpolate(free, [n // f for n, f in zip(shape[2:], self.codec.scale_factor, strict=True)])
        return torch.cat([small, self.codec.encode(picture * (free < 0.5))], dim=1)


WANTED, UNWANTED = 6.0, 2.5  # scores of beauty, as the refiner's authors use it


def _cond(turn: Turn, row: int, numbers: Tensor | None, kept: Tensor | None, loud: float) -> Conditioning:
    """Of all that was encoded together one row, with what goes with it; loud: what the prompt is multiplied by."""
    tokens, vector = turn.cond.tokens, turn.cond.vector
    assert tokens is not None, "an encoder of prompts gives tokens"
    if numbers is not None:
        assert vector is not None, "a tower whose pooled vector is taken"
        vector = torch.cat([loud * vector[row : row + 1].float(), numbers], dim=1)
    return Conditioning(tokens=loud * tokens[row : row + 1], vector=vector, concat=kept)
