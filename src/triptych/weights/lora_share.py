"""What share of a low-rank file fits the models that it may be for, told by names and shapes: no tensor is read.

The weights that those models have are recorded in lora_networks.txt.gz: below `# NETWORK` a line for each with its
name, its shape, and what diffusers calls its module where that is another name.
"""

import gzip
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Final, final

from triptych.weights.lora_names import TEXT, TEXT_2, UNET, Shape, Target, compared
from triptych.weights.networks import families

__all__ = ["NETWORKS", "PARTS", "Share", "shares", "targets"]

RECORD: Final = "lora_networks.txt.gz"
PARTS: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(  # families, to their parts, to networks
    {
        "sd15": {"unet": "unet-sd15", "text_encoder": "clip-l"},
        "sdxl": {"unet": "unet-sdxl", "text_encoder": "clip-l", "text_encoder_2": "clip-bigg"},
        "sdxl-refiner": {"unet": "unet-refiner", "text_encoder_2": "clip-bigg"},
    }
)
NETWORKS: Final = tuple(dict.fromkeys(network for parts in PARTS.values() for network in parts.values()))
PREFIXES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {"unet": UNET, "text_encoder": TEXT, "text_encoder_2": TEXT_2}
)
TITLES: Final[Mapping[str, str]] = MappingProxyType(
    {"unet": "U-Net", "text_encoder": "text encoder", "text_encoder_2": "second text encoder"}
)
SEEING: Final = 9  # channels of what a U-Net takes in that is shown what is kept of a picture
SHOWN: Final = 4


@final
@dataclass(frozen=True, slots=True)
class Share:
    """A file beside a family. keys: how many modules it means to change; matching: how many there are, by part.

    unmatched: keys that the family has no module for; misfits: what is wrong with shapes; lacking: keys without all
    that a change is made of; strange: tensors that belong to no key.
    """

    family: str
    variant: str  # inpainting, or "" the plain one
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


def targets(family: str, channels: int | None = None) -> dict[str, Target]:
    """What files may change of the models of a family. channels: that its U-Net takes in, if not the usual ones."""
    found = {part: replace(_target(network), prefixes=PREFIXES[part]) for part, network in PARTS[family].items()}
    if channels is not None:
        rows, _, *kernel = found["unet"].shapes[FIRST]
        found["unet"] = replace(found["unet"], shapes={**found["unet"].shapes, FIRST: (rows, channels, *kernel)})
    return found


FIRST: Final = "input_blocks.0.0.weight"


def _share(shapes: Mapping[str, Shape], family: str) -> Share:
    found, variant = compared(shapes, targets(family)), ""
    if found.misfits:
        other = compared(shapes, targets(family, SEEING))
        if len(other.misfits) < len(found.misfits):
            found, variant = other, "inpainting"
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


@cache
def _target(network: str) -> Target:
    """A network as it is recorded, without prefixes."""
    shapes, aliases = dict[str, Shape](), dict[str, str]()
    for line in _sections()[network]:
        name, shape, *other = line.split()
        shapes[name] = tuple(map(int, shape.split(",")))
        aliases |= {theirs: name.rpartition(".")[0] for theirs in other}
    return Target(shapes, (), aliases)


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
