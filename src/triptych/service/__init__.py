"""Jobs over providers: submit, watch, cancel, resume, each the same whoever makes the thing."""

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, final

from triptych.errors import Cancelled, FileProblem, GenerationError, RequestError, UnknownName
from triptych.providers import Price, Provider
from triptych.service.config import Config, config
from triptych.service.jobs import Job, State, Store, identity
from triptych.types import Artifact, Card, Progress, Request, Result

__all__ = ["Job", "Price", "Service", "State", "default"]

WRITE_EVERY = 1.0  # seconds between notes of progress on disk


@final
@dataclass(slots=True)
class _Live:
    """A job of this process: its newest state, and who waits for a newer one."""

    job: Job
    version: int = 0
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    task: asyncio.Task[None] | None = None


@final
class Service:
    """All methods that are coroutines belong to one event loop."""

    def __init__(self, providers: Iterable[Provider], store: Store) -> None:
        self._providers = {provider.name: provider for provider in providers}
        self._store = store
        self._live: dict[str, _Live] = {}

    def cards(self) -> Mapping[str, Card]:
        """Every model that can be asked for, by name."""
        return {name: card for provider in self._providers.values() for name, card in provider.cards().items()}

    def card(self, name: str) -> Card:
        """The card of a model by its name, or by where it lies. Raises UnknownName, WeightsError."""
        return self._found(name)[1]

    def price(self, request: Request) -> Price:
        """What the request costs, before anything is sent. Raises RequestError."""
        return self._found(request.model)[0].price(request)

    def plan(self, request: Request) -> str:
        """What the request takes of this machine, where that can be told; else "". Raises RequestError."""
        return self._found(request.model)[0].plan(request)

    async def submit(self, request: Request) -> Job:
        """Takes a request in and starts it. Raises RequestError."""
        provider = self._found(request.model)[0]
        ticket = await provider.submit(request)
        now = datetime.now(UTC)
        job = Job(
            id=f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}",
            request=ticket.request,
            provider=provider.name,
            created=now.isoformat(timespec="seconds"),
            ticket=ticket,
            process=identity(os.getpid()),
        )
        self._store.add(job)
        return self._start(job)

    async def resume(self, job_id: str, options: Mapping[str, Any] | None = None) -> Job:
        """Goes on with a job that stopped, from what it kept; options: that replace the request's. Raises RequestError.

        A job that kept nothing, is running elsewhere or is done is no job to resume.
        """
        job = self.job(job_id)
        if job.ticket is None or not job.over or not job.kept:
            why = "has kept nothing to go on from" if job.over else f"is {job.state} in process {job.process}"
            raise RequestError(f"job {job_id} {why}. See what can be resumed: triptych resume")
        request = replace(job.request, options={**job.request.options, **(options or {})})
        ticket = replace(job.ticket, request=self.card(request.model).resolve(request))
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
        if not job.over and job.ticket is not None and job_id in self._live:
            await self._providers[job.provider].cancel(job.ticket)
        return job

    def job(self, job_id: str) -> Job:
        """The job of this id, with what it has kept. Raises UnknownName."""
        live = self._live.get(job_id)
        job = live.job if live else self._store.read(job_id)
        return self._with_kept(job) if job.over else job

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

    def input(self, entry: Mapping[str, str]) -> Artifact | None:
        """A file that an earlier request brought along, by its hash; None where it is gone or has changed."""
        return self._store.input(entry)

    def _found(self, model: str) -> tuple[Provider, Card]:
        for provider in self._providers.values():
            with suppress(UnknownName):
                return provider, provider.card(model)
        raise UnknownName("model", model, self.cards())

    def _with_kept(self, job: Job) -> Job:
        provider = self._providers.get(job.provider)
        if provider is None or job.ticket is None:
            return job
        return replace(job, kept=provider.kept(job.ticket))

    def _start(self, job: Job) -> Job:
        live = self._live[job.id] = _Live(job)
        live.task = asyncio.create_task(self._drive(live))
        return job

    async def _drive(self, live: _Live) -> None:
        """Follows the provider to the end, and writes every state down."""
        began, noted, before = time.monotonic(), 0.0, live.job.seconds
        ticket = live.job.ticket
        assert ticket is not None
        last: dict[str, Any] = {"state": "failed", "error": GenerationError("the provider ended without a result.")}
        try:
            async for event in self._providers[live.job.provider].watch(ticket):
                seconds = before + time.monotonic() - began
                if isinstance(event, Result):
                    done = Progress(1.0, "done", live.job.progress.step, live.job.progress.steps)
                    last = {"state": "done", "result": event, "progress": done, "seconds": seconds}
                    continue
                preview = event.preview or live.job.progress.preview  # whoever missed the newest still gets it
                progress = replace(event, preview=preview)
                await self._tell(live, state="running", progress=progress, seconds=seconds)
                if time.monotonic() - noted > WRITE_EVERY:
                    self._note(live.job, sync=False)
                    noted = time.monotonic()
        except Cancelled as problem:
            last = {"state": "cancelled", "error": problem}
        except Exception as problem:  # a failure is a state of the job; whoever watches it decides what to do
            last = {"state": "failed", "error": problem}
        self._note(replace(live.job, **last), sync=True)
        await self._tell(live, **last)

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


def default(settings: Config | None = None) -> Service:
    """The service over every provider there is: the one place that names them."""
    from triptych.providers.local import Local

    chosen = settings or config()
    return Service([Local(chosen.latents, chosen.drift, chosen.cache)], Store(chosen.jobs, chosen.inputs))
