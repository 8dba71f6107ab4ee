"""Files for FLUX.1 and Stable Diffusion 3, whose layers are joined with us: against diffusers' loader and the formulas.

Diffusers' networks are tiny and have the same weights as ours. What files change of parts of a layer of ours, or of all
of it at once, by any naming, must come to the same pictures; and so must what is said of them without loading any.
"""

import inspect
import re
from dataclasses import replace
from itertools import pairwise

import peft
import pytest
import torch
import torch.nn.functional as F
from diffusers import FluxPipeline, FluxTransformer2DModel, SD3Transformer2DModel, StableDiffusion3Pipeline
from diffusers.loaders import lora_conversion_utils, lora_pipeline
from safetensors import safe_open
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from triptych.engine.conditioning import Conditioning
from triptych.engine.nets import flux, mmdit
from triptych.engine.text.clip import ClipText
from triptych.engine.text.t5 import T5Text
from triptych.errors import WeightsError
from triptych.weights.layouts import flux as flux_layouts
from triptych.weights.layouts import gathered
from triptych.weights.layouts import mmdit as mmdit_layouts
from triptych.weights.lora import Lora, Use, read, target
from triptych.weights.lora_modes import MODES, Merged
from triptych.weights.lora_names import T5, TEXT, TEXT_2, TRANSFORMER, Place
from triptych.weights.quantize import Packed, quantized

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*FluxPosEmbed. is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute:UserWarning"),
]

WIDTH, TEXT_WIDTH, POOLED = 32, 24, 16
FLUX = replace(flux.DEV, doubles=2, singles=2, width=WIDTH, heads=2, axes=(4, 6, 6), context=TEXT_WIDTH, vector=POOLED)
SD3 = mmdit.Shape(depth=3, width=WIDTH, heads=2, side=8, context=TEXT_WIDTH, vector=POOLED)
SD3_WORDS = {
    "num_layers": 3,
    "attention_head_dim": WIDTH // 2,
    "num_attention_heads": 2,
    "joint_attention_dim": TEXT_WIDTH,
    "caption_projection_dim": WIDTH,
    "pooled_projection_dim": POOLED,
    "pos_embed_max_size": 8,
}
DUAL = {"dual_attention_layers": (0, 1), "qk_norm": "rms_norm"}
FAMILIES = ("flux", "sd3", "sd3.5")


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * theirs.detach().abs().max().item())


def filled(module: nn.Module) -> nn.Module:
    """Every weight drawn, none at zero, so that every change is seen."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) / weight[0].numel() ** 0.5)
    return module.eval().requires_grad_(False)


def tower() -> CLIPTextModel:
    config = CLIPTextConfig(hidden_size=24, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2,
                            vocab_size=100, bos_token_id=0, eos_token_id=1)  # fmt: skip
    return filled(CLIPTextModel(config))


class Both:
    """diffusers' pipeline and our networks, with the same weights."""

    def __init__(self, family: str) -> None:
        self.family = family
        if family == "flux":
            theirs = FluxTransformer2DModel(num_layers=2, num_single_layers=2, attention_head_dim=WIDTH // 2,
                num_attention_heads=2, joint_attention_dim=TEXT_WIDTH, pooled_projection_dim=POOLED,
                guidance_embeds=True, axes_dims_rope=(4, 6, 6))  # fmt: skip
            network, layout = flux.Flux(FLUX), flux_layouts.diffusers
            self.pipe = FluxPipeline(None, None, tower(), None, None, None, filled(theirs))
        else:
            words = SD3_WORDS | (DUAL if family == "sd3.5" else {})
            theirs = SD3Transformer2DModel(**words)
            shape = replace(SD3, normed=True, dual=2) if family == "sd3.5" else SD3
            network, layout = mmdit.MMDiT(shape), mmdit_layouts.diffusers
            self.pipe = StableDiffusion3Pipeline(filled(theirs), None, None, tower(), None, None, None, None, None)
        self.theirs: nn.Module = theirs
        shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
        network.load_state_dict(gathered(layout(shapes), shapes, theirs.state_dict().__getitem__))
        clip = ClipText(24, 2, 2, activation="quick_gelu", words=100)
        clip.load_state_dict(self.pipe.text_encoder.state_dict())
        scalars = {"guidance": torch.tensor([3.5])} if family == "flux" else {}
        self.cond = Conditioning(drawn(1, 5, TEXT_WIDTH), vector=drawn(1, POOLED), scalars=scalars)  # which they keep
        self.networks = {"transformer": network.eval().requires_grad_(False), "text_encoder": clip.eval()}
        self.targets = {"transformer": target(network, TRANSFORMER, layout(shapes)), "text_encoder": target(clip, TEXT)}

    def ours(self) -> Tensor:
        with torch.no_grad():
            return self.networks["transformer"](drawn(1, 16, 6, 4), torch.tensor([437.5]), self.cond)

    def reference(self) -> Tensor:
        told = drawn(1, 16, 6, 4), drawn(1, 5, TEXT_WIDTH), drawn(1, POOLED)
        x, tokens, pooled = (one.to(next(self.theirs.parameters()).dtype) for one in told)
        with torch.no_grad():
            if self.family != "flux":
                return self.theirs(x, tokens, pooled, torch.tensor([437.5])).sample
            ids = FluxPipeline._prepare_latent_image_ids(1, 3, 2, None, torch.float32)
            out = self.theirs(
                hidden_states=FluxPipeline._pack_latents(x, *x.shape),
                encoder_hidden_states=tokens,
                pooled_projections=pooled,
                timestep=torch.tensor([0.4375]),
                guidance=torch.tensor([3.5]),
                img_ids=ids,
                txt_ids=torch.zeros(5, 3),
            ).sample
            return FluxPipeline._unpack_latents(out, 48, 32, 8)

    def load(self, file: dict[str, Tensor], name: str | None = None) -> None:
        """Into diffusers' networks; its conversions write to what they are given."""
        self.pipe.load_lora_weights({key: value.clone() for key, value in file.items()}, adapter_name=name)

    def said(self) -> tuple[Tensor, Tensor]:
        """What both text towers say."""
        ids = torch.arange(2, 12)[None]
        with torch.no_grad():
            theirs = self.pipe.text_encoder(ids, output_hidden_states=True).hidden_states[-1]
            return self.networks["text_encoder"](ids).hidden, theirs

    def read(self, file: dict[str, Tensor], metadata: dict[str, str] | None = None) -> Lora:
        return read(file, self.targets, "made.safetensors", metadata or {})

    def check(self, theirs: Tensor, *uses: Use) -> None:
        """Merged and live give what the other program gives, and leave no trace."""
        before = {name: value.clone() for name, value in self.networks["transformer"].state_dict().items()}
        plain = self.ours()
        assert not torch.allclose(plain, theirs, rtol=1e-2)
        for mode in MODES.values():
            applied = mode(self.networks)
            applied.use(*uses)
            close(self.ours(), theirs)
            applied.use()
            after = self.networks["transformer"].state_dict()
            assert list(after) == list(before)
            assert all(torch.equal(after[name], before[name]) for name in before)
            assert torch.equal(self.ours(), plain)


@pytest.fixture
def both(request: pytest.FixtureRequest) -> Both:
    return Both(request.param)


every_family = pytest.mark.parametrize("both", FAMILIES, indirect=True)
only_flux = pytest.mark.parametrize("both", ["flux"], indirect=True)
only_sd3 = pytest.mark.parametrize("both", ["sd3", "sd3.5"], indirect=True)


def linear(network: nn.Module) -> dict[str, nn.Module]:
    return {name: module for name, module in network.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)}


# ---- files that diffusers writes -----------------------------------------------------------------------------------

CONFIGS = {
    "LoRA": {},
    "rank-stabilised LoRA": {"use_rslora": True},
    "LoRA with alphas of single layers": {"alpha_pattern": {"attn.to_q": 1, "to_k": 5, "ff.net.0.proj": 2}},
    "LoRA with ranks of single layers": {"rank_pattern": {"to_q": 2, "to_v": 5, "proj_out": 1}},
    "DoRA": {"use_dora": True},
}


@every_family
@pytest.mark.parametrize("kind", CONFIGS)
def test_a_file_that_diffusers_wrote_gives_what_diffusers_gives(kind: str, both: Both, tmp_path):
    """Every linear layer of theirs is changed: all parts of ours that are joined, and halves that are swapped."""
    modules = [name for name, module in linear(both.theirs).items() if kind != "DoRA" or isinstance(module, nn.Linear)]
    config = peft.LoraConfig(r=3, lora_alpha=4, target_modules=modules, init_lora_weights=False, **CONFIGS[kind])
    torch.manual_seed(1)
    both.theirs.add_adapter(config, "made")
    for name, weight in both.theirs.named_parameters():
        if "magnitude" in name:
            weight.data *= torch.linspace(0.7, 1.6, weight.numel()).reshape(weight.shape)
        elif "lora_" in name:
            weight.data = 0.3 * torch.randn(weight.shape)
    layers = peft.get_peft_model_state_dict(both.theirs, adapter_name="made")
    described = {key: value for key, value in config.to_dict().items() if key in ("r", "lora_alpha", "use_rslora")}
    described |= {key: dict(getattr(config, key)) for key in ("alpha_pattern", "rank_pattern")}
    both.pipe.save_lora_weights(tmp_path, transformer_lora_layers=layers, transformer_lora_adapter_metadata=described)
    with safe_open(tmp_path / "pytorch_lora_weights.safetensors", "pt") as opened:
        file, metadata = {name: opened.get_tensor(name) for name in opened.keys()}, opened.metadata()  # noqa: SIM118
    lora = both.read(file, metadata)
    assert lora.matched.warning is None
    assert sum(map(len, lora.matched.parts.values())) == len(modules)
    both.check(both.reference(), Use(lora))
    both.pipe.fuse_lora()
    close(both.reference(), _merged(both, lora))


def _merged(both: Both, *loras: Lora) -> Tensor:
    applied = Merged(both.networks)
    applied.use(*map(Use, loras))
    found = both.ours()
    applied.use()
    return found


# ---- files that diffusers reads ------------------------------------------------------------------------------------


def low(
    name: str, rows: int, columns: int, *, of: str = "kohya", rank: int = 3, alpha: float | None = 2.0, seed: int = 7
):
    """Factors of one module, under names of a kind."""
    down, up = {
        "kohya": (".lora_down.weight", ".lora_up.weight"),
        "peft": (".lora_A.weight", ".lora_B.weight"),
        "XLabs": (".down.weight", ".up.weight"),
    }[of]
    seed += len(name)
    found = {name + down: 0.3 * drawn(rank, columns, seed=seed), name + up: 0.3 * drawn(rows, rank, seed=seed)}
    return found | ({} if alpha is None else {f"{name}.alpha": torch.tensor(alpha)})


def kohya_flux(network: nn.Module) -> dict[str, Tensor]:
    """What sd-scripts train of FLUX.1: all linear layers of its blocks."""
    found = {}
    for name, module in linear(network).items():
        if re.match(r"(double|single)_blocks", name):
            found |= low(f"lora_unet_{name.replace('.', '_')}", *module.weight.shape)
    return found


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """diffusers' conversion of kohya's names, which counts on FLUX.1's full width, at ours."""
    source = inspect.getsource(lora_conversion_utils._convert_kohya_flux_lora_to_diffusers)
    full, ours = "dims=[3072, 3072, 3072, 12288]", f"dims=[{WIDTH}, {WIDTH}, {WIDTH}, {4 * WIDTH}]"
    assert source.count(full) == 1
    within = dict(vars(lora_conversion_utils))
    exec(source.replace(full, ours), within)
    name = "_convert_kohya_flux_lora_to_diffusers"
    monkeypatch.setattr(lora_pipeline, name, within[name])


@only_flux
@pytest.mark.parametrize("way", ["kohya", "ComfyUI", "kohya without alpha"])
def test_joined_layers_changed_as_a_whole(way: str, both: Both, narrow: None):
    file = kohya_flux(both.networks["transformer"])
    if way == "ComfyUI":
        names = {f"lora_unet_{name.replace('.', '_')}": name for name in linear(both.networks["transformer"])}
        file = {
            f"diffusion_model.{names[name.split('.')[0]]}.{name.split('.', 1)[1]}": value
            for name, value in file.items()
        }
    elif way == "kohya without alpha":
        file = {name: value for name, value in file.items() if not name.endswith("alpha")}
    if way == "kohya":
        for name, module in linear(both.pipe.text_encoder).items():
            file |= low(
                f"lora_te1_text_model_{name.removeprefix('text_model.').replace('.', '_')}", *module.weight.shape
            )
    lora = both.read(file)
    assert lora.matched.warning is None
    both.load(file, "one")
    for strength in (1.0, -0.6):
        both.pipe.set_adapters("one", strength)
        both.check(both.reference(), Use(lora, strength))
    if way == "kohya":
        applied, (before, _) = Merged(both.networks), both.said()
        applied.use(Use(lora, -0.6))
        ours, theirs = both.said()
        close(ours, theirs)
        assert not torch.allclose(ours, before, rtol=1e-2)


def xlabs(prefix: str = "") -> dict[str, Tensor]:
    """As LoRA processors of XLabs' x-flux name their layers: lora1 of places, lora2 of words."""
    found = {}
    for block in range(2):
        for number in (1, 2):
            start = f"{prefix}double_blocks.{block}.processor."
            found |= low(f"{start}qkv_lora{number}", 3 * WIDTH, WIDTH, of="XLabs", alpha=None)
            found |= low(f"{start}proj_lora{number}", WIDTH, WIDTH, of="XLabs", alpha=None)
        start = f"{prefix}single_blocks.{block}.processor."
        found |= low(f"{start}qkv_lora", 3 * WIDTH, WIDTH, of="XLabs", alpha=None)
        found |= low(f"{start}proj_lora", WIDTH, 5 * WIDTH, of="XLabs", alpha=None)
    return found


@only_flux
@pytest.mark.parametrize("prefix", ["", "diffusion_model."])
def test_xlabs_processors(prefix: str, both: Both):
    file = xlabs(prefix)
    lora = both.read(file)
    assert lora.matched.warning is None
    assert Place("single_blocks.1.linear1", ((0, 3 * WIDTH),)) in lora.matched.parts["transformer"]
    both.load(file)
    both.check(both.reference(), Use(lora))


def onetrainer(both: Both) -> dict[str, Tensor]:
    found = {}
    for name, module in linear(both.theirs).items():
        if "attn" in name and isinstance(module, nn.Linear):
            found |= low(f"lora_transformer_{name.replace('.', '_')}", *module.weight.shape)
    return found


@only_flux
def test_onetrainer(both: Both):
    file = onetrainer(both)
    text = {name: module for name, module in linear(both.pipe.text_encoder).items() if "layers" in name}
    for name, module in text.items():
        file |= low(f"lora_te1_text_model_{name.removeprefix('text_model.').replace('.', '_')}", *module.weight.shape)
    lora = both.read(file)
    assert lora.matched.warning is None
    both.load(file)
    both.check(both.reference(), Use(lora))


@every_family
@pytest.mark.parametrize("alpha", [None, 1.5])
def test_names_of_diffusers_with_and_without_alpha(alpha: float | None, both: Both):
    """As ai-toolkit writes them; alphas as some files of FLUX.1 have them."""
    file = {}
    modules = [name for name, module in linear(both.theirs).items() if isinstance(module, nn.Linear)]
    for name in modules:
        file |= low(f"transformer.{name}", *both.theirs.get_submodule(name).weight.shape, of="peft", alpha=alpha)
    lora = both.read(file)
    assert lora.matched.warning is None
    if both.family == "flux":
        both.load(file)
        both.check(both.reference(), Use(lora))
    else:
        both.check(_changed(both, {name: _product(file, f"transformer.{name}") for name in modules}), Use(lora))


def _product(file: dict[str, Tensor], name: str) -> Tensor:
    down = next(value for key, value in file.items() if key.startswith(f"{name}.") and re.search("down|lora_A", key))
    up = next(value for key, value in file.items() if key.startswith(f"{name}.") and re.search("up|lora_B", key))
    return float(file.get(f"{name}.alpha", torch.tensor(float(len(down))))) / len(down) * up @ down


def _changed(both: Both, changes: dict[str, Tensor]) -> Tensor:
    """What diffusers' network says with changes of its weights."""
    kept = {name: value.clone() for name, value in both.theirs.state_dict().items()}
    for name, change in changes.items():
        both.theirs.get_submodule(name).weight += change.reshape(both.theirs.get_submodule(name).weight.shape)
    found = both.reference()
    both.theirs.load_state_dict(kept)
    return found


# ---- files of Stable Diffusion 3 that diffusers does not read: by what Stability's names mean -----------------------


def of_stability(name: str, change: Tensor) -> dict[str, Tensor]:
    """A change of a layer of Stability's, as changes of diffusers': their converter's rules, written out."""
    block, stream, layer = re.fullmatch(r"joint_blocks\.(\d+)\.(x|context)_block\.(.+)", name).groups()
    at, words = f"transformer_blocks.{block}.", stream == "context"
    if layer.endswith("qkv"):
        parts = ("add_q_proj", "add_k_proj", "add_v_proj") if words else ("to_q", "to_k", "to_v")
        return {
            f"{at}{layer.removesuffix('qkv')}{part}": third for part, third in zip(parts, change.chunk(3), strict=True)
        }
    if layer == "adaLN_modulation.1":
        last = words and len(change) == 2 * WIDTH
        name = "norm1_context.linear" if words else "norm1.linear"
        return {at + name: torch.cat(change.chunk(2)[::-1]) if last else change}
    ff = "ff_context" if words else "ff"
    names = {
        "attn.proj": "attn.to_add_out" if words else "attn.to_out.0",
        "attn2.proj": "attn2.to_out.0",
        "mlp.fc1": f"{ff}.net.0.proj",
        "mlp.fc2": f"{ff}.net.2",
    }
    return {at + names[layer]: change}


@only_sd3
@pytest.mark.parametrize("way", ["kohya", "ComfyUI"])
def test_names_of_stability(way: str, both: Both):
    """As sd-scripts train them: all linear layers of the joint blocks."""
    file, changes = {}, {}
    for name, module in linear(both.networks["transformer"]).items():
        if name.startswith("joint_blocks"):
            called = f"lora_unet_{name.replace('.', '_')}" if way == "kohya" else f"diffusion_model.{name}"
            file |= (made := low(called, *module.weight.shape))
            changes |= of_stability(name, _product(made, called))
    lora = both.read(file)
    assert lora.matched.warning is None
    both.check(_changed(both, changes), Use(lora))


# ---- every kind of change, of parts and of the whole ---------------------------------------------------------------

R, A, B = WIDTH, drawn(WIDTH, 2), drawn(2, WIDTH)
KINDS = {
    "LoRA": ({"lora_up.weight": A, "lora_down.weight": B, "alpha": torch.tensor(0.5)}, lambda: 0.25 * A @ B),
    "LoHa": (
        {"hada_w1_a": A, "hada_w1_b": B, "hada_w2_a": A + 1, "hada_w2_b": B - 1, "alpha": torch.tensor(0.2)},
        lambda: 0.1 * (A @ B) * ((A + 1) @ (B - 1)),
    ),
    "LoKr": (
        {"lokr_w1": A[:4] @ B[:, :8], "lokr_w2": B[:, :8].T @ A[:4].T},
        lambda: torch.kron(A[:4] @ B[:, :8], B[:, :8].T @ A[:4].T),
    ),
    "the difference": ({"diff": drawn(R, R, seed=3)}, lambda: drawn(R, R, seed=3)),
}


@every_family
@pytest.mark.parametrize("lengths", [None, 0, 1], ids=["plain", "DoRA by rows", "DoRA by columns"])
@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_change_of_parts(kind: str, lengths: int | None, both: Both):
    """LyCORIS' names, of parts that lie together in one layer of ours; the lengths of DoRA are those of the parts."""
    tensors, formula = KINDS[kind]
    file, changes = {}, {}
    for seed, part in enumerate(("attn.to_q", "attn.to_v", "attn.add_k_proj")):
        name = f"transformer_blocks.1.{part}"
        before, key = both.theirs.get_submodule(name).weight.clone(), f"lycoris_{name.replace('.', '_')}"
        file |= {f"{key}.{role}": value for role, value in tensors.items()}
        changes[name] = formula()
        if lengths is not None:
            scale = (1 + drawn(R, seed=seed).abs()).unsqueeze(1 - lengths)
            file[f"{key}.dora_scale"] = scale
            changes[name] = scale * F.normalize(before + formula(), dim=1 - lengths) - before
    lora = both.read(file)
    assert lora.matched.warning is None
    both.check(_changed(both, {name: -0.7 * change for name, change in changes.items()}), Use(lora, -0.7))


@only_flux
@pytest.mark.parametrize("lengths", [0, 1])
def test_dora_of_a_joined_layer_is_of_all_of_it(lengths: int, both: Both):
    name = "single_blocks.0.linear1"
    before = both.networks["transformer"].get_submodule(name).weight.clone()
    scale = (1 + drawn(before.shape[lengths]).abs()).unsqueeze(1 - lengths)
    file = low(name, *before.shape, alpha=None)
    total = scale * F.normalize(before + _product(file, name), dim=1 - lengths)
    parts = ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")
    split = (total - before).split([R, R, R, 4 * R])
    theirs = _changed(
        both, {f"single_transformer_blocks.0.{part}": one for part, one in zip(parts, split, strict=True)}
    )
    both.check(theirs, Use(both.read(file | {f"{name}.dora_scale": scale})))


@every_family
def test_biases_of_parts(both: Both):
    """Of a third of a joined layer, and of one whose halves lie the other way round with us."""
    file, kept = {}, {name: value.clone() for name, value in both.theirs.state_dict().items()}
    for name in ("transformer_blocks.0.attn.to_k", "norm_out.linear"):
        bias = both.theirs.get_submodule(name).bias
        file[f"transformer.{name}.diff_b"] = change = drawn(len(bias))
        bias += 0.5 * change
    theirs = both.reference()
    both.theirs.load_state_dict(kept)
    both.check(theirs, Use(both.read(file), 0.5))


# ---- several at once ------------------------------------------------------------------------------------------------


@only_flux
def test_several_files_of_parts_and_wholes_add_up(both: Both, narrow: None):
    """kohya's change the joined layers, diffusers' their parts, XLabs' most of some."""
    files = {
        "whole": kohya_flux(both.networks["transformer"]),
        "parts": {
            key: value
            for name, module in linear(both.theirs).items()
            for key, value in low(f"transformer.{name}", *module.weight.shape, of="peft", rank=2, alpha=None).items()
        },
        "most": xlabs(),
    }
    loras = {name: both.read(file) for name, file in files.items()}
    for name, file in files.items():
        both.load(file, name)
    for strengths in [(1.0, 1.0, 1.0), (0.6, -1.0, 0.3), (-0.4, 0.0, 1.5)]:
        both.pipe.set_adapters(list(files), list(strengths))
        uses = [Use(lora, strength) for lora, strength in zip(loras.values(), strengths, strict=True)]
        both.check(both.reference(), *uses)


@every_family
@pytest.mark.parametrize("mode", MODES)
def test_strengths_change_between_runs(mode: str, both: Both):
    file = {}
    for name, module in linear(both.theirs).items():
        if isinstance(module, nn.Linear):
            file |= low(f"transformer.{name}", *module.weight.shape, of="peft", alpha=None)
    half = {name: value for name, value in file.items() if "to_k" in name or "norm" in name}
    loras = both.read(file), both.read(half)
    plain, applied, found = both.ours(), MODES[mode](both.networks), []
    for first, second in [(0.7, -1.5), (0.0, 1.0), (2.0, 0.0), (0.7, -1.5)]:
        applied.use(Use(loras[0], first), Use(loras[1], second))
        found.append(both.ours())
    assert torch.equal(found[0], found[3])
    assert not any(torch.allclose(one, other, rtol=1e-3) for one, other in pairwise(found))
    applied.use()
    assert torch.equal(both.ours(), plain)


# ---- all that files may call what we have ---------------------------------------------------------------------------


def spelled(both: Both) -> dict[str, dict[str, Tensor]]:
    """The same changes of all blocks of diffusers' network, in every naming that keeps parts apart."""
    modules = {
        name: tuple(module.weight.shape)
        for name, module in linear(both.theirs).items()
        if isinstance(module, nn.Linear) and "blocks" in name
    }

    def file(prefix: str, dot: str, of: str) -> dict[str, Tensor]:
        found = {}
        for seed, (name, shape) in enumerate(modules.items()):
            called = prefix + name.replace(".", dot)
            found |= low(called, *shape, of=of, alpha=None, seed=seed - len(called))
        return found

    return {
        "diffusers": file("transformer.", ".", "peft"),
        "peft": file("base_model.model.", ".", "peft"),
        "SimpleTuner": file("transformer.base_model.model.", ".", "peft"),
        "DiffSynth": file("", ".", "peft"),
        "OneTrainer": file("lora_transformer_", "_", "kohya"),
        "LyCORIS": file("lycoris_", "_", "kohya"),
        "kohya": file("lora_unet_", "_", "kohya"),
    }


@every_family
def test_every_naming_means_the_same(both: Both):
    files = spelled(both)
    expected = both.read(files.pop("diffusers")).changes["transformer"]
    for way, file in files.items():
        lora = both.read(file)
        assert lora.matched.warning is None, way
        found = lora.changes["transformer"]
        assert found.keys() == expected.keys(), way
        for name, changes in expected.items():
            ours = {change.runs: change.factors for change in found[name]}
            assert ours.keys() == {change.runs for change in changes}, way
            assert all(
                torch.equal(ours[one.runs][role], value) for one in changes for role, value in one.factors.items()
            )


@only_flux
@pytest.mark.parametrize("prefix", ["", "diffusion_model.", "model.diffusion_model.", "base_model.model."])
def test_names_of_black_forest_labs(prefix: str, both: Both):
    """All linear layers, whole, the last one's halves as they lie with us."""
    network = both.networks["transformer"]
    file = {}
    for name, module in linear(network).items():
        file |= low(prefix + name, *module.weight.shape, of="peft", alpha=None)
    lora = both.read(file)
    assert lora.matched.warning is None
    assert set(lora.matched.parts["transformer"]) == set(map(Place, linear(network)))
    for name, [change] in lora.changes["transformer"].items():
        assert torch.equal(change.factors["up"], file[f"{prefix}{name.removesuffix('.weight')}.lora_B.weight"])


def test_which_rows_parts_are():
    """Derived from the layouts alone, at full size."""
    with torch.device("meta"):
        network = flux.Flux(replace(flux.DEV, doubles=1, singles=1))
    found = target(network, TRANSFORMER, flux_layouts.diffusers(network.state_dict())).aliases
    block = "single_transformer_blocks.0."
    rows = {"attn.to_q": (0, 3072), "attn.to_k": (3072, 6144), "attn.to_v": (6144, 9216), "proj_mlp": (9216, 21504)}
    for part, run in rows.items():
        assert found[block + part] == Place("single_blocks.0.linear1", (run,))
    assert found[f"{block}proj_out"] == Place("single_blocks.0.linear2")
    assert found["single_blocks.0.processor.qkv"] == Place("single_blocks.0.linear1", ((0, 9216),))
    assert found["transformer_blocks.0.attn.add_v_proj"] == Place("double_blocks.0.txt_attn.qkv", ((6144, 9216),))
    assert found["norm_out.linear"] == Place("final_layer.adaLN_modulation.1", ((3072, 6144), (0, 3072)))
    assert str(found["norm_out.linear"]) == "final_layer.adaLN_modulation.1[3072:6144, 0:3072]"


# ---- text encoders --------------------------------------------------------------------------------------------------


@pytest.fixture
def towers():
    """(ours, theirs): T5's, and two of CLIP's of one width."""
    config = T5Config(
        d_model=16, d_kv=4, d_ff=24, num_layers=2, num_heads=2, vocab_size=30, feed_forward_proj="gated-gelu"
    )
    theirs = filled(T5EncoderModel(config))
    ours = T5Text(16, 2, 2, hidden=24, head=4, words=30, activation="gelu", gated=True)
    shared = {name: value for name, value in theirs.state_dict().items() if name != "encoder.embed_tokens.weight"}
    ours.load_state_dict(shared)
    return ours.requires_grad_(False), theirs


@pytest.mark.parametrize(
    ("prefix", "dot"),
    [("lora_te3_", "_"), ("lora_te2_", "_"), ("text_encoder_3.", "."), ("text_encoders.t5xxl.transformer.", ".")],
)
def test_t5(prefix: str, dot: str, towers):
    """As sd-scripts and OneTrainer name its layers, beside CLIP's of the same prefix."""
    ours, theirs = towers
    clip = ClipText(24, 2, 2, activation="gelu", words=100).requires_grad_(False)
    targets = {"text_encoder_2": target(clip, TEXT_2), "text_encoder_3": target(ours, T5)}
    file, layers = {}, linear(theirs)
    for name, module in layers.items():
        file |= low(prefix + name.replace(".", dot), *module.weight.shape)
        module.weight += _product(file, prefix + name.replace(".", dot))
    if dot == "_":
        file |= low("lora_te2_text_model_encoder_layers_0_self_attn_q_proj", 24, 24)
    lora = read(file, targets, "t5")
    assert lora.matched.warning is None
    assert [len(lora.matched.parts[name]) for name in targets] == [dot == "_", len(layers)]
    ids = torch.arange(2, 9)[None]
    for mode in MODES.values():
        applied = mode({"text_encoder_2": clip, "text_encoder_3": ours})
        applied.use(Use(lora))
        with torch.no_grad():
            close(ours(ids), theirs(ids).last_hidden_state)
        applied.use()


# ---- what does not fit -----------------------------------------------------------------------------------------------


@only_flux
def test_what_fits_nothing_is_left_out_and_said(both: Both):
    fits = low("transformer.transformer_blocks.0.attn.to_q", R, R, of="peft", alpha=None)
    other = low("transformer.transformer_blocks.7.attn.to_q", R, R, of="peft", alpha=None)
    lora = both.read(fits | other)
    assert list(lora.matched.parts["transformer"]) == [Place("double_blocks.0.img_attn.qkv", ((0, R),))]
    assert lora.matched.warning == (
        "made.safetensors: 2 of 4 tensors fit nothing here and are left out: "
        "transformer.transformer_blocks.7.attn.to_q.lora_A.weight, "
        "transformer.transformer_blocks.7.attn.to_q.lora_B.weight."
    )
    with pytest.raises(WeightsError, match=r"none of its 2 tensors changes this model; it seems to be for"):
        both.read(other)


@only_flux
def test_the_same_rows_change_once(both: Both):
    """As in files that hold both of two namings: `https://huggingface.co/sayakpaul/different-lora-from-civitai`."""
    whole = low("lora_unet_double_blocks_0_img_attn_qkv", 3 * R, R, alpha=None)
    parts = {}
    for part in ("to_q", "to_k", "to_v"):
        parts |= low(f"transformer.transformer_blocks.0.attn.{part}", R, R, of="peft", alpha=None)
    lora = both.read(whole | parts)
    assert list(lora.matched.parts["transformer"]) == [Place("double_blocks.0.img_attn.qkv")]
    assert set(lora.matched.unmatched) == set(parts)


@only_flux
def test_parts_of_another_width_are_an_error_that_names_rows(both: Both):
    file = low("transformer.single_transformer_blocks.1.proj_mlp", 4 * R, R + 1, of="peft", alpha=None)
    said = r"single_blocks\.1\.linear1\.weight\[96:224\] is \(128, 32\) in this model and \(128, 33\) in the file"
    with pytest.raises(WeightsError, match=said):
        both.read(file)


@only_flux
@pytest.mark.parametrize("name", ["img_in", "transformer.x_embedder"])
def test_control_loras_are_refused_and_said_to_be_such(name: str, both: Both):
    """As Black Forest Labs' FLUX.1-Depth-dev-lora begins, which widens what the network takes in."""
    file = low(name, R, 128, of="peft", alpha=None) | low(
        "double_blocks.0.img_attn.qkv", 3 * R, R, of="peft", alpha=None
    )
    file["double_blocks.0.img_attn.norm.query_norm.scale"] = torch.ones(R // 2)
    said = r"img_in\.weight is \(32, 64\) in this model and \(32, 128\) in the file; .*control LoRA.*ControlNet"
    with pytest.raises(WeightsError, match=said):
        both.read(file)


# ---- in few bits, and in half precision ------------------------------------------------------------------------------


@every_family
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dora", [False, True])
def test_layers_in_few_bits(mode: str, dora: bool, both: Both):
    """As if the weights that the bits stand for were changed."""
    network, file = both.networks["transformer"], {}
    names = [name for name, module in linear(network).items() if re.search(r"qkv$|linear1$|proj$|mlp", name)]
    names = [name for name in names if isinstance(network.get_submodule(name), nn.Linear)]
    for name in names:
        layer = network.get_submodule(name)
        packed = Packed(layer, "I8", torch.float32)
        packed.hold(rows := quantized(layer.weight, "int8"))
        packed.bias = layer.bias
        layer.weight.copy_(rows.whole(torch.float32))
    for name, module in linear(both.theirs).items():
        if "blocks" in name:
            file |= low(f"transformer.{name}", *module.weight.shape, of="peft", alpha=None)
            if dora:
                file[f"transformer.{name}.lora_magnitude_vector"] = 1 + drawn(len(module.weight)).abs()
    lora = both.read(file)
    expected = _merged(both, lora)
    for name in names:
        layer = network.get_submodule(name)
        packed = Packed(layer, "I8", torch.float32)
        packed.hold(quantized(layer.weight, "int8"))
        packed.bias = layer.bias
        network.set_submodule(name, packed)
    plain, applied = both.ours(), MODES[mode](both.networks)
    applied.use(Use(lora))
    close(both.ours(), expected)
    applied.use()
    assert torch.equal(both.ours(), plain)
    assert all(type(network.get_submodule(name)) is Packed for name in names)


@every_family
def test_bfloat16_is_as_near_as_theirs(both: Both):
    file = {}
    for name, module in linear(both.theirs).items():
        if isinstance(module, nn.Linear):
            file |= low(f"transformer.{name}", *module.weight.shape, of="peft", alpha=None)
    lora = both.read(file)
    wanted, strayed = _merged(both, lora), {}
    both.load(file)
    for network in (*both.networks.values(), both.theirs):
        network.bfloat16()
    theirs = _strayed(both.reference(), wanted)
    before = {name: value.clone() for name, value in both.networks["transformer"].state_dict().items()}
    for name, mode in MODES.items():
        applied = mode(both.networks)
        applied.use(Use(lora))
        strayed[name] = _strayed(both.ours(), wanted)
        applied.use()
        after = both.networks["transformer"].state_dict()
        assert all(torch.equal(after[name], value) for name, value in before.items())
    assert max(strayed.values()) < min(1.1 * theirs, 0.06)


def _strayed(found: Tensor, wanted: Tensor) -> float:
    return float((found.float() - wanted).norm() / wanted.norm())
