"""What of another program's request a model takes."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from triptych.errors import InvalidField
from triptych.foreign.names import ETA
from triptych.foreign.told import Foreign, short
from triptych.types import Card

__all__ = ["fitted"]


def fitted(told: Foreign, card: Card, folder: Path | None = None) -> tuple[dict[str, Any], tuple[str, ...]]:
    """(fields and options that the card takes, by name; sentences, each of something that is lost).

    folder: where LoRAs are looked for, by the names of their files.
    """
    said = {"negative_prompt": told.negative_prompt or None, **told.fields, **told.options}
    problems = {name: _problem(card, name, value, told) for name, value in said.items() if value is not None}
    found = {name: said[name] for name, problem in problems.items() if not problem}
    if "hires" not in found:  # what a second walk does is said to those that take one
        found = {name: value for name, value in found.items() if not name.startswith("hires_")}
    laid, missing = _laid(told, card, folder)
    if laid:
        found["loras"] = laid
    unseen = [
        f"{name}, {what}: {card.name} takes none." for name, what in told.inputs.items() if name not in card.fields
    ]
    return found, (*told.lost, *filter(None, problems.values()), *missing, *unseen)


def _laid(told: Foreign, card: Card, folder: Path | None) -> tuple[str, list[str]]:
    """(the LoRAs as the option has them, sentences on those that are none of them)."""
    there = {} if folder is None else {path.stem: path for path in sorted(folder.rglob("*.safetensors"), reverse=True)}
    found, lost = [], []
    for one in told.loras:
        path = there.get(one.name.replace("\\", "/").rpartition("/")[2].removesuffix(".safetensors"))
        if "loras" not in card.fields:
            lost.append(f"LoRA {one.name} at {one.weight:g}: {card.name} takes none.")
        elif path is not None:
            found.append(f"{path}:{one.weight}:{one.text_weight}")
        else:
            where = "Say where it lies: --loras FOLDER." if folder is None else f"There is no such file in {folder}."
            lost.append(f"LoRA {one.name} at {one.weight:g}: it is not laid over the model. {where}")
    return ",".join(found), lost


def _problem(card: Card, name: str, value: Any, told: Foreign) -> str:
    """Why the card does not take this; empty where it does."""
    axis = next((axis for axis in card.axes if axis.name == name), None)
    entry = card.fields.get(name)
    if entry is not None and name == "clip_skip" and told.options.get("profile") == "a1111" and entry.default != 1:
        return f"clip_skip {value}: {told.program} does not heed it in models of this kind."
    if name == "eta" and told.fields.get("sampler") not in ETA:
        return f"eta {value}: the sampler that is taken here draws no noise that it could scale."
    try:
        if axis is not None:
            axis.length(value)
        elif entry is not None:
            entry.check(name, value)
        else:
            return OWN.get(name, "{name} {value}: {card} does not take it.").format(
                name=name, value=short(value), card=card.name, program=told.program
            )
    except InvalidField as problem:
        return f"{problem} The model's default is taken."
    return ""


OWN: Final[Mapping[str, str]] = MappingProxyType(
    {"profile": "{program} reads prompts and draws noise by rules of its own; {card} does so by its."}
)
