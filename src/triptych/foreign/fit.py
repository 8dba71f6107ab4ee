"""What of another program's request a model takes."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, final

from triptych.errors import InvalidField
from triptych.foreign.names import ETA
from triptych.foreign.told import Foreign, short
from triptych.types import Card

__all__ = ["fitted", "followed"]


def fitted(told: Foreign, card: Card, folder: Path | None = None) -> tuple[dict[str, Any], tuple[str, ...]]:
    """(fields and options that the card takes, by name; sentences, each of something that is lost).

    folder: where LoRAs, ControlNets and refiners are looked for, by the names of their files.
    """
    there = {} if folder is None else {path.stem: path for path in sorted(folder.rglob("*.safetensors"), reverse=True)}
    said = {"negative_prompt": told.negative_prompt or None, **told.fields, **told.options}
    problems = {name: _problem(card, name, value, told) for name, value in said.items() if value is not None}
    found = {name: said[name] for name, problem in problems.items() if not problem}
    if "hires" not in found:  # what a second walk does is said to those that take one
        found = {name: value for name, value in found.items() if not name.startswith("hires_")}
    if card.settings.get("kind", "").startswith("sdxl") and found.get("spacing") == "align_your_steps":
        found["spacing"] = "align_your_steps_xl"
    looked = _Looked(told, card, there, folder)
    found |= looked.loras() | looked.controls() | looked.refiner()
    unseen = [
        f"{name}, {what}: {card.name} takes none." for name, what in told.inputs.items() if name not in card.fields
    ]
    return found, (*told.lost, *filter(None, problems.values()), *looked.lost, *unseen)


def followed(told: Foreign, found: Mapping[str, Any]) -> dict[str, str]:
    """Of what was found, the hints that have to be given, by their inputs' names, in words."""
    hints, needed = iter(told.hints), dict[str, str]()
    for name in [name for name in CONTROLS if f"{name}_net" in found]:
        file = Path(found[f"{name}_net"]).stem
        hint = next(hint for hint in hints if _bare(hint.net) == file)  # they are found in their order
        needed[name] = f"{hint.followed} (for {hint.net})"
    return needed


CONTROLS: Final = ("control", "control_2", "control_3")


@final
class _Looked:
    """Files that were named, found by their names; `lost` grows by those that were not."""

    def __init__(self, told: Foreign, card: Card, there: Mapping[str, Path], folder: Path | None) -> None:
        self.told, self.card, self.there, self.lost = told, card, there, list[str]()
        self.where = "Say where it lies: --loras FOLDER." if folder is None else f"There is no such file in {folder}."

    def file(self, name: str, field: str, what: str, otherwise: str) -> Path | None:
        """The file of this name for a field of the card; what: it, and how it is used."""
        path = self.there.get(_bare(name))
        if field not in self.card.fields:
            self.lost.append(f"{what}: {self.card.name} takes none.")
            return None
        if path is None:
            self.lost.append(f"{what}: {otherwise}. {self.where}")
        return path

    def loras(self) -> dict[str, Any]:
        """The LoRAs as the option has them."""
        found = []
        for one in self.told.loras:
            what = f"LoRA {one.name} at {one.weight:g}"
            if path := self.file(one.name, "loras", what, "it is not laid over the model"):
                found.append(f"{path}:{one.weight}:{one.text_weight}")
        return {"loras": ",".join(found)} if found else {}

    def controls(self) -> dict[str, Any]:
        """The ControlNets, each with its knobs; their hints have to be given."""
        found, free = dict[str, Any](), iter(CONTROLS)
        for hint in self.told.hints:
            path = self.file(hint.net, "control_net", f"ControlNet {hint.net}", "it is not run")
            if path is None:
                continue
            name = next(free, None)
            if name is None:
                self.lost.append(f"ControlNet {hint.net}: no more than {len(CONTROLS)} are run.")
                continue
            knobs = {"scale": hint.scale, "start": hint.start, "stop": hint.stop}
            found |= {f"{name}_net": str(path), **{f"{name}_{knob}": value for knob, value in knobs.items()}}
        return self._allowed(found)

    def refiner(self) -> dict[str, Any]:
        """What takes over on the way."""
        if self.told.refiner is None:
            return {}
        name, start = self.told.refiner
        path = self.file(name, "refiner", f"Refiner {name}", "the first model walks the whole path")
        return self._allowed({"refiner": str(path), "refiner_start": start}) if path else {}

    def _allowed(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """Of these options those whose values the card allows."""
        problems = {name: _problem(self.card, name, value, self.told) for name, value in found.items()}
        self.lost += filter(None, problems.values())
        return {name: value for name, value in found.items() if not problems[name]}


def _bare(name: str) -> str:
    """A file's name without folders and its ending."""
    return name.replace("\\", "/").rpartition("/")[2].removesuffix(".safetensors")


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
