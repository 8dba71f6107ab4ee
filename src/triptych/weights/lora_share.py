"""What share of a low-rank file fits the models that it may be for, told by names and shapes: no tensor is read.

The weights that those models have are recorded in lora_networks.txt.gz: below `# NETWORK` a line for each with its
name and its shape, and with the first of a module what others call that: NAME, or NAME@START:STOP, rows of it.
"""

import gzip
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Final, final

from triptych.weights.lora_names import (
    T5,
    TEXT,
    TEXT_2,
    TRANSFORMER,
    UNET,
    Compared,
    Place,
    Runs,
    Shape,
    Target,
    compared,
)
from triptych.weights.networks import families

__all__ = ["NETWORKS", "PARTS", "Share", "shares", "targets"]

RECORD: Final = "lora_networks.txt.gz"
NETWORKS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(  # to what files put before the names of its modules
    {
        "unet-sd15": UNET,
        "unet-sdxl": UNET,
        "unet-refiner": UNET,
        "sd3-medium": TRANSFORMER,
        "sd3.5-large": TRANSFORMER,
        "sd3.5-medium": TRANSFORMER,
        "flux": TRANSFORMER,
        "clip-l": TEXT,
        "clip-l-projected": TEXT,
        "clip-bigg": TEXT_2,
        "t5-xxl": T5,
    }
)
SD3: Final = {"text_encoder": "clip-l-projected", "text_encoder_2": "clip-bigg", "text_encoder_3": "t5-xxl"}
PARTS: Final[Mapping[str, Mapping[str, Mapping[str, str]]]] = MappingProxyType(  # families, variants, parts, networks
    {
        "sd15": {"": {"unet": "unet-sd15", "text_encoder": "clip-l"}},
        "sdxl": {"": {"unet": "unet-sdxl", "text_encoder": "clip-l", "text_encoder_2": "clip-bigg"}},
        "sdxl-refiner": {"": {"unet": "unet-refiner", "text_encoder_2": "clip-bigg"}},
        "sd3": {"medium": {"transformer": "sd3-medium", **SD3}},
        "sd3.5": {"large": {"transformer": "sd3.5-large", **SD3}, "medium": {"transformer": "sd3.5-medium", **SD3}},
        "flux": {"": {"transformer": "flux", "text_encoder": "clip-l", "text_encoder_2": "t5-xxl"}},
    }
)
INPAINTING: Final = ("inpainting", "unet", "input_blocks.0.0.weight", 9)
WIDER: Final[Mapping[str, tuple[str, str, str, int]]] = MappingProxyType(
    {
        "sd15": INPAINTING,
        "sdxl": INPAINTING,
        "sdxl-refiner": INPAINTING,
        "flux": ("fill", "transformer", "img_in.weight", 384),
    }
)
"""Families, to the variant that is shown what is kept of a picture: its network's first weight takes more channels."""
TITLES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "unet": "U-Net",
        "transformer": "transformer",
        "text_encoder": "text encoder",
        "text_encoder_2": "second text encoder",
        "text_encoder_3": "third text encoder",
    }
)
SHOWN: Final = 4


@final
@dataclass(frozen=True, slots=True)
class Share:
    """A file beside a family. keys: how many modules it means to change; matching: how many there are, by part.

    unmatched: keys that the family has no module for; misfits: what is wrong with shapes; lacking: keys without all
    that a change is made of; strange: tensors that belong to no key.
    """

    family: str
    variant: str  # inpainting, fill, a size; "" the plain one
    keys: int
    matching: Mapping[str, int]
    tensors: int
    used: int
    unmatched: tuple[str, ...]
    misfits: tuple[str, ...]
    lacking: tuple[str, ...]
    strange: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """All of it for people."""
        title = " ".join(filter(None, (families()[self.family].title, self.variant)))
        parts = ", ".join(f"{count} {TITLES[part]}" for part, count in self.matching.items() if count)
        told = f"{title}: {sum(self.matching.values())} of {self.keys} keys match{f' ({parts})' if parts else ''}"
        told += f", {self.used} of {self.tensors} tensors"
        problems = {
            "not there": self.unmatched,
            "of another shape": self.misfits,
            "lacks factors": self.lacking,
            "no part of a change": self.strange,
        }
        said = [f"{what}: {_some(names)}" for what, names in problems.items() if names]
        return "; ".join([told, *(said or ["lacks nothing"])])

    def told(self) -> dict[str, Any]:
        """All of it for JSON."""
        return {
            "family": self.family,
            "variant": self.variant,
            "keys": self.keys,
            "matching": dict(self.matching),
            "tensors": self.tensors,
            "used_tensors": self.used,
            "unmatched": list(self.unmatched),
            "misfits": list(self.misfits),
            "lacking": list(self.lacking),
            "strange": list(self.strange),
        }


def shares(shapes: Mapping[str, Shape], may_be: Iterable[str]) -> tuple[Share, ...]:
    """Of a file with tensors of these shapes, by each family that it may be for; of no family, by all that it fits.

    Families whose networks are not recorded are left out.
    """
    known = [family for family in may_be if family in PARTS]
    found = [_share(shapes, family) for family in known or PARTS]
    return tuple(share for share in found if known or any(share.matching.values()))


def targets(family: str, variant: str = "") -> dict[str, Target]:
    """What files may change of the models of a family. variant: "" of those that have several is the first."""
    parts = PARTS[family].get(variant) or next(iter(PARTS[family].values()))
    found = {part: replace(_target(network), prefixes=NETWORKS[network]) for part, network in parts.items()}
    if variant and variant not in PARTS[family]:
        _, part, name, channels = WIDER[family]
        rows, _, *kernel = found[part].shapes[name]
        found[part] = replace(found[part], shapes={**found[part].shapes, name: (rows, channels, *kernel)})
    return found


def _share(shapes: Mapping[str, Shape], family: str) -> Share:
    variant, found = _nearest(shapes, family)
    fitting = {
        part: [entry for entry in entries.values() if entry.called not in found.misfits]
        for part, entries in found.parts.items()
    }
    used = {name for entries in fitting.values() for entry in entries for name in entry.roles.values()}
    settled = {entry.called for entries in fitting.values() for entry in entries} | found.misfits.keys()
    return Share(
        family=family,
        variant=variant,
        keys=len(found.keys),
        matching={part: len(entries) for part, entries in fitting.items()},
        tensors=len(shapes),
        used=len(used),
        unmatched=tuple(key for key in found.keys if key not in settled and key not in found.lacking),
        misfits=tuple(found.misfits.values()),
        lacking=found.lacking,
        strange=tuple(name for name in shapes if not any(name.startswith(key) for key in found.keys)),
    )


def _nearest(shapes: Mapping[str, Shape], family: str) -> tuple[str, Compared]:
    """The first variant that all fits, else the one that it fits best."""
    best: tuple[str, Compared] | None = None
    for variant in (*PARTS[family], *WIDER.get(family, ())[:1]):
        found = compared(shapes, targets(family, variant))
        if best is None or _faults(found) < _faults(best[1]):
            best = variant, found
        if not any(_faults(found)):
            break
    assert best is not None, "every family has a variant"
    return best


def _faults(found: Compared) -> tuple[int, int]:
    """Keys of another shape, and keys that fit nothing."""
    return len(found.misfits), len(found.keys) - sum(map(len, found.parts.values()))


@cache
def _target(network: str) -> Target:
    """A network as it is recorded, without prefixes."""
    shapes, aliases = dict[str, Shape](), dict[str, Place]()
    for line in _sections()[network]:
        name, shape, *others = line.split()
        shapes[name] = tuple(map(int, shape.split(",")))
        for theirs, _, runs in (other.partition("@") for other in others):
            aliases[theirs] = Place(name.rpartition(".")[0], _runs(runs))
    return Target(shapes, (), aliases)


def _runs(text: str) -> Runs:
    """START:STOP between commas, or nothing."""
    ends = (run.split(":") for run in text.split(",") if run)
    return tuple((int(start), int(stop)) for start, stop in ends)


@cache
def _sections() -> Mapping[str, list[str]]:
    text = gzip.decompress(files("triptych.weights").joinpath(RECORD).read_bytes()).decode()
    found: dict[str, list[str]] = {}
    for section in text.split("# ")[1:]:
        network, *lines = section.splitlines()
        found[network] = lines
    return found


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:SHOWN]) + (f", ... {len(names) - SHOWN} more" if len(names) > SHOWN else "")
