"""Networks block by block: what they compute is what they compute whole, and no more is held than was said."""

import math
import os
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from triptych.engine.conditioning import Conditioning
from triptych.engine.nets.fast import Fast
from triptych.engine.nets.flux import DEV, Flux
from triptych.engine.nets.mmdit import MMDiT
from triptych.engine.nets.mmdit import Shape as Joint
from triptych.engine.text.t5 import T5Text
from triptych.errors import WeightsError, WeightsMismatch
from triptych.weights.blocks import Rows
from triptych.weights.files import open_tensors
from triptych.weights.layouts import Source
from triptych.weights.loading import Component
from triptych.weights.lora import Use, read, target
from triptych.weights.lora_modes import Live, Merged
from triptych.weights.offload import Rooms, StagedNetwork
from triptych.weights.plan import Moment, Part, Share, planned, turned
from triptych.weights.quantize import Packed
from triptych.weights.shelf import Shelf
from triptych.weights.streaming import Block, Found, Passing, touch

COUNT, WIDTH = 12, 64
BLOCK = 4 * (2 * WIDTH * WIDTH + 2 * WIDTH)  # bytes of one in float32
EDGES = 2 * 4 * (WIDTH * WIDTH + WIDTH)
WAIT = 20  # seconds after which a test that waits for another thread has failed


class Step(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        return x + self.down(torch.tanh(self.up(x)))


class Toy(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.blocks = nn.ModuleList(Step() for _ in range(COUNT))

    def forward(self, x, *told):
        h = self.first(x.to(self.first.weight.dtype))
        for block in self.blocks:
            h = block(h)
        return self.last(h)


def plain(names):
    return {name: Source((name,)) for name in names}


def joined(names):
    """Weights that lie in the file in halves."""
    halves = {name: (f"{name}.0", f"{name}.1") for name in names}
    return {name: Source(parts, lambda *parts: torch.cat(parts)) for name, parts in halves.items()}


def saved(path, make=Toy, kind=torch.float32, halves=False):
    torch.manual_seed(0)
    state = {name: value.to(kind) for name, value in make().state_dict().items()}
    if halves:
        state = {f"{n}.{i}": half.clone() for n, value in state.items() for i, half in enumerate(value.chunk(2))}
    save_file(state, path)
    return path


@pytest.fixture
def path(tmp_path):
    return saved(tmp_path / "toy.safetensors")


def component(path, dtype=torch.float32, layout=plain, make=Toy, blocks=("blocks",), **more):
    return Component(make, open_tensors(path), layout, "cpu", dtype, blocks=blocks, **more)


def share(stay=(), room=2 * BLOCK, count=COUNT):
    return Share(tuple(stay), count, room, EDGES + len(stay) * BLOCK + room)


def x(rows=3):
    return torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(7))


def readers():
    return [thread for thread in threading.enumerate() if thread.name == "triptych reads ahead"]


def settled():
    """Whatever is being read has been read; nothing is told to be."""
    for thread in readers():
        thread.join(WAIT)
    return not readers()


def there(module):
    """Bytes that a network has; of what is in few bits those that it holds."""
    held = [one for one in [*module.parameters(), *module.buffers()] if not one.is_meta]
    return sum(one.numel() * one.element_size() for one in held)


# ---- what is computed


KINDS = {
    "views": {},
    "converted": {"dtype": torch.bfloat16},
    "halves": {"layout": joined, "halves": True},
    "halves, converted": {"layout": joined, "halves": True, "dtype": torch.bfloat16, "kind": torch.float16},
    "int8": {"quantize": "int8", "dtype": torch.bfloat16},
    "fp8": {"quantize": "fp8", "dtype": torch.float32},
}


@pytest.mark.parametrize("stay", [(), (0,), (0, 4, 8), tuple(range(0, COUNT, 2))])
@pytest.mark.parametrize("name", KINDS)
@torch.inference_mode()
def test_in_passing_is_bit_for_bit_what_it_is_whole(name, stay, tmp_path):
    told = dict(KINDS[name])
    saving = {key: told.pop(key) for key in ("halves", "kind") if key in told}
    file = saved(tmp_path / "toy.safetensors", **saving)
    wanted = component(file, **told).come()(x())
    one = component(file, **told)
    for _ in range(2):
        network = one.pass_by(share(stay, room=one.part("").blocks[0] * 2))
        for _ in range(2):
            assert torch.equal(network(x()), wanted)
        one.leave()
        assert there(network) == 0
    assert torch.equal(one.come()(x()), wanted)
    assert settled()


@torch.inference_mode()
def test_it_may_come_whole_again_and_then_no_hook_is_left(path):
    one, whole = component(path), component(path).come()
    network = one.pass_by(share([0, 6]))
    assert there(network) == EDGES + 2 * BLOCK
    assert [bool(block._forward_pre_hooks) for block in network.blocks] == [n not in (0, 6) for n in range(COUNT)]
    network(x())
    assert one.come() is network
    assert one.share is None
    assert not any(block._forward_pre_hooks or block._forward_hooks for block in network.blocks)
    assert there(network) == one.size == one.held == EDGES + COUNT * BLOCK
    assert torch.equal(network(x()), whole(x()))
    assert settled()


@torch.inference_mode()
def test_what_arrives_is_told_each_time(path):
    one, calls = component(path), []
    one.arrived.append(lambda: calls.append(one.share))
    one.pass_by(share([0]))
    one.pass_by(share([0]))
    one.pass_by(share([0, 6]))
    one.come()
    assert calls == [share([0]), share([0, 6]), None]


@torch.inference_mode()
def test_layers_in_eight_bits_are_made_once_and_lie_on_the_shelf(tmp_path, path, monkeypatch):
    wanted = component(path, quantize="int8", dtype=torch.bfloat16).come()(x())
    shelf, made = Shelf(tmp_path / "shelf", 2**20), []
    one = component(path, quantize="int8", dtype=torch.bfloat16, shelf=shelf)
    network = one.pass_by(share(room=one.part("").blocks[0]))
    assert isinstance(network.blocks[3].up, Packed)
    assert torch.equal(network(x()), wanted)
    assert settled()
    monkeypatch.setattr("triptych.weights.fewbits.quantized", lambda *told: made.append(told))
    assert torch.equal(network(x()), wanted)
    assert made == []
    one.leave()


SHAPE = Joint(depth=4, width=32, heads=2, side=8, context=12, vector=10, normed=True, dual=2)
TINY = {
    "mmdit": (
        lambda: MMDiT(SHAPE),
        ("joint_blocks",),
        Conditioning(tokens=torch.ones(2, 5, 12), vector=torch.ones(2, 10)),
    ),
    "flux": (
        lambda: Flux(DEV.__class__(2, 3, 32, 2, (4, 6, 6), context=12, vector=10, guided=False, in_channels=16)),
        ("double_blocks", "single_blocks"),
        Conditioning(tokens=torch.ones(2, 5, 12), vector=torch.ones(2, 10)),
    ),
}


def noised(make):
    """Every weight is drawn, those too that begin as zeros."""

    def made():
        network = make()
        if not next(network.parameters()).is_meta:
            torch.manual_seed(3)
            for weight in network.parameters():
                nn.init.normal_(weight, std=0.2)
        return network

    return made


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_transformers_in_passing_are_what_they_are_whole(name, dtype, tmp_path):
    make, blocks, cond = TINY[name]
    file = saved(tmp_path / "net.safetensors", noised(make))
    one, whole = (component(file, dtype, make=make, blocks=blocks) for _ in range(2))
    part = one.part(name)
    found = turned({name: part}, {}, [name], 0, part.size - 1)[name]
    assert 0 < len(found.stay) < found.count == len(part.blocks)
    latents, times = torch.randn(2, 4 if name == "flux" else 16, 8, 8), torch.tensor([900.0, 20.0])
    wanted = whole.come()(latents, times, cond)
    assert wanted.float().std() > 0.01
    network = one.pass_by(found)
    for _ in range(2):
        assert torch.equal(network(latents, times, cond), wanted)
    fast = [Fast(net.around, 2) for net in (network, whole.module)]
    for _ in range(4):  # of which every second calls the first block alone
        assert torch.equal(*(net(latents, times, cond) for net in fast))
    one.leave()
    assert settled()


@pytest.mark.parametrize("every_layer", [False, True])
@torch.inference_mode()
def test_t5_in_passing_is_what_it_is_whole(every_layer, tmp_path):
    def make():
        told = {"hidden": 48, "activation": "gelu", "gated": True, "words": 30, "head": 8}
        return T5Text(32, 5, 4, every_layer=every_layer, **told)

    file = saved(tmp_path / "t5.safetensors", make, torch.float16)
    one, whole = (component(file, torch.bfloat16, make=make, blocks=("encoder.block",)) for _ in range(2))
    ids, mask = torch.randint(0, 30, (2, 9)), torch.arange(9)[None] < torch.tensor([[9], [5]])
    wanted = whole.come()(ids, mask)
    part = one.part("t5")
    least = turned({"t5": part}, {}, ["t5"], 0, 0)["t5"]
    assert least.stay == ()
    assert least.room == max(part.blocks)
    network = one.pass_by(least)
    for _ in range(2):
        assert torch.equal(network(ids, mask), wanted)
    one.leave()


# ---- what is held, and when


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("room", [1, 2, 3])
@torch.inference_mode()
def test_no_more_is_held_than_was_said_whenever_one_looks(path, room, dtype):
    one = component(path, dtype)
    part = one.part("toy")
    size = part.blocks[0]
    assert (part.size, len(part.blocks)) == ((EDGES + COUNT * BLOCK) * dtype.itemsize // 4, COUNT)
    stated = Share((0, 6), COUNT, room * size, part.size - (COUNT - 2 - room) * size)
    network, seen = one.pass_by(stated), []

    def look(*told):
        ahead = one._passing._ahead
        seen.append(there(network) + sum(size for _ in ahead))
        assert one._passing.held <= stated.room

    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            layer.register_forward_hook(look)
    for _ in range(2):
        network(x())
    assert max(seen) == stated.peak == one.held
    assert sum(one is not None for one in seen) == 2 * (2 * COUNT + 2)


class Told:
    """Blocks that say what happens to them."""

    def __init__(self, count=COUNT, size=1):
        self.log, self.modules = [], [nn.Identity() for _ in range(count)]
        self.blocks = [
            Block(module, size, partial(self.read, n), partial(self.hold, n), partial(self.leave, n))
            for n, module in enumerate(self.modules)
        ]

    def read(self, number):
        self.log.append(("read", number))
        return number

    def hold(self, number, found):
        assert found == number
        self.log.append(("hold", number))

    def leave(self, number):
        self.log.append(("leave", number))

    def said(self, what):
        return [number for told, number in self.log if told == what]

    def run(self, numbers=None):
        for number in range(len(self.modules)) if numbers is None else numbers:
            self.modules[number](torch.zeros(1))


@pytest.mark.parametrize("room", [1, 2, 5, COUNT])
def test_blocks_come_and_leave_in_order_and_each_is_read_once_a_pass(room):
    told = Told()
    passing = Passing(told.blocks, room)
    told.run()
    told.run()
    assert settled()
    assert [event for event in told.log if event[0] != "read"] == [
        (what, number) for number in [*range(COUNT), *range(COUNT)] for what in ("hold", "leave")
    ]
    ahead = [number % COUNT for number in range(2 * COUNT + room)]  # the first of the next pass wait
    assert told.said("read") == ahead
    assert passing.held == room
    passing.close()
    assert told.said("leave")[2 * COUNT :] == list(range(room))
    assert passing.held == 0
    told.run()
    assert told.said("hold") == [*range(COUNT), *range(COUNT)]


def test_what_comes_next_is_read_while_a_block_runs():
    """Each waits for the other: the block until the next one is being read, and that until the block runs."""
    running = [threading.Event() for _ in range(COUNT + 1)]
    reading = [threading.Event() for _ in range(COUNT + 1)]
    seen = []

    def read(number):
        reading[number].set()
        seen.append(number == 0 or running[number - 1].wait(WAIT))

    class Slow(nn.Module):
        def forward(self, number):
            running[number].set()
            seen.append(reading[number + 1].wait(WAIT) if number + 1 < COUNT else True)
            return number + 1

    modules = [Slow() for _ in range(COUNT)]
    nothing = lambda *told: None  # noqa: E731
    blocks = [Block(m, 1, partial(read, n), nothing, nothing) for n, m in enumerate(modules)]
    passing = Passing(blocks, 2)
    number = 0
    for module in modules:
        number = module(number)
    passing.close()
    assert seen
    assert all(seen)


def test_blocks_of_several_sizes_are_read_ahead_as_far_as_there_is_room():
    told = Told(6)
    blocks = [
        Block(b.module, size, b.read, b.hold, b.leave) for b, size in zip(told.blocks, [4, 4, 1, 1, 1, 1], strict=True)
    ]
    passing = Passing(blocks, 8)
    held = []
    for block in blocks:
        block.module.register_forward_pre_hook(lambda *_: held.append(passing.held))
    told.run()
    assert held[0] == 8
    assert max(held) <= 8
    assert settled()
    assert passing.held == 8
    passing.close()


def test_blocks_that_run_in_another_order_or_not_at_all_come_nevertheless():
    told, order = Told(), [0, 0, 0, 5, 2, 3, 11, 0, 1, 1]
    passing = Passing(told.blocks, 2)
    told.run(order)
    assert told.said("hold") == order
    assert passing.held <= 2
    passing.close()
    assert settled()
    assert sorted(told.said("leave")) == sorted([*order, *sorted(told.said("leave"))][len(order) :])
    assert len(told.said("read")) <= len(told.said("leave"))


# ---- what goes wrong


def test_what_goes_wrong_while_reading_is_raised_where_the_block_runs_and_may_be_tried_again():
    told, broken = Told(), True

    def read(number):
        if number == 5 and broken:
            raise WeightsError("the disk is gone")
        return number

    blocks = [Block(b.module, 1, partial(read, n), b.hold, b.leave) for n, b in enumerate(told.blocks)]
    passing = Passing(blocks, 3)
    told.run(range(5))
    with pytest.raises(WeightsError, match="the disk is gone"):
        told.run([5])
    assert told.said("hold") == [0, 1, 2, 3, 4]
    broken = False
    told.run()
    assert told.said("hold") == [*range(5), *range(COUNT)]
    passing.close()
    assert passing.held == 0
    assert settled()


@torch.inference_mode()
def test_a_block_of_another_shape_is_told_when_it_is_read(tmp_path):
    class Other(Toy):
        def __init__(self):
            super().__init__()
            self.blocks[7].up = nn.Linear(WIDTH, WIDTH + 1)

    one = component(saved(tmp_path / "other.safetensors", Other))
    network = one.pass_by(share())
    with pytest.raises(WeightsMismatch, match=r"blocks\.7\.up\.weight \(65, 64\)"):
        network(x())
    one.leave()
    assert there(network) == 0
    assert settled()


@torch.inference_mode()
def test_a_file_that_has_become_shorter_is_told_where_it_ends(tmp_path):
    path = saved(tmp_path / "toy.safetensors")
    one = component(path)
    tensors = one._tensors
    shorter = path.stat().st_size - BLOCK
    late = {name for name, (_, entry) in tensors.places.items() if entry.stop > shorter}
    with path.open("r+b") as file:
        file.truncate(shorter)
    assert late
    with pytest.raises(WeightsError, match="shorter"):
        one.pass_by(share())(x())
    one.leave()
    assert settled()


@pytest.mark.parametrize("stop", [KeyboardInterrupt, ValueError])
@torch.inference_mode()
def test_what_is_stopped_in_the_middle_leaves_no_thread_and_goes_on_later(path, stop):
    one, wanted = component(path), component(path).come()(x())
    network = one.pass_by(share([0, 6]))

    def halt(*told):
        raise stop

    handle = network.blocks[4].down.register_forward_hook(halt)
    with pytest.raises(stop):
        network(x())
    assert settled()  # what was being read has been, and nobody waits for more
    assert one._passing.held <= 2 * BLOCK
    handle.remove()
    assert torch.equal(network(x()), wanted)
    assert there(network) == EDGES + 2 * BLOCK
    handle = network.blocks[4].down.register_forward_hook(halt)
    with pytest.raises(stop):
        network(x())
    one.leave()
    assert there(network) == 0
    assert settled()


def test_closing_waits_for_what_is_being_read_and_cancels_the_rest():
    told, begun, go_on = Told(), threading.Event(), threading.Event()

    def read(number):
        begun.set()
        assert go_on.wait(WAIT)
        told.read(number)

    passing = Passing([Block(b.module, 1, partial(read, n), b.hold, b.leave) for n, b in enumerate(told.blocks)], 6)
    assert begun.wait(WAIT)
    closing = threading.Thread(target=passing.close)
    closing.start()
    go_on.set()
    closing.join(WAIT)
    assert not closing.is_alive()
    assert not readers()
    assert told.said("leave") == [0, 1, 2, 3, 4, 5]
    assert told.said("read")[:1] == [0]


# ---- files of small changes


def changes(network, kinds=("lora",)):
    """A file for layers at an edge and in blocks; `diff` is of full rank, so that it acts within a weight."""
    generator, tensors = torch.Generator().manual_seed(5), {}
    for number, layer in enumerate(("first", "blocks.0.up", "blocks.5.down", "blocks.6.up", "blocks.11.up")):
        name = f"lora_unet_{layer.replace('.', '_')}"
        if "diff" in kinds and number % 2:
            tensors[f"{name}.diff"] = 0.1 * torch.randn(WIDTH, WIDTH, generator=generator)
        else:
            tensors[f"{name}.lora_down.weight"] = torch.randn(4, WIDTH, generator=generator)
            tensors[f"{name}.lora_up.weight"] = 0.1 * torch.randn(WIDTH, 4, generator=generator)
    return read(tensors, {"net": target(network, ("lora_unet_",))}, "a file")


@pytest.mark.parametrize("kinds", [("lora",), ("lora", "diff")])
@pytest.mark.parametrize("mode", [Live, Merged])
@torch.inference_mode()
def test_files_of_small_changes_act_in_passing_as_they_do_live(path, mode, kinds):
    one, whole = component(path), component(path)
    file = Use(changes(whole.module, kinds), 0.7)
    bare = whole.come()(x())
    live = Live({"net": whole.module})
    live.use(file)
    wanted = whole.module(x())
    assert not torch.allclose(wanted, bare, rtol=0.01)

    acting = mode({"net": one.module})
    one.arrived.append(partial(acting.arrived, "net"))
    acting.use(file)  # before it has come
    network = one.pass_by(share([0, 6]))
    for _ in range(2):
        assert torch.equal(network(x()), wanted)
    acting.use()
    assert torch.equal(network(x()), bare)
    acting.use(file)  # while it comes and goes
    assert torch.equal(network(x()), wanted)
    one.come()
    if mode is Merged:
        merged = component(path)
        merged.come()
        Merged({"net": merged.module}).use(file)
        wanted = merged.module(x())
    assert torch.equal(network(x()), wanted)
    assert bool(network.blocks[5].down._forward_hooks) == (mode is Live)
    acting.use()
    assert torch.equal(network(x()), bare)
    one.pass_by(share())
    assert torch.equal(network(x()), bare)
    one.leave()


@torch.inference_mode()
def test_merged_files_stay_merged_where_layers_in_eight_bits_act_live(path):
    """A weight that only stands for bits is on the meta device too, which is no sign of coming in passing."""
    one = component(path, quantize="int8")
    acting = Merged({"net": one.module})
    one.arrived.append(partial(acting.arrived, "net"))
    acting.use(Use(changes(one.module, ("lora", "diff"))))
    one.come()
    one.leave()
    one.come()
    assert acting._passing == {"net": False}
    one.leave()


# ---- rooms


def rooms_of(*components):
    found = Rooms()
    for name, one in components:
        found.add(name, one)
    return found


@torch.inference_mode()
def test_rooms_bring_whole_what_fits_and_block_by_block_what_does_not(path):
    tower, network = component(path, blocks=()), component(path)
    rooms = rooms_of(("tower", tower), ("network", network))
    size, work = tower.size, 1000
    wanted = component(path).come()(x())
    staged = StagedNetwork(network.module, rooms, ["network"], lambda x: work)
    rooms.budget = size + work - 1
    rooms.use(["tower"])
    assert torch.equal(staged(x(), torch.zeros(1), None), wanted)
    assert (tower.here, network.here) == (False, True)
    assert len(network.share.stay) == COUNT - 3
    assert rooms.held == network.share.peak == size - BLOCK <= rooms.budget - work
    assert str(rooms.plan([Moment(("tower",)), Moment(("network",), work)])).count("9 of 12 blocks stay") == 1
    rooms.use(["network"], work + 3 * BLOCK)
    kept = network.share
    assert len(kept.stay) == COUNT - 6
    rooms.use(["network"], work)  # room for three more is not worth reading everything anew
    assert network.share is kept
    rooms.budget = size + work
    rooms.use(["network"], work)
    assert network.share is None
    rooms.budget = EDGES + 2 * BLOCK
    rooms.use(["network"])
    assert network.share.stay == ()
    rooms.use(["tower"])  # without blocks it comes nevertheless, and whole
    assert (tower.here, tower.share, network.here) == (True, None, False)
    rooms.budget = math.inf
    rooms.use(["network"])
    rooms.settle(10**12)
    assert network.share is None
    rooms.remove("network")
    assert rooms.held == size


def parts():
    t5 = Part("text_encoder_2", 10 * 2**30, (384 * 2**20,) * 24, 2**20)
    flux = Part("transformer", 24 * 2**30, (640 * 2**20,) * 19 + (288 * 2**20,) * 38)
    return [Part("text_encoder", 2**28), t5, flux, Part("vae", 2**28)]


MOMENTS = [Moment(("text_encoder", "text_encoder_2")), Moment(("transformer",), 2**30), Moment(("vae",), 3 * 2**29)]


def test_a_plan_says_in_a_sentence_who_comes_how():
    plan = planned(parts(), MOMENTS, 8 * 2**30)
    assert plan.fits
    assert str(plan) == (
        "8.0 GB: text_encoder (0.2 GB), text_encoder_2 (10.0 GB) block by block, 15 of 24 blocks stay; then "
        "transformer (24.0 GB) block by block, 10 of 57 blocks stay; then vae (0.2 GB); peak 7.9 GB."
    )
    assert [*plan.passing] == ["text_encoder_2", "transformer"]
    assert plan.turns == (("text_encoder", "text_encoder_2"), ("transformer",), ("vae",))


def test_a_plan_of_what_fits_keeps_everything():
    for budget, bound in ((math.inf, "no bound"), (40 * 2**30, "40.0 GB")):
        plan = planned(parts(), MOMENTS, budget)
        assert (plan.turns, dict(plan.passing)) == ((tuple(part.name for part in parts()),), {})
        assert plan.peak == sum(part.size for part in parts()) + 3 * 2**29
        assert str(plan) == (
            f"{bound}: everything stays in memory (text_encoder (0.2 GB), text_encoder_2 (10.0 GB), "
            "transformer (24.0 GB), vae (0.2 GB)); peak 36.0 GB."
        )


def test_a_plan_says_what_takes_turns_and_what_is_too_much():
    turns = planned(parts(), MOMENTS, 30 * 2**30)
    assert not turns.passing
    assert str(turns).startswith(
        "30.0 GB: text_encoder (0.2 GB), text_encoder_2 (10.0 GB); then transformer (24.0 GB);"
    )
    small = planned(parts(), MOMENTS, 2**30)
    assert not small.fits
    assert str(small).endswith(f"That is {(small.peak - 2**30) / 2**30:.1f} GB too much: ask for a smaller size.")
    assert small.passing["transformer"].stay == ()


def test_as_many_blocks_stay_as_there_is_room_for_spread_evenly_from_the_first():
    part = Part("net", 100 + 12 * 10, (10,) * 12, 3)
    for budget in range(100 + 20 + 3, part.size):
        found = turned({"net": part}, {}, ["net"], 0, budget)["net"]
        assert len(found.stay) == min((budget - 123) // 10, 9)  # ten and two that pass are all of them
        assert (found.peak, found.room) == (123 + 10 * len(found.stay), 20)
    assert turned({"net": part}, {}, ["net"], 50, 100 + 20 + 3 + 50 + 40)["net"].stay == (0, 3, 6, 9)


@pytest.mark.parametrize("seed", range(40))
def test_a_plan_is_what_rooms_do_and_never_more_than_fits(seed):
    """Bookkeeping alone, of random parts: the stand-ins count bytes as components do."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(most):
        return int(torch.randint(1, most, (), generator=generator))

    blocks = [tuple(drawn(30) for _ in range(drawn(12))) if number != 1 else () for number in range(4)]
    few = [Part(f"{n}", sum(sizes) + drawn(40), sizes, drawn(4)) for n, sizes in enumerate(blocks)]
    moments = [Moment(("0", "1"), drawn(9)), Moment(("2",), drawn(60)), Moment(("3", "2"), drawn(20))]
    budget = drawn(500)
    rooms = rooms_of(*((part.name, Counted(part)) for part in few))
    rooms.budget = budget
    plan, peak = rooms.plan(moments), 0
    for _ in range(3):
        for moment in moments:
            rooms.settle(max(one.work for one in moments))
            rooms.use(moment.names, moment.work)
            peak = max(peak, rooms.held + moment.work)
    by_name = {part.name: part for part in few}
    least = [sum(smallest(by_name[name]) for name in moment.names) + moment.work for moment in moments]
    assert peak <= plan.peak
    assert plan.fits == (max(least) <= budget)
    assert not plan.fits or peak <= budget


def smallest(part):
    """Bytes with one block at a time."""
    return min(part.size, part.size - sum(part.blocks) + max(part.blocks) + part.reading) if part.blocks else part.size


class Counted:
    def __init__(self, part):
        self.size, self.here, self.share, self._part = part.size, False, None, part

    @property
    def held(self):
        return (self.share.peak if self.share else self.size) if self.here else 0

    def part(self, name):
        return self._part

    def come(self):
        self.here, self.share = True, None

    def pass_by(self, share):
        self.here, self.share = True, share

    def leave(self):
        self.here, self.share = False, None


# ---- what the system says

STREAMED = """
import sys, torch
from pathlib import Path
from torch import nn
from triptych.weights.files import open_tensors
from triptych.weights.layouts import Source
from triptych.weights.loading import Component
from triptych.weights.plan import turned

def held():
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return (int(lines["RssAnon"].split()[0]) + int(lines["RssFile"].split()[0])) * 1024

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(1024, 1024, bias=False) for _ in range(16))

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
            seen.append(held())
        return x

layout = lambda names: {name: Source((name,)) for name in names}
dtype = getattr(torch, sys.argv[2])
with torch.inference_mode():
    one = Component(Net, open_tensors(Path(sys.argv[1])), layout, "cpu", dtype, blocks=["blocks"])
    nn.Linear(1024, 1024, dtype=dtype)(torch.zeros(2, 1024, dtype=dtype))
    seen, part = [], one.part("net")
    share = turned({"net": part}, {}, ["net"], 0, part.size // 4 + part.reading)["net"]
    before = held()
    network = one.pass_by(share)
    for _ in range(3):
        network(torch.zeros(2, 1024, dtype=dtype))
    one.leave()
    print(max(seen) - before, held() - before, share.peak, part.size)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="measured by /proc")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_process_is_as_small_as_was_said(tmp_path, dtype):
    path = tmp_path / "net.safetensors"
    save_file({f"blocks.{number}.weight": torch.randn(1024, 1024) for number in range(16)}, path)
    told = [sys.executable, "-c", STREAMED, str(path), dtype]
    glibc = {"MALLOC_MMAP_THRESHOLD_": "65536"}  # what is free is free: none of it is kept for later
    said = subprocess.run(told, capture_output=True, text=True, check=True, env=os.environ | glibc)
    grown, left, peak, size = map(int, said.stdout.split())
    assert peak < size / 2
    assert grown < peak + 8e6  # of 64 MB
    assert left < 8e6


def test_touching_reads_every_page_of_what_lies_in_a_file(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"x": torch.zeros(2**22, dtype=torch.uint8)}, path)
    tensors = open_tensors(path)

    def resident():
        maps = Path("/proc/self/smaps").read_text().split("x.safetensors")[1]
        return next(int(line.split()[1]) for line in maps.splitlines() if line.startswith("Rss:"))

    tensors.read("x")
    touch([tensors.read("x"), torch.zeros(2, 2).T, torch.empty(0, device="meta")])
    if sys.platform == "linux":
        assert resident() >= 2**12 - 8
        tensors.release("x")
        assert resident() <= 8


def test_what_was_read_may_be_moved_whole():
    rows = Rows("I8", torch.ones(2, 3, dtype=torch.uint8), torch.ones(2, 1))
    found = Found({"a": torch.zeros(2)}, {"b": rows, "c": Rows("Q8_0", torch.zeros(1, 34, dtype=torch.uint8))})
    moved = found.moved(lambda tensors: {name: tensor + 1 for name, tensor in tensors.items()})
    assert moved.tensors["a"].tolist() == [1, 1]
    assert moved.rows["b"].values.unique().tolist() == [2]
    assert moved.rows["b"].scale.tolist() == [[2], [2]]
    assert moved.rows["c"].scale is None
