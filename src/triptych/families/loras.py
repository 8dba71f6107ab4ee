"""The files of small changes of a request: named by an option or in the prompt, merged or live."""

from collections.abc import Mapping
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, Final, final

from triptych.errors import InvalidField
from triptych.families import place
from triptych.families.prompts import heeds_tags, listed
from triptych.text import tags
from triptych.text.tags import Tag
from triptych.types import Request
from triptych.weights.files import open_tensors
from triptych.weights.layouts import Layout
from triptych.weights.loading import Component
from triptych.weights.lora import Lora, Use, read, target, together
from triptych.weights.lora_modes import MODES
from triptych.weights.lora_names import Target

__all__ = ["Loras", "loras", "named", "targets"]

Named = tuple[str, dict[str, float]]  # a file, and its strengths by the part of the model, "" for all others


@final
class Loras:
    """The files that act in the networks of a loaded model, and those that were read for it."""

    def __init__(self, components: Mapping[str, Component[Any]], targets: Mapping[str, Target]) -> None:
        """components: by the folder that diffusers keeps them in, the network first; targets: what of each may change,
        by the same names."""
        self._components, self._targets = components, targets
        self._network = next(iter(components.values()))
        modules = {name: one.module for name, one in self._components.items()}
        self._modes = {name: make(modules) for name, make in MODES.items()}
        self._arriving = {
            name: [partial(mode.arrived, name) for mode in self._modes.values()] for name in self._components
        }
        for name, one in self._components.items():
            one.arrived += self._arriving[name]
        self._read: dict[tuple[Path, int], Lora] = {}
        self._merged = 0  # bytes of weights that have files in them

    def leave(self) -> None:
        """The networks as they were, and nothing is done to them any more."""
        for mode in self._modes.values():
            mode.use()
        for name, one in self._components.items():
            one.arrived = [done for done in one.arrived if done not in self._arriving[name]]

    def use(self, request: Request, spare: float) -> list[str]:
        """From here on those of the request, and no others; what of it comes to nothing. Raises InvalidField.

        spare: bytes of memory that nothing needs.
        """
        uses, warnings = [], _unread(request)
        for file, strengths in named(request):
            lora = self._lora(place(file))
            uses.append(Use(lora, strengths.pop("", 1.0), {n: s for n, s in strengths.items() if n in lora.changes}))
            warnings += [lora.matched.warning] if lora.matched.warning else []
        chosen = self._mode(request, uses, spare)
        for name, mode in self._modes.items():
            if name != chosen:
                mode.use()
        self._modes[chosen].use(*uses)
        self._merged = self._size(uses) if chosen == "merged" else 0
        return warnings

    def _mode(self, request: Request, uses: list[Use], spare: float) -> str:
        """Merged wherever a second copy of the weights that change has room.

        Once merged, files cost nothing more. Measured of SD 1.5 whole in bfloat16 on one core, rank 16, two pictures:
        merging 0.3 s; living beside, every step 0.6 s of 9.8 at 512 px and 0.1 s of 2.3 at 256 px, all rounds alike.
        So live is for memory: it holds no copy.
        """
        asked = str(request.options["lora_mode"])
        if asked != "auto":
            return asked
        settled = all(one.here for one in self._components.values())
        aside = self._network.device.startswith("cuda")  # copies go to main memory
        return "merged" if aside or (settled and self._size(uses) <= spare + self._merged) else "live"

    def _size(self, uses: list[Use]) -> int:
        """Bytes of the weights that these change."""
        keys = together(uses)
        return sum(
            prod(self._targets[part].shapes[name]) * self._components[part].dtype.itemsize for part, name in keys
        )

    def _lora(self, path: Path) -> Lora:
        key = path, path.stat().st_mtime_ns
        if key not in self._read:
            tensors = open_tensors(path)
            read_in = {name: tensors.read(name) for name in tensors.names()}
            self._read[key] = read(read_in, self._targets, str(path), tensors.metadata)
        return self._read[key]


def targets(
    components: Mapping[str, Component[Any]], prefixes: Mapping[str, tuple[str, ...]], layout: Layout
) -> dict[str, Target]:
    """What files of small changes may change of these, the network first.

    prefixes: that files put before names of each; layout: another one of the network, whose names they use.
    """
    network, *_ = components
    found = {name: target(one.module, prefixes[name]) for name, one in components.items() if name != network}
    module = components[network].module
    return {network: target(module, prefixes[network], layout(module.state_dict())), **found}


def named(request: Request) -> list[Named]:
    """Every file that the request names, and its strengths. Raises InvalidField."""
    found = loras(request.options.get("loras"))
    for tag in _tags(request):
        if tag.kind in tags.LORAS:
            found.append((str(_found(tag, request.options.get("lora_folder"))), _weights(tag)))
    return found


def loras(text: str | None) -> list[Named]:
    """FILE, FILE:STRENGTH or FILE:STRENGTH:TEXT_STRENGTH, between commas. Raises InvalidField."""
    found = []
    for entry in listed(text):
        file, numbers = entry, list[float]()
        while len(numbers) < 2 and (number := _number(file.rpartition(":")[2])) is not None and ":" in file:
            file, numbers = file.rpartition(":")[0], [number, *numbers]
        if not file:
            raise InvalidField("loras", entry, "FILE, FILE:STRENGTH or FILE:STRENGTH:TEXT_STRENGTH")
        found.append((file, _strengths(numbers[0] if numbers else 1.0, numbers[1] if len(numbers) == 2 else None)))
    return found


TOWERS: Final = ("text_encoder", "text_encoder_2", "text_encoder_3")


def _strengths(network: float, text: float | None) -> dict[str, float]:
    return {"": network} if text is None else {"": network, **dict.fromkeys(TOWERS, text)}


def _tags(request: Request) -> tuple[Tag, ...]:
    return tags.apart(request.prompt)[1] if heeds_tags(request) else ()


def _weights(tag: Tag) -> dict[str, float]:
    try:
        return _strengths(*tag.weights())
    except ValueError:
        allowed = "<lora:NAME>, <lora:NAME:WEIGHT> or <lora:NAME:TEXT_WEIGHT:WEIGHT>"
        raise InvalidField("prompt", str(tag), allowed, "Weights are numbers.") from None


def _found(tag: Tag, folder: str | None) -> Path:
    """The file that a tag names. Raises InvalidField, which says where was looked."""
    path, name = Path(tag.name).expanduser(), tag.name.removesuffix(".safetensors")
    if path.is_file():
        return path
    if folder is None:
        advice = f"There is no file {path.absolute()}; say where it lies: --option lora_folder=FOLDER."
        raise InvalidField("prompt", str(tag), "the path of a file, or a name in lora_folder", advice)
    within = Path(folder).expanduser()
    if not within.is_dir():
        raise InvalidField("lora_folder", folder, "a folder that is there", f"There is none at {within.absolute()}.")
    there = sorted(within.rglob("*.safetensors"))
    for one in there:
        if name in (one.stem, one.relative_to(within).with_suffix("").as_posix()):
            return one
    advice = f"Looked for {path.absolute()}, and for {name}.safetensors among the {len(there)} in {within.absolute()}."
    raise InvalidField("prompt", str(tag), "the path of a file, or a name in lora_folder", advice)


def _unread(request: Request) -> list[str]:
    """Tags that name nothing here."""
    others = [str(tag) for tag in _tags(request) if tag.kind not in tags.LORAS]
    found = [f"{', '.join(others)}: networks of this kind are not read here; left out of the prompt."] if others else []
    if heeds_tags(request) and (unwanted := tags.apart(request.negative_prompt or "")[1]):
        shown = ", ".join(map(str, unwanted))
        found.append(f"{shown}: in the negative prompt this is plain text; networks are named in the prompt.")
    return found


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
