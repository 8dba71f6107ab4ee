"""Components come and leave within a budget; what they compute is the same, whoever was away in between."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from triptych.errors import InvalidField, WeightsMismatch
from triptych.weights import memory
from triptych.weights.files import open_tensors
from triptych.weights.layouts import Source
from triptych.weights.loading import Component
from triptych.weights.offload import Rooms, StagedCodec, StagedNetwork

BYTES = 4 * (8 * 8 + 8)  # of one layer


def plain(names):
    return {name: Source((name,)) for name in names}


@pytest.fixture
def layer(tmp_path):
    """A function that makes a component of one linear layer, by a number."""

    def make(number, layout=plain):
        torch.manual_seed(number)
        place = tmp_path / f"{number}.safetensors"
        save_file(nn.Linear(8, 8).state_dict(), place)
        return Component(lambda: nn.Linear(8, 8), open_tensors(place), layout, "cpu", torch.float32)

    return make


@pytest.fixture
def rooms(layer):
    found = Rooms()
    for number, name in enumerate(("tower", "network", "codec")):
        found.add(name, layer(number))
    return found


def here(rooms):
    return [name for name, one in sorted(rooms._components.items()) if one.here]


def test_a_component_is_the_file_s_numbers_until_it_leaves_and_again_after(layer):
    one = layer(3)
    assert one.size == BYTES
    assert all(weight.is_meta for weight in one.module.parameters())
    torch.manual_seed(3)
    wanted = nn.Linear(8, 8)
    x = torch.ones(2, 8)
    for _ in range(2):
        assert torch.equal(one.come()(x), wanted(x))
        one.leave()
        assert all(weight.is_meta for weight in one.module.parameters())


def test_what_is_to_be_done_when_it_has_come_is_done_each_time(layer):
    one, calls = layer(0), []
    one.arrived.append(lambda: calls.append(one.here))
    one.come()
    one.come()
    one.leave()
    one.come()
    assert calls == [True, True]


def test_a_tensor_without_a_place_is_told_before_anything_is_read(layer):
    with pytest.raises(WeightsMismatch, match="bias"):
        layer(0, lambda names: {"weight": Source(("weight",))})


def test_without_a_bound_all_come_at_once_and_stay(rooms):
    rooms.settle(work=10**12)
    assert here(rooms) == ["codec", "network", "tower"]
    rooms.use(["tower"], 10**12)
    assert here(rooms) == ["codec", "network", "tower"]
    assert rooms.held == 3 * BYTES


def test_nothing_comes_before_it_is_used_where_not_all_fit(rooms):
    rooms.budget = 3 * BYTES + 99
    rooms.settle(work=100)
    assert here(rooms) == []


@pytest.mark.parametrize(("budget", "work", "there"), [(2, 0, ["codec", "network"]), (2, BYTES, ["codec"])])
def test_what_was_used_longest_ago_leaves_first(rooms, budget, work, there):
    rooms.budget = budget * BYTES
    rooms.use(["tower"])
    rooms.use(["network"])
    assert here(rooms) == ["network", "tower"]
    rooms.use(["codec"], work)
    assert here(rooms) == there


def test_those_that_are_used_together_stay_together_even_if_they_do_not_fit(rooms):
    rooms.budget = BYTES
    rooms.use(["network", "codec"], work=BYTES)
    assert here(rooms) == ["codec", "network"]


def test_what_is_removed_is_no_longer_held(rooms):
    rooms.settle(0)
    rooms.remove("network")
    assert rooms.held == 2 * BYTES


def test_a_network_comes_when_it_is_called_and_says_how_much_it_takes(rooms):
    rooms.budget = 2 * BYTES
    rooms.use(["tower"])
    module = rooms._components["network"].module
    network = StagedNetwork(lambda x, timestep, cond: module(x), rooms, ["network"], lambda x: len(x) * BYTES)
    assert network(torch.ones(1, 8), torch.zeros(1), None).shape == (1, 8)
    assert here(rooms) == ["network"]


def test_a_codec_comes_when_it_codes_and_is_told_how_many_samples(rooms):
    asked = []

    class Coder:
        channels, scale_factor = 8, (2, 2)

        def moments(self, x):
            return x, x

        def decode(self, z):
            return z

    codec = StagedCodec(Coder(), torch.float32, rooms, "codec", lambda pixels: asked.append(pixels) or 0)
    codec.encode(torch.zeros(2, 3, 4, 6))
    codec.decode(torch.zeros(2, 8, 2, 3))
    assert asked == [48, 48]
    assert here(rooms) == ["codec"]
    assert (codec.channels, codec.scale_factor) == (8, (2, 2))


@pytest.mark.parametrize(
    ("text", "size"),
    [("8GB", 2**33), ("8 GiB", 2**33), ("8g", 2**33), ("1.5gb", 3 * 2**29), ("700MB", 700 * 2**20), ("4096", 4096)],
)
def test_sizes_are_read_as_people_write_them(text, size):
    assert memory.parsed(text) == size


@pytest.mark.parametrize("text", ["", "eight", "8 apples", "-1GB", "0", "GB"])
def test_what_is_no_size_is_told(text):
    with pytest.raises(InvalidField, match="8GB"):
        memory.parsed(text)


def test_what_the_process_may_take_counts_what_it_has():
    import psutil

    free, total = memory.available("cpu"), psutil.virtual_memory().total
    assert 0 < free < total
    assert memory.available("cpu", "auto") == pytest.approx(free, rel=0.2)
    ours = psutil.Process().memory_info().rss
    assert memory.available("cpu", "100MB") == pytest.approx(95 * 2**20 - ours, rel=0.2)
    assert memory.available("cpu", "1000TB") <= psutil.virtual_memory().available
