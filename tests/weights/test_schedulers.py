"""What folders' schedulers mean: diffusers' own classes walk beside our samplers and spacings, on one Gaussian."""

import inspect
import json
import math
import warnings

import diffusers
import pytest
import torch
from safetensors.torch import save

from triptych import families
from triptych.engine.conditioning import Conditioning
from triptych.engine.denoiser import Prediction
from triptych.engine.path import Discrete
from triptych.engine.samplers import SAMPLERS
from triptych.engine.spacing import SPACINGS
from triptych.errors import WeightsError
from triptych.families.sd_weights import trained
from triptych.types import Card, Field
from triptych.weights.files import Bundle
from triptych.weights.scheduler_kinds import KINDS, LEVELS, ONE_MORE, ROUNDED_DOWN
from triptych.weights.schedulers import Betas, meaning, suited

TABLE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
STABLE = {  # scheduler/scheduler_config.json of Stable Diffusion 1.5
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.6.0",
    **TABLE,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
    "clip_sample": False,
}
STD = torch.tensor([0.3, 0.8, 1.4, 2.0])  # of Gaussian data, one an element
MEAN = torch.tensor([0.5, -1.0, 0.2, 0.0])


def path_of(config):
    return trained(Bundle(None, {}, {"scheduler": config}))[0]


class Data:
    """The exact denoiser of Gaussian data, curved enough to tell samplers apart."""

    def __init__(self, path):
        self.path = path

    def __call__(self, x_t, t, cond):
        alpha, sigma = self.path.alpha(t), self.path.sigma(t)
        variance = (alpha * STD).square() + sigma.square()
        apart = x_t - alpha * MEAN
        return Prediction(MEAN + alpha * STD.square() / variance * apart, sigma / variance * apart)


def drawn(seed):
    generator = torch.Generator().manual_seed(seed)
    return lambda x: torch.randn(x.shape, generator=generator, dtype=x.dtype)


def ours(meant, config, steps, start):
    """Where the walk ends, from noise of unit variance."""
    path = path_of(config)
    times = SPACINGS[meant.spacing](path, steps, 4)
    x = path.sigma(times[0]).float() * start
    *_, last = SAMPLERS[meant.sampler](Data(path), x, times, Conditioning(), drawn(1))
    return last.x_t


EXPLODING = ("Euler", "Heun", "KDPM2", "LMS")  # classes that walk x_t / alpha


def theirs(config, steps, start):
    """The same by diffusers, which is told eps; its noise level is what the scheduler says that it is."""
    kind = getattr(diffusers, config["_class_name"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheduler = kind.from_config(config)
        scheduler.set_timesteps(steps)
    exploding = config["_class_name"].startswith(EXPLODING)
    alphas = scheduler.alphas_cumprod.double()
    generator, x = torch.Generator().manual_seed(1), None
    keywords = {"generator": generator} if "generator" in inspect.signature(scheduler.step).parameters else {}
    if kind is diffusers.TCDScheduler:
        keywords["eta"] = 0.0  # as pipelines have it
    for call, timestep in enumerate(scheduler.timesteps):
        if exploding:  # its input scale is alpha
            alpha = scheduler.scale_model_input(torch.ones(1, dtype=torch.float64), timestep)
        elif hasattr(scheduler, "sigmas"):
            alpha = 1 / (1 + scheduler.sigmas[call].double().square()).sqrt()
        else:
            alpha = alphas[timestep].sqrt()
        if x is None:
            x = (1 - alpha.square()).sqrt().float() * start / (alpha.float() if exploding else 1)
        scaled = scheduler.scale_model_input(x, timestep)
        eps = Data(Still(alpha))(scaled, torch.zeros(()), None).eps
        x = scheduler.step(eps.float(), timestep, x, **keywords).prev_sample
    held = exploding and config.get("final_sigmas_type") == "sigma_min"
    return x * alphas[0].sqrt().float() if held else x


class Still:
    """A path that is at one place."""

    def __init__(self, alpha):
        self._alpha = alpha.float()

    def alpha(self, t):
        return self._alpha

    def sigma(self, t):
        return (1 - self._alpha.square()).sqrt()


LEADING = {"timestep_spacing": "leading", "steps_offset": 1}
LINSPACE, TRAILING = {"timestep_spacing": "linspace"}, {"timestep_spacing": "trailing"}
BY_LEVEL = [{key: True} for key in LEVELS if key != "use_lu_lambdas"]
HELD = {"final_sigmas_type": "sigma_min", "lower_order_final": False}
SDE = {"algorithm_type": "sde-dpmsolver++"}
SAME = {  # configurations that are met exactly, by class
    "PNDMScheduler": [
        {"skip_prk_steps": True, **more}
        for more in (LEADING, {**LEADING, "set_alpha_to_one": True}, TRAILING, {**TRAILING, "set_alpha_to_one": True})
    ],
    "DDIMScheduler": [
        {"clip_sample": False, **more}
        for more in (LEADING, {**LEADING, "set_alpha_to_one": False}, TRAILING, {**TRAILING, "set_alpha_to_one": False})
    ],
    "DDPMScheduler": [{"clip_sample": False, **more} for more in (LEADING, TRAILING)],
    "EulerDiscreteScheduler": [
        {}, LEADING, TRAILING, *BY_LEVEL, {**LEADING, "final_sigmas_type": "sigma_min"},
        {**TRAILING, "final_sigmas_type": "sigma_min"},
    ],
    "EulerAncestralDiscreteScheduler": [{}, LEADING, TRAILING],
    "HeunDiscreteScheduler": [{}, LEADING, TRAILING, *BY_LEVEL],
    "LMSDiscreteScheduler": [{}, LEADING, TRAILING, *BY_LEVEL],
    "KDPM2DiscreteScheduler": [{}, LEADING, TRAILING, *BY_LEVEL],
    "KDPM2AncestralDiscreteScheduler": [{}, LEADING, TRAILING, *BY_LEVEL],
    "DPMSolverMultistepScheduler": [
        {}, LEADING, TRAILING, *BY_LEVEL, {"use_lu_lambdas": True}, {"solver_order": 1}, SDE, {**SDE, **LEADING},
        {**SDE, "use_karras_sigmas": True}, {**SDE, "solver_order": 1}, HELD, {**HELD, **LEADING}, {**HELD, **TRAILING},
        {**HELD, "algorithm_type": "dpmsolver", "solver_order": 1}, {"euler_at_final": True},
        {**HELD, "algorithm_type": "deis", "solver_type": "logrho"},
    ],
    "DPMSolverSinglestepScheduler": [
        {}, *BY_LEVEL, {"solver_order": 1}, {"lower_order_final": True}, {"final_sigmas_type": "sigma_min"},
        {"timestep_spacing": "leading"}, {**SDE, "solver_order": 1},
    ],
    "UniPCMultistepScheduler": [{}, LEADING, TRAILING, *BY_LEVEL, HELD, {"solver_type": "midpoint"}],
    "DEISMultistepScheduler": [
        {"lower_order_final": False, **more} for more in ({}, LEADING, TRAILING, {"solver_order": 1})
    ],
    "LCMScheduler": [{}],
    "TCDScheduler": [{}, LEADING],
}  # fmt: skip
CASES = [
    pytest.param({"_class_name": name, **TABLE, **more}, steps, id=f"{name}-{more}-{steps}")
    for name, some in SAME.items()
    for more in some
    for steps in (10, 20)
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("config", "steps"), CASES)
def test_what_is_told_to_be_the_same_ends_where_diffusers_ends(config, steps):
    meant = meaning(config)
    rounded = KINDS[config["_class_name"]].spacings is ONE_MORE and not config.keys().isdisjoint(ROUNDED_DOWN)
    assert [words.partition("rounded down")[1] for words in meant.differs] == (["rounded down"] if rounded else [])
    start = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    expected = theirs(config, steps, start)
    found = ours(meant, config, steps, start)
    error = float((found - expected).abs().max() / expected.abs().max())
    assert error < 1e-4, error


@pytest.mark.parametrize("name", KINDS)
def test_what_is_left_out_is_as_in_diffusers(name):
    own = {key: told.default for key, told in inspect.signature(getattr(diffusers, name).__init__).parameters.items()}
    assert {key: own[key] for key in KINDS[name].defaults} == KINDS[name].defaults


def test_every_class_is_held_against_diffusers():
    assert set(SAME) == set(KINDS)
    named = {(meant.sampler, meant.spacing) for meant in (meaning(case.values[0]) for case in CASES)}
    assert {sampler for sampler, _ in named} <= set(families.SAMPLERS)
    assert {spacing for _, spacing in named} <= set(families.SPACINGS)
    assert {name for kind in KINDS.values() for name in kind.samplers.values()} <= set(families.SAMPLERS)


def test_stable_diffusion_as_its_authors_published_it():
    meant = meaning(STABLE)
    assert (meant.sampler, meant.spacing, meant.differs) == ("pndm", "leading_first", ())
    assert meant.betas == Betas("scaled_linear", 0.00085, 0.012, 1000)


DPM, UNIPC, EULER = "DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "EulerDiscreteScheduler"
OTHERWISE = [  # class, what it says, what is taken, and words of the one sentence on it
    ("PNDMScheduler", {"steps_offset": 1}, "pndm", "leading_first", "skip_prk_steps = False has no equivalent"),
    ("PNDMScheduler", {"steps_offset": 1, "skip_prk_steps": True, "prediction_type": "v_prediction"}, "pndm",
     "leading_first", "prediction_type = 'v_prediction'"),
    ("DDIMScheduler", {"steps_offset": 1}, "ddim", "leading", "clip_sample = True has no equivalent"),
    ("DDIMScheduler", {"clip_sample": False}, "ddim", "leading", "0 above multiples, here 1"),
    ("DDIMScheduler", {"clip_sample": False, **LINSPACE}, "ddim", "linspace", "timesteps are rounded"),
    ("DDPMScheduler", {"clip_sample": False, **LEADING, "variance_type": "fixed_large"}, "ddpm", "leading",
     "fixed_large"),
    (EULER, {"interpolation_type": "log_linear"}, "euler", "linspace", "log_linear"),
    (EULER, {"use_karras_sigmas": True, **LEADING}, "euler", "karras", "lie between those of leading timesteps"),
    (EULER, {"final_sigmas_type": "sigma_min"}, "euler", "linspace", "ends at the table's first entry, here at data"),
    (EULER, {"timestep_spacing": "random"}, "euler", "linspace", "'random' has no equivalent; it is taken for"),
    (DPM, {"solver_order": 3}, "dpmpp_2m", "linspace_spare", "solver_order = 3 has no equivalent; the nearest"),
    (DPM, {"algorithm_type": "sde-dpmsolver++", "solver_order": 3}, "dpmpp_2m_sde", "linspace_spare", "the nearest"),
    (DPM, {"thresholding": True}, "dpmpp_2m", "linspace_spare", "thresholding = True"),
    (DPM, {"solver_type": "heun"}, "dpmpp_2m", "linspace_spare", "it walks as with 'midpoint'"),
    (DPM, {"lambda_min_clipped": -5.1}, "dpmpp_2m", "linspace_spare", "lambda_min_clipped = -5.1"),
    (DPM, {"use_karras_sigmas": True, "final_sigmas_type": "sigma_min"}, "dpmpp_2m", "karras", "here at data"),
    (DPM, {"final_sigmas_type": "sigma_min"}, "dpmpp_2m", "linspace_spare_first", "last step may be of first order"),
    (UNIPC, {"solver_order": 3}, "unipc", "linspace_spare", "solver_order = 3"),
    (UNIPC, {"solver_type": "bh1"}, "unipc", "linspace_spare", "it walks as with 'bh2'"),
    (UNIPC, {"disable_corrector": [0]}, "unipc", "linspace_spare", "disable_corrector = [0]"),
    ("DEISMultistepScheduler", {}, "deis", "linspace_spare_first", "last step may be of first order"),
    ("LCMScheduler", {"original_inference_steps": 100}, "lcm", "lcm", "original_inference_steps = 100"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "more", "sampler", "spacing", "words"), OTHERWISE)
def test_what_has_no_equivalent_is_told(name, more, sampler, spacing, words):
    meant = meaning({"_class_name": name, **more})
    assert (meant.sampler, meant.spacing) == (sampler, spacing)
    [sentence] = meant.differs
    assert sentence.startswith(name)
    assert words in sentence


@pytest.mark.parametrize("name", ["SASolverScheduler", "FlowMatchEulerDiscreteScheduler", None, ["a"], 7])
def test_an_unknown_class_leaves_the_walk_to_the_card(name):
    meant = meaning({"_class_name": name, "beta_end": 0.013})
    assert (meant.sampler, meant.spacing) == ("", "")
    assert meant.betas == Betas("scaled_linear", 0.00085, 0.013, 1000)
    assert "no equivalent here; the card's own walk is taken" in meant.differs[0]


BETAS = {
    "left out": {},
    "scaled": TABLE,
    "linear": {"beta_schedule": "linear", "beta_start": 0.0002, "beta_end": 0.03, "num_train_timesteps": 250},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "listed": {"trained_betas": [0.001 * (n + 1) for n in range(40)], "beta_schedule": "scaled_linear"},
    "to noise alone": {**TABLE, "rescale_betas_zero_snr": True},
}


@pytest.mark.parametrize("name", ["DDIMScheduler", EULER, DPM, "LCMScheduler"])
@pytest.mark.parametrize("told", BETAS)
def test_tables_are_those_of_diffusers(told, name):
    scheduler = getattr(diffusers, name)(**BETAS[told])
    path = path_of({"_class_name": name, **BETAS[told]})
    assert isinstance(path, Discrete)
    torch.testing.assert_close(path.betas.float(), scheduler.betas, atol=1e-5, rtol=1e-4)  # theirs is float32


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"beta_schedule": "laplace"}, "beta_schedule is 'laplace', allowed is one of linear, scaled_linear"),
        ({"beta_start": "small"}, "beta_start is 'small'"),
        ({"beta_end": 1.5}, "beta_end is 1.5"),
        ({"beta_end": math.nan}, "beta_end is nan"),
        ({"num_train_timesteps": 0}, "num_train_timesteps is 0, allowed is 2 to 100000"),
        ({"num_train_timesteps": 1e3}, "num_train_timesteps is 1000.0"),
        ({"trained_betas": []}, "trained_betas is []"),
        ({"trained_betas": [0.1, -0.1]}, "trained_betas"),
        ({"trained_betas": {"a": 1}}, "trained_betas"),
    ],
)
def test_a_table_that_cannot_be_made_is_told(more, words):
    with pytest.raises(WeightsError) as caught:
        meaning({"_class_name": "DDIMScheduler", **more})
    assert words in str(caught.value)
    assert "nothing can be made" in str(caught.value)


def card(**settings):
    fields = {
        "sampler": Field("str", default="euler"),
        "spacing": Field("str", default="uniform"),
        "seed": Field("int"),
    }
    return Card("one", "sd", "image", (), fields, "", settings=settings)


def test_a_card_takes_its_folders_walk_as_its_defaults():
    found = suited(card(source="here"), STABLE)
    assert (found.fields["sampler"].default, found.fields["spacing"].default) == ("pndm", "leading_first")
    assert found.fields["seed"] == card().fields["seed"]
    assert found.settings == {"source": "here", "differs": ()}


def test_a_card_keeps_its_own_where_nothing_is_told_or_known():
    assert suited(card(), {}) == card()
    found = suited(card(), {"_class_name": "SASolverScheduler"})
    assert found.fields == card().fields
    assert "SASolverScheduler" in found.settings["differs"][0]


def test_pipelines_set_some_keys_whatever_the_folder_says():
    old = {"_class_name": "DDIMScheduler", **TABLE}
    for name in ("sd15", "sd15-inpainting"):
        assert "steps_offset" not in " ".join(suited(families.cards()[name], old).settings["differs"])
    assert suited(families.cards()["sd15"], old).settings["differs"] == ()
    assert len(suited(families.cards()["sdxl"], old).settings["differs"]) == 2


def test_what_lies_on_a_hub_says_it_too(server):
    model = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "U"], "scheduler": ["diffusers", "S"]}
    server.repositories["somebody/scheduled"] = {
        "model_index.json": json.dumps(model).encode(),
        "scheduler/scheduler_config.json": json.dumps(STABLE | {"lambda_min_clipped": -math.inf}).encode(),
        "unet/diffusion_pytorch_model.safetensors": save({"conv_in.weight": torch.zeros(8, 4, 3, 3)}),
    }
    fields = families.card("somebody/scheduled").fields
    assert (fields["sampler"].default, fields["spacing"].default) == ("pndm", "leading_first")
    assert all("unet" not in name for name in server.fetched())
