"""What a LoRA file changes, told by the names and shapes of its tensors alone; nothing is read, nothing needs torch.

Kohya's scripts write dots as underscores, which cannot be undone. So nothing is undone: every name that a module of
ours goes by is written the way that files write names, and looked up.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

from triptych.errors import WeightsError
from triptych.weights.adapters import CONTROL, adapter
from triptych.weights.header import Entry
from triptych.weights.lora_shapes import Shape, misfit
from triptych.weights.networks import families

__all__ = [
    "Compared",
    "Found",
    "Matched",
    "Place",
    "Runs",
    "Shape",
    "T5",
    "TEXT",
    "TEXT_2",
    "TRANSFORMER",
    "Target",
    "UNET",
    "compared",
    "matched",
]

Runs = tuple[tuple[int, int], ...]
"""Rows of a weight, from one up to another, in an order of their own; none: all rows as they are."""

UNET = ("lora_unet_", "lycoris_", "model.diffusion_model.", "diffusion_model.", "unet.", "")
TRANSFORMER = (
    "lora_unet_",
    "lora_transformer_",
    "lycoris_",
    "model.diffusion_model.",
    "diffusion_model.",
    "transformer.base_model.model.",
    "transformer.",
    "",
)
TEXT = ("lora_te_", "lora_te1_", "text_encoder.", "text_encoders.clip_l.transformer.", "")
TEXT_2 = ("lora_te2_", "text_encoder_2.", "text_encoders.clip_g.transformer.")
T5 = ("lora_te3_", "lora_te2_", "text_encoder_2.", "text_encoder_3.", "text_encoders.t5xxl.transformer.")
"""Beside one CLIP tower OneTrainer counts it as the second text encoder, as diffusers does; kohya's scripts do not."""


@final
@dataclass(frozen=True, slots=True)
class Place:
    """What a module of other people's is with us: a module, or rows of one that holds several of theirs."""

    module: str
    runs: Runs = ()

    def __str__(self) -> str:
        return self.module + self.rows

    @property
    def rows(self) -> str:
        """Which, for people; "" where it is all of them."""
        return f"[{', '.join(f'{start}:{stop}' for start, stop in self.runs)}]" if self.runs else ""

    def shape(self, whole: Shape) -> Shape:
        """Of what there is of a weight of this shape."""
        return (sum(stop - start for start, stop in self.runs), *whole[1:]) if self.runs else whole

    def meets(self, other: "Place") -> bool:
        """Whether both have a row in common."""
        apart = all(stop <= low or high <= start for start, stop in self.runs for low, high in other.runs)
        return self.module == other.module and not (self.runs and other.runs and apart)


@final
@dataclass(frozen=True, slots=True)
class Target:
    """A network that files may change.

    shapes: of its weights, by our names. prefixes: what files put before the names of its modules. aliases: names of
    modules in other layouts, to what they are of ours.
    """

    shapes: Mapping[str, Shape]
    prefixes: tuple[str, ...]
    aliases: Mapping[str, Place] = field(default_factory=dict)

    def spellings(self) -> dict[str, Place]:
        """Everything that its modules may be called in files, dots and underscores made one, to what they are."""
        own = {name.rpartition(".")[0] for name in self.shapes}
        called: dict[str, Place] = {}
        for alias, place in [*((name, Place(name)) for name in sorted(own)), *self.aliases.items()]:
            for name in _spellings(alias):
                if called.setdefault(_underscored(name), place) != place:
                    raise WeightsError(f"{name} could be {called[_underscored(name)]} or {place}")
        return called


@final
@dataclass(frozen=True, slots=True)
class Found:
    """The change of one module: its name in the file, and the file's tensors by the part that they play."""

    called: str
    roles: Mapping[str, str]


@final
@dataclass(frozen=True, slots=True)
class Matched:
    """What of a file is of use: changes by target and by what they change, and the names of tensors that are not."""

    where: str
    parts: Mapping[str, Mapping[Place, Found]]
    total: int
    unmatched: tuple[str, ...]

    @property
    def warning(self) -> str | None:
        """What to tell the caller; None where every tensor is of use."""
        if not self.unmatched:
            return None
        shown = ", ".join(self.unmatched[:4]) + (" and others" if len(self.unmatched) > 4 else "")
        return (
            f"{self.where}: {len(self.unmatched)} of {self.total} tensors fit nothing here and are left out: {shown}."
        )


@final
@dataclass(frozen=True, slots=True)
class Compared:
    """A file beside a model. keys: what it calls the modules that it changes.

    parts: as of `Matched`; misfits: what is wrong with the shapes of a change there, by key; lacking: keys of modules
    that the model has, without all that a change is made of.
    """

    keys: tuple[str, ...]
    parts: Mapping[str, Mapping[Place, Found]]
    misfits: Mapping[str, str]
    lacking: tuple[str, ...]

    @property
    def used(self) -> set[str]:
        """Names of the tensors that play a part."""
        return {name for part in self.parts.values() for entry in part.values() for name in entry.roles.values()}


def compared(shapes: Mapping[str, Shape], targets: Mapping[str, Target]) -> Compared:
    """Whose module each tensor of a file changes, whether or not it fits. shapes: of the file's tensors, by name.

    What changes the same rows twice counts once.
    """
    parts: dict[str, dict[Place, Found]] = {part: {} for part in targets}
    taken: dict[tuple[str, str], list[Place]] = {}
    spellings = {part: target.spellings() for part, target in targets.items()}
    groups, lacking = _grouped(shapes), []
    for called, roles in groups.items():
        part, place = _found(called, targets, spellings)
        kept = _whole(roles, targets[part].shapes, place.module) if part else {}
        there = taken.setdefault((part, place.module), [])
        if kept and not any(map(place.meets, there)):
            parts[part][place] = Found(called, kept)
            there.append(place)
        elif part and not kept:
            lacking.append(called)
    misfits = {
        entry.called: problem
        for part, entries in parts.items()
        for place, entry in entries.items()
        if (problem := _misfit(place, entry.roles, shapes, targets[part].shapes))
    }
    return Compared(tuple(groups), parts, misfits, tuple(lacking))


def matched(shapes: Mapping[str, Shape], targets: Mapping[str, Target], where: str) -> Matched:
    """Whose module each tensor of a file changes.

    shapes: of the file's tensors, by name. where: the file, for messages. Raises WeightsError where no tensor is of
    use, and where one is of use that was made for a network of other widths; it says for which.
    """
    found = compared(shapes, targets)
    if not found.used:
        raise WeightsError(f"{where}: none of its {len(shapes)} tensors changes this model; {_made_for(shapes)}")
    if found.misfits:
        problem = next(iter(found.misfits.values()))
        raise WeightsError(f"{where}: {problem}; {_made_for(shapes)}")
    return Matched(where, found.parts, len(shapes), tuple(sorted(shapes.keys() - found.used)))


Roles = Mapping[str, str]

_KEY = re.compile(
    r"""(?:base_model\.model\.)?
    (?P<module> .+? )
    (?: [._]lora (?:_linear_layer)? [._] (?P<low> down | up | mid | A | B )
      | (?<= _lora[12] ) \. (?P<xlabs> down | up )
      | \. (?P<other> alpha | dora_scale | lora_magnitude_vector | diff | diff_b | w_norm | b_norm
                    | hada_ (?: w[12]_[ab] | t[12] ) | lokr_ (?: w[12] (?:_[ab])? | t2 ) ) )
    (?: \. (?!bias) \w+ )? (?: \.weight )?""",
    re.VERBOSE,
)
_ROLES = {
    "A": "down",
    "B": "up",
    "lora_magnitude_vector": "magnitude",
    "w_norm": "diff",
    "diff_b": "bias",
    "b_norm": "bias",
}
_SCALES = {"alpha", "dora_scale", "magnitude"}
_LOKR = ({"lokr_w1"}, {"lokr_w1_a", "lokr_w1_b"}), ({"lokr_w2"}, {"lokr_w2_a", "lokr_w2_b"})
_KINDS: tuple[tuple[set[str], set[str]], ...] = (  # what a change is made of, and what may be with it
    ({"down", "up"}, {"mid", *_SCALES}),
    ({"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"}, {"hada_t1", "hada_t2", *_SCALES}),
    *((first | second, {"lokr_t2", *_SCALES}) for first in _LOKR[0] for second in _LOKR[1]),
    ({"diff"}, _SCALES),
)
_ALSO = (  # how the same module is called by old attention processors, by XLabs', and by transformers before 5
    (re.compile(r"\.(to_[qkv])$"), r".processor.\1"),
    (re.compile(r"\.to_out\.0$"), ".processor.to_out"),
    (re.compile(r"\.to_out\.0$"), ".to_out"),
    (re.compile(r"\.img_attn\.(qkv|proj)$"), r".processor.\1_lora1"),
    (re.compile(r"\.txt_attn\.(qkv|proj)$"), r".processor.\1_lora2"),
    (re.compile(r"^(single_blocks\.\d+)\.linear2$"), r"\1.processor.proj"),
    (re.compile(r"\.([qkv])_proj$"), r".to_\1"),
    (re.compile(r"\.out_proj$"), ".to_out"),
    (re.compile(r"^(?=(embeddings|encoder|final_layer_norm)\.)"), "text_model."),
)


def _made_for(shapes: Mapping[str, Shape]) -> str:
    found = adapter({name: Entry("F32", shape, 0, 0) for name, shape in shapes.items()}, {})
    titles = [families()[name].title for name in (found.families if found else ())]
    told = f"it seems to be for {' or '.join(titles)}" if titles else "what it was made for, its names do not tell"
    return f"{told}. {CONTROL}" if found and found.control else f"{told}."


def _spellings(module: str) -> set[str]:
    names = {module}
    for pattern, new in _ALSO:
        names |= {pattern.sub(new, name) for name in names}
    return names


def _underscored(name: str) -> str:
    return name.replace(".", "_")


def _grouped(shapes: Mapping[str, Shape]) -> dict[str, dict[str, str]]:
    """Modules as the file calls them -> the parts that tensors play -> their names. Twice the same part: the first."""
    groups: dict[str, dict[str, str]] = {}
    for name in sorted(shapes):
        if found := _KEY.fullmatch(name):
            role = found["low"] or found["xlabs"] or found["other"]
            groups.setdefault(found["module"], {}).setdefault(_ROLES.get(role, role), name)
    return groups


def _found(
    called: str, targets: Mapping[str, Target], spellings: Mapping[str, Mapping[str, Place]]
) -> tuple[str, Place]:
    """The target and what of it the file means; the target is "" where there is none."""
    plain = _underscored(called)
    for part, target in targets.items():
        for prefix in map(_underscored, target.prefixes):
            place = spellings[part].get(plain.removeprefix(prefix)) if plain.startswith(prefix) else None
            if place is not None:
                return part, place
    return "", Place("")


def _whole(roles: Roles, weights: Mapping[str, Shape], module: str) -> dict[str, str]:
    """The tensors that make a change together, of a weight and a bias that the module has."""
    kind = next((needed | more for needed, more in _KINDS if needed <= roles.keys()), set())
    allowed = kind if f"{module}.weight" in weights else set()
    bias = {"bias"} if f"{module}.bias" in weights else set()
    return {role: name for role, name in roles.items() if role in allowed | bias}


def _misfit(place: Place, roles: Roles, shapes: Mapping[str, Shape], weights: Mapping[str, Shape]) -> str | None:
    """What is wrong with the shapes of a change; None where they fit."""
    of = {role: shapes[name] for role, name in roles.items()}
    wanted = {
        kind: (f"{place.module}.{kind}{place.rows}", place.shape(weights[name]))
        for kind in ("weight", "bias")
        if (name := f"{place.module}.{kind}") in weights
    }
    return misfit(str(place), of, wanted)
