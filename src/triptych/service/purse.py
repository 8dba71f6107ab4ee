"""What jobs do to the ledger: reserved before they are sent, settled, released or in doubt when they are over."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, final

from triptych.errors import (
    BadAnswer,
    Cancelled,
    Expired,
    InDoubt,
    KeyRefused,
    NeedsAction,
    OverBudget,
    ProviderError,
    RateLimited,
    RequestError,
    TriptychError,
    Unreachable,
)
from triptych.service.budgets import Budgets, Electricity
from triptych.service.jobs import Job
from triptych.service.ledger import Call, Ledger
from triptych.types import Price, Result

__all__ = ["FREE", "Purse"]

FREE: Final = Price()
UNASKED = (KeyRefused, NeedsAction, RateLimited, RequestError, Unreachable)  # after which nobody knows its end


@final
@dataclass(frozen=True, slots=True)
class Purse:
    """budgets, electricity, project: as the user has set them, read anew for every job."""

    ledger: Ledger
    budgets: Callable[[], Budgets]
    electricity: Callable[[], Electricity | None]
    project: Callable[[], str]

    def reserve(self, job: Job, price: Price | None) -> None:
        """Before anything is sent. price: None is unknown. Raises OverBudget, FileProblem."""
        if price != FREE:
            self.ledger.reserve(self._call(job), price, self.budgets())

    def beyond(self, model: str, price: Price) -> str:
        """Why a call of this price would be refused now; "" where it would not."""
        try:
            if price != FREE:
                self.budgets().check(model, price, datetime.now(UTC), self.ledger.standing)
        except OverBudget as problem:
            return str(problem)
        return ""

    def taken(self, job: Job) -> None:
        """The vendor has taken it in."""
        if job.price != FREE and job.ticket is not None:
            self.ledger.note_ticket(job.id, job.ticket.handle)

    def over(self, job: Job) -> Job:
        """The job at its end, with what it cost."""
        if job.price == FREE:
            return self._drawn(job)
        if isinstance(job.result, Result):
            known = job.result.cost if job.result.cost_from else None
            self.ledger.settle(job.id, known, job.result.cost_from or None, job.seconds)
        elif isinstance(job.error, ProviderError) and job.error.cost:
            self.ledger.settle(job.id, job.error.cost, "usage", job.seconds)
        elif _doubtful(job):
            self.ledger.doubt(job.id)
        elif isinstance(job.error, Expired):  # it was made, and nobody has it
            self.ledger.settle(job.id, job.price.most if job.price else None, None, job.seconds)
        elif not job.kept:  # the vendor has said no, or was never reached
            self.ledger.release(job.id)
        return job

    def left(self, job: Job) -> None:
        """A job whose process is gone: in doubt where that was sending it, free again where it was never sent."""
        if job.price == FREE:
            return
        if job.state == "in_doubt":
            self.ledger.doubt(job.id)
        elif job.state == "interrupted" and job.ticket is None:
            self.ledger.release(job.id)

    def _drawn(self, job: Job) -> Job:
        """A job of this machine, with what its electricity costs, where that is told."""
        electricity = self.electricity() if job.provider == "local" and job.result else None
        if electricity is None or job.result is None:
            return job
        cost = electricity.cost(job.seconds)
        self.ledger.record(self._call(job), cost, "electricity", job.seconds)
        return replace(job, result=replace(job.result, cost=cost, cost_from="electricity"))

    def _call(self, job: Job) -> Call:
        return Call(job.id, job.provider, job.request.model, job.request.prompt, self.project())


def _doubtful(job: Job) -> bool:
    """Whether it may have been made and charged though nothing came of it: so too where nobody foresaw the error."""
    if isinstance(job.error, Cancelled):
        return job.ticket is not None  # else it was stopped before it was sent
    if isinstance(job.error, UNASKED):  # where a full disk keeps nothing of what the vendor took in
        return job.ticket is not None and not job.kept
    return isinstance(job.error, InDoubt | BadAnswer) or not isinstance(job.error, TriptychError)
