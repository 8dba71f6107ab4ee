"""The one vocabulary: what is asked (Request), what a model takes (Card), what comes back (Progress, Result).

Standard library only: reading cards and building requests imports no tensor library.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from types import MappingProxyType
from typing import Any, Literal, final

from triptych.errors import InvalidField

__all__ = [
    "Artifact",
    "Axis",
    "Card",
    "Event",
    "Field",
    "Medium",
    "Price",
    "Progress",
    "Request",
    "Result",
    "Ticket",
    "TicketState",
    "dollars",
]

Medium = Literal["image", "video", "audio"]
TicketState = Literal["queued", "running", "succeeded", "failed", "moderated", "cancelled", "expired", "needs_action"]
EMPTY: Mapping[str, Any] = MappingProxyType({})


@final
@dataclass(frozen=True, slots=True, repr=False)
class Artifact:
    """One file's worth of media: its bytes, their mime type, and the recipe that made them (empty if unknown)."""

    mime: str
    data: bytes
    recipe: Mapping[str, Any] = field(default_factory=lambda: EMPTY)

    def __repr__(self) -> str:  # what is printed need not be megabytes
        return f"Artifact({self.mime!r}, {len(self.data)} bytes)"


@final
@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of a medium. Its length in samples is units x rate, of the form multiple x k + offset."""

    name: Literal["duration", "height", "width"]
    default: float  # pixels, or seconds
    minimum: float
    maximum: float
    rate: float = 1  # samples per unit: 1 for pixels, frames per second, hertz
    multiple: int = 1
    offset: int = 0

    def length(self, value: float | None) -> int:
        """Samples for a value in the axis's unit (None: the default). Raises InvalidField."""
        given = self.default if value is None else value
        if not _is_number(given) or not self.minimum <= given <= self.maximum:  # NaN is in no range
            raise InvalidField(self.name, given, self.allowed(), self._nearest(given))
        steps = (given * self.rate - self.offset) / self.multiple
        if self.rate == 1 and abs(steps - round(steps)) > 1e-6:
            raise InvalidField(self.name, given, self.allowed(), self._nearest(given))
        return math.ceil(steps - 1e-6) * self.multiple + self.offset

    def allowed(self) -> str:
        """What values are allowed, for people."""
        step = f" in steps of {self.multiple}" if self.rate == 1 and self.multiple > 1 else ""
        form = f" ({self.multiple} k + {self.offset})" if step and self.offset else ""
        unit = " seconds" if self.name == "duration" else " pixels"
        return f"{self.minimum:g} to {self.maximum:g}{unit}{step}{form}"

    def _nearest(self, given: Any) -> str:
        if not _is_number(given) or given != given:  # NaN has no neighbour
            return ""
        inside = min(max(given, self.minimum), self.maximum)
        if self.rate != 1:
            return f"Nearest: {inside:g}."
        low, high = (self.minimum - self.offset) / self.multiple, (self.maximum - self.offset) / self.multiple
        steps = min(max(round((inside - self.offset) / self.multiple), math.ceil(low)), math.floor(high))
        return f"Nearest: {steps * self.multiple + self.offset}."


@final
@dataclass(frozen=True, slots=True)
class Field:
    """One thing that a request to this model may say besides the prompt and the axes."""

    kind: Literal["int", "float", "str", "artifact"]
    default: Any = None
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    help: str = ""

    def check(self, name: str, value: Any) -> Any:
        """The value itself (an int where a float is asked becomes one). Raises InvalidField."""
        if self.kind == "float" and type(value) is int and abs(value) < 2**53:
            value = float(value)
        expected = {"int": int, "float": float, "str": str, "artifact": Artifact}[self.kind]
        fits = isinstance(value, expected) and not isinstance(value, bool) and self._in_range(value)
        if not fits or (self.choices and value not in self.choices):
            raise InvalidField(name, _shown(value), self.allowed())
        return value

    def _in_range(self, value: Any) -> bool:
        if isinstance(value, Artifact):
            return True
        if isinstance(value, str):  # blanks alone say nothing
            least, most = len(value.strip()), len(value)
            return (self.minimum is None or least >= self.minimum) and (self.maximum is None or most <= self.maximum)
        if isinstance(value, float) and not math.isfinite(value):
            return False
        return (self.minimum is None or value >= self.minimum) and (self.maximum is None or value <= self.maximum)

    def allowed(self) -> str:
        """What values are allowed, for people."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        unit = {"int": "a whole number", "float": "a number", "str": "text", "artifact": "a file"}[self.kind]
        if (self.minimum is None and self.maximum is None) or self.kind == "artifact":
            return unit
        low = "" if self.minimum is None else f"at least {_plain(self.minimum)}"
        high = "" if self.maximum is None else f"at most {_plain(self.maximum)}"
        counted = " of {} characters" if self.kind == "str" else ", {}"
        return unit + counted.format(" and ".join(filter(None, (low, high))))


@final
@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for. None means: the card's default."""

    model: str
    prompt: str
    negative_prompt: str | None = None
    inputs: Mapping[str, Artifact] = field(default_factory=lambda: EMPTY)  # init, mask, ...
    height: int | None = None  # pixels
    width: int | None = None  # pixels
    duration: float | None = None  # seconds
    count: int = 1
    seed: int | None = None
    steps: int | None = None
    guidance_scale: float | None = None  # 1 means none
    sampler: str | None = None
    spacing: str | None = None
    strength: float | None = None  # the share of the path that is walked, with inputs["init"]
    options: Mapping[str, Any] = field(default_factory=lambda: EMPTY)  # what only some models take, by name


AXES = ("height", "width", "duration")
PLAIN = ("negative_prompt", "count", "seed", "steps", "guidance_scale", "sampler", "spacing", "strength")


@final
@dataclass(frozen=True, slots=True)
class Card:
    """What a model is and what it takes. Anything that the card does not name is an error that names what it does."""

    name: str
    family: str
    media: Medium
    axes: tuple[Axis, ...]
    fields: Mapping[str, Field]  # prompt, seed, steps, sampler, init, ... each with range and default
    license: str
    summary: str = ""
    settings: Mapping[str, Any] = field(
        default_factory=lambda: EMPTY
    )  # the family's own: weights file, network widths, ...

    def resolve(self, request: Request) -> Request:
        """The request with every default filled in, and no option that has none; the seed may stay None.

        Raises InvalidField.

        A resolved request resolves to itself.
        """
        self._refuse_unknown(request)
        plain = {name: self._value(name, getattr(request, name)) for name in PLAIN}
        if "init" not in request.inputs:
            plain["strength"] = None
        options = {
            name: self._value(name, request.options.get(name))
            for name, entry in self.fields.items()
            if name not in PLAIN and name != "prompt" and entry.kind != "artifact"
        }
        options = {name: value for name, value in options.items() if value is not None}
        inputs = {name: self.fields[name].check(name, value) for name, value in request.inputs.items()}
        sizes: dict[str, Any] = {axis.name: self._size(axis, getattr(request, axis.name)) for axis in self.axes}
        prompt = self.fields["prompt"].check("prompt", request.prompt) if "prompt" in self.fields else request.prompt
        return replace(request, prompt=prompt, inputs=inputs, options=options, **plain, **sizes)

    def lengths(self, request: Request) -> tuple[int, ...]:
        """Samples along each axis (pixels, frames, audio samples). Raises InvalidField."""
        rate = request.options.get("fps")  # of a model that makes as many frames a second as are asked for
        axes = (replace(axis, rate=rate) if rate and axis.name == "duration" else axis for axis in self.axes)
        return tuple(axis.length(getattr(request, axis.name)) for axis in axes)

    def takes(self) -> str:
        """All that the card takes, for people."""
        return ", ".join([axis.name for axis in self.axes] + [told for _, told in self.several()])

    def several(self) -> list[tuple[str, str]]:
        """(name, as it is told) of the fields in order, those that differ by a number alone as one of them."""
        counted: dict[str, int] = {}
        for name in sorted(self.fields):
            base, _, number = name.rpartition("_")
            first = base if number.isdigit() and base in self.fields else name
            counted[first] = counted.get(first, 0) + 1
        return [(name, name if most == 1 else f"{name} (to {name}_{most})") for name, most in counted.items()]

    def _size(self, axis: Axis, given: float | None) -> float:
        """The value in the axis's unit: a whole number of pixels, or seconds."""
        samples = axis.length(given)
        return samples if axis.rate == 1 else float(axis.default if given is None else given)

    def _value(self, name: str, given: Any) -> Any:
        entry = self.fields.get(name)
        if entry is None:
            return given
        return entry.default if given is None else entry.check(name, given)

    def _refuse_unknown(self, request: Request) -> None:
        axes = {axis.name for axis in self.axes}
        given: dict[str, Any] = {name: getattr(request, name) for name in PLAIN}
        given |= {name: getattr(request, name) for name in AXES if name not in axes}
        given["prompt"] = request.prompt or None
        if type(request.count) is int and request.count == 1:
            given["count"] = None
        wanted = [(name, value) for name, value in given.items() if value is not None]
        for name, value in [*wanted, *request.options.items(), *request.inputs.items()]:
            if name not in self.fields:
                allowed = f"{self.name} does not take it; it takes {self.takes()}; nothing else"
                raise InvalidField(name, _shown(value), allowed)
        for name, value in request.options.items():
            if name in PLAIN or name == "prompt" or self.fields[name].kind == "artifact":
                place = "among its inputs" if self.fields[name].kind == "artifact" else "as its own field"
                raise InvalidField(f"options.{name}", _shown(value), f"only {name} of the request {place}")
        if request.strength is not None and "init" not in request.inputs:
            raise InvalidField(
                "strength", request.strength, "none without an init to start from", "Give an init, or leave it out."
            )


@final
@dataclass(frozen=True, slots=True)
class Progress:
    """Where a running job is: fraction in [0, 1], what it is doing, and a small preview where there is one."""

    fraction: float
    stage: str = ""
    step: int = 0
    steps: int = 0
    preview: Artifact | None = None


@final
@dataclass(frozen=True, slots=True)
class Price:
    """What a request costs in US dollars, before anything is sent: exactly `most`, or from `least` to `most`."""

    most: float = 0.0
    least: float | None = None  # None: exactly `most`
    why: str = ""  # of a range: what decides where in it the cost will be

    @property
    def exact(self) -> bool:
        return self.least is None or self.least == self.most

    def __str__(self) -> str:
        if self.exact:
            return dollars(self.most)
        return f"{dollars(self.least or 0.0)} to {dollars(self.most)}" + (f" ({self.why})" if self.why else "")

    def __add__(self, other: "Price") -> "Price":
        """What both cost together."""
        why = "; ".join(dict.fromkeys(filter(None, (self.why, other.why))))
        if self.exact and other.exact:
            return Price(self.most + other.most, why=why)
        return Price(self.most + other.most, self._lowest + other._lowest, why)

    def __mul__(self, times: float) -> "Price":
        """What so many of it cost."""
        return Price(self.most * times, None if self.least is None else self.least * times, self.why)

    @property
    def _lowest(self) -> float:
        return self.most if self.least is None else self.least


def dollars(amount: float) -> str:
    """$0.04, $0.0336, $12.50, $0.00012: two digits after the point at least, and three that say something."""
    digits = 2 if amount == 0 or abs(amount) >= 1 else max(2, 2 - math.floor(math.log10(abs(amount))))
    whole, _, fraction = f"{amount:,.{digits}f}".partition(".")
    return f"${whole}.{fraction.rstrip('0').ljust(2, '0')}"


@final
@dataclass(frozen=True, slots=True)
class Result:
    """What came of a job: one artifact a sample, the recipe they share, the cost in US dollars, warnings."""

    artifacts: tuple[Artifact, ...]
    recipe: Mapping[str, Any]
    cost: float | None = 0.0  # None: nobody knows
    warnings: tuple[str, ...] = ()
    cost_from: Literal["", "usage", "list", "electricity"] = ""  # the vendor's answer, its price list, this machine


Event = Progress | Result


@final
@dataclass(frozen=True, slots=True)
class Ticket:
    """A submitted request, as much as is needed to find it again after a restart: plain data, JSON but for the request.

    handle: the provider's own, which nobody else reads. state: as it was when the ticket was given; a synchronous
    interface's is over by then.
    """

    provider: str
    request: Request
    handle: Mapping[str, Any] = field(default_factory=lambda: EMPTY)
    state: TicketState = "queued"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _plain(number: float) -> str:
    """4294967295 rather than 4.29497e+09."""
    return str(int(number)) if number == int(number) else f"{number:g}"


def _shown(value: Any) -> Any:
    if isinstance(value, Artifact):
        return f"a file of type {value.mime}"
    return str(value) if isinstance(value, PurePath) else value
