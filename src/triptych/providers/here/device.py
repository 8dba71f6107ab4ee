"""Which device and dtype a request runs on, and what running out of its memory means."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from triptych import families
from triptych.errors import GenerationError, InvalidField
from triptych.providers.wire.checks import Finding
from triptych.types import Request
from triptych.weights.memory import available

__all__ = ["findings", "out_of_memory", "pick_device", "pick_dtype"]

MEMORY = "out of memory. Ask for a smaller size or a smaller batch_size, or run it elsewhere: --device cpu."
SAID = ("can't allocate memory", "out of memory")  # by allocators that raise nothing more telling than RuntimeError


def pick_device(name: str) -> str:
    """The device of this name; "auto" is the first GPU, else the CPU. Raises InvalidField where it is not there."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    there = ["cpu", *(f"cuda:{n}" for n in range(torch.cuda.device_count()))]
    there += ["mps"] if torch.backends.mps.is_available() else []
    if name in there or (name == "cuda" and len(there) > 1 and "cuda:0" in there):
        return name
    raise InvalidField("device", name, f"one of auto, {', '.join(there)}")


def pick_dtype(request: Request) -> str:
    """The dtype that the request names; "auto" is what the card's settings say, else float32.

    A card that says "best" takes what the device computes fastest in and cannot overflow in.
    """
    asked: str = request.options["dtype"]
    if asked != "auto":
        return asked
    said = str(families.card(request.model).settings.get("dtype", "float32"))
    return said if said != "best" else best_dtype(pick_device(request.options["device"]))


def best_dtype(device: str) -> str:
    """bfloat16 where it is computed in silicon; else float16 on a GPU, and float32 on a CPU."""
    kind = torch.device(device).type
    if kind == "cpu":
        return "bfloat16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "float32"
    if kind == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return "bfloat16"
    return "float16"


def findings() -> list[Finding]:
    """What this machine computes on, and how much it can hold."""
    gpus = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    gpus += ["Apple's GPU"] if torch.backends.mps.is_available() else []
    advice = "" if gpus else "a GPU makes large models many times faster; hosts of open weights have some"
    threads = torch.get_num_threads()
    told = ", ".join(gpus) or f"{threads} CPU thread{'s' if threads > 1 else ''}"
    device = Finding("device", bool(gpus) or None, told, advice)
    free = available(pick_device("auto"))
    return [device, Finding("memory", None, f"{free / 2**30:.1f} GiB free"), Finding("dtype", None, _told_dtype())]


def _told_dtype() -> str:
    return f"{best_dtype(pick_device('auto'))} where a model takes what is best here"


@contextmanager
def out_of_memory() -> Iterator[None]:
    """Running out of memory is an error that says what to do."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as problem:
        raise GenerationError(MEMORY) from problem
    except RuntimeError as problem:
        if not any(words in str(problem) for words in SAID):
            raise
        raise GenerationError(MEMORY) from problem
