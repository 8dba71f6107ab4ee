"""LoRA files of every kind and naming, against peft, diffusers, and the formulas of the scripts that write them."""

import json
import re
from collections.abc import Callable
from itertools import pairwise

import peft
import pytest
import torch
import torch.nn.functional as F
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from triptych.engine.conditioning import Conditioning
from triptych.engine.nets import ldm
from triptych.engine.text.clip import ClipText
from triptych.errors import InvalidField, UnknownName, WeightsError
from triptych.weights import lora_changes
from triptych.weights.layouts import gathered
from triptych.weights.layouts.unet import diffusers
from triptych.weights.lora import DECLARED, Lora, Use, read, target
from triptych.weights.lora_changes import put
from triptych.weights.lora_modes import MODES, Live, Merged
from triptych.weights.lora_names import TEXT, UNET, Target


class Toy(nn.Module):
    """Names and shapes that a U-Net has: a linear layer, a kernel with stride, a 1x1 convolution, a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.norm = nn.GroupNorm(2, 8)
        self.skip_connection = nn.Conv2d(8, 8, 1)
        self.attn1 = nn.ModuleDict({"to_q": nn.Linear(8, 12, bias=False), "to_out": nn.Sequential(nn.Linear(12, 8))})

    def forward(self, x: Tensor) -> Tensor:
        h = self.skip_connection(self.norm(self.conv_in(x))).movedim(1, -1)
        return self.attn1["to_out"](self.attn1["to_q"](h)).movedim(-1, 1)


LAYERS = ("conv_in", "skip_connection", "attn1.to_q", "attn1.to_out.0")


@pytest.fixture
def toy() -> Toy:
    torch.manual_seed(0)
    return Toy()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 6, 8, 8, generator=torch.Generator().manual_seed(1))


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def loaded(network: nn.Module, tensors: dict[str, Tensor], **metadata: str) -> Lora:
    return read(tensors, {"unet": target(network, UNET)}, "toy.safetensors", metadata)


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * theirs.detach().abs().max().item())


def check_both_modes(toy: Toy, x: Tensor, lora: Lora, theirs: Tensor) -> None:
    """Merged and live give what the other program gave, and leave no trace."""
    before, plain = {name: t.clone() for name, t in toy.state_dict().items()}, toy(x)
    assert not torch.allclose(plain, theirs, rtol=1e-3)
    for mode in MODES.values():
        applied = mode({"unet": toy})
        applied.use(Use(lora))
        close(toy(x), theirs)
        applied.use()
        after = toy.state_dict()
        assert list(after) == list(before)
        assert all(torch.equal(after[name], before[name]) for name in before)
        assert torch.equal(toy(x), plain)
        assert type(toy.attn1["to_q"]) is nn.Linear


# ---- against peft ------------------------------------------------------------------------------------------------

PEFT = {
    "LoRA": lambda: peft.LoraConfig(r=3, lora_alpha=6, target_modules=LAYERS, init_lora_weights=False),
    "rank-stabilised LoRA": lambda: peft.LoraConfig(
        r=4, lora_alpha=3, target_modules=LAYERS, init_lora_weights=False, use_rslora=True
    ),
    "LoRA with an alpha of one layer": lambda: peft.LoraConfig(
        r=3, lora_alpha=6, alpha_pattern={"attn1.to_q": 1}, target_modules=LAYERS, init_lora_weights=False
    ),
    "DoRA": lambda: peft.LoraConfig(r=3, lora_alpha=6, target_modules=LAYERS, init_lora_weights=False, use_dora=True),
    "LoHa": lambda: peft.LoHaConfig(r=3, alpha=3, target_modules=LAYERS, init_weights=False),
    "LoHa with cores": lambda: peft.LoHaConfig(
        r=3, alpha=3, target_modules=LAYERS, init_weights=False, use_effective_conv2d=True
    ),
    "LoKr": lambda: peft.LoKrConfig(r=2, alpha=2, target_modules=LAYERS, init_weights=False),
    "LoKr of factors": lambda: peft.LoKrConfig(
        r=1, alpha=1, target_modules=LAYERS, init_weights=False, decompose_both=True, decompose_factor=4
    ),
    "LoKr with cores": lambda: peft.LoKrConfig(
        r=1, alpha=1, target_modules=LAYERS, init_weights=False, use_effective_conv2d=True
    ),
}


@pytest.mark.parametrize("kind", PEFT)
def test_a_file_of_peft_gives_what_peft_gives(kind: str, x: Tensor):
    torch.manual_seed(0)
    toy, config = Toy(), PEFT[kind]()
    torch.manual_seed(0)
    theirs = peft.get_peft_model(Toy(), config).eval()
    for name, parameter in theirs.named_parameters():
        if "magnitude" in name:
            parameter.data *= torch.linspace(0.5, 2, parameter.numel()).reshape(parameter.shape)
    file = peft.get_peft_model_state_dict(theirs)
    described = {key: value for key, value in config.to_dict().items() if not isinstance(value, set)}
    lora = loaded(toy, file, **{DECLARED: json.dumps(described)})
    assert lora.matched.unmatched == ()
    check_both_modes(toy, x, lora, theirs(x).detach())
    Merged({"unet": toy}).use(Use(lora))
    merged = theirs.merge_and_unload()
    for name in LAYERS:
        close(toy.get_submodule(name).weight, merged.get_submodule(name).weight)


# ---- against the formulas of kohya's scripts and LyCORIS ---------------------------------------------------------


def of_layer(name: str, **tensors: Tensor) -> dict[str, Tensor]:
    return {f"lora_unet_{name.replace('.', '_')}.{role.replace('__', '.')}": t for role, t in tensors.items()}


def test_a_convolution_through_its_middle_is_three_convolutions(toy: Toy, x: Tensor):
    down, mid, up = drawn(2, 6, 1, 1), drawn(2, 2, 3, 3), drawn(8, 2, 1, 1)
    file = of_layer(
        "conv_in", lora_down__weight=down, lora_mid__weight=mid, lora_up__weight=up, alpha=torch.tensor(3.0)
    )
    beside = F.conv2d(F.conv2d(F.conv2d(x, down), mid, stride=2, padding=1), up)
    theirs = F.conv2d(x, toy.conv_in.weight, toy.conv_in.bias, stride=2, padding=1) + 3 / 2 * beside
    lora, plain = loaded(toy, file), toy.conv_in(x)
    for mode in MODES.values():
        applied = mode({"unet": toy})
        applied.use(Use(lora))
        close(toy.conv_in(x), theirs)
        applied.use()
        assert torch.equal(toy.conv_in(x), plain)


A, B, C, D = drawn(12, 2), drawn(2, 8), drawn(12, 2, seed=1), drawn(2, 8, seed=1)
W1, W2, W1A, W1B, W2A, W2B = drawn(3, 2), drawn(4, 4), drawn(3, 2), drawn(2, 2), drawn(4, 2), drawn(2, 4)
ALPHA = torch.tensor(0.5)
FORMULAS: dict[str, tuple[dict[str, Tensor], Callable[[], Tensor]]] = {
    "LoRA": ({"lora_up__weight": A, "lora_down__weight": B}, lambda: torch.einsum("or,ri->oi", A, B)),
    "LoRA with alpha": (
        {"lora_up__weight": A, "lora_down__weight": B, "alpha": ALPHA},
        lambda: 0.25 * torch.einsum("or,ri->oi", A, B),
    ),
    "LoRA of a 1x1 convolution": (
        {"lora_up__weight": A[..., None, None], "lora_down__weight": B[..., None, None]},
        lambda: torch.einsum("or,ri->oi", A, B),
    ),
    "LoHa": (
        {"hada_w1_a": A, "hada_w1_b": B, "hada_w2_a": C, "hada_w2_b": D, "alpha": ALPHA},
        lambda: 0.25 * torch.einsum("or,ri,os,si->oi", A, B, C, D),
    ),
    "LoKr, whose alpha says nothing": ({"lokr_w1": W1, "lokr_w2": W2, "alpha": ALPHA}, lambda: torch.kron(W1, W2)),
    "LoKr of factors": (
        {"lokr_w1_a": W1A, "lokr_w1_b": W1B, "lokr_w2_a": W2A, "lokr_w2_b": W2B, "alpha": ALPHA},
        lambda: 0.25 * torch.kron(torch.mm(W1A, W1B), torch.mm(W2A, W2B)),
    ),
    "the difference": ({"diff": drawn(12, 8)}, lambda: drawn(12, 8)),
}


@pytest.mark.parametrize("kind", FORMULAS)
@pytest.mark.parametrize("strength", [1.0, -0.4])
def test_a_weight_changes_by_the_formula(kind: str, strength: float, toy: Toy):
    tensors, formula = FORMULAS[kind]
    before = toy.attn1["to_q"].weight.detach().clone()
    Merged({"unet": toy}).use(Use(loaded(toy, of_layer("attn1.to_q", **tensors)), strength))
    close(toy.attn1["to_q"].weight.detach(), before + strength * formula())


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("kind", FORMULAS)
def test_dora_gives_rows_or_columns_their_lengths(kind: str, axis: int, toy: Toy):
    tensors, formula = FORMULAS[kind]
    before = toy.attn1["to_q"].weight.detach().clone()
    lengths = torch.linspace(0.1, 3, before.shape[axis]).unsqueeze(1 - axis)
    Merged({"unet": toy}).use(Use(loaded(toy, of_layer("attn1.to_q", dora_scale=lengths, **tensors))))
    after = toy.attn1["to_q"].weight.detach()
    close(torch.linalg.vector_norm(after, dim=1 - axis, keepdim=True), lengths)
    close(F.normalize(after, dim=1 - axis), F.normalize(before + formula(), dim=1 - axis))


def test_biases_and_norms_change_by_their_differences(toy: Toy, x: Tensor):
    weight, bias, other = drawn(8), drawn(8, seed=1), drawn(8, seed=2)
    file = of_layer("norm", w_norm=weight, b_norm=bias) | of_layer("attn1.to_out.0", diff_b=other)
    lora = loaded(toy, file)
    theirs = Toy()
    theirs.load_state_dict(toy.state_dict())
    with torch.no_grad():
        theirs.norm.weight += weight
        theirs.norm.bias += bias
        theirs.attn1["to_out"][0].bias += other
    check_both_modes(toy, x, lora, theirs(x))


# ---- several files, their strengths, and switching ---------------------------------------------------------------


@pytest.fixture
def two(toy: Toy) -> tuple[Lora, Lora]:
    low = {
        f"unet.{n}.lora.up.weight": drawn(toy.get_submodule(n).weight.shape[0], 2, seed=i) for i, n in enumerate(LAYERS)
    }
    low |= {
        f"unet.{n}.lora.down.weight": drawn(2, *toy.get_submodule(n).weight.shape[1:], seed=i)
        for i, n in enumerate(LAYERS)
    }
    other = of_layer("attn1.to_q", **FORMULAS["LoHa"][0]) | of_layer(
        "conv_in", lora_up__weight=drawn(8, 1), lora_down__weight=drawn(1, 6, 3, 3)
    )
    return loaded(toy, low), loaded(toy, other)


@pytest.mark.parametrize("mode", MODES)
def test_files_add_and_strengths_change_between_runs(mode: str, toy: Toy, two: tuple[Lora, Lora], x: Tensor):
    plain, applied, both = toy(x), MODES[mode]({"unet": toy}), []
    for first, second in [(0.7, -1.5), (0.0, 1.0), (2.0, 0.0), (0.7, -1.5)]:
        applied.use(Use(two[0], first), Use(two[1], second))
        both.append(toy(x))
    assert torch.equal(both[0], both[3])
    assert not any(torch.allclose(one, other, rtol=1e-3) for one, other in pairwise(both))
    applied.use()
    assert torch.equal(toy(x), plain)


def test_two_files_with_weights_are_the_sum_of_their_changes(toy: Toy, two: tuple[Lora, Lora]):
    before = {name: weight.detach().clone() for name, weight in toy.named_parameters()}
    applied, single = Merged({"unet": toy}), []
    for lora in two:
        applied.use(Use(lora))
        single.append({name: weight.detach() - before[name] for name, weight in toy.named_parameters()})
    applied.use(Use(two[0], 0.3), Use(two[1], 2.0))
    for name, weight in toy.named_parameters():
        close(weight.detach(), before[name] + 0.3 * single[0][name] + 2 * single[1][name])


def test_live_and_merged_agree_at_any_strengths(toy: Toy, two: tuple[Lora, Lora], x: Tensor):
    live, merged = Live({"unet": toy}), Merged({"unet": toy})
    for strengths in [(1.0, 1.0), (0.2, 0.0), (0.0, -1.0), (0.5, 0.5)]:
        uses = [Use(lora, strength) for lora, strength in zip(two, strengths, strict=True)]
        live.use(*uses)
        found = toy(x)
        live.use()
        merged.use(*uses)
        close(found, toy(x))
        merged.use()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_what_was_merged_comes_out_bit_by_bit_in_half_precision(dtype: torch.dtype, toy: Toy, two: tuple[Lora, Lora]):
    toy.to(dtype)
    before = {name: t.clone() for name, t in toy.state_dict().items()}
    applied = Merged({"unet": toy})
    for uses in [(Use(two[0], 0.3),), (Use(two[1], 5), Use(two[0])), ()]:
        applied.use(*uses)
    assert all(torch.equal(t, before[name]) for name, t in toy.state_dict().items())


def test_a_change_in_half_precision_is_the_float32_sum_cast_once(toy: Toy, two: tuple[Lora, Lora]):
    toy.half()
    precise = Toy()
    precise.load_state_dict(toy.float().state_dict())
    toy.half()
    for network in (toy, precise):
        Merged({"unet": network}).use(Use(two[0]), Use(two[1]))
    assert torch.equal(toy.attn1["to_q"].weight, precise.attn1["to_q"].weight.half())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_a_sum_by_blocks_of_rows_is_the_sum(order, dtype, monkeypatch: pytest.MonkeyPatch, toy: Toy, two):
    toy.to(dtype).to(memory_format=order)
    weight = toy.conv_in.weight.detach().clone()
    weighed = [
        (lora.changes["unet"]["conv_in.weight"][0], strength) for lora, strength in zip(two, (0.7, -2), strict=True)
    ]
    monkeypatch.setattr(lora_changes, "AT_ONCE", 3 * weight[0].numel())  # eight rows, three at a time
    found = torch.empty_like(weight)
    put(found, weight, weighed)
    parts = [(change.factors["up"].flatten(1), change.factors["down"], strength) for change, strength in weighed]
    exact = weight.double() + sum(
        strength * torch.einsum("or,rihw->oihw", up.double(), down.double()) for up, down, strength in parts
    )
    assert found.stride() == weight.stride()
    torch.testing.assert_close(found.double(), exact.to(dtype).double(), rtol=2e-2 if dtype != torch.float32 else 1e-6,
                               atol=1e-5)  # fmt: skip


def test_weights_that_are_views_of_a_file_are_never_written_to(toy: Toy, two: tuple[Lora, Lora]):
    held = {name: weight.detach() for name, weight in toy.named_parameters()}
    before, places = {n: t.clone() for n, t in held.items()}, {n: t.data_ptr() for n, t in held.items()}
    applied = Merged({"unet": toy})
    for uses in [(Use(two[0]),), (Use(two[0], 0.5), Use(two[1]))]:
        applied.use(*uses)
        assert not torch.equal(toy.conv_in.weight, before["conv_in.weight"])
        assert all(torch.equal(held[name], value) for name, value in before.items())
    applied.use()
    assert {name: weight.data_ptr() for name, weight in toy.named_parameters()} == places


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("while_away", [None, (), (1,), (0, 1)], ids=["the same", "none", "another", "both"])
def test_files_act_in_weights_that_left_and_came_anew(mode: str, while_away, toy: Toy, two, x: Tensor):
    state = {name: value.clone() for name, value in toy.state_dict().items()}
    plain, applied, wanted = toy(x), MODES[mode]({"unet": toy}), [Use(two[0], 0.5)]
    applied.use(*wanted)
    toy.to("meta")
    if while_away is not None:
        wanted = [Use(two[n]) for n in while_away]
        applied.use(*wanted)
    names = {re.sub(r"parametrizations\.(\w+)\.original", r"\1", name): name for name in toy.state_dict()}
    toy.load_state_dict({names[name]: value.clone() for name, value in state.items()}, assign=True)
    applied.arrived("unet")
    other = Toy()
    other.load_state_dict(state)
    Merged({"unet": other}).use(*wanted)
    close(toy(x), other(x))
    applied.use()
    assert torch.equal(toy(x), plain)


def test_strengths_of_single_parts(toy: Toy):
    tower = ClipText(8, 1, 2, activation="gelu", words=50)
    networks = {"unet": toy, "text": tower}
    targets = {"unet": target(toy, UNET), "text": target(tower, TEXT)}
    layer = "encoder.layers.0.self_attn.q_proj"
    file = of_layer("attn1.to_q", lora_up__weight=A, lora_down__weight=B) | {
        f"lora_te_text_model_{layer.replace('.', '_')}.lora_up.weight": drawn(8, 2),
        f"lora_te_text_model_{layer.replace('.', '_')}.lora_down.weight": drawn(2, 8),
    }
    lora = read(file, targets, "both")
    before = [toy.attn1["to_q"].weight.detach().clone(), tower.get_submodule(layer).weight.detach().clone()]
    Merged(networks).use(Use(lora, 0.5, strengths={"text": 2.0}))
    close(toy.attn1["to_q"].weight.detach(), before[0] + 0.5 * A @ B)
    close(tower.get_submodule(layer).weight.detach(), before[1] + 2 * drawn(8, 2) @ drawn(2, 8))
    with pytest.raises(UnknownName, match="part of the model 'vae'"):
        Use(lora, 1, strengths={"vae": 1})
    with pytest.raises(InvalidField, match="finite"):
        Use(lora, float("nan"))


# ---- against diffusers' loader -------------------------------------------------------------------------------------


@pytest.fixture
def pipe() -> StableDiffusionPipeline:
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=24,
        attention_head_dim=2,
    )
    text = CLIPTextModel(
        CLIPTextConfig(
            hidden_size=24,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=2,
            vocab_size=100,
            bos_token_id=0,
            eos_token_id=1,
        )
    )
    found = StableDiffusionPipeline(None, text, None, unet, None, None, None, requires_safety_checker=False)
    found.set_progress_bar_config(disable=True)
    return found


def ours_of(pipe: StableDiffusionPipeline) -> tuple[dict[str, nn.Module], dict[str, Target]]:
    """Our networks with the pipeline's weights, and what files may change of them."""
    unet = ldm.LatentUNet(ldm.Shape(context=24, depths=(1, 1), middle=1, width=32, multiples=(1, 2), heads=2))
    tower = ClipText(24, 2, 2, activation="quick_gelu", words=100)
    shapes = {name: tuple(weight.shape) for name, weight in unet.named_parameters()}
    sources = diffusers(shapes)
    unet.load_state_dict(gathered(sources, shapes, pipe.unet.state_dict().__getitem__))
    tower.load_state_dict(pipe.text_encoder.state_dict())
    return {"unet": unet, "text": tower}, {"unet": target(unet, UNET, sources), "text": target(tower, TEXT)}


def results(networks: dict[str, nn.Module]) -> tuple[Tensor, Tensor]:
    ids, cond = torch.arange(2, 12)[None], Conditioning(tokens=drawn(1, 7, 24))
    with torch.no_grad():
        hidden = networks["text"](ids).hidden
        return networks["unet"](drawn(1, 4, 16, 16), torch.tensor([500.0]), cond), hidden


def results_of(pipe: StableDiffusionPipeline) -> tuple[Tensor, Tensor]:
    ids = torch.arange(2, 12)[None]
    with torch.no_grad():
        hidden = pipe.text_encoder(ids, output_hidden_states=True).hidden_states[-1]
        return pipe.unet(drawn(1, 4, 16, 16), 500, drawn(1, 7, 24)).sample, hidden


WRITTEN = re.compile(r"down_blocks\.0|mid_block\.attentions|up_blocks\.1\.resnets\.2\.conv|conv_in|conv_out|layers\.1")


def test_a_file_of_kohya_gives_what_diffusers_makes_of_it(pipe, tmp_path):
    networks, targets = ours_of(pipe)
    file = {}
    for prefix, network in {"lora_unet_": pipe.unet, "lora_te_text_model_": pipe.text_encoder}.items():
        for name, module in network.named_modules():
            if isinstance(module, nn.Linear | nn.Conv2d) and WRITTEN.search(name):
                down = 0.3 * drawn(4, *module.weight.shape[1:])
                up = 0.3 * drawn(module.weight.shape[0], 4, *[1] * (module.weight.ndim - 2))
                key = prefix + name.replace(".", "_")
                file |= {
                    f"{key}.lora_down.weight": down,
                    f"{key}.lora_up.weight": up,
                    f"{key}.alpha": torch.tensor(1.0),
                }
    save_file(file, tmp_path / "kohya.safetensors")
    plain = results(networks)
    pipe.load_lora_weights(tmp_path, weight_name="kohya.safetensors", adapter_name="one")
    lora = read(file, targets, "kohya.safetensors")
    assert lora.matched.warning is None
    for strength in (1.0, 0.6):
        pipe.set_adapters("one", strength)
        theirs = results_of(pipe)
        for mode in MODES.values():
            applied = mode(networks)
            applied.use(Use(lora, strength))
            for ours, other, before in zip(results(networks), theirs, plain, strict=True):
                close(ours, other)
                assert not torch.allclose(ours, before, rtol=1e-2)
            applied.use()
            assert all(map(torch.equal, results(networks), plain))


def test_a_file_that_diffusers_wrote_gives_what_diffusers_gives(pipe, tmp_path):
    networks, targets = ours_of(pipe)
    torch.manual_seed(3)
    config = peft.LoraConfig(
        r=4, lora_alpha=2, init_lora_weights=False, target_modules=["to_q", "to_k", "conv1", "to_out.0"]
    )
    pipe.unet.add_adapter(config, "made")
    layers = peft.get_peft_model_state_dict(pipe.unet, adapter_name="made")
    described = {key: value for key, value in config.to_dict().items() if key in ("r", "lora_alpha", "alpha_pattern")}
    pipe.save_lora_weights(tmp_path, unet_lora_layers=layers, unet_lora_adapter_metadata=described)
    theirs = results_of(pipe)
    with safe_open(tmp_path / "pytorch_lora_weights.safetensors", "pt") as opened:
        tensors, metadata = {name: opened.get_tensor(name) for name in opened.keys()}, opened.metadata()  # noqa: SIM118
    assert DECLARED in metadata
    Merged(networks).use(Use(read(tensors, targets, "written", metadata)))
    for ours, other in zip(results(networks), theirs, strict=True):
        close(ours, other)


@pytest.mark.parametrize("mode", MODES)
def test_a_network_that_keeps_what_it_was_told_hears_of_other_weights(mode: str, pipe):
    networks, targets = ours_of(pipe)
    module = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_v"
    lora = read({f"{module}.lora_up.weight": drawn(64, 2), f"{module}.lora_down.weight": drawn(2, 24)}, targets, "one")
    cond, x, t = Conditioning(tokens=drawn(1, 7, 24)), drawn(1, 4, 16, 16), torch.tensor([500.0])
    applied, seen = MODES[mode](networks), []
    with torch.no_grad():
        for uses in [(), (Use(lora),), (Use(lora, 0.5),), ()]:
            applied.use(*uses)
            seen.append(networks["unet"](x, t, cond))
    assert torch.equal(seen[0], seen[3])
    assert not any(torch.allclose(one, other, rtol=1e-3) for one, other in pairwise(seen))


def test_a_target_is_the_same_while_files_act_in_it(toy: Toy, two: tuple[Lora, Lora]):
    before = target(toy, UNET)
    Live({"unet": toy}).use(Use(two[0]), Use(two[1]))
    assert any("parametrizations" in name for name, _ in toy.named_parameters())
    assert target(toy, UNET).shapes == before.shapes


@pytest.mark.parametrize("text", ["{", "[1]", '{"unet.lora_alpha": "many"}', '{"alpha_pattern": {"to_q": []}}'])
def test_a_configuration_that_is_none_is_an_error(text: str, toy: Toy):
    with pytest.raises(WeightsError, match=DECLARED):
        loaded(toy, of_layer("attn1.to_q", lora_up__weight=A, lora_down__weight=B), **{DECLARED: text})


def test_files_follow_the_network_to_another_dtype(toy: Toy, two: tuple[Lora, Lora], x: Tensor):
    Live({"unet": toy}).use(Use(two[0]), Use(two[1], 0.5))
    precise = toy(x)
    toy.bfloat16()
    assert toy(x.bfloat16()).dtype == torch.bfloat16
    torch.testing.assert_close(toy(x.bfloat16()).float(), precise, rtol=0.1, atol=0.1 * precise.abs().max().item())
