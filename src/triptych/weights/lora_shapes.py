"""Whether what a file holds of a change fits what it changes, told by shapes alone; nothing needs torch."""

from collections.abc import Mapping
from itertools import pairwise
from math import prod

__all__ = ["Shape", "misfit"]

Shape = tuple[int, ...]


def misfit(module: str, of: Mapping[str, Shape], wanted: Mapping[str, tuple[str, Shape]]) -> str | None:
    """What is wrong with the shapes of a change, None where they fit. of: by the parts that tensors play.

    wanted: what `weight` and `bias`, of which it changes one or both, are called and how they are shaped.
    """
    try:
        changes = {"weight": _extent(of)} if of.keys() != {"bias"} else {}
    except ValueError:
        return f"the factors of {module} do not fit each other: {dict(of)}"
    if "bias" in of:
        changes["bias"] = of["bias"]
    for kind, shape in changes.items():
        name, whole = wanted[kind]
        if _squeezed(shape) not in (_squeezed(whole), _squeezed((whole[0], prod(whole[1:])))):
            return f"{name} is {whole} in this model and {shape} in the file"
    return _odd_scales(module, of, wanted["weight"][1])


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
