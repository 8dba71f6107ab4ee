"""A network that does not fit runs block by block: each block comes just before it runs and leaves right after.

While one runs, a thread reads the next. It is there only while there is something to read, and hooks on the blocks say
when: what they run in, and how often, is the network's business. What is computed is the same, bit for bit.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from mmap import PAGESIZE
from threading import Thread
from typing import Any, Final, Generic, TypeVar, final

import torch
from torch import Tensor, nn

from triptych.weights.blocks import Rows

__all__ = ["Block", "Carrier", "Found", "Passing", "Reader", "Slabs", "touch"]

T = TypeVar("T")
SERIAL: Final = 2**14 * PAGESIZE  # bytes whose pages one thread of the tensor library touches by itself
ALIGNED: Final = 256  # bytes at whose multiples tensors begin in memory that they share


@final
@dataclass(frozen=True, slots=True, eq=False)
class Block(Generic[T]):
    """A module that runs at some time, and how its weights come and go.

    size: their bytes; read: what it gets, on another thread; hold: it has that; leave: it has none, the memory is free.
    """

    module: nn.Module
    size: int
    read: Callable[[], T]
    hold: Callable[[T], None]
    leave: Callable[[], None]


@final
class Passing(Generic[T]):
    """Blocks that come in passing. At no time more of them are here, or on their way, than have room.

    Those that come next are thought to be those that follow in the order of `blocks`, the first after the last; what
    runs in another order, or stops, is read when it runs. What goes wrong while reading is raised where the block runs.
    """

    def __init__(self, blocks: Sequence[Block[T]], room: int) -> None:
        """room: bytes. Where a block alone is larger, it comes nevertheless."""
        self._blocks, self._room = blocks, room
        self._reader = Reader()
        self._ahead: deque[tuple[int, Future[T]]] = deque()
        self._running: int | None = None
        self._handles = [
            handle
            for number, block in enumerate(blocks)
            for handle in (
                block.module.register_forward_pre_hook(partial(self._come, number), prepend=True),
                block.module.register_forward_hook(partial(self._leave, number)),
            )
        ]
        self._read_on(0)

    @property
    def held(self) -> int:
        """Bytes of what runs and of what was read ahead or is about to be."""
        return sum(self._blocks[number].size for number in self._numbers())

    def close(self) -> None:
        """Nothing is here, nothing more is read, and no hook is left."""
        for handle in self._handles:
            handle.remove()
        self._empty()
        while self._ahead:
            self._drop()
        self._reader.wait()

    def _come(self, number: int, module: nn.Module, inputs: Any) -> None:
        """Before the block runs: what it was not thought to be is let go of."""
        self._empty()  # of one that was stopped while it ran
        while self._ahead and self._ahead[0][0] != number:
            self._drop()
        if not self._ahead:
            self._start(number)
        _, future = self._ahead.popleft()
        self._running = number
        try:
            self._blocks[number].hold(future.result())
        except BaseException:
            self._empty()
            raise
        del future
        self._read_on(number + 1)

    def _leave(self, number: int, module: nn.Module, inputs: Any, output: Any) -> None:
        self._empty()
        self._read_on(number + 1)

    def _empty(self) -> None:
        """The one that runs runs no more."""
        if self._running is not None:
            self._blocks[self._running].leave()
            self._running = None

    def _read_on(self, number: int) -> None:
        """Reads ahead as far as there is room. number: the block that follows the one that runs or ran."""
        following = (self._ahead[-1][0] + 1 if self._ahead else number) % len(self._blocks)
        while following not in self._numbers() and self.held + self._blocks[following].size <= self._room:
            self._start(following)
            following = (following + 1) % len(self._blocks)

    def _numbers(self) -> list[int]:
        return [*([] if self._running is None else [self._running]), *(number for number, _ in self._ahead)]

    def _start(self, number: int) -> None:
        self._ahead.append((number, self._reader.start(self._blocks[number].read)))

    def _drop(self) -> None:
        """One that was read, or is being read, and is not needed."""
        number, future = self._ahead.popleft()
        if not future.cancel():
            future.exception()  # which waits, and belongs to a block that does not run
        del future
        self._blocks[number].leave()


@final
class Reader:
    """Does one thing after the other, on threads that end with it."""

    def __init__(self) -> None:
        self._last: Thread | None = None

    def start(self, do: Callable[[], T]) -> Future[T]:
        """Soon, and what comes of it."""
        future: Future[T] = Future()
        self._last = Thread(target=_done, args=(do, future, self._last), name="triptych reads ahead")
        self._last.start()
        return future

    def wait(self) -> None:
        """Until all is done."""
        if self._last is not None:
            self._last.join()
            self._last = None


def _done(do: Callable[[], T], future: Future[T], before: Thread | None) -> None:
    if before is not None:
        before.join()
    if future.set_running_or_notify_cancel():
        try:
            future.set_result(do())
        except BaseException as problem:  # it is raised where the block runs
            future.set_exception(problem)


@final
@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Weights that were read: tensors by name, and by the layer's name what is in few bits."""

    tensors: Mapping[str, Tensor]
    rows: Mapping[str, Rows]

    def all(self) -> dict[str, Tensor]:
        """Every tensor, under names of their own."""
        values = {f"{name} values": rows.values for name, rows in self.rows.items()}
        scales = {f"{name} scale": rows.scale for name, rows in self.rows.items() if rows.scale is not None}
        return {**self.tensors, **values, **scales}

    def moved(self, move: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]) -> "Found":
        """The same with each tensor somewhere else."""
        there = move(self.all())
        rows = {
            name: replace(rows, values=there[f"{name} values"], scale=there.get(f"{name} scale"))
            for name, rows in self.rows.items()
        }
        return Found({name: there[name] for name in self.tensors}, rows)


def touch(tensors: Iterable[Tensor]) -> None:
    """Has the pages that tensors on the CPU lie in read into memory, by looking at one byte of each."""
    for tensor in tensors:
        if tensor.is_cpu and tensor.is_contiguous():
            lying = tensor.flatten().view(torch.uint8)
            for start in range(0, len(lying), SERIAL):
                lying[start : start + SERIAL : PAGESIZE].sum()


@final
class Slabs:
    """Memory that blocks which leave hand on to those that come: it is neither cleared anew nor scattered."""

    def __init__(self, dtype: torch.dtype) -> None:
        """dtype: that numbers are brought to, if they are floating point."""
        self._dtype = dtype
        self._free: list[Tensor] = []
        self._taken: dict[str, Tensor] = {}

    def take(self, name: str, sizes: Iterable[int]) -> Callable[[Tensor], Tensor]:
        """Memory under this name, as what copies tensors into it that will take these bytes."""
        size = sum(map(_aligned, sizes))
        if not any(len(one) == size for one in self._free):
            self._free = [torch.empty(size, dtype=torch.uint8)]
        number = next(number for number, one in enumerate(self._free) if len(one) == size)
        self._taken[name] = self._free.pop(number)
        return partial(_laid, [self._taken[name]], self._dtype)

    def give(self, name: str) -> None:
        """Nothing looks at what has this name any more."""
        if name in self._taken:
            self._free.append(self._taken.pop(name))


def _laid(left: list[Tensor], dtype: torch.dtype, tensor: Tensor) -> Tensor:
    """A copy, contiguous, at the beginning of the memory that is left."""
    kind = dtype if tensor.is_floating_point() else tensor.dtype
    memory, size = left.pop(), tensor.numel() * kind.itemsize
    left.append(memory[_aligned(size) :])
    return memory[:size].view(kind).view(tensor.shape).copy_(tensor)


def _aligned(size: int) -> int:
    return -(-size // ALIGNED) * ALIGNED


@final
class Carrier:
    """Brings tensors to a GPU through pinned memory on a stream of its own, beside what is computed there."""

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)
        self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        self._pinned = torch.empty(0, dtype=torch.uint8, pin_memory=True)
        self._gone: deque[tuple[torch.cuda.Event, Sequence[Tensor]]] = deque()

    def retire(self, tensors: Sequence[Tensor]) -> None:
        """Nothing that is started from here on uses these; their memory is free once what was has been computed."""
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        self._gone.append((event, tensors))

    def bring(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copies of these on the GPU, once what is gone has made room for them."""
        while self._gone:
            event, _ = self._gone.popleft()
            event.synchronize()
        starts, end = dict[str, int](), 0
        for name, tensor in tensors.items():
            starts[name], end = end, end + _aligned(tensor.nbytes)
        if end > len(self._pinned):
            self._pinned = torch.empty(end, dtype=torch.uint8, pin_memory=True)
        with torch.cuda.stream(self._stream):
            brought = {name: self._brought(tensor, starts[name]) for name, tensor in tensors.items()}
        self._stream.synchronize()  # the pinned memory is used again
        return brought

    def _brought(self, tensor: Tensor, start: int) -> Tensor:
        slot = self._pinned[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
        slot.copy_(tensor)
        brought = slot.to(self._device, non_blocking=True)
        return brought.to(memory_format=torch.channels_last) if tensor.ndim == 4 else brought
