"""triptych resume: goes on from what a stopped job has kept."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from triptych.cli.options import Device, Dtype, Json, Out

if TYPE_CHECKING:
    from triptych.service import Job

__all__ = ["resume"]


def resume(
    job: Annotated[str | None, typer.Argument(help="Which; without it, what can be resumed is listed")] = None,
    out: Out = None,
    device: Device = None,
    dtype: Dtype = None,
    discard: Annotated[bool, typer.Option("--discard", help="Throw away what the job has kept")] = False,
    as_json: Json = False,
) -> None:
    """Decode what was kept when decoding or saving failed, or go on with a job that was interrupted."""
    from triptych import client
    from triptych.cli import places, produce

    service = client.shared()
    if job is None:
        _list([one for one in service.jobs() if one.over and one.kept], as_json)
    elif discard:
        client.portal().call(service.release(job))
        typer.echo(json.dumps({"discarded": job}) if as_json else f"{job}: nothing is kept any longer")
    else:
        found = service.job(job)
        plan = places.plan(out, service.card(found.request.model).media)
        changed: dict[str, Any] = {"device": device, "dtype": dtype}
        options = {name: value for name, value in changed.items() if value is not None}
        produce.produce(service, service.resume(job, options), produce.Wish(plan, as_json=as_json))


def _list(jobs: "list[Job]", as_json: bool) -> None:
    if as_json:
        told = [{"job": one.id, "state": one.state, "prompt": one.request.prompt, "kept": one.kept} for one in jobs]
        typer.echo(json.dumps({"jobs": told}))
        return
    if not jobs:
        typer.echo("Nothing to resume.")
    for one in jobs:
        typer.echo(f"{one.id}   {one.state}   {one.request.model}   {one.kept}   {one.request.prompt[:60]!r}")
