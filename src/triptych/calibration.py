"""What the faster ways of a model gain and cost on one's own weights and machine, measured, told and kept.

    table = triptych.calibrate("sd15", steps=20)
    triptych.load("sd15").make("a red fox", max_drift=35, steps=20)

A few prompts are made exactly and in each of the faster ways, from the same seeds. By the table that is kept of it,
`max_drift` chooses between them from then on for these weights.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, final

from triptych import client
from triptych.client import Made
from triptych.errors import InvalidField
from triptych.providers.here.drift import EXACT, Row, Table, Tables
from triptych.service import Job, Service
from triptych.service.config import config
from triptych.types import Card, Request

__all__ = ["FAST", "MERGE", "PROMPTS", "Plan", "calibrate", "keep", "measured", "planned", "walk"]

PROMPTS = ("a red fox", "a cup of coffee", "a house with a garden", "a smiling face with glasses")
FAST = (2, 3, 4)
MERGE = (0.5,)
WARM = 2  # steps of what is made first and not counted: it loads the model


@final
@dataclass(frozen=True, slots=True)
class Plan:
    """exact: a request for each prompt; ways: the options of each faster way."""

    card: Card
    exact: tuple[Request, ...]
    ways: tuple[Mapping[str, float], ...]

    def requests(self) -> list[Request]:
        """All that is made, in this order: what is not counted, then what is exact and each way of it, by prompt."""
        first, steps = self.exact[0], self.card.resolve(self.exact[0]).steps or WARM
        pairs = product(self.exact, ({}, *self.ways))  # one prompt's ways in a row: a busy machine is so for all
        made = [replace(one, options={**one.options, **way}) for one, way in pairs]
        return [replace(first, steps=min(WARM, steps)), *made]


def calibrate(
    model: str | None = None,
    *,
    prompts: Sequence[str] = PROMPTS,
    fast: Sequence[int] = FAST,
    merge: Sequence[float] = MERGE,
    service: Service | None = None,
    **given: Any,
) -> Table:
    """Measures the faster ways of a model, keeps the table for `max_drift`, and returns it.

    fast, merge: values of these options; every combination is measured that the model takes. given: what else all of it
    is made with, seed (0 unless told) and count included. Raises TriptychError.
    """
    chosen = service or client.shared()
    plan = planned(client.choose(chosen, model, None), prompts, given, fast, merge)
    table = measured(plan, [Made.of(job) for job in walk(chosen, plan) if job.over])
    keep(plan.card, table)
    return table


def planned(
    card: Card,
    prompts: Sequence[str],
    given: Mapping[str, Any],
    fast: Sequence[int] = FAST,
    merge: Sequence[float] = MERGE,
) -> Plan:
    """The plan of `calibrate`. Raises InvalidField where the model has no faster way, or `given` says one."""
    if "fast" not in card.fields:
        raise InvalidField("model", card.name, "a model that takes fast", "Which do: triptych models")
    for name in (*EXACT, "max_drift"):
        if given.get(name) is not None:
            raise InvalidField(name, given[name], "none for what is exact", "It is what is being measured.")
    taken = {name: values for name, values in {"fast": fast, "merge": merge}.items() if name in card.fields}
    every = ((EXACT[name], *dict.fromkeys(v for v in taken[name] if v != EXACT[name])) for name in taken)
    ways = [dict(zip(taken, values, strict=True)) for values in product(*every)]
    if not prompts or len(ways) == 1:
        raise InvalidField("calibrate", f"{len(prompts)} prompts, {len(ways) - 1} ways", "one of each at least")
    seed = 0 if given.get("seed") is None else given["seed"]
    requests = tuple(client.request(card, prompt, **{**given, "seed": seed}) for prompt in prompts)
    return Plan(card, requests, tuple(ways[1:]))


def walk(service: Service, plan: Plan) -> Iterator[Job]:
    """Every state of every job, one job after the other. Closing the iterator stops it.

    All are checked before the first one is made. Raises RequestError.
    """
    requests = plan.requests()
    for request in requests:
        service.price(request)
    for request in requests:
        job = client.portal().call(service.submit(request))
        yield from client.follow(service, job.id)
        client.portal().call(service.release(job.id))


def measured(plan: Plan, made: Sequence[Made]) -> Table:
    """What came of a plan's requests, all of them, in their order."""
    from triptych.media.likeness import psnr

    each = 1 + len(plan.ways)
    prompts = [made[at : at + each] for at in range(1, len(made), each)]
    rows = []
    for number, way in enumerate(plan.ways, 1):
        pairs = [(one[0], one[number]) for one in prompts]
        kept = sorted(psnr(a.artifact, b.artifact) for x, y in pairs for a, b in zip(x.media, y.media, strict=True))
        times = statistics.median(exact.seconds / faster.seconds for exact, faster in pairs)
        rows.append(Row(way, round(times, 3), round(statistics.median(kept), 2), round(kept[len(kept) // 10], 2)))
    seconds = statistics.median(one[0].seconds / len(one[0].media) for one in prompts)
    return Table(tuple(rows), round(seconds, 3), _settings(plan, prompts[0][0]))


def keep(card: Card, table: Table) -> Path:
    """Where the table is kept from now on. Raises FileProblem, WeightsError."""
    return Tables(config().drift).write(card, table)


def _settings(plan: Plan, made: Made) -> dict[str, Any]:
    """What all that was measured has in common."""
    told = made.recipe
    said = {name: value for name, value in told["request"].items() if name not in ("prompt", "model")}
    said["options"] = {name: value for name, value in said["options"].items() if name not in EXACT}
    return {**said, "threads": told["threads"], "prompts": [one.prompt for one in plan.exact]}
