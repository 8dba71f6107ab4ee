"""Jobs and where they are written down: one folder a job, its state as JSON, replaced whole.

The state of a job whose process is gone is `interrupted`; an id that is not there is an error, never "done".
"""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, final

from triptych.errors import FileProblem, GenerationError, UnknownName
from triptych.media import files
from triptych.providers.recipe import describe, digest, inputs, restore
from triptych.types import Artifact, Price, Progress, Request, Result, Ticket

__all__ = ["Job", "State", "Store", "identity"]

State = Literal[
    "queued",
    "sending",  # to a vendor, which may be paid for it from here on
    "running",
    "done",
    "failed",
    "moderated",  # a vendor's rules forbid it
    "cancelled",
    "expired",  # made, and no longer kept by the vendor
    "needs_action",  # the vendor waits for the user
    "in_doubt",  # sent, and nobody knows whether it was taken in
    "interrupted",  # its process is gone
]
FORMAT = 2
GOING = ("queued", "sending", "running")
NAMED = 8  # jobs that are named where one is not known: the last ones


@final
@dataclass(frozen=True, slots=True)
class Job:
    """A request on its way. The result's bytes and the error's traceback live as long as the process does."""

    id: str
    request: Request  # resolved: what the provider was told
    provider: str
    state: State = "queued"
    created: str = ""  # ISO 8601, UTC
    seconds: float = 0.0  # of work
    progress: Progress = field(default_factory=lambda: Progress(0.0))
    result: Result | None = None
    error: Exception | None = None
    kept: str = ""  # what a stopped job has left to go on from, in words
    ticket: Ticket | None = None
    process: str = ""  # the one that works on it, see `identity`
    price: Price | None = None  # before it was sent; None: not known
    warnings: tuple[str, ...] = ()  # of what the request did not say

    @property
    def over(self) -> bool:
        return self.state not in GOING


@final
class Store:
    """The jobs of one data folder."""

    def __init__(self, jobs: Path, inputs: Path) -> None:
        """jobs: one folder each; inputs: files that requests brought along, by hash."""
        self._jobs, self._inputs = jobs, inputs

    def add(self, job: Job) -> None:
        """Writes a new job and its inputs. Raises FileProblem."""
        for value in job.request.inputs.values():
            self.put(value)
        self.write(job)

    def put(self, value: Artifact) -> None:
        """Keeps an input's bytes under their hash."""
        path = self._inputs / digest(value)
        if not path.exists():
            _folder(self._inputs)
            files.write(path, value.data)

    def write(self, job: Job, *, sync: bool = True) -> None:
        """Replaces what was written of this job. Raises FileProblem."""
        _folder(self._jobs / job.id)
        text = json.dumps(_to_json(job), indent=1)
        files.write(self._path(job.id), text.encode(), sync=sync)

    def read(self, id: str) -> Job:
        """Raises UnknownName, or FileProblem where the file is damaged or an input is gone."""
        ids = self.ids()
        if id not in ids:
            raise UnknownName("job", id, ids[-NAMED:])
        path = self._path(id)
        try:
            entry = json.loads(files.read(path))
            return self._from_json(entry, path)
        except (ValueError, KeyError, TypeError) as problem:
            raise FileProblem(f"{path}: this job cannot be read: {problem!r}.") from problem

    def ids(self) -> list[str]:
        """All that are written, the oldest first."""
        return sorted(path.parent.name for path in self._jobs.glob("*/job.json"))

    def input(self, entry: Mapping[str, str]) -> Artifact | None:
        """The kept file of this hash, if it is still there and unchanged."""
        path = self._inputs / Path(entry["sha256"]).name
        if not path.is_file():
            return None
        named = {"file": entry["file"]} if "file" in entry else {}
        found = Artifact(entry["mime"], files.read(path), named)
        return found if digest(found) == entry["sha256"] else None

    def _path(self, id: str) -> Path:
        return self._jobs / id / "job.json"

    def _from_json(self, entry: dict[str, Any], path: Path) -> Job:
        entry = _migrated(entry)
        found = {name: self.input(kept) for name, kept in entry["inputs"].items()}
        gone = [name for name, value in found.items() if value is None]
        if gone:
            raise FileProblem(f"{path}: the {' and the '.join(gone)} of this job is no longer in {self._inputs}.")
        brought = {name: value for name, value in found.items() if value is not None}
        request = restore(entry["request"], brought, str(path))
        message, ticket = entry.get("error"), entry["ticket"]
        return Job(
            id=entry["id"],
            request=request,
            provider=entry["provider"],
            state=_state(entry),
            created=entry["created"],
            seconds=entry["seconds"],
            progress=Progress(**entry["progress"]),
            error=GenerationError(message) if message else None,
            ticket=None if ticket is None else Ticket(entry["provider"], request, ticket["handle"], ticket["state"]),
            process=entry["process"],
            price=None if entry["price"] is None else Price(**entry["price"]),
            warnings=tuple(entry["told"]),
        )


def _migrated(entry: dict[str, Any]) -> dict[str, Any]:
    """What an older triptych wrote, as this one does. Raises ValueError of a version that it does not know."""
    if entry["job"] == 1:  # tickets were a name, and there was nothing to pay
        ticket = None if entry["ticket"] is None else {"handle": {"id": entry["ticket"]}, "state": "queued"}
        return {**entry, "job": FORMAT, "ticket": ticket, "price": {"most": 0.0}, "told": []}
    if entry["job"] != FORMAT:
        raise ValueError(f"version {entry['job']!r}, this triptych reads up to {FORMAT}")
    return entry


def _state(entry: dict[str, Any]) -> State:
    """The state as it was written, or what became of it since its process is gone."""
    state: State = entry["state"]
    if state not in GOING or _alive(entry["process"]):
        return state
    return "in_doubt" if state == "sending" else "interrupted"


def _to_json(job: Job) -> dict[str, Any]:
    progress = {name: getattr(job.progress, name) for name in ("fraction", "stage", "step", "steps")}
    result = job.result
    return {
        "job": FORMAT,
        "id": job.id,
        "state": job.state,
        "created": job.created,
        "seconds": round(job.seconds, 3),
        "provider": job.provider,
        "ticket": {"handle": dict(job.ticket.handle), "state": job.ticket.state} if job.ticket else None,
        "process": job.process,
        "request": describe(job.request),
        "inputs": inputs(job.request),
        "progress": progress,
        "error": str(job.error) if job.error else None,
        "recipe": dict(result.recipe) if result else None,
        "cost": result.cost if result else None,
        "warnings": list(result.warnings) if result else [],
        "price": asdict(job.price) if job.price is not None else None,
        "told": list(job.warnings),
    }


def _folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        advice = "Set TRIPTYCH_HOME to a folder that you may write to"
        raise FileProblem(f"cannot make the folder {path}: {problem.strerror}. {advice}.") from problem


def identity(process: int) -> str:
    """A process by number and, where the system tells, the moment it began: numbers come round again."""
    try:
        told = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return str(process)
    return f"{process}@{told.rpartition(')')[2].split()[19]}"


def _alive(known: str) -> bool:
    """Whether the process that worked on a job is still there. On Windows only this one is known to be."""
    process = int(known.partition("@")[0] or 0)
    if process == os.getpid() or sys.platform == "win32" or process <= 0:
        return known == identity(os.getpid())
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is there, and somebody else's
        return True
    return identity(process) == known
