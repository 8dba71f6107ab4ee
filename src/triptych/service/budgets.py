"""What may be spent on one call, in a day and in a month; and what the electricity of a local run costs.

Amounts are US dollars. Days and months are the calendar's, where the user is; a call counts in those in which it was
begun, whenever it ends.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import final

from triptych.errors import InvalidField, OverBudget
from triptych.types import Price, dollars

__all__ = ["Budgets", "Electricity", "Span", "Standing", "amount", "days"]

LARGEST = 1e9
SMALLEST = 9  # digits after the point that are told apart: billionths of a dollar


@final
@dataclass(frozen=True, slots=True)
class Span:
    """From `begin` up to but not with `end`, in UTC."""

    begin: datetime
    end: datetime


def days(first: date, last: date) -> Span:
    """From the midnight that begins `first` to the one that ends `last`, where the user is."""
    begin, end = (datetime(day.year, day.month, day.day) for day in (first, last + timedelta(days=1)))
    return Span(begin.astimezone(UTC), end.astimezone(UTC))


@final
@dataclass(frozen=True, slots=True)
class Standing:
    """What the calls of a span have cost, may yet cost, and cannot be said to cost.

    reserved: by calls that run, the most that each could cost. doubt: the same of calls of which nobody knows whether
    the vendor took them in. unknown: jobs whose cost nothing bounds.
    """

    spent: float = 0.0
    reserved: float = 0.0
    doubt: float = 0.0
    unknown: tuple[str, ...] = ()

    @property
    def total(self) -> float:
        return self.spent + self.reserved + self.doubt


@final
@dataclass(frozen=True, slots=True)
class Budgets:
    """The most that may be spent on one call, in a day, in a month; None: as much as one likes."""

    call: float | None = None
    day: float | None = None
    month: float | None = None

    def __post_init__(self) -> None:
        for name in ("call", "day", "month"):
            limit = getattr(self, name)
            if limit is not None:
                amount(f"budget.{name}", limit)

    def check(self, model: str, price: Price | None, now: datetime, standing: Callable[[Span], Standing]) -> None:
        """Raises OverBudget where a call of this price (None: unknown, and so too much) could go beyond a budget.

        standing: what the other calls of a span come to. What costs nothing goes beyond no budget.
        """
        limits = [(name, limit) for name in ("call", "day", "month") if (limit := getattr(self, name)) is not None]
        if not limits or (price is not None and price.most == 0):
            return
        if price is None:
            raise OverBudget(_unbounded(model, *limits[0]))
        for name, limit in limits:
            before = Standing() if name == "call" else standing(_around(now, name))
            if before.unknown:
                raise OverBudget(_uncounted(name, limit, before.unknown))
            if round(before.total + price.most, SMALLEST) > round(limit, SMALLEST):
                raise OverBudget(_beyond(model, price, name, limit, before))


@final
@dataclass(frozen=True, slots=True)
class Electricity:
    """watts: what the machine draws while it computes; per_kwh: US dollars a kilowatt-hour."""

    watts: float
    per_kwh: float

    def __post_init__(self) -> None:
        amount("electricity.watts", self.watts, "watts, 0 to a billion")
        amount("electricity.per_kwh", self.per_kwh)

    def cost(self, seconds: float) -> float:
        """US dollars of so many seconds: a kilowatt-hour is 3.6 million watt-seconds."""
        return self.watts * seconds / 3.6e6 * self.per_kwh


def amount(name: str, given: float, allowed: str = "US dollars, 0 to a billion") -> float:
    """The number itself. Raises InvalidField where it is none that can be counted with."""
    number = isinstance(given, int | float) and not isinstance(given, bool)
    if not number or not 0 <= given <= LARGEST:  # NaN is neither
        raise InvalidField(name, given, allowed)
    return float(given)


def _around(now: datetime, name: str) -> Span:
    """The day or the month that `now` is in, where the user is."""
    today = now.astimezone().date()
    if name == "day":
        return days(today, today)
    following = (today.replace(day=1) + timedelta(days=31)).replace(day=1)
    return days(today.replace(day=1), following - timedelta(days=1))


def _unbounded(model: str, name: str, limit: float) -> str:
    return (
        f"the budget of a {name} is {dollars(limit)}, and what {model} would cost is not known, so that nothing bounds "
        f"it. Nothing was sent. Choose a model with a price (triptych models), or lift the budgets: {_where(name)}."
    )


def _uncounted(name: str, limit: float, jobs: tuple[str, ...]) -> str:
    listed = ", ".join(jobs[:3]) + (f", ... {len(jobs) - 3} more" if len(jobs) > 3 else "")
    return (
        f"the budget of a {name} is {dollars(limit)}, and what is left of it cannot be told: the cost of {listed} is "
        f"not known. Nothing was sent. Say what each cost: triptych costs --clear {jobs[0]} --cost DOLLARS; or lift "
        f"the budget: {_where(name)}."
    )


def _beyond(model: str, price: Price, name: str, limit: float, before: Standing) -> str:
    could = f"this call of {model} {'costs' if price.exact else 'could cost up to'} {dollars(price.most)}"
    if name == "call":
        return (
            f"the budget of a call is {dollars(limit)}, and {could}. Nothing was sent. Ask for less or of a cheaper "
            f"model, or raise the budget: {_where(name)}."
        )
    taken = f"{dollars(before.spent)} spent, {dollars(before.reserved)} reserved by jobs that run"
    doubted = ""
    if before.doubt:
        taken += f", {dollars(before.doubt)} in doubt"
        doubted = " What is in doubt counts until you say what it cost: triptych costs --clear JOB --cost DOLLARS."
    left = dollars(round(max(limit - before.total, 0.0), SMALLEST))
    return (
        f"the budget of a {name} is {dollars(limit)}: {taken}, {left} left, and {could}. Nothing was sent."
        f"{doubted} Wait for the next {name} or for what runs, ask for less, or raise the budget: {_where(name)}."
    )


def _where(name: str) -> str:
    return f"`{name}` under [budget] in config.toml (triptych doctor says where), or TRIPTYCH_BUDGET_{name.upper()}"
