"""Parts of Stable Diffusion 3 and FLUX.1 on the hub: told by their beginnings, fetched in the job, as local ones."""

import json

import gguf
import numpy as np
import pytest
from few_bits import written as gguf_written
from flow_files import joined, original, saved, small  # noqa: F401
from safetensors.torch import load_file, save
from test_flow_few_bits import llama, packed
from test_flow_files import ASKED, alike, files_of, folders, make  # noqa: F401

from triptych import families
from triptych.errors import WeightsError
from triptych.weights import gguf as headers
from triptych.weights import hub
from triptych.weights.files import open_bundle


@pytest.fixture
def served(folders, server, tmp_path):  # noqa: F811
    """A GGUF transformer, encoders in files and folders, and a codec, each in a repository of its own, and here."""
    folder = folders("flux-dev")
    parts = original(folder, "flux-dev")
    place = tmp_path / "local"
    files = files_of(parts, place)
    network = gguf_written(place / "flux1-dev-Q8_0.gguf", packed(parts["transformer"], "Q8_0")[0])
    t5 = {llama(name): value for name, value in packed(parts["t5xxl"], "Q8_0")[0].items()}
    words = {"tokenizer.ggml.tokens": [f"word {number}" for number in range(30_000)]}  # as llama.cpp writes them
    files["t5"] = gguf_written(place / "t5-Q8_0.gguf", t5, arch="t5encoder", **words)
    server.repositories["o/gguf"] = {"README.md": b"", network.name: network.read_bytes()}
    server.repositories["o/text"] = {
        "encoders/t5-Q8_0.gguf": files["t5"].read_bytes(),
        **{f"clip/{path.name}": path.read_bytes() for path in (folder / "text_encoder").iterdir()},
    }
    server.repositories["o/ae"] = {
        "ae.safetensors": files["vae"].read_bytes(),
        "other.safetensors": files["clip_l"].read_bytes(),
    }
    return network, files


REMOTE = {"clip_l": "o/text/clip", "t5": "o/text/encoders/t5-Q8_0.gguf", "vae": "o/ae/ae.safetensors"}


def test_every_part_from_the_hub(served, server, make):  # noqa: F811
    network, files = served
    expected, here = make(network, "here.png", **files)
    picture, told = make("o/gguf/flux1-dev-Q8_0.gguf", "hub.png", **REMOTE)
    assert alike(picture, expected)
    fetched = {name for name in server.fetched() if name.endswith((".safetensors", ".gguf"))}
    assert fetched == {network.name, "clip/model.safetensors", "encoders/t5-Q8_0.gguf", "ae.safetensors"}
    digests, mine = (set(one["recipe"]["model"]["weights"].values()) for one in (told, here))
    assert len(digests & mine) == 3  # all but CLIP, which lies there in a folder and here in a file
    server.asked.clear()
    assert make("o/gguf", "alone.png", **REMOTE)[0] == picture  # the only weights that there are
    assert not [name for name in server.fetched() if name.endswith((".safetensors", ".gguf"))]


def test_asking_fetches_no_weights(served, server, small, call):  # noqa: F811
    network = served[0]
    code, out, _ = call("models", "o/gguf/flux1-dev-Q8_0.gguf")
    assert (code, out.startswith("o/gguf/flux1-dev-Q8_0.gguf: image")) == (0, True)
    assert server.fetched() == set()
    looked = hub.look(hub.listed(hub.parse("o/gguf/flux1-dev-Q8_0.gguf"))).sets[""]
    assert looked.entries() == open_bundle(network).sets[""].entries()
    assert sum(server.sent.values()) < network.stat().st_size
    code, out, err = call(
        "make", "a fox", "--model", "o/gguf/flux1-dev-Q8_0.gguf", *ASKED, "--option", "vae=o/ae/ae.safetensors"
    )
    assert code == 1
    assert "o/gguf/flux1-dev-Q8_0.gguf lacks clip_l, t5. Name what has it" in " ".join(err.split())
    wrong = (
        "--option",
        "t5=o/ae/other.safetensors",
        "--option",
        "clip_l=o/text/clip",
        "--option",
        "vae=o/ae/ae.safetensors",
    )
    code, out, err = call("make", "a fox", "--model", "o/gguf/flux1-dev-Q8_0.gguf", *ASKED, *wrong)
    assert code == 1
    assert "o/ae/other.safetensors has no t5 but text_encoder of" in " ".join(err.split())
    assert not [name for name in server.fetched() if name.endswith((".safetensors", ".gguf"))]


def test_a_long_header_is_read_on(served, server, monkeypatch):
    _, files = served
    monkeypatch.setattr(hub, "FIRST", 1000)
    looked = hub.look(hub.listed(hub.parse("o/text/encoders/t5-Q8_0.gguf"))).sets[""]
    assert looked.entries() == open_bundle(files["t5"]).sets[""].entries()
    begin = min(entry.start for entry in looked.entries().values())
    assert begin > 400_000
    asked = [span for verb, path, span in server.asked if span and "encoders" in path and verb == "GET"]
    assert len(set(asked)) > 8
    assert max(int(span.rpartition("-")[2]) for span in asked) < 2 * begin


def test_headers_have_an_end(server, monkeypatch, tmp_path):
    monkeypatch.setattr(headers, "LONGEST", 50_000)
    monkeypatch.setattr(hub, "FIRST", 1000)
    path = gguf_written(tmp_path / "x.gguf", {"a": (np.zeros((2, 2), np.float32), gguf.GGMLQuantizationType.F32)},
                        **{"tokenizer.ggml.tokens": ["word"] * 9000})  # fmt: skip
    server.repositories["o/long"] = {"x.gguf": path.read_bytes()}
    server.repositories["o/cut"] = {"x.gguf": path.read_bytes()[:3000]}
    server.repositories["o/none"] = {"x.gguf": b"GGUF\x09\x00\x00\x00" + bytes(40)}
    for name, told in {"o/long": "longer than 50000 bytes", "o/cut": "cut off", "o/none": "of version 9"}.items():
        with pytest.raises(WeightsError, match=rf"{name}/x\.gguf: its header is broken: .*{told}"):
            families.look(f"{name}/x.gguf")


def test_names_of_what_is_not_there(server, tmp_path, served):
    for name in ("o/text/nothing", "o/text/encoders/nothing.gguf"):
        with pytest.raises(WeightsError, match=f"the hub has no {name}"):
            families.look(name)
    server.repositories["o/many"] = {"a-Q4_0.gguf": b"", "a-Q8_0.gguf": b""}
    with pytest.raises(WeightsError, match=r"but a-Q4_0\.gguf, a-Q8_0\.gguf\. Name one of them"):
        families.look("o/many")


def test_shards_in_a_folder_of_the_hub(server, served, folders, make, tmp_path):  # noqa: F811
    network, files = served
    text = folders("flux-dev") / "text_encoder_2"
    tensors = load_file(text / "model.safetensors")
    names = sorted(tensors)
    shards = {f"model-0000{n + 1}-of-00002.safetensors": names[n::2] for n in range(2)}
    index = {"metadata": {}, "weight_map": {name: shard for shard, held in shards.items() for name in held}}
    server.repositories["o/t5"] = {
        "README.md": b"",
        "text_encoder_2/config.json": (text / "config.json").read_bytes(),
        "text_encoder_2/model.safetensors.index.json": json.dumps(index).encode(),
        **{f"text_encoder_2/{shard}": save({name: tensors[name] for name in held}) for shard, held in shards.items()},
    }
    expected = make(network, "here.png", **{**files, "t5": text})[0]
    assert alike(make(network, "hub.png", **{**files, "t5": "o/t5/text_encoder_2"})[0], expected)
