"""What encoders of prompts share, whichever model they are for."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import zip_longest
from typing import final

from torch import Tensor

from triptych.model import Script
from triptych.profiles import profile
from triptych.text import tags
from triptych.types import Request

__all__ = ["Remembered", "heeds_tags", "listed", "spoken"]


@final
class Remembered:
    """All prompts of a request are told together and once, so that they are cut into as many chunks and fit into one
    batch; its parts, which differ in seed and count, are told the same."""

    def __init__(self, tell: Callable[..., Mapping[str, Script]]) -> None:
        """tell: (request, prompts, what the network is shown) to what each of them says."""
        self._tell = tell
        self._asked: Request | None = None
        self._of: tuple[object, ...] = ()  # its options and what was seen with it
        self._scripts: Mapping[str, Script] = {}

    def __call__(self, request: Request, prompt: str, **seen: Tensor) -> Script:
        """What the prompt says; the request's own are told with it. Raises InvalidField."""
        of = (request.options, *seen.values())
        asked = replace(request, seed=0, count=1)
        same = asked == self._asked and all(one is other for one, other in zip_longest(of, self._of))
        if not same or prompt not in self._scripts:
            texts = list(dict.fromkeys([request.prompt, request.negative_prompt or "", prompt]))
            self._asked, self._of, self._scripts = asked, of, self._tell(request, texts, **seen)
        return self._scripts[prompt]


def heeds_tags(request: Request) -> bool:
    """Whether the prompt may name networks, as A1111's language has them."""
    return profile(request.options.get("profile")).reading == "a1111"


def spoken(request: Request, text: str) -> str:
    """What of a prompt is said to the towers."""
    return tags.apart(text)[0] if text == request.prompt and heeds_tags(request) else text


def listed(text: str | None) -> list[str]:
    """What stands between commas."""
    return [part.strip() for part in (text or "").split(",") if part.strip()]
