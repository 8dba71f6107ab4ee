"""Jobs over providers: submit, watch, cancel, resume, each the same whoever makes the thing."""

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, final

from triptych.errors import (
    Cancelled,
    Expired,
    FileProblem,
    GenerationError,
    InDoubt,
    NeedsAction,
    PriceUnknown,
    Refused,
    RequestError,
    TriptychError,
)
from triptych.providers import Price, Provider
from triptych.service.jobs import Job, State, Store, identity
from triptych.service.purse import FREE, Purse
from triptych.service.roster import Roster
from triptych.types import Artifact, Card, Event, Progress, Request, Result

__all__ = ["Service"]

WRITE_EVERY = 1.0  # seconds between notes of progress on disk


@final
@dataclass(slots=True)
class _Live:
    """A job of this process: its newest state, and who waits for a newer one."""

    job: Job
    version: int = 0
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    task: asyncio.Task[None] | None = None
    stopped: bool = False  # somebody has asked it to stop
    noted: float = 0.0  # when its progress was written down


@final
class Service:
    """All methods that are coroutines belong to one event loop."""

    def __init__(self, providers: Iterable[Provider], store: Store, purse: Purse | None = None) -> None:
        """purse: what keeps the books; without one nothing is counted, and nothing has a budget."""
        self._providers = {provider.name: provider for provider in providers}
        self._roster = Roster(self._providers)
        self._store, self._purse = store, purse
        self._live: dict[str, _Live] = {}

    @property
    def roster(self) -> Roster:
        """Who there is to ask, and for what."""
        return self._roster

    def cards(self) -> Mapping[str, Card]:
        """Every model that can be asked for, by name."""
        return self._roster.cards()

    def card(self, name: str) -> Card:
        """The card of a model by a name that means it, or by where it lies. Raises UnknownName, Gone, WeightsError."""
        return self._roster.found(name)[1]

    def usable(self, name: str) -> str:
        """What is missing for a model to be asked now; "" where nothing is."""
        return self._roster.lacks(name)

    def price(self, request: Request) -> Price:
        """What the request costs, before anything is sent. Raises RequestError, PriceUnknown, Gone."""
        provider, card, _ = self._roster.living(request.model)
        return provider.price(replace(request, model=card.name))

    def beyond(self, model: str, price: Price) -> str:
        """Why a budget would refuse a call of this price now; "" where none would."""
        return "" if self._purse is None else self._purse.beyond(model, price)

    def plan(self, request: Request) -> str:
        """What the request takes of this machine, where that can be told; else "". Raises RequestError."""
        return self._roster.found(request.model)[0].plan(request)

    async def submit(self, request: Request, *, unpriced: bool = False) -> Job:
        """Takes a request in, counts what it may cost against the budgets, and starts it.

        unpriced: whether it may be sent although nobody knows what it costs. Raises RequestError, with nothing sent.
        """
        provider, card, told = await asyncio.to_thread(self._roster.living, request.model)  # which may ask a host
        resolved = await provider.resolve(replace(request, model=card.name))
        now = datetime.now(UTC)
        job = Job(
            id=f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(3)}",
            request=resolved.request,
            provider=provider.name,
            created=now.isoformat(timespec="seconds"),
            process=identity(os.getpid()),
            price=await asyncio.to_thread(_priced, provider, resolved.request, unpriced),
            warnings=(*resolved.warnings, *told),
        )
        if self._purse is not None:
            self._purse.reserve(job, job.price)
        try:
            self._store.add(job)
        except FileProblem:
            self._unsent(job)
            raise
        return self._start(job)

    async def resume(self, job_id: str, options: Mapping[str, Any] | None = None) -> Job:
        """Goes on with a job that stopped, from what it kept; options: that replace the request's. Raises RequestError.

        A job that kept nothing, is running elsewhere or is done is no job to resume.
        """
        job = self.job(job_id)
        if job.ticket is None or not job.over or not job.kept:
            why = "has kept nothing to go on from" if job.over else f"is {job.state} in process {job.process}"
            raise RequestError(f"job {job_id} {why}. See what can be resumed: triptych resume")
        request = job.ticket.request
        if options:
            changed = replace(job.request, options={**job.request.options, **options})
            request = self.card(request.model).resolve(changed)
        ticket = replace(job.ticket, request=request)
        here = identity(os.getpid())
        fresh = replace(job, ticket=ticket, request=ticket.request, state="queued", error=None, process=here)
        self._store.write(fresh)
        return self._start(fresh)

    async def watch(self, job_id: str) -> AsyncIterator[Job]:
        """The job as it is now and whenever it has changed, to its end. Raises UnknownName."""
        live = self._live.get(job_id)
        if live is None:
            yield self.job(job_id)
            return
        seen = -1
        while True:
            async with live.changed:
                while live.version == seen:
                    await live.changed.wait()
            seen, job = live.version, live.job
            yield job
            if job.over:
                return

    async def cancel(self, job_id: str) -> Job:
        """Asks a job to stop; `watch` tells when it has. One that is over stays as it is. Raises UnknownName."""
        job = self.job(job_id)
        if not job.over and job_id in self._live:
            self._live[job_id].stopped = True
            if job.ticket is not None:
                await self._providers[job.provider].cancel(job.ticket)
        return job

    def job(self, job_id: str) -> Job:
        """The job of this id, with what it has kept. Raises UnknownName."""
        live = self._live.get(job_id)
        if live is not None:
            return self._with_kept(live.job) if live.job.over else live.job
        job = self._store.read(job_id)
        job = self._with_kept(job) if job.over else job
        if self._purse is not None:
            with suppress(TriptychError):  # one of which the ledger knows nothing
                self._purse.left(job)
        return job

    def jobs(self) -> list[Job]:
        """All jobs of the data folder that can be read, the oldest first."""
        found = []
        for job_id in self._store.ids():
            with suppress(FileProblem):
                found.append(self.job(job_id))
        return found

    async def release(self, job_id: str) -> None:
        """The result is where it belongs: what the job kept may go, and its bytes leave the memory."""
        job = self.job(job_id)
        if job.ticket is not None:
            await self._providers[job.provider].forget(job.ticket)
        if job.over:
            self._live.pop(job_id, None)

    def filed(self, job_id: str, paths: Sequence[Path]) -> None:
        """Where the results of a job lie now, for the ledger."""
        if self._purse is not None:
            with suppress(TriptychError):  # the files are there, whatever the ledger says
                self._purse.ledger.filed(job_id, paths)

    def owed(self, job_id: str) -> bool:
        """Whether the ledger waits to be told what the job cost."""
        if self._purse is None or self.job(job_id).price == FREE:
            return False
        try:
            line = self._purse.ledger.line(job_id)
        except TriptychError:  # it knows nothing of it
            return False
        return line.state == "in_doubt" or (line.state == "settled" and line.cost is None)

    def input(self, entry: Mapping[str, str]) -> Artifact | None:
        """A file that an earlier request brought along, by its hash; None where it is gone or has changed."""
        return self._store.input(entry)

    def _with_kept(self, job: Job) -> Job:
        provider = self._providers.get(job.provider)
        if provider is None:
            return job
        ticket = job.ticket or provider.find(job.id, job.request)
        return job if ticket is None else replace(job, ticket=ticket, kept=provider.kept(ticket))

    def _start(self, job: Job) -> Job:
        live = self._live[job.id] = _Live(job)
        live.task = asyncio.create_task(self._drive(live))
        return job

    async def _drive(self, live: _Live) -> None:
        """Sends the job, follows the provider to the end, and writes every state down."""
        began, before = time.monotonic(), live.job.seconds
        last: dict[str, Any] = {"state": "failed", "error": GenerationError("the provider ended without a result.")}
        try:
            await self._send(live)
            async for event in self._watched(live):
                seconds = before + time.monotonic() - began
                if isinstance(event, Result):
                    done = Progress(1.0, "done", live.job.progress.step, live.job.progress.steps)
                    told = replace(event, warnings=(*live.job.warnings, *event.warnings))
                    last = {"state": "done", "result": told, "progress": done, "seconds": seconds}
                    continue
                await self._hear(live, event, seconds)
        except Exception as problem:  # a failure is a state of the job; whoever watches it decides what to do
            last = {"state": _state(problem), "error": problem}
        job = self._with_kept(replace(live.job, **last))
        self._note(job, sync=True)
        await self._tell(live, **self._counted(job, last))

    async def _send(self, live: _Live) -> None:
        """Once, and written down before and after. Raises Cancelled where it was stopped before that."""
        if live.job.ticket is not None:
            return
        if live.stopped:
            raise Cancelled("stopped on request; nothing was sent.")
        live.job = replace(live.job, state="sending")
        if live.job.price == FREE:
            self._note(live.job, sync=False)
        else:
            self._store.write(live.job)  # what cannot be written down is not sent
        ticket = await self._providers[live.job.provider].submit(live.job.request, live.job.id)
        live.job = replace(live.job, ticket=ticket, state="running")
        self._note(live.job, sync=True)
        if self._purse is not None:
            with suppress(FileProblem):
                self._purse.taken(live.job)
        if live.stopped and ticket.state != "succeeded":  # what is made by now is paid for
            await self._providers[live.job.provider].cancel(ticket)

    def _unsent(self, job: Job) -> None:
        """What was reserved for a job that is not sent is free again."""
        if self._purse is not None and job.price != FREE:
            with suppress(TriptychError):
                self._purse.ledger.release(job.id)

    def _watched(self, live: _Live) -> AsyncIterator[Event]:
        assert live.job.ticket is not None
        return self._providers[live.job.provider].watch(live.job.ticket)

    async def _hear(self, live: _Live, event: Progress, seconds: float) -> None:
        """Tells of progress, and writes it down now and then."""
        preview = event.preview or live.job.progress.preview  # whoever missed the newest still gets it
        await self._tell(live, state="running", progress=replace(event, preview=preview), seconds=seconds)
        if time.monotonic() - live.noted > WRITE_EVERY:
            self._note(live.job, sync=False)
            live.noted = time.monotonic()

    def _counted(self, job: Job, last: dict[str, Any]) -> dict[str, Any]:
        """The last words of a job with what it cost in the ledger; one that cannot be written to is a warning."""
        if self._purse is None:
            return last
        try:
            return {**last, "result": self._purse.over(job).result}
        except TriptychError as problem:
            if job.result is None:
                return last
            told = f"what it cost could not be written down: {problem}"
            return {**last, "result": replace(job.result, warnings=(*job.result.warnings, told))}

    def _note(self, job: Job, *, sync: bool) -> None:
        """Writes it down if that can be; a full disk must not end a job that could still be saved elsewhere."""
        with suppress(FileProblem):
            self._store.write(job, sync=sync)

    async def _tell(self, live: _Live, **changes: Any) -> None:
        async with live.changed:
            job = replace(live.job, **changes)
            live.job = self._with_kept(job) if job.over else job
            live.version += 1
            live.changed.notify_all()


def _priced(provider: Provider, request: Request, unpriced: bool) -> Price | None:
    """The price, or None where it is not known and that was agreed to. Raises PriceUnknown where it was not."""
    try:
        return provider.price(request)
    except PriceUnknown:
        if not unpriced:
            raise
        return None


def _state(problem: Exception) -> State:
    """What becomes of a job that ends so."""
    states: Mapping[type[Exception], State] = {
        Cancelled: "cancelled",
        Refused: "moderated",
        Expired: "expired",
        NeedsAction: "needs_action",
        InDoubt: "in_doubt",
    }
    return next((state for kind, state in states.items() if isinstance(problem, kind)), "failed")
