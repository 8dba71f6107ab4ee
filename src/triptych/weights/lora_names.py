"""What a LoRA file changes, told by the names and shapes of its tensors alone; nothing is read, nothing needs torch.

Kohya's scripts write dots as underscores, which cannot be undone. So nothing is undone: every name that a module of
ours goes by is written the way that files write names, and looked up.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from math import prod
from typing import final

from triptych.errors import WeightsError
from triptych.weights.adapters import adapter
from triptych.weights.header import Entry
from triptych.weights.networks import families

__all__ = ["Compared", "Found", "Matched", "Shape", "TEXT", "TEXT_2", "Target", "UNET", "compared", "matched"]

Shape = tuple[int, ...]

UNET = ("lora_unet_", "lycoris_", "model.diffusion_model.", "diffusion_model.", "unet.", "")
TEXT = ("lora_te_", "lora_te1_", "text_encoder.", "")
TEXT_2 = ("lora_te2_", "text_encoder_2.")


@final
@dataclass(frozen=True, slots=True)
class Target:
    """A network that files may change.

    shapes: of its weights, by our names. prefixes: what files put before the names of its modules. aliases: names of
    modules in other layouts, to ours.
    """

    shapes: Mapping[str, Shape]
    prefixes: tuple[str, ...]
    aliases: Mapping[str, str] = field(default_factory=dict)

    def spellings(self) -> dict[str, str]:
        """Everything that its modules may be called in files, dots and underscores made one, to our names."""
        own = {name.rpartition(".")[0] for name in self.shapes}
        called: dict[str, str] = {}
        for alias, module in [*((name, name) for name in sorted(own)), *self.aliases.items()]:
            for name in _spellings(alias):
                if called.setdefault(_underscored(name), module) != module:
                    raise WeightsError(f"{name} could be {called[_underscored(name)]} or {module}")
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
    """What of a file is of use: changes by target and by our module, and the names of tensors that are not."""

    where: str
    parts: Mapping[str, Mapping[str, Found]]
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
    parts: Mapping[str, Mapping[str, Found]]
    misfits: Mapping[str, str]
    lacking: tuple[str, ...]

    @property
    def used(self) -> set[str]:
        """Names of the tensors that play a part."""
        return {name for part in self.parts.values() for entry in part.values() for name in entry.roles.values()}


def compared(shapes: Mapping[str, Shape], targets: Mapping[str, Target]) -> Compared:
    """Whose module each tensor of a file changes, whether or not it fits. shapes: of the file's tensors, by name."""
    parts: dict[str, dict[str, Found]] = {part: {} for part in targets}
    spellings = {part: target.spellings() for part, target in targets.items()}
    groups, lacking = _grouped(shapes), []
    for called, roles in groups.items():
        part, module = _found(called, targets, spellings)
        kept = _whole(roles, targets[part].shapes, module) if part else {}
        if kept and module not in parts[part]:
            parts[part][module] = Found(called, kept)
        elif part and not kept:
            lacking.append(called)
    misfits = {
        entry.called: problem
        for part, entries in parts.items()
        for module, entry in entries.items()
        if (problem := _misfit(module, entry.roles, shapes, targets[part].shapes))
    }
    return Compared(tuple(groups), parts, misfits, tuple(lacking))


def matched(shapes: Mapping[str, Shape], targets: Mapping[str, Target], where: str) -> Matched:
    """Whose module each tensor of a file changes.

    shapes: of the file's tensors, by name. where: the file, for messages. Raises WeightsError where no tensor is of
    use, and where one is of use that was made for a network of other widths; it says for which.
    """
    found = compared(shapes, targets)
    if not found.used:
        raise WeightsError(f"{where}: none of its {len(shapes)} tensors changes this model; {_made_for(shapes)}.")
    if found.misfits:
        problem = next(iter(found.misfits.values()))
        raise WeightsError(f"{where}: {problem}; {_made_for(shapes)}.")
    return Matched(where, found.parts, len(shapes), tuple(sorted(shapes.keys() - found.used)))


Roles = Mapping[str, str]

_KEY = re.compile(
    r"""(?:base_model\.model\.)?
    (?P<module> .+? )
    (?: [._]lora (?:_linear_layer)? [._] (?P<low> down | up | mid | A | B )
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
_ALSO = (  # how the same module is called by old attention processors, and by transformers before 5
    (re.compile(r"\.(to_[qkv])$"), r".processor.\1"),
    (re.compile(r"\.to_out\.0$"), ".processor.to_out"),
    (re.compile(r"\.to_out\.0$"), ".to_out"),
    (re.compile(r"\.([qkv])_proj$"), r".to_\1"),
    (re.compile(r"\.out_proj$"), ".to_out"),
    (re.compile(r"^(?=(embeddings|encoder|final_layer_norm)\.)"), "text_model."),
)


def _made_for(shapes: Mapping[str, Shape]) -> str:
    found = adapter({name: Entry("F32", shape, 0, 0) for name, shape in shapes.items()}, {})
    titles = [families()[name].title for name in (found.families if found else ())]
    return f"it seems to be for {' or '.join(titles)}" if titles else "what it was made for, its names do not tell"


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
            role = found["low"] or found["other"]
            groups.setdefault(found["module"], {}).setdefault(_ROLES.get(role, role), name)
    return groups


def _found(called: str, targets: Mapping[str, Target], spellings: Mapping[str, Mapping[str, str]]) -> tuple[str, str]:
    """The target and our module that the file means; ("", "") where there is none."""
    plain = _underscored(called)
    for part, target in targets.items():
        for prefix in map(_underscored, target.prefixes):
            module = spellings[part].get(plain.removeprefix(prefix)) if plain.startswith(prefix) else None
            if module is not None:
                return part, module
    return "", ""


def _whole(roles: Roles, weights: Mapping[str, Shape], module: str) -> dict[str, str]:
    """The tensors that make a change together, of a weight and a bias that the module has."""
    kind = next((needed | more for needed, more in _KINDS if needed <= roles.keys()), set())
    allowed = kind if f"{module}.weight" in weights else set()
    bias = {"bias"} if f"{module}.bias" in weights else set()
    return {role: name for role, name in roles.items() if role in allowed | bias}


def _misfit(module: str, roles: Roles, shapes: Mapping[str, Shape], weights: Mapping[str, Shape]) -> str | None:
    """What is wrong with the shapes of a change; None where they fit the module."""
    of = {role: shapes[name] for role, name in roles.items()}
    try:
        changes = {"weight": _extent(of)} if of.keys() != {"bias"} else {}
    except ValueError:
        return f"the factors of {module} do not fit each other: {of}"
    if "bias" in of:
        changes["bias"] = of["bias"]
    for kind, shape in changes.items():
        wanted = weights[f"{module}.{kind}"]
        if _squeezed(shape) not in (_squeezed(wanted), _squeezed((wanted[0], prod(wanted[1:])))):
            return f"{module}.{kind} is {wanted} in this model and {shape} in the file"
    return _odd_scales(module, of, weights[f"{module}.weight"])


def _odd_scales(module: str, of: Mapping[str, Shape], weight: Shape) -> str | None:
    allowed = {"alpha": {1}, "magnitude": {weight[0]}, "dora_scale": set(weight[:2])}
    for role, sizes in allowed.items():
        if role in of and prod(of[role]) not in sizes:
            return f"{role} of {module} is {of[role]}, for a weight of {weight}"
    return None


def _extent(of: Mapping[str, Shape]) -> Shape:
    """The shape of the change that factors of these shapes make. Raises ValueError where they do not fit."""
    if "down" in of:
        return _product(of["up"], of["mid"], of["down"]) if "mid" in of else _product(of["up"], of["down"])
    if "diff" in of:
        return of["diff"]
    if "hada_w1_a" in of:
        first, second = (_factored(of, f"hada_w{n}", f"hada_t{n}") for n in (1, 2))
        if first != second:
            raise ValueError(first, second)
        return first
    (rows, columns), second = _factored(of, "lokr_w1")[:2], _factored(of, "lokr_w2", "lokr_t2")
    return (rows * second[0], columns * second[1], *second[2:])


def _factored(of: Mapping[str, Shape], name: str, core: str = "") -> Shape:
    if name in of:
        return _product(of[name])
    first, second = of[f"{name}_a"], of[f"{name}_b"]
    return _product(first[::-1], of[core], second) if core in of else _product(first, second)


def _product(*factors: Shape) -> Shape:
    """Of matrices, of which one may be a kernel: (a, b), (b, c, *S) -> (a, c, *S)."""
    fit = all(left[1:2] == right[:1] for left, right in pairwise(factors))
    if not fit or any(len(factor) < 2 or 0 in factor for factor in factors):
        raise ValueError(factors)
    return (factors[0][0], factors[-1][1], *(n for factor in factors for n in _squeezed(factor[2:])))


def _squeezed(shape: Shape) -> Shape:
    """Without the ones at its end: a 1x1 kernel is a matrix."""
    end = len(shape)
    while end and shape[end - 1] == 1:
        end -= 1
    return shape[:end]
