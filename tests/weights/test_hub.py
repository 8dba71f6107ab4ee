"""The hub, played by a server on this machine: what is fetched, what comes from the cache, and what errors say."""

import errno
import json
from contextlib import closing
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from played_hub import COMMIT
from safetensors.torch import load_file, save

from triptych.errors import InvalidField, WeightsError
from triptych.weights import download, hub
from triptych.weights.files import open_bundle

WEIGHTS, OTHER = save({"a": torch.zeros(3)}), save({"a": torch.ones(3)})


def listed(text, variant=None):
    return hub.listed(hub.parse(text), variant)


def place(text, variant=None):
    return hub.place(listed(text, variant))


def index(*parts):
    return json.dumps(
        {"_class_name": "X", "gone": [None, None], **{part: ["library", "Kind"] for part in parts}}
    ).encode()


def diffusers():
    plain, half = "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors"
    return {
        "README.md": b"words",
        "whole.safetensors": WEIGHTS,
        "model_index.json": index("unet", "vae", "tokenizer", "safety_checker"),
        f"unet/{plain}": WEIGHTS,
        f"unet/{half}": WEIGHTS,
        "unet/diffusion_pytorch_model.bin": b"pickle",
        "unet/config.json": b"{}",
        "unet/model.onnx": b"onnx",
        f"vae/{plain}": OTHER,
        "vae/config.json": b"{}",
        "tokenizer/vocab.json": b"{}",
        "tokenizer/merges.txt": b"",
        "safety_checker/model.safetensors": WEIGHTS,
        "other/model.safetensors": WEIGHTS,
    }


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("owner/name", hub.Reference("owner/name")),
        ("owner/name@v1.0", hub.Reference("owner/name", "v1.0")),
        ("owner/name@refs/pr/7", hub.Reference("owner/name", "refs/pr/7")),
        ("owner/name/x.safetensors", hub.Reference("owner/name", None, "x.safetensors")),
        ("o/n/a/b c.safetensors@main", hub.Reference("o/n", "main", "a/b c.safetensors")),
    ],
)
def test_names(text, wanted):
    assert hub.parse(text) == wanted
    assert str(wanted) == text


@pytest.mark.parametrize(
    "text", ["", "name", "owner/", "/name", "owner/name@", "o/n/../x", "o/n//x", "../x", "o/n@a\n", "ö/n"]
)
def test_what_is_no_name(text):
    with pytest.raises(InvalidField, match="owner/name"):
        hub.parse(text)


def test_only_what_is_needed_is_fetched(server):
    server.repositories["owner/name"] = diffusers()
    found = listed("owner/name")
    path = hub.place(found)
    assert server.fetched() == set(found.files) == {
        "model_index.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
        "tokenizer/vocab.json",
    }  # fmt: skip
    assert str(found.pinned) == f"owner/name@{COMMIT}"
    assert set(open_bundle(path).sets) == {"unet", "vae"}


def test_a_variant_only_if_asked_and_where_there_is_one(server):
    server.repositories["owner/name"] = diffusers()
    place("owner/name", "fp16")
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in server.fetched()
    assert "unet/diffusion_pytorch_model.safetensors" not in server.fetched()
    assert "vae/diffusion_pytorch_model.safetensors" in server.fetched()
    with pytest.raises(WeightsError, match="no part in the variant 'fp8'"):
        place("owner/name", "fp8")


def test_one_file(server):
    server.repositories["owner/name"] = diffusers()
    found = listed("owner/name/unet/config.json@main")
    assert hub.place(found).read_bytes() == b"{}"
    assert server.fetched() == {"unet/config.json"}
    assert found.pinned == hub.Reference("owner/name", COMMIT, "unet/config.json")
    with pytest.raises(WeightsError, match=r"the hub has no owner/name/nothing.safetensors. What there is: https"):
        place("owner/name/nothing.safetensors")


def test_repositories_with_one_network(server):
    server.repositories["o/lora"] = {"README.md": b"", "my-lora.safetensors": WEIGHTS}
    assert place("o/lora").name == "my-lora.safetensors"
    server.repositories["o/two"] = {"a.safetensors": WEIGHTS, "b.safetensors": WEIGHTS}
    with pytest.raises(WeightsError, match=r"but a.safetensors, b.safetensors. Name one"):
        place("o/two")
    server.repositories["o/old"] = {"model.ckpt": b""}
    with pytest.raises(WeightsError, match=r"only pickles \(model.ckpt\)"):
        place("o/old")
    server.repositories["o/none"] = {"README.md": b""}
    with pytest.raises(WeightsError, match="holds no weights"):
        place("o/none")


def test_shards(server):
    names = ["diffusion_pytorch_model-00001-of-00002.safetensors", "diffusion_pytorch_model-00002-of-00002.safetensors"]
    table = json.dumps({"weight_map": {"a": names[0], "b": names[1]}}).encode()
    shards = {names[0]: WEIGHTS, names[1]: save({"b": torch.ones(2)})}
    files = {"config.json": b"{}", "diffusion_pytorch_model.safetensors.index.json": table, **shards}
    server.repositories["o/big"] = files
    assert set(open_bundle(place("o/big")).sets[""].names()) == {"a", "b"}
    outside = json.dumps({"weight_map": {"a": "../../x.safetensors"}}).encode()
    server.repositories["o/evil"] = {"model.safetensors.index.json": outside}
    with pytest.raises(WeightsError, match="not beside it"):
        place("o/evil")


def test_without_a_network_the_cache_answers(server, monkeypatch):
    server.repositories["owner/name"] = diffusers()
    before, path = listed("owner/name"), place("owner/name")
    assert hub.place(hub.listed(before.pinned)) == path
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    server.asked.clear()
    assert listed("owner/name") == before
    assert place("owner/name") == path
    assert hub.place(hub.listed(before.pinned)) == path
    assert set(hub.look(before).sets) == {"unet", "vae"}
    assert place("owner/name/model_index.json") == path / "model_index.json"
    with pytest.raises(
        hub.Unreachable, match=r"no network to fetch owner/other.*Nothing of owner/other is in the cache"
    ):
        place("owner/other")
    with pytest.raises(hub.Unreachable, match="Go online, or name a local file"):
        place("owner/name/whole.safetensors")
    assert server.asked == []


def test_a_dead_network_is_none(server):
    server.stop()
    with pytest.raises(hub.Unreachable, match="no network"):
        place("owner/name")


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ("GatedRepo", "gated: accept its terms at https://huggingface.co/owner/name .* HF_TOKEN"),
        ("RepoNotFound", "the hub has no model owner/name, or it is private"),
        ("Down", "the hub answers 500"),
    ],
)
@pytest.mark.parametrize("text", ["owner/name", "owner/name/x.safetensors"])
def test_what_is_wrong_is_explained(server, wrong, reason, text):
    server.repositories["owner/name"] = wrong
    with pytest.raises(WeightsError, match=reason):
        place(text)


def test_revisions_that_are_not_there(server):
    server.repositories["owner/name"] = diffusers()
    for text in ("owner/name@nosuch", "owner/name/model_index.json@nosuch"):
        with pytest.raises(WeightsError, match="owner/name has no revision 'nosuch'"):
            place(text)


@pytest.mark.parametrize(
    ("number", "reason"), [(errno.ENOSPC, "the disk is full .* HF_HOME"), (errno.EACCES, "the cache cannot be written")]
)
def test_trouble_on_this_side(server, monkeypatch, number, reason):
    server.repositories["owner/name"] = diffusers()
    found = listed("owner/name/unet/config.json")

    def fail(*_, **__):
        raise OSError(number, "trouble")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(WeightsError, match=reason) as problem:
        hub.place(found)
    assert not isinstance(problem.value, hub.Unreachable)


def test_looking_fetches_no_weights(server):
    server.repositories["owner/name"] = {**diffusers(), "unet/diffusion_pytorch_model.safetensors": LARGE}
    found = hub.look(listed("owner/name"))
    assert found.where == Path("owner/name")
    assert server.fetched() == {"model_index.json", "unet/config.json", "vae/config.json"}
    assert server.looked() == {f"{part}/diffusion_pytorch_model.safetensors" for part in ("unet", "vae")}
    assert sum(server.sent.values()) < download_bound()
    assert found.sets["unet"].shape("x") == (SIZE // 4,)
    assert found.configs[""]["_class_name"] == "X"


def download_bound():
    return 2 * hub.FIRST


def test_what_is_looked_at_is_what_would_be_opened(server):
    names = {f"{prefix}.{number}" * 20: torch.zeros(1) for prefix in "ab" for number in range(2000)}
    server.repositories["o/long"] = {"config.json": b'{"k": 1}', "model.safetensors": save(names)}  # as is its header
    found = hub.look(listed("o/long"))
    assert next(span for _, path, span in server.asked if "/large/" in path) == f"bytes=0-{hub.FIRST - 1}"
    opened = open_bundle(place("o/long").parent)
    assert found.configs == opened.configs
    assert found.sets[""].entries() == opened.sets[""].entries()
    server.asked.clear()
    assert hub.look(listed("o/long")).sets[""].entries() == opened.sets[""].entries()
    assert {path for _, path, _ in server.asked} == {"/api/models/o/long"}  # the rest is in the cache


def test_what_cannot_be_opened_is_told_without_fetching_it(server):
    server.repositories["o/n"] = {"old.ckpt": b"PK\x03\x04 data.pkl" + bytes(SIZE), "page.safetensors": b"<html>"}
    with pytest.raises(WeightsError, match=r"o/n/old.ckpt is a pickle"):
        hub.look(listed("o/n/old.ckpt"))
    with pytest.raises(WeightsError, match=r"o/n/page.safetensors is a web page"):
        hub.look(listed("o/n/page.safetensors"))
    assert server.fetched() == set()


def test_a_server_that_sends_it_all_is_not_listened_to(server):
    server.ranges = False
    server.repositories["o/n"] = {"x.safetensors": LARGE}
    assert hub.look(listed("o/n")).sets[""].shape("x") == (SIZE // 4,)


SIZE = 4_000_000  # bytes
LARGE = save({"x": torch.arange(SIZE // 4, dtype=torch.int32)})


def test_how_far_it_is_is_told(server):
    server.repositories["o/n"] = {"config.json": b"{}", "model.safetensors": LARGE}
    server.most = SIZE // 2
    found = listed("o/n")
    with closing(hub.fetch(found)) as shares:
        seen = [next(share for share in shares if share.done > SIZE // 4)]
        server.go.set()
        seen += shares
    assert all(share.file == "model.safetensors" for share in seen)
    assert {share.total for share in seen} == {len(LARGE)}
    assert [share.done for share in seen] == sorted(share.done for share in seen)
    assert hub.place(found).read_bytes() == LARGE


def test_a_fetch_that_is_left_stops_and_goes_on_the_next_time(server, tmp_path):
    server.repositories["o/n"] = {"config.json": b"{}", "model.safetensors": LARGE}
    server.most = SIZE // 2
    found = listed("o/n")
    with closing(hub.fetch(found)) as shares:
        next(share for share in shares if share.done > SIZE // 4)
    assert server.fetched() == {"config.json", "model.safetensors"}
    assert not list(tmp_path.rglob("model.safetensors"))
    server.go.set()
    [part] = tmp_path.rglob("*.triptych.incomplete")
    until_free(part)
    kept = part.stat().st_size
    assert part.read_bytes() == LARGE[:kept]
    assert SIZE // 4 < kept < len(LARGE)
    server.asked.clear()
    assert hub.place(found).read_bytes() == LARGE
    assert [span for verb, path, span in server.asked if "/large/" in path] == [f"bytes={kept}-"]
    assert not list(tmp_path.rglob("*.incomplete"))


def until_free(part):
    """Waits until a download that was left has ended."""
    from huggingface_hub.utils import WeakFileLock

    folder = part.parents[1]
    with WeakFileLock(folder.parent / ".locks" / folder.name / f"{part.name.split('.')[0]}.lock", timeout=20):
        pass


def test_a_part_is_no_model_without_a_network(server, monkeypatch):
    server.repositories["o/n"] = {**diffusers(), "unet/diffusion_pytorch_model.safetensors": LARGE}
    found = listed("o/n")
    server.most = SIZE // 2
    with closing(hub.fetch(found)) as shares:
        next(share for share in shares if share.done > SIZE // 4)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(hub.Unreachable, match="Nothing of o/n is in the cache"):
        listed("o/n")
    with pytest.raises(hub.Unreachable, match="Only a part of o/n is in the cache"):
        hub.listed(found.pinned)


def test_a_connection_that_breaks_is_made_again(server, monkeypatch):
    monkeypatch.setattr(download, "PAUSE", 0.0)
    server.repositories["o/n"] = {"model.safetensors": LARGE}
    server.cuts = [SIZE // 4, 0, 0, SIZE // 4]
    assert place("o/n").read_bytes() == LARGE
    spans = [span for _, path, span in server.asked if "/large/" in path]
    assert len(spans) == 5
    assert spans[0] == "bytes=0-"
    assert spans[-1] > spans[1] > spans[0]


def test_a_connection_that_breaks_and_begins_anew_is_no_mixture(server, monkeypatch):
    monkeypatch.setattr(download, "PAUSE", 0.0)
    server.repositories["o/n"] = {"model.safetensors": LARGE}
    server.ranges, server.cuts = False, [SIZE // 4]
    assert place("o/n").read_bytes() == LARGE


def test_a_connection_that_only_breaks_is_given_up(server, monkeypatch, tmp_path):
    monkeypatch.setattr(download, "PAUSE", 0.0)
    server.repositories["o/n"] = {"model.safetensors": LARGE}
    server.cuts = [SIZE // 4] + [0] * 50
    with pytest.raises(hub.Unreachable, match="no network to fetch o/n"):
        place("o/n")
    [part] = tmp_path.rglob("*.triptych.incomplete")
    assert part.read_bytes() == LARGE[: SIZE // 4]


def test_what_comes_damaged_is_not_kept(server, tmp_path):
    server.repositories["o/n"] = {"model.safetensors": LARGE}
    server.damaged = True
    with pytest.raises(WeightsError, match=r"model\.safetensors came damaged"):
        place("o/n")
    assert not list(tmp_path.rglob("*.incomplete"))
    assert not list(tmp_path.rglob("model.safetensors"))
    server.damaged = False
    assert torch.equal(load_file(place("o/n"))["x"], torch.arange(SIZE // 4, dtype=torch.int32))


def test_a_disk_with_too_little_room_is_told_before(server, monkeypatch):
    server.repositories["o/n"] = {"model.safetensors": LARGE}
    usage = type("Usage", (), {"free": SIZE // 2})
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(WeightsError, match="the disk is full"):
        place("o/n")
    assert server.fetched() == set()


def test_the_token_is_told_to_the_hub_alone(server, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    server.repositories["o/n"] = {"model.safetensors": LARGE}
    hub.look(listed("o/n"))
    place("o/n")
    assert server.known == {(False, "Bearer hf_secret"), (True, None)}


def test_where_files_cannot_be_linked_none_is_kept_twice(server, monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.file_download, "are_symlinks_supported", lambda *_: False)
    server.repositories["o/n"] = {"model.safetensors": LARGE}
    assert place("o/n").read_bytes() == LARGE
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) < 1.5 * SIZE


def test_a_gated_file_is_told_before_it_is_fetched(server):
    """As on the hub itself, where everybody may see the list of what is gated."""
    server.repositories["o/n"] = {"model.safetensors": LARGE}
    found = listed("o/n")
    server.repositories["o/n"] = "GatedRepo"
    with pytest.raises(WeightsError, match="o/n is gated: accept its terms"):
        hub.look(found)
    with pytest.raises(WeightsError, match="o/n is gated: accept its terms"):
        next(hub.fetch(found))
