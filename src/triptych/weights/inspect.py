"""All that can be said of weights without reading any: what they are, what is missing, how much memory they take."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from triptych.errors import WeightsError
from triptych.weights import networks
from triptych.weights.adapters import Adapter
from triptych.weights.files import Bundle, open_bundle
from triptych.weights.gguf import BLOCKS
from triptych.weights.lora_share import Share, shares
from triptych.weights.networks import Part
from triptych.weights.recognise import Found, recognise

__all__ = ["Report", "inspect"]

# What trainers and authors write into files, of interest to whoever uses them.
TOLD = (
    "modelspec.",
    "ss_base_model",
    "ss_network_",
    "ss_sd_model_name",
    "ss_output_name",
    "ss_v2",
    "general.architecture",
    "general.name",
    "format",
    "prediction",
)
LONGEST = 200  # characters of such a text; a thumbnail has a hundred thousand
BYTES = {"float32": 4, "bfloat16": 2}


@final
@dataclass(frozen=True, slots=True)
class Report:
    """found: None where nothing is known, and then `unknown` says what is near."""

    where: Path
    files: int
    tensors: int
    dtypes: Mapping[str, int]  # numbers of each
    metadata: Mapping[str, str]
    found: Found | None
    unknown: str = ""
    shares: tuple[Share, ...] = ()  # of a low-rank file, by the families that it may be for

    @property
    def parameters(self) -> int:
        """How many numbers."""
        return sum(self.dtypes.values())

    @property
    def memory(self) -> Mapping[str, int]:
        """Bytes that the parts take once they are loaded, by the dtype that they are loaded in.

        In few bits is what layers stay in whose weights lie so in the file; all else is small.
        """
        parts = self.found.parts if self.found else ()
        numbers = sum(part.parameters for part in parts) or self.parameters
        entries = [entry for part in parts for entry in part.entries.values()]
        few = any(entry.dtype in BLOCKS or entry.dtype.startswith("F8_") for entry in entries)
        kept = {"few bits": sum(entry.stop - entry.start for entry in entries)} if few else {}
        return {name: numbers * size for name, size in BYTES.items()} | kept

    def told(self) -> dict[str, Any]:
        """The whole of it for JSON."""
        plain = {
            "path": str(self.where),
            "files": self.files,
            "tensors": self.tensors,
            "parameters": self.parameters,
            "dtypes": dict(self.dtypes),
            "memory": dict(self.memory),
            "metadata": dict(self.metadata),
        }
        plain |= {"matches": [share.told() for share in self.shares]} if self.shares else {}
        return plain | (_told(self.found) if self.found else {"kind": None, "families": [], "notes": [self.unknown]})


def inspect(path: Path, variant: str | None = None) -> Report:
    """Reads headers only. Raises WeightsError where a file is broken, or none at all."""
    bundle = open_bundle(path, variant)
    places = [place for tensors in bundle.sets.values() for place in tensors.places.values()]
    dtypes: dict[str, int] = {}
    for _, entry in places:
        dtypes[entry.dtype] = dtypes.get(entry.dtype, 0) + entry.count
    try:
        found, unknown = recognise(bundle), ""
    except WeightsError as problem:
        found, unknown = None, str(problem)
    return Report(
        where=path,
        files=len({file for file, _ in places}),
        tensors=len(places),
        dtypes=dict(sorted(dtypes.items(), key=lambda pair: -pair[1])),
        metadata=_metadata(bundle),
        found=found,
        unknown=unknown,
        shares=_shares(bundle, found) if found and found.adapter else (),
    )


def _shares(bundle: Bundle, found: Found) -> tuple[Share, ...]:
    shapes = {name: entry.shape for name, entry in bundle.sets[""].entries().items()}
    return shares(shapes, found.families)


def _metadata(bundle: Bundle) -> dict[str, str]:
    """What is of interest, cut short, without the characters that steer a terminal."""
    texts = {name: text for tensors in bundle.sets.values() for name, text in tensors.metadata.items()}
    chosen = {name: text for name, text in texts.items() if name.startswith(TOLD) and not text.startswith("data:")}
    return {_printable(name): _printable(text) for name, text in chosen.items()}


def _printable(text: str) -> str:
    shown = text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
    return "".join(character if character.isprintable() else " " for character in shown)


def _told(found: Found) -> dict[str, Any]:
    known = networks.families()
    return {
        "kind": found.kind,
        "families": list(found.families),
        "titles": [known[name].title for name in found.families],
        "naming": list(found.naming),
        "variant": found.variant,
        "prediction": found.prediction,
        "prediction_told_by": found.told_by,
        "zero_terminal_snr": found.zero_snr,
        "parts": {part.name: _part(part) for part in found.parts},
        "missing": list(found.missing),
        "adapter": found.adapter and _adapter(found.adapter),
        "notes": list(found.notes),
        "refusal": found.refusal,
    }


def _part(part: Part) -> dict[str, Any]:
    return {
        "tensors": len(part.entries),
        "parameters": part.parameters,
        "dtypes": sorted({entry.dtype for entry in part.entries.values()}),
        "folder": part.folder,
        "prefix": part.prefix,
    }


def _adapter(low: Adapter) -> dict[str, Any]:
    return {
        "algorithm": low.algorithm,
        "ranks": list(low.ranks),
        "alphas": list(low.alphas),
        "modules": low.modules,
        "targets": list(low.targets),
        "strange_tensors": len(low.strange),
    }
