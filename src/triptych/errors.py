"""Everything that can go wrong, as one tree. A message says what was asked, what is allowed and what to do.

TriptychError
├── RequestError                 the caller asked for something that cannot be: exit code 2
│   ├── UnknownName              no such model, sampler, spacing, command, ...
│   ├── InvalidField             a field outside what the model's card takes
│   ├── FileProblem              a file that cannot be read, or a place that cannot be written
│   │   └── NoRecipe             a readable file that does not say how it was made
│   ├── Gone                     a model that was shut down, or that no public interface reaches
│   ├── NotSetUp                 a provider without a key, or with a setting that cannot be
│   ├── PriceUnknown             what it would cost is not known, and that was not agreed to
│   └── OverBudget               it could cost more than is left of a budget
├── WeightsError                 a weights file that does not fit
│   └── WeightsMismatch          missing or unexpected tensors, both listed
├── GenerationError              the run itself went wrong: exit code 1
│   ├── SingularTarget           the network's output says nothing about one half of x_t at this time
│   ├── NotFinite                NaN or Inf, with stage and step
│   └── BrokenResult             finite, but black or constant: never saved as a success
├── ProviderError                a vendor did not do it: exit code 1
│   ├── KeyRefused               the key is not taken, or may not do this
│   ├── OutOfCredit              the account has no credit or quota left
│   ├── RateLimited              too many requests, for longer than one waits
│   ├── Unreachable              nothing was sent: no connection
│   ├── Refused                  the vendor's rules forbid it, with the vendor's reason
│   ├── NeedsAction              the vendor waits for something that only the user can do
│   ├── Expired                  it was made, and the vendor no longer keeps it
│   ├── BadAnswer                an answer that makes no sense, or a medium that is none
│   └── InDoubt                  a paid request was sent and its answer never came: it is not sent again
└── Cancelled                    somebody asked to stop: exit code 130
"""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

__all__ = [
    "BadAnswer",
    "BrokenResult",
    "Cancelled",
    "Expired",
    "FileProblem",
    "GenerationError",
    "Gone",
    "InDoubt",
    "InvalidField",
    "KeyRefused",
    "NeedsAction",
    "NoRecipe",
    "NotFinite",
    "NotSetUp",
    "OutOfCredit",
    "OverBudget",
    "PriceUnknown",
    "ProviderError",
    "RateLimited",
    "Refused",
    "RequestError",
    "SingularTarget",
    "TriptychError",
    "UnknownName",
    "Unreachable",
    "WeightsError",
    "WeightsMismatch",
]


class TriptychError(Exception):
    """The root; catch it to catch everything that this package raises on purpose."""

    exit_code = 1

    def __reduce__(self) -> tuple[Any, ...]:
        """Survives a process boundary although constructors take more than the message."""
        return _revived, (type(self), self.args, self.__dict__)


class RequestError(TriptychError):
    """The request itself is wrong; nothing was computed, downloaded or paid."""

    exit_code = 2


class UnknownName(RequestError):
    """A name that is not in its list; says what is, the nearest first."""

    def __init__(self, kind: str, given: str, allowed: Iterable[str]) -> None:
        names = sorted(allowed)
        near = get_close_matches(given, names, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        super().__init__(f"unknown {kind} {given!r}.{hint} Known: {', '.join(names)}.")
        self.kind, self.given, self.allowed = kind, given, names


class InvalidField(RequestError):
    """A field of the request is not what the model takes."""

    def __init__(self, field: str, given: object, allowed: str, advice: str = "") -> None:
        super().__init__(f"{field}: {_short(given)} given, {allowed} allowed.{' ' + advice if advice else ''}")
        self.field, self.given, self.allowed = field, given, allowed


class FileProblem(RequestError):
    """A file that cannot be read or written; says which, why and what to do."""


class NoRecipe(FileProblem):
    """The file is readable but carries no recipe."""


class Gone(RequestError):
    """A model that nobody can ask any more, or never could; says since when, and what there is in its place."""


class NotSetUp(RequestError):
    """A provider that lacks a key or a setting; says which, and where it is looked for."""


class PriceUnknown(RequestError):
    """What a request would cost is not known; never taken for nothing."""

    def __init__(self, model: str, why: str) -> None:
        super().__init__(f"what {model} would cost is not known: {why}. Go on all the same with --unpriced.")
        self.model, self.why = model, why


class OverBudget(RequestError):
    """A request could cost more than is left of a budget; nothing was sent."""


class WeightsError(TriptychError):
    """A weights file that is not what the model needs."""


class WeightsMismatch(WeightsError):
    """Tensors that are missing, unexpected or of another shape."""

    def __init__(self, where: str, missing: Sequence[str], unexpected: Sequence[str]) -> None:
        super().__init__(
            f"{where}: the weights do not fit the model. Missing ({len(missing)}): {_listed(missing)}. "
            f"Unexpected ({len(unexpected)}): {_listed(unexpected)}."
        )
        self.missing, self.unexpected = tuple(missing), tuple(unexpected)


class GenerationError(TriptychError):
    """The run went wrong after it had begun."""


class SingularTarget(GenerationError):
    """x_t cannot be split here: the target carries nothing about one half of it."""

    def __init__(self, t: float) -> None:
        super().__init__(
            f"at t = {t:g} the network's target says nothing about one half of x_t "
            "(eps where alpha = 0, or x_0 where sigma = 0); start below t = 1, or use a v or flow target."
        )
        self.t = t


class NotFinite(GenerationError):
    """NaN or Inf appeared."""

    def __init__(self, stage: str, step: int | None = None, advice: str = "") -> None:
        at = f" at step {step}" if step is not None else ""
        super().__init__(f"not a number in {stage}{at}. {advice or 'Try --dtype float32.'}")
        self.stage, self.step = stage, step


class BrokenResult(GenerationError):
    """Finite, and yet no picture or sound: constant from end to end."""


class ProviderError(TriptychError):
    """A vendor did not do what was asked; carries the vendor's own words where there are any.

    cost: US dollars that it cost all the same, as far as the vendor tells.
    """

    cost = 0.0


class KeyRefused(ProviderError):
    """The key is not taken, or may not do this."""


class OutOfCredit(ProviderError):
    """The account has no credit or quota left."""


class RateLimited(ProviderError):
    """Too many requests; the vendor was asked again as often as it allows."""


class Unreachable(ProviderError):
    """Nobody answers, or not as one that works: what costs was not sent, and is not to be paid."""


class Refused(ProviderError):
    """The vendor's rules forbid the prompt, an input or what came of them."""


class NeedsAction(ProviderError):
    """The vendor waits for something that only the user can do."""


class Expired(ProviderError):
    """It was made, and the vendor no longer keeps it."""


class BadAnswer(ProviderError):
    """An answer that makes no sense, or a medium that cannot be read; what came is kept for a look."""


class InDoubt(ProviderError):
    """A paid request was sent, and whether it was taken in is not known. It is never sent again by itself."""


class Cancelled(TriptychError):
    """Stopped on request."""

    exit_code = 130


def _revived(kind: type[TriptychError], args: tuple[Any, ...], state: dict[str, Any]) -> TriptychError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


def _short(given: object, most: int = 80) -> str:
    shown = repr(given)
    return shown if len(shown) <= most else f"{shown[: most - 10]}... ({len(shown)} characters)"


def _listed(names: Sequence[str], most: int = 8) -> str:
    shown = ", ".join(names[:most]) or "none"
    return shown + (f", ... {len(names) - most} more" if len(names) > most else "")
