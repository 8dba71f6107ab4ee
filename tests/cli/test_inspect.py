"""triptych inspect: what people and scripts are told of weights, without a tensor library, a network or a wait."""

import json
import math
import subprocess
import sys

import pytest

UNET = {
    "conv_in.weight": (320, 4, 3, 3),
    "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight": (640, 2048),
    "add_embedding.linear_1.weight": (1280, 2816),
    "up_blocks.0.resnets.0.conv1.weight": (1280, 2560, 3, 3),
}
KEY = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
LORA = {f"{KEY}.lora_down.weight": (8, 768), f"{KEY}.lora_up.weight": (320, 8), f"{KEY}.alpha": ()}


def written(path, lengths, metadata=None, dtype="F16"):
    """A file with a true header and a hole for its data."""
    table, place = {"__metadata__": metadata or {}}, 0
    for name, shape in lengths.items():
        size = math.prod(shape) * 2
        table[name] = {"dtype": dtype, "shape": shape, "data_offsets": [place, place + size]}
        place += size
    text = json.dumps(table).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + place)
    return path


def many(number):
    """As many small tensors as a checkpoint of SDXL has, beside those that tell what it is."""
    return UNET | {f"mid_block.{k}.weight": (8, 8) for k in range(number)}


def test_a_network(call, tmp_path):
    path = written(tmp_path / "x.safetensors", many(1676), {"modelspec.title": "My\x1b[2J model", "other": "x"})
    code, out, _ = call("inspect", path)
    assert code == 0
    lines = [line.split(maxsplit=1) for line in out.splitlines()]
    assert ["family", "sdxl (Stable Diffusion XL)"] in lines
    assert ["kind", "unet, diffusers names"] in lines
    assert ["predicts", "eps, told by nothing"] in lines
    assert ["missing", "vae, text_encoder, text_encoder_2"] in lines
    assert ["dtype", "F16"] in lines
    assert ["metadata", "modelspec.title = My [2J model"] in lines
    assert "other" not in out
    assert "refused" not in out


def test_the_same_for_scripts(ask, tmp_path):
    code, told = ask("inspect", written(tmp_path / "x.safetensors", UNET, dtype="BF16"))
    assert code == 0
    assert (told["families"], told["kind"], told["dtypes"].keys()) == (["sdxl"], "unet", {"BF16"})
    assert told["parameters"] == sum(math.prod(shape) for shape in UNET.values())
    assert told["memory"] == {"float32": 4 * told["parameters"], "bfloat16": 2 * told["parameters"]}
    assert told["parts"]["unet"]["tensors"] == 4
    assert "lacks 1676 of 1680" in told["refusal"]


def test_a_low_rank_file(call, ask, tmp_path):
    path = written(
        tmp_path / "x.safetensors", LORA, {"ss_base_model_version": "sd_v1", "modelspec.thumbnail": "data:..."}
    )
    _, out, _ = call("inspect", path)
    assert "LoRA, rank 8, 1 module of unet" in out
    assert "ss_base_model_version = sd_v1" in out
    assert "thumbnail" not in out
    told = ask("inspect", path)[1]
    assert told["adapter"] == {
        "algorithm": "LoRA",
        "ranks": [8],
        "alphas": [],
        "modules": 1,
        "targets": ["unet"],
        "strange_tensors": 0,
    }


def test_what_share_of_a_low_rank_file_fits(call, ask, tmp_path):
    more = {"lora_unet_elsewhere.lora_down.weight": (8, 4), "lora_unet_elsewhere.lora_up.weight": (4, 8)}
    path = written(tmp_path / "x.safetensors", LORA | more, {"ss_network_alpha": "4.0"})
    _, out, _ = call("inspect", path)
    assert "LoRA, rank 8, alpha 4, 2 modules of " in out
    lines = [line.split(maxsplit=1) for line in out.splitlines()]
    told = "Stable Diffusion 1.x: 1 of 2 keys match (1 U-Net), 3 of 5 tensors; not there: lora_unet_elsewhere"
    assert ["matches", told] in lines
    told = ask("inspect", path)[1]
    assert told["adapter"]["alphas"] == [4.0]
    assert told["matches"] == [
        {
            "family": "sd15",
            "variant": "",
            "keys": 2,
            "matching": {"unet": 1, "text_encoder": 0},
            "tensors": 5,
            "used_tensors": 3,
            "unmatched": ["lora_unet_elsewhere"],
            "misfits": [],
            "lacking": [],
            "strange": [],
        }
    ]
    written(tmp_path / "none.safetensors", UNET)
    assert "matches" not in ask("inspect", tmp_path / "none.safetensors")[1]


def test_what_is_unknown_has_an_answer(call, ask, tmp_path):
    path = written(tmp_path / "x.safetensors", {"foo.weight": (2, 3), "foo.bias": (2,)})
    code, out, _ = call("inspect", path)
    assert code == 0
    assert "holds no network that is known" in out
    assert "8 in 2 tensors of 1 file" in out
    told = ask("inspect", path)[1]
    assert (told["kind"], told["families"], told["parameters"]) == (None, [], 8)


def test_folders_and_variants(ask, tmp_path):
    for name in ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors"):
        written(tmp_path / name, UNET, dtype="F16" if "fp16" in name else "BF16")
    assert ask("inspect", tmp_path, "--variant", "fp16")[1]["dtypes"].keys() == {"F16"}
    assert ask("inspect", tmp_path)[1]["dtypes"].keys() == {"BF16"}
    code, told = ask("inspect", tmp_path, "--variant", "fp8")
    assert (code, told["error"]["kind"]) == (1, "WeightsError")


@pytest.mark.parametrize(
    ("name", "data", "reason"), [("x.ckpt", b"\x80\x02}.", "stranger"), ("x.safetensors", b"<html>", "web page")]
)
def test_what_is_refused(call, tmp_path, name, data, reason):
    (tmp_path / name).write_bytes(data)
    code, out, problem = call("inspect", tmp_path / name)
    assert (code, out) == (1, "")
    assert reason in problem


@pytest.mark.parametrize("lengths", [many(2500), LORA | {f"{n}.alpha": () for n in range(99)}], ids=["all", "lora"])
def test_it_is_quick_and_needs_no_tensor_library(lengths, tmp_path):
    path = written(tmp_path / "x.safetensors", lengths)
    code = f"""
import sys, time
from triptych.cli import run
began = time.process_time()
assert run(["inspect", {str(path)!r}]) == 0
heavy = [name for name in ("torch", "numpy", "safetensors", "huggingface_hub", "httpx") if name in sys.modules]
print(heavy, time.process_time() - began, file=sys.stderr)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy, _, seconds = found.stderr.rpartition(" ")
    assert heavy == "[]"
    assert float(seconds) < 0.5
