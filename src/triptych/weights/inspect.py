"""All that can be said of weights without reading any: what they are, what is missing, how much memory they take."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from triptych.errors import WeightsError
from triptych.weights import networks
from triptych.weights.adapters import Adapter
from triptych.weights.edges import is_worth
from triptych.weights.files import Bundle, open_bundle
from triptych.weights.gguf import BLOCKS
from triptych.weights.header import Entry
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
EIGHTS = ("transformer", "t5")  # parts that `quantize` and `quantize_t5` bring into eight bits
SCALE = 4  # bytes of the scale of a row
TABLES = re.compile(r"(^|\.)(shared|embed_tokens|token_embd|relative_attention_bias|attn_rel_b)\.weight$")  # no layers


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
        """Bytes that the parts take once they are loaded, by what they are loaded in.

        int8 and fp8: of what can be asked to be in eight bits, beside bfloat16; as is: layers whose weights lie in few
        bits stay in them, beside bfloat16.
        """
        parts = self.found.parts if self.found else ()
        numbers = sum(part.parameters for part in parts) or self.parameters
        found = {name: numbers * size for name, size in BYTES.items()}
        if any(part.name in EIGHTS for part in parts):
            found |= dict.fromkeys(("int8", "fp8"), sum(_in_eight(part) for part in parts))
        if any(_is_few(name, entry) for part in parts for name, entry in part.entries.items()):
            found["as is"] = sum(_held(name, entry) for part in parts for name, entry in part.entries.items())
        return found

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


def _in_eight(part: Part) -> int:
    """Bytes of a part whose large layers are brought into eight bits, where that can be asked for."""
    return sum(
        entry.count + SCALE * entry.shape[0] if part.name in EIGHTS and _is_large(name, entry) else _held(name, entry)
        for name, entry in part.entries.items()
    )


def _held(name: str, entry: Entry) -> int:
    """Bytes of a weight that stays in few bits, or is in bfloat16."""
    return entry.stop - entry.start if _is_few(name, entry) else entry.count * BYTES["bfloat16"]


def _is_few(name: str, entry: Entry) -> bool:
    """Whether it is a layer's weight in few bits."""
    few = entry.dtype in BLOCKS or entry.dtype == "I8" or entry.dtype.startswith("F8_")
    return few and len(entry.shape) == 2 and not TABLES.search(name)


def _is_large(name: str, entry: Entry) -> bool:
    """Whether it is a layer's weight in full precision that is worth bringing into eight bits."""
    plain = len(entry.shape) == 2 and name.endswith(".weight") and not _is_few(name, entry) and not TABLES.search(name)
    return plain and is_worth(name.removesuffix(".weight"), *entry.shape)


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
        "options": {part: known[found.family].options[part] for part in found.missing if part in _named(found)},
        "adapter": found.adapter and _adapter(found.adapter),
        "notes": list(found.notes),
        "refusal": found.refusal,
    }


def _named(found: Found) -> Mapping[str, str]:
    """Fields of a request that name parts."""
    return networks.families()[found.family].options if found.family else {}


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
