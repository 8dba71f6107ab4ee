"""What the scheduler_config.json of a diffusers folder means here: sampler, spacing, and the training table of noise.

Whatever it asks for that is not the same here is told in a sentence.
"""

from dataclasses import dataclass, replace
from typing import Any, final

from triptych.errors import WeightsError
from triptych.types import Card
from triptych.weights.scheduler_kinds import KINDS, LEVELS, ONE_MORE, ROUNDED_DOWN, TO_FIRST, UNKNOWN, Keys, Kind

__all__ = ["Betas", "Meaning", "meaning", "suited"]

SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
MOST = 100_000  # entries of a table


@final
@dataclass(frozen=True, slots=True)
class Betas:
    """The table of noise that a network was trained on: `entries` betas from start to end, or those that are listed."""

    schedule: str  # of SCHEDULES
    start: float
    end: float
    entries: int
    listed: tuple[float, ...] = ()


@final
@dataclass(frozen=True, slots=True)
class Meaning:
    """Names of a sampler and a spacing, empty where nothing is near; differs: sentences on what has no equivalent."""

    sampler: str
    spacing: str
    betas: Betas
    differs: tuple[str, ...] = ()


def meaning(config: Keys) -> Meaning:
    """What a scheduler_config.json means here. Raises WeightsError where its table cannot be made."""
    name = config.get("_class_name")
    kind = KINDS.get(name, UNKNOWN) if isinstance(name, str) else UNKNOWN
    told = {**kind.defaults, **{key: value for key, value in config.items() if key in kind.defaults}}
    betas = _betas(told)
    if kind is UNKNOWN:
        sentence = (
            f"the folder's scheduler is {_short(name)}, which has no equivalent here; the card's own walk is taken"
        )
        return Meaning("", "", betas, (sentence,))
    sampler, others = _sampler(kind, told)
    spacing, more = _spacing(kind, told)
    odd = [
        f"{key} = {_short(told[key])} has no equivalent; it walks as with {_short(values[0])}"
        for key, values in kind.alike.items()
        if told[key] not in values
    ]
    return Meaning(sampler, spacing, betas, tuple(f"{name}: {each}" for each in [*others, *more, *odd]))


def suited(card: Card, config: Keys) -> Card:
    """The card with sampler and spacing of a folder's scheduler as its defaults, and in its settings what differs.

    Its setting `scheduler` says which keys its pipelines set whatever the folder says. Without a configuration the card
    is left as it is. Raises WeightsError.
    """
    if not config or not {"sampler", "spacing"} <= card.fields.keys():
        return card
    meant = meaning({**config, **card.settings.get("scheduler", {})})
    chosen = {"sampler": meant.sampler, "spacing": meant.spacing} if meant.sampler else {}
    fields = {key: replace(card.fields[key], default=value) for key, value in chosen.items()}
    return replace(card, fields={**card.fields, **fields}, settings={**card.settings, "differs": meant.differs})


def _sampler(kind: Kind, told: Keys) -> tuple[str, list[str]]:
    """The sampler, and in what it is not the same."""
    if not kind.by:
        return kind.sampler, []
    wanted = tuple(told[key] for key in kind.by)
    for values, name in kind.samplers.items():
        if values == wanted:
            return name, []
    near = "dpmpp_2m_sde" if str(wanted[0]).startswith("sde") else kind.sampler
    asked = ", ".join(f"{key} = {_short(value)}" for key, value in zip(kind.by, wanted, strict=True))
    return near, [f"{asked} has no equivalent; the nearest is taken, {near}"]


def _spacing(kind: Kind, told: Keys) -> tuple[str, list[str]]:
    """The spacing, and in what it is not the same."""
    counted, differs = told.get("timestep_spacing", "linspace"), list[str]()
    if not isinstance(counted, str) or counted not in kind.spacings:
        differs.append(f"timestep_spacing = {_short(counted)} has no equivalent; it is taken for linspace")
        counted = "linspace"
    key, spacing = next(((key, name) for key, name in LEVELS.items() if told.get(key)), ("", kind.spacings[counted]))
    if key and kind.spacings is ONE_MORE and key in ROUNDED_DOWN:
        differs.append("its network is told timesteps that are rounded down, here those of its noise levels")
    if key and kind.spacings is not ONE_MORE and counted != "linspace":
        differs.append(f"its {spacing} levels lie between those of {counted} timesteps, here between the table's ends")
    if not key and counted in kind.inexact:
        differs.append(f"{counted} timesteps are rounded, and it steps by as many of them as fit; here neither")
    if not key and spacing.startswith("leading") and told["steps_offset"] != 1:
        differs.append(f"its timesteps are {_short(told['steps_offset'])} above multiples, here 1 (steps_offset)")
    end, more = _end(kind, told, spacing)
    return end, [*differs, *more]


def _end(kind: Kind, told: Keys, spacing: str) -> tuple[str, list[str]]:
    """The spacing, to where the walk ends."""
    if not kind.held(told):
        return spacing, []
    if spacing not in TO_FIRST:
        return spacing, [f"its walk of {spacing} ends at the table's first entry, here at data"]
    lower = told.get("lower_order_final") or told.get("euler_at_final")
    return TO_FIRST[spacing], ["its last step may be of first order, here it is as those before"] if lower else []


def _betas(told: Keys) -> Betas:
    listed, schedule, entries = told["trained_betas"], told["beta_schedule"], told["num_train_timesteps"]
    if listed is not None:
        if not isinstance(listed, list) or not listed or len(listed) > MOST or not all(map(_is_beta, listed)):
            raise _unreadable("trained_betas", listed, f"1 to {MOST} numbers above 0 and below 1")
        return Betas("linear", float(listed[0]), float(listed[-1]), len(listed), tuple(map(float, listed)))
    if schedule not in SCHEDULES:
        raise _unreadable("beta_schedule", schedule, f"one of {', '.join(SCHEDULES)}")
    if type(entries) is not int or not 1 < entries <= MOST:
        raise _unreadable("num_train_timesteps", entries, f"2 to {MOST}")
    for key in ("beta_start", "beta_end"):
        if not _is_beta(told[key]):
            raise _unreadable(key, told[key], "a number above 0 and below 1")
    return Betas(schedule, float(told["beta_start"]), float(told["beta_end"]), entries)


def _is_beta(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1


def _unreadable(key: str, value: Any, allowed: str) -> WeightsError:
    what = f"scheduler_config.json: {key} is {_short(value)}, allowed is {allowed}."
    return WeightsError(f"{what} Without the table that the network was trained on nothing can be made.")


def _short(value: Any) -> str:
    return repr(value)[:80]
