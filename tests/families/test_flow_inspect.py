"""triptych inspect on the files of Stable Diffusion 3 and FLUX.1: parts, what is missing, precision, memory."""

from functools import cache

import gguf
import numpy as np
import pytest
import torch
from few_bits import Q
from few_bits import written as gguf_written
from flow_files import held, joined, original, saved, small  # noqa: F401
from test_flow_few_bits import llama, packed, scaled_file
from test_flow_files import folders  # noqa: F401
from test_recognise import shapes, sparse, tower, under
from test_recognise_sd3 import codec, single
from test_recognise_sd3 import t5 as t5_lengths

from triptych.engine.nets.flux import DEV, FILL, SCHNELL, Flux
from triptych.weights.files import open_bundle
from triptych.weights.inspect import inspect
from triptych.weights.layouts import flux as flux_names
from triptych.weights.loading import Component


@cache
def flux(shape):
    return shapes(lambda: Flux(shape))


def lines(call, path):
    code, out, _ = call("inspect", path)
    assert code == 0
    return [tuple(line.split(maxsplit=1)) for line in out.splitlines()]


NAMED = "text_encoder (--option clip_l=PATH), t5 (--option t5=PATH), vae (--option vae=PATH)"


@pytest.mark.parametrize(("shape", "variant"), [(DEV, "dev"), (SCHNELL, "schnell"), (FILL, "fill")])
def test_a_published_transformer(call, ask, tmp_path, shape, variant):
    lengths = flux(shape)
    path = sparse(tmp_path / f"flux1-{variant}.safetensors", lengths)
    told = lines(call, path)
    assert ("family", "flux (FLUX.1)") in told
    assert ("kind", f"transformer, {variant}, original names") in told
    assert ("missing", NAMED) in told
    numbers = sum(np.prod(shape, dtype=np.int64) for shape in lengths.values())
    assert 11.8e9 < numbers < 12.0e9  # as published
    code, plain = ask("inspect", path)
    assert (code, plain["parameters"], plain["refusal"]) == (0, numbers, "")
    assert plain["missing"] == ["text_encoder", "t5", "vae"]
    assert plain["options"] == {"text_encoder": "clip_l", "t5": "t5", "vae": "vae"}
    assert plain["memory"]["bfloat16"] == 2 * numbers
    assert 1.0 < plain["memory"]["int8"] / numbers < 1.02  # all but the edges in eight bits
    assert plain["memory"]["int8"] == plain["memory"]["fp8"]
    assert "as is" not in plain["memory"]


def test_a_published_file_with_everything(call, tmp_path):
    lengths = under("model.diffusion_model.", flux(DEV)) | under("vae.", codec())
    lengths |= under("text_encoders.clip_l.transformer.text_model.", tower("l"))
    lengths |= under("text_encoders.t5xxl.transformer.", t5_lengths())
    told = lines(call, sparse(tmp_path / "flux1-dev-fp8.safetensors", lengths))
    parts = [text.split(":")[0] for name, text in told if name == "part"]
    assert sorted(parts) == ["t5", "text_encoder", "transformer", "vae"]
    assert not [text for name, text in told if name in ("missing", "refused")]


def test_what_can_be_done_without(call, tmp_path):
    path = sparse(tmp_path / "sd3_medium.safetensors", single("sd3-medium"))
    named = {"text_encoder": "clip_l", "text_encoder_2": "clip_g", "t5": "t5"}
    wanted = [f"{part} (--option {name}=PATH{' or none' if part == 't5' else ''})" for part, name in named.items()]
    assert ("missing", ", ".join(wanted)) in lines(call, path)
    assert ("kind", "checkpoint, medium, original names") in lines(call, path)


@pytest.mark.usefixtures("small")
def test_memory_is_what_components_take(folders, tmp_path):  # noqa: F811
    parts = original(folders("flux-dev"), "flux-dev")
    path = saved(parts["transformer"], tmp_path / "flux.safetensors")
    from triptych.families import flux1

    def size(path, quantize=None):
        tensors = open_bundle(path).sets[""]
        shape = flux1.shape_in(tensors, {})
        whole = Component(lambda: Flux(shape), tensors, flux_names.original, "cpu", torch.bfloat16, quantize=quantize)
        return whole.size

    memory = inspect(path).memory
    assert (memory["bfloat16"], memory["int8"], memory["fp8"]) == (size(path), size(path, "int8"), size(path, "fp8"))
    eights = {name: value.to(torch.float8_e4m3fn) for name, value in parts["transformer"].items()}
    few = saved(eights, tmp_path / "flux-fp8.safetensors")
    assert inspect(few).memory["as is"] == size(few) < memory["bfloat16"]


@pytest.mark.usefixtures("small")
def test_files_in_few_bits(folders, call, ask, tmp_path):  # noqa: F811
    parts = original(folders("flux-dev"), "flux-dev")
    file, _ = packed(parts["transformer"], "Q8_0")
    path = gguf_written(tmp_path / "flux1-dev-Q8_0.gguf", file)
    told = lines(call, path)
    assert ("kind", "transformer, dev, original names") in told
    assert ("metadata", "general.architecture = flux") in told
    [part] = [text for name, text in told if name == "part"]
    assert part.endswith("F32/Q8_0")
    plain = ask("inspect", path)[1]
    blocks = {name: data for name, (data, kind) in file.items() if kind == Q.Q8_0}
    others = sum(data.size for data, kind in file.values() if kind != Q.Q8_0)
    assert plain["memory"]["as is"] == sum(data.nbytes for data in blocks.values()) + 2 * others
    shares = dict(plain["dtypes"])
    assert shares["Q8_0"] == sum(gguf.quant_shape_from_byte_shape(d.shape, Q.Q8_0)[1] * len(d) for d in blocks.values())
    file, _ = packed(parts["t5xxl"], "Q4_0")
    t5 = gguf_written(tmp_path / "t5.gguf", {llama(name): value for name, value in file.items()}, arch="t5encoder")
    assert ("kind", "t5, llama.cpp names") in lines(call, t5)
    scaled = saved(
        joined({"transformer": scaled_file(parts["transformer"])}, ["transformer"]), tmp_path / "s.safetensors"
    )
    plain = ask("inspect", scaled)[1]
    assert (plain["refusal"], sorted(plain["parts"]["transformer"]["dtypes"])) == ("", ["F32", "F8_E4M3"])


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("kind", ["sd3.5-large", "flux-schnell"])
def test_folders(folders, ask, kind):  # noqa: F811
    code, plain = ask("inspect", folders(kind))
    assert (code, plain["kind"], plain["missing"], plain["refusal"]) == (0, "folder", [], "")
    assert len(plain["parts"]) == len(held(folders(kind)))
