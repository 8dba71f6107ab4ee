"""What another program wrote into a picture about how it made it, in our words."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any, Final, final

__all__ = ["SEEDS", "Foreign", "Hint", "Lora", "described", "short"]

EMPTY: Final[Mapping[str, Any]] = MappingProxyType({})
SEEDS: Final = 2**32  # what the generator that noise is drawn from on a CPU knows of a seed is what is left of this


@final
@dataclass(frozen=True, slots=True)
class Lora:
    """An adapter by the name that was written, and how much of it the network and the text towers get."""

    name: str
    weight: float
    text_weight: float


@final
@dataclass(frozen=True, slots=True)
class Hint:
    """A ControlNet by the name that was written, what it followed in words, and how it acts.

    scale: how much of what it changes is added; start, stop: the shares of the walk between which it acts.
    """

    net: str
    followed: str
    scale: float = 1.0
    start: float = 0.0
    stop: float = 1.0


@final
@dataclass(frozen=True, slots=True)
class Foreign:
    """A request as another program would have it.

    fields: of `Request`, by name, without prompts, inputs and options; options: by name, among them the profile;
    model and model_hash: as written; inputs: what it started from, by the input's name, in words; lost: sentences,
    each of something that has no equivalent here, and why; hints: what ControlNets followed; refiner: what takes over
    on the way, as written, and after which share of the path.
    """

    program: str
    prompt: str
    negative_prompt: str = ""
    fields: Mapping[str, Any] = field(default_factory=lambda: EMPTY)
    options: Mapping[str, Any] = field(default_factory=lambda: EMPTY)
    model: str = ""
    model_hash: str = ""
    loras: tuple[Lora, ...] = ()
    inputs: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    lost: tuple[str, ...] = ()
    hints: tuple[Hint, ...] = ()
    refiner: tuple[str, float] | None = None


def described(told: Foreign) -> dict[str, Any]:
    """All of it as JSON has it."""
    return {
        "program": told.program,
        "prompt": told.prompt,
        "negative_prompt": told.negative_prompt,
        **told.fields,
        "options": dict(told.options),
        "model": told.model,
        "model_hash": told.model_hash,
        "loras": [{"name": one.name, "weight": one.weight, "text_weight": one.text_weight} for one in told.loras],
        "inputs": dict(told.inputs),
        "hints": [asdict(one) for one in told.hints],
        "refiner": None if told.refiner is None else {"name": told.refiner[0], "start": told.refiner[1]},
        "lost": list(told.lost),
    }


def short(value: object, most: int = 80) -> str:
    """A value as a sentence quotes it."""
    text = " ".join(str(value).split())
    return text if len(text) <= most else f"{text[: most - 3]}..."
