"""A network out of a file: built without first values, held strictly against the names there, then filled.

What is filled can be emptied again and filled anew: the file, which is mapped, is where it waits.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar, final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from triptych.errors import WeightsMismatch
from triptych.weights.blocks import Rows
from triptych.weights.fewbits import FewBits, fits
from triptych.weights.files import TORCH, Tensors
from triptych.weights.layouts import Source, clip, gathered, same
from triptych.weights.plan import Part, Share
from triptych.weights.quantize import Packed
from triptych.weights.shelf import Shelf, key_of
from triptych.weights.streaming import Block, Carrier, Found, Passing, Slabs, touch

__all__ = ["Component"]

M = TypeVar("M", bound=nn.Module)


@final
class Component(Generic[M]):
    """One network of a model, which is in memory from `come` to `leave`.

    Every tensor of its file must have its place in it, and it none without one. Raises WeightsMismatch.
    """

    def __init__(
        self,
        build: Callable[[], M],
        tensors: Tensors,
        layout: Callable[[Iterable[str]], Mapping[str, Source]],
        device: str,
        dtype: torch.dtype,
        *,
        idle: re.Pattern[str] = clip.IDLE,
        quantize: str | None = None,
        shelf: Shelf | None = None,
        blocks: Sequence[str] = (),
    ) -> None:
        """idle: names in the file that need no place.

        Linear layers whose weights lie in the file in few bits are held so. quantize: of fewbits.CHOICES, or None;
        shelf: where layers that are brought into eight bits are kept for the next start. blocks: names of lists of
        modules that run one after the other, in this order, so that they may come in passing.
        """
        with torch.device("meta"), _Blank():
            self.module = build().eval().requires_grad_(False)
        self._tensors = tensors
        self._shapes = {name: tuple(value.shape) for name, value in self.module.state_dict().items()}
        self._sources = layout(self._shapes)
        self.device, self.dtype, self.here = device, dtype, False
        self.arrived: list[Callable[[], None]] = []  # what is done whenever it has come
        self._check(idle)
        self._few = FewBits(self.module, tensors, self._sources, dtype, quantize)
        self._quantize, self._shelf = quantize, shelf
        self.share: Share | None = None  # how it is here, if it comes in passing
        self._passing: Passing[Found] | None = None
        self._measure(blocks)

    @property
    def files(self) -> list[Path]:
        """Where its weights lie."""
        return sorted({file for file, _ in self._tensors.places.values()})

    def _measure(self, blocks: Sequence[str]) -> None:
        """How many bytes everything takes, and what of it is copied out of the file."""
        few = self._few.names()
        stated = {name: value for name, value in self.module.state_dict().items() if name not in few}
        sizes = {name: value.numel() * _width(value, self.dtype) for name, value in stated.items()}
        sizes |= self._few.sizes
        self.size = sum(sizes.values())
        self._views = {name for name in self._sources if self._is_view(name)}
        copied = sizes.keys() - self._views - few
        self._copies = {name: sizes[name] for name in copied if stated[name].ndim != 4}  # kernels get strides of theirs
        self._reading = max((self._copied(name) for name in self._sources), default=0)
        self._blocks = {
            f"{place}.{number}": [name for name in self._sources if name.startswith(f"{place}.{number}.")]
            for place in blocks
            for number, _ in enumerate(self.module.get_submodule(place).children())
        }
        self._sizes = {block: sum(sizes[name] for name in names) for block, names in self._blocks.items()}

    def _check(self, idle: re.Pattern[str]) -> None:
        used = {name for source in self._sources.values() for name in source.names}
        there = self._tensors.places.keys()
        missing = [n for n in self._shapes if n not in self._sources or not set(self._sources[n].names) <= there]
        left = [name for name in self._tensors.names() if name not in used and not idle.search(name)]
        if missing or left:
            raise WeightsMismatch(self._tensors.where, missing, left)

    def part(self, name: str) -> Part:
        """What a plan has to know of it, under this name."""
        return Part(name, self.size, tuple(self._sizes.values()), self._reading)

    @property
    def held(self) -> int:
        """Bytes that it takes now."""
        return (self.size if self.share is None else self.share.peak) if self.here else 0

    @torch.inference_mode(False)  # whoever asks for it may be within it, and what it fills outlives that
    def come(self) -> M:
        """The network with its weights. Raises WeightsMismatch where a shape is another, WeightsError.

        They are views of the file until they are converted, one after the other.
        """
        if self.here and self.share is None:
            return self.module
        if self.here:
            self.leave()
        self._hold("", self._read(self._sources, self.device))
        return self._arrive()

    @torch.inference_mode(False)
    def pass_by(self, share: Share) -> M:
        """The network, whose blocks come and go as they run but for those that stay. Raises as `come`, later too."""
        if self.here and self.share == share:
            return self.module
        if self.here:
            self.leave()
        passing = [block for number, block in enumerate(self._blocks) if number not in share.stay]
        away = {name for block in passing for name in self._blocks[block]}
        self._hold("", self._read([name for name in self._sources if name not in away], self.device))
        carrier = Carrier(self.device) if self.device.startswith("cuda") else None
        slabs = Slabs(self.dtype)
        self._passing = Passing([self._block(block, carrier, slabs) for block in passing], share.room)
        self.share = share
        return self._arrive()

    def leave(self) -> None:
        """The memory is free again."""
        if self._passing is not None:
            self._passing.close()
        self._passing = self.share = None
        self.module.to("meta")
        self._release(self._sources)
        self.here = False
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()

    def _arrive(self) -> M:
        self.here = True
        for done in self.arrived:
            done()
        return self.module

    def _block(self, block: str, carrier: Carrier | None, slabs: Slabs) -> Block[Found]:
        module, names = self.module.get_submodule(block), self._blocks[block]

        def read() -> Found:
            if carrier is None:
                sizes = [self._copies[name] for name in names if name in self._copies and self.device == "cpu"]
                found = self._read(names, self.device, slabs.take(block, sizes) if sizes else None)
                touch(found.all().values())
                return found
            there = self._read(names, "cpu").moved(carrier.bring)
            self._release(names)
            return there

        def leave() -> None:
            if carrier is not None:
                carrier.retire([*module.parameters(), *module.buffers()])
            module.to("meta")
            slabs.give(block)
            self._release(names)

        return Block(module, self._sizes[block], read, partial(self._hold, block), leave)

    def _read(self, names: Collection[str], device: str, lay: Callable[[Tensor], Tensor] | None = None) -> Found:
        """The weights of these names, which nothing holds yet; what is copied lets go of the file.

        lay: copies what is in `_copies`, if it is not scattered.
        """
        few, tensors, wrong = self._few.layers(names), dict[str, Tensor](), list[str]()
        for name in [name for name in names if name.removesuffix(".weight") not in few]:
            (tensor,) = gathered({name: self._sources[name]}, self._shapes, self._part).values()
            if tensor.shape != self._shapes[name]:
                wrong.append(f"{name} {tuple(tensor.shape)}")
            elif lay is not None and name in self._copies and tensor.is_contiguous():
                tensors[name] = lay(tensor)
            else:
                tensors[name] = _converted(tensor, device, self.dtype)
            self._release([name] if name not in self._views else [])
        rows = self._read_in_few_bits(few, device)
        wrong += [
            f"{name}.weight {tuple(one.values.shape)} in bytes"
            for name, one in rows.items()
            if not fits(few[name], one)
        ]
        if wrong:
            raise WeightsMismatch(self._tensors.where, [], wrong)
        return Found(tensors, rows)

    def _read_in_few_bits(self, layers: Mapping[str, Packed], device: str) -> dict[str, Rows]:
        """What these hold: those that are brought into few bits once, from the shelf if they lie there."""
        made = {name: layer for name, layer in layers.items() if name in self._few.made}
        shelf = self._shelf if made else None
        kept, key = dict[str, Rows](), ""
        if shelf is not None:
            sources = {name: self._sources[f"{name}.weight"] for name in made}
            key = key_of(self._tensors, sources, str(self._quantize))
            kept = {name: rows.to(device) for name, rows in shelf.load(key, made).items()}
        found = dict(kept)
        for name in [name for name in layers if name not in kept]:
            found[name] = self._few.rows(name, self._part, device)
            self._release([f"{name}.weight"] if f"{name}.weight" not in self._views else [])
        if shelf is not None and not kept and all(fits(made[name], found[name]) for name in made):
            shelf.save(key, {name: found[name] for name in made})
        return found

    @torch.inference_mode(False)
    def _hold(self, place: str, found: Found) -> None:
        """The module at this place has these weights; what else it has stays."""
        module, prefix = self.module.get_submodule(place), place and f"{place}."
        stated = module.state_dict()
        actual = {prefix + _own(name): name for name in stated}
        module.load_state_dict(stated | {actual[name]: value for name, value in found.tensors.items()}, assign=True)
        module.requires_grad_(False)
        for name, rows in found.rows.items():
            layer = self.module.get_submodule(name)
            assert isinstance(layer, Packed)
            layer.hold(rows)

    def _part(self, name: str) -> Tensor:
        return self._tensors.read(name, self.dtype)

    def _release(self, names: Iterable[str]) -> None:
        for name in names:
            for part in self._sources[name].names:
                self._tensors.release(part)

    def _is_view(self, name: str) -> bool:
        """Whether a weight stays where it lies in the file, without a copy."""
        source = self._sources[name]
        (part, *more), shape = source.names, self._shapes[name]
        if more or source.make is not same or self.device != "cpu":
            return False
        if name in self._few.names():
            return self._few.is_view(name)
        kind: torch.dtype | None = getattr(torch, TORCH.get(self._tensors.dtype(part), ""), None)
        if kind is None or part in self._tensors.scales or len(shape) == 4:
            return False
        return kind == self.dtype or not kind.is_floating_point

    def _copied(self, name: str) -> int:
        """Bytes that exist beside a weight while it is read and copied: what lies in the file, and that joined."""
        parts = self._sources[name].names
        size = sum(entry.stop - entry.start for _, entry in (self._tensors.places[part] for part in parts))
        return 0 if name in self._views else size * min(len(parts), 2)


def _own(name: str) -> str:
    """A weight's name where it has changes within, too."""
    module, _, rest = name.partition(".parametrizations.")
    return f"{module}.{rest.removesuffix('.original')}" if rest else name


def _width(value: Tensor, dtype: torch.dtype) -> int:
    return dtype.itemsize if value.is_floating_point() else value.dtype.itemsize


def _converted(tensor: Tensor, device: str, dtype: torch.dtype) -> Tensor:
    """A weight as it will be used; kernels (O, I, H, W) have their channels last."""
    if not tensor.is_floating_point():
        return tensor.to(device)
    order = torch.channels_last if tensor.ndim == 4 else torch.preserve_format
    return tensor.to(device=device, dtype=dtype, memory_format=order)


@final
class _Blank(TorchFunctionMode):
    """Within it no first values are drawn: others are about to take their place."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        told = kwargs or {}
        return told.get("tensor", *args[:1]) if func in DRAWING else func(*args, **told)


DRAWING = (nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_)
