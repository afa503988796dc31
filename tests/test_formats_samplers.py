"""Every scheduler class of diffusers that is read walks as diffusers' own, step for step; what is refused says why."""

from __future__ import annotations

import importlib
import json
import types
from typing import TYPE_CHECKING, Any

import diffusers
import numpy as np
import pytest
import torch
from small import NETWORK, make_network, small_card
from small import UNET as TINY
from torch import Tensor

import genzoo
from genzoo.denoiser import Prediction, to_x0
from genzoo.formats import FormatError
from genzoo.noise import Noise
from genzoo.publish import save
from genzoo.registry import Zoo, default_zoo
from genzoo.schedule import ScheduleConfig
from genzoo.scheduler import Scheduler
from genzoo.weights import build
from genzoo_plugins.formats.samplers import SAMPLERS
from genzoo_plugins.formats.sampling import read_scheduler

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

SHAPE = (2, 4, 4)
SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
LEADING = {"timestep_spacing": "leading", "steps_offset": 1}
ENDLESS = SD | {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
TRAILING = {"timestep_spacing": "trailing"}

#: What every class in sigma / alpha is tried with, and in how many steps.
RATIOS: list[tuple[dict[str, Any], int]] = [
    ({}, 7),
    (SD, 20),
    (SD | LEADING, 10),
    (TRAILING, 13),
    (SD | {"prediction_type": "v_prediction"}, 9),
    ({"beta_schedule": "squaredcos_cap_v2"} | LEADING, 25),
    ({"num_train_timesteps": 60, "beta_end": 0.3}, 60),
]
RAMPS: list[tuple[dict[str, Any], int]] = [
    (SD | {"use_karras_sigmas": True}, 10),
    (SD | LEADING | {"use_karras_sigmas": True}, 10),
    (SD | TRAILING | {"use_karras_sigmas": True}, 7),
    (SD | {"use_exponential_sigmas": True}, 12),
    (SD | TRAILING | {"use_beta_sigmas": True}, 12),
]
INNER: list[tuple[dict[str, Any], int]] = [
    ({}, 11),
    (SD | {"prediction_type": "v_prediction"}, 20),
    (SD | LEADING, 10),
    (TRAILING, 7),
    (SD | {"use_karras_sigmas": True}, 9),
    (SD | {"use_karras_sigmas": True, "prediction_type": "sample"}, 20),
]

CASES: dict[str, list[tuple[dict[str, Any], int]]] = {
    "EulerDiscreteScheduler": [
        *RATIOS,
        *RAMPS,
        (ENDLESS | TRAILING, 8),
        (SD | {"prediction_type": "sample"}, 6),
        (SD | {"timestep_type": "continuous"}, 5),
    ],
    "EulerAncestralDiscreteScheduler": [*RATIOS, (ENDLESS | TRAILING, 8), (SD | {"use_karras_sigmas": True}, 5)],
    "HeunDiscreteScheduler": [*RATIOS, *RAMPS, ({"clip_sample": True, "clip_sample_range": 0.8}, 8)],
    "LMSDiscreteScheduler": [*RATIOS, *RAMPS, (SD | {"prediction_type": "sample"}, 6)],
    "KDPM2DiscreteScheduler": [
        (SD | LEADING, 10),
        (LEADING, 7),
        (TRAILING, 13),
        (SD | TRAILING | {"prediction_type": "v_prediction"}, 9),
        (SD | LEADING | {"use_exponential_sigmas": True}, 12),
        (SD | TRAILING | {"use_beta_sigmas": True}, 12),
    ],
    "DEISMultistepScheduler": [
        *INNER,
        (SD | {"solver_order": 3}, 12),
        (SD | {"solver_order": 3}, 20),
        ({"solver_order": 1}, 8),
        (SD | {"lower_order_final": False, "solver_type": "midpoint"}, 8),
    ],
    "DPMSolverMultistepScheduler": [
        *INNER,
        (ENDLESS | TRAILING, 8),
        (SD | {"final_sigmas_type": "sigma_min"}, 20),
        (SD | {"solver_order": 3, "use_karras_sigmas": True}, 20),
        (SD | {"solver_order": 3, "final_sigmas_type": "sigma_min"}, 10),
        (SD | {"solver_order": 1}, 6),
        (SD | {"solver_type": "heun", "euler_at_final": True}, 12),
        (SD | {"algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True}, 12),
        (SD | {"solver_type": "logrho"}, 6),
    ],
    "DPMSolverSinglestepScheduler": [
        ({}, 10),
        (SD, 11),
        (SD | {"prediction_type": "v_prediction"}, 20),
        (SD | {"use_karras_sigmas": True}, 9),
        (SD | {"solver_order": 1, "prediction_type": "sample"}, 6),
        (SD | {"timestep_spacing": "leading", "lower_order_final": True}, 1),
        ({"beta_schedule": "squaredcos_cap_v2"}, 2),
    ],
    "UniPCMultistepScheduler": [
        *INNER,
        (ENDLESS | TRAILING, 8),
        (SD | {"solver_order": 3}, 12),
        (SD | {"solver_order": 1, "final_sigmas_type": "sigma_min"}, 12),
        (SD | {"lower_order_final": False, "final_sigmas_type": "sigma_min"}, 12),
    ],
    "PNDMScheduler": [
        *((SD | LEADING | {"skip_prk_steps": skips}, steps) for skips in (True, False) for steps in (10, 40, 50)),
        ({}, 20),
        ({"set_alpha_to_one": True, "skip_prk_steps": True}, 13),
        *((SD | LEADING | {"skip_prk_steps": skips, "prediction_type": "v_prediction"}, 20) for skips in (True, False)),
        ({"set_alpha_to_one": True, "beta_schedule": "squaredcos_cap_v2", "steps_offset": 1}, 8),
    ],
    "LCMScheduler": [
        ({}, 4),
        ({"beta_schedule": "linear", "original_inference_steps": 100}, 8),
        ({"prediction_type": "v_prediction", "timestep_scaling": 5.0}, 3),
        ({"prediction_type": "sample", "clip_sample": True}, 4),
        (ENDLESS, 4),
    ],
    "TCDScheduler": [
        ({}, 4),
        ({"beta_schedule": "linear", "original_inference_steps": 100}, 8),
        ({"prediction_type": "v_prediction"}, 3),
        ({"prediction_type": "sample", "clip_sample": True}, 4),
        ({"beta_schedule": "squaredcos_cap_v2"}, 6),
        # 0.7 of whole tens of times is whole, and rounding decides.
        ({"original_inference_steps": 90}, 90),
    ],
    "DDIMScheduler": [
        ({"clip_sample": False}, 10),
        (SD | LEADING | {"clip_sample": False, "set_alpha_to_one": False}, 20),
        (TRAILING | {"clip_sample_range": 0.7}, 7),
        ({"timestep_spacing": "linspace", "prediction_type": "sample"}, 9),
        (TRAILING | ENDLESS, 8),
    ],
    "DDPMScheduler": [
        ({}, 10),
        ({"variance_type": "fixed_large", "clip_sample": False}, 20),
        (TRAILING | {"clip_sample_range": 0.7}, 7),
        ({"timestep_spacing": "linspace", "prediction_type": "sample"}, 9),
        (TRAILING | ENDLESS, 8),
    ],
}
CASES |= {name.replace("Sch", "ParallelSch"): CASES[name] for name in ("DDIMScheduler", "DDPMScheduler")}


def network(x: Tensor, timestep: float) -> Tensor:
    """Looks at its input and at the time, of which it would notice a thousandth."""
    t = float(timestep)
    return torch.tanh(0.6 * x) + 0.3 * x.roll(1, -1) + 0.2 * np.cos(t / 7)


class Draws:
    """The same normal numbers for both, in float64."""

    def __init__(self, seed: int = 5) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, dtype=torch.float64)


class GivenNoise(Noise):
    def __init__(self, draws: Draws) -> None:
        super().__init__([0, 1], dtype=torch.float64)
        self.draws = draws

    def normal(self, *shape: int) -> Tensor:
        return self.draws(len(self), *shape)


def doubled(monkeypatch: pytest.MonkeyPatch, name: str) -> Any:
    """The library's class in float64: its modules' float32 is float64, and its noise is ours."""
    module = importlib.import_module(getattr(diffusers, name).__module__)
    draws = Draws()
    monkeypatch.setattr(module, "torch", types.SimpleNamespace(**(vars(torch) | {"float32": torch.float64})))
    monkeypatch.setattr(module, "np", types.SimpleNamespace(**(vars(np) | {"float32": np.float64})))
    if hasattr(module, "randn_tensor"):
        monkeypatch.setattr(module, "randn_tensor", lambda shape, **_: draws(*shape))
    return getattr(module, name)


def their_walk(theirs: Any, noise: Tensor, steps: int) -> Tensor:
    """As the library's pipelines of latents walk: the noise and what the network is given are scaled."""
    theirs.set_timesteps(steps)
    x = noise * theirs.init_noise_sigma
    for t in theirs.timesteps:
        given = theirs.scale_model_input(x, t) if hasattr(theirs, "scale_model_input") else x
        x = theirs.step(network(given, t), t, x).prev_sample
    return x


def our_walk(settings: dict[str, Any], noise: Tensor, steps: int) -> Tensor:
    read = read_scheduler(settings, "file")
    schedule = ScheduleConfig(**read.schedule).build()
    prediction: Prediction = read.prediction  # type: ignore[assignment]
    scheduler: Scheduler = default_zoo().make("scheduler", read.scheduler)
    clips = read.clip is not None and getattr(scheduler, "clip", None) is None

    def denoise(x: Tensor, t: float) -> Tensor:
        x0 = to_x0(network(x, float(schedule.timestep(t))), x, *schedule.level(t), prediction)
        return x0.clamp(-read.clip, read.clip) if clips and read.clip else x0

    grid = scheduler.grid(schedule, steps)
    *_, last = scheduler.walk(denoise, scheduler.begin(noise, grid), grid, GivenNoise(Draws()))
    return last


@pytest.mark.parametrize(
    ("name", "settings", "steps"),
    [(name, settings, steps) for name, cases in CASES.items() for settings, steps in cases],
    ids=lambda value: "" if isinstance(value, dict) else str(value),
)
def test_walks_are_those_of_the_original_class(
    name: str, settings: dict[str, Any], steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = Draws(3)(2, *SHAPE)
    ours = our_walk({"_class_name": name, **settings}, noise, steps)
    wanted = their_walk(doubled(monkeypatch, name).from_config(settings), noise, steps)
    assert wanted.std() > 0.05
    torch.testing.assert_close(ours, wanted, rtol=1e-6, atol=1e-6)


def test_every_class_is_tried_in_five_settings() -> None:
    assert set(CASES) == set(SAMPLERS)
    assert min(map(len, CASES.values())) >= 5


# -- pixels ------------------------------------------------------------------------------------------------------------

#: One of each grid; the steps are few, since an untrained network magnifies rounding.
PIXELS: list[tuple[str, dict[str, Any], int]] = [
    ("EulerDiscreteScheduler", SD, 8),
    ("EulerDiscreteScheduler", SD | LEADING | {"use_karras_sigmas": True}, 8),
    ("EulerAncestralDiscreteScheduler", SD | LEADING, 8),
    ("HeunDiscreteScheduler", SD, 6),
    ("LMSDiscreteScheduler", SD | {"use_karras_sigmas": True}, 8),
    ("KDPM2DiscreteScheduler", SD | TRAILING, 6),
    ("DEISMultistepScheduler", SD, 8),
    ("DPMSolverMultistepScheduler", SD | {"use_karras_sigmas": True}, 8),
    ("UniPCMultistepScheduler", SD | {"use_karras_sigmas": True}, 8),
    ("PNDMScheduler", SD | LEADING, 10),
    ("PNDMScheduler", SD | LEADING | {"skip_prk_steps": True, "set_alpha_to_one": False}, 10),
    ("LCMScheduler", {}, 4),
    ("TCDScheduler", {}, 4),
]


@pytest.mark.parametrize(("name", "settings", "steps"), PIXELS)
def test_a_folders_pixels_are_those_of_its_unet_and_scheduler(
    tmp_path: Path, name: str, settings: dict[str, Any], steps: int
) -> None:
    unet, theirs = make_network(TINY), getattr(diffusers, name)(**settings)
    unet.save_pretrained(tmp_path / "unet")
    theirs.save_pretrained(tmp_path / "scheduler")
    seeds = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
    theirs.set_timesteps(steps)
    x = torch.cat([torch.randn(1, 3, 8, 8, generator=seed) for seed in seeds]) * theirs.init_noise_sigma
    drawn = {"generator": seeds} if "generator" in theirs.step.__code__.co_varnames else {}
    with torch.no_grad():
        for t in theirs.timesteps:
            x = theirs.step(unet(theirs.scale_model_input(x, t), t).sample, t, x, **drawn).prev_sample
    found = default_zoo().load(str(tmp_path)).generate([3, 4], steps=steps)
    assert x.std() > 0.05
    assert float((found - x.clamp(-1, 1)).abs().max()) < 1e-4


def test_a_pndm_pipeline_makes_its_own_scheduler_of_the_file(tmp_path: Path) -> None:
    pipeline = diffusers.PNDMPipeline(make_network(TINY), diffusers.DDPMScheduler())
    pipeline.save_pretrained(tmp_path)
    config = tmp_path / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"_class_name": "DDPMScheduler"}))
    pipeline.set_progress_bar_config(disable=True)
    seeds = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
    wanted = pipeline(2, generator=seeds, num_inference_steps=10, output_type="np").images
    model = default_zoo().load(str(tmp_path))
    assert model.card is not None
    assert model.card.options["scheduler"] == "pndm:spacing=leading,end=1,middle=whole"
    found = (model.generate([3, 4], steps=10).permute(0, 2, 3, 1) + 1) / 2
    assert float((found - torch.from_numpy(wanted)).abs().max()) < 1e-4


# -- written -----------------------------------------------------------------------------------------------------------

KARRAS = "spacing=karras,sigma_min=null,sigma_max=null"

#: name -> (what the config has beside the network, the scheduler, the class that is written).
WRITTEN: dict[str, tuple[dict[str, Any], str, str]] = {
    "dpm-solver": ({"clip": None}, "dpmpp-2m:spacing=trailing", "DPMSolverMultistepScheduler"),
    "dpm-solver inner": ({"clip": None}, "dpmpp-2m:spacing=linspace,inner=true,variant=heun", "DPMSolverMultistep"),
    "dpm-solver karras": (
        {"clip": None, "schedule": {"between": "log-ratio", "told": "nearest"}},
        f"dpmpp-2m:{KARRAS}",
        "DPMSolverMultistepScheduler",
    ),
    "dpm-solver 3": (
        {"clip": None, "prediction": "v", "schedule": {"kind": "cosine"}},
        "dpmpp-3m:spacing=trailing,variant=published,lower_order_final=false",
        "DPMSolverMultistepScheduler",
    ),
    "dpm-solver end": ({"clip": None}, "dpmpp-1s:spacing=leading,inner=true,offset=1,end=1", "DPMSolverMultistep"),
    "dpm-solver sde": ({"clip": None}, "dpmpp-2m-sde:spacing=trailing", "DPMSolverMultistepScheduler"),
    "pndm": ({"clip": None}, "pndm:spacing=leading,middle=whole", "PNDMScheduler"),
    "plms v": ({"clip": None, "prediction": "v"}, "plms:spacing=leading,mean=v", "PNDMScheduler"),
    "plms": ({"clip": None}, "plms:spacing=leading,end=1,offset=1", "PNDMScheduler"),
    "lcm": ({"clip": 2.0}, "lcm:distilled=100,scaling=5", "LCMScheduler"),
    "tcd": ({"clip": None}, "tcd:end=1", "TCDScheduler"),
}


def small_model(config: dict[str, Any], options: dict[str, Any]) -> Any:
    schedule = {"beta_end": 0.012, **config.get("schedule", {})}
    card = small_card(config={"network": NETWORK, **config, "schedule": schedule}, options=options)
    torch.manual_seed(0)
    made = build(default_zoo(), card).eval().requires_grad_(False)
    # A fresh network hardly looks at its input.
    for parameter in made.parameters():
        if parameter.ndim == 1:
            parameter.add_(torch.randn_like(parameter) * 0.1)
    made.card = card
    return made


@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_written_walks_the_same_in_diffusers_and_back(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, scheduler, kind = WRITTEN[name]
    model = small_model(config, {"steps": 6, "scheduler": scheduler})
    wanted = model.generate([3, 4])
    save(model, tmp_path / "out", layout="diffusers")
    index = json.loads((tmp_path / "out" / "model_index.json").read_text())
    assert index["scheduler"][1].startswith(kind)
    pipeline = getattr(diffusers, index["_class_name"]).from_pretrained(tmp_path / "out")
    pipeline.set_progress_bar_config(disable=True)
    seeds = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
    found = pipeline(2, generator=seeds, num_inference_steps=6, output_type="np").images
    assert float((torch.from_numpy(found).permute(0, 3, 1, 2) * 2 - 1 - wanted).abs().max()) < 1e-4
    back = default_zoo().load(str(tmp_path / "out"))
    assert back.card is not None
    made = default_zoo().make("scheduler", str(back.card.options["scheduler"]))
    assert made == default_zoo().make("scheduler", scheduler)
    assert torch.equal(back.generate([3, 4], steps=6), wanted)


@pytest.mark.parametrize(
    ("config", "scheduler", "message"),
    [
        ({"clip": None}, "dpmpp-2m", "spacing=log-snr is not written.*these are: spacing=linspace,inner=true"),
        ({"clip": None}, "dpmpp-3m:spacing=trailing", "variant=exact"),
        ({}, "dpmpp-2m:spacing=trailing", "clip=1.0"),
        ({"clip": None}, f"dpmpp-2m:{KARRAS}", "between=angle"),
        ({"clip": None}, "plms", "spacing=uniform"),
        ({"clip": None, "prediction": "v"}, "plms:spacing=leading", "prediction=v"),
        ({"clip": None}, "tcd", "end=0"),
        ({"clip": None}, "tcd:end=1,eta=0.5", "eta=0.5"),
        ({"clip": None}, "euler:spacing=leading", "'euler' is not written.*these are: ddim, ddpm, dpmpp-1s"),
        ({"clip": None}, "unipc:spacing=trailing", "'unipc' is not written"),
    ],
)
def test_what_has_no_twin_is_not_written(tmp_path: Path, config: dict[str, Any], scheduler: str, message: str) -> None:
    with pytest.raises(FormatError, match=message) as caught:
        save(small_model(config, {"steps": 6, "scheduler": scheduler}), tmp_path / "out", layout="diffusers")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "unet").exists()


def test_a_scheduler_is_looked_up_in_the_zoo_of_the_model(tmp_path: Path) -> None:
    """One whose plugin is not installed, but was added to a zoo by hand."""

    class Mine:
        @genzoo.hookimpl
        def register(self, zoo: Any) -> None:
            zoo.scheduler("mine", default_zoo().find("scheduler", "ddim"))

    model = small_model({}, {"steps": 6, "scheduler": "mine:eta=0.5"})
    model.zoo = Zoo.discover()
    assert model.zoo.add(Mine, name="mine"), model.zoo.broken
    save(model, tmp_path / "out", layout="diffusers")
    index = json.loads((tmp_path / "out" / "model_index.json").read_text())
    assert index["scheduler"] == ["diffusers", "DDIMScheduler"]
    assert "eta=0.5" in (tmp_path / "out" / "README.md").read_text()


# -- refused -----------------------------------------------------------------------------------------------------------

#: Class, what its file says, what the message must name and say.
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("EulerDiscrete", {"interpolation_type": "log_linear"}, "interpolation_type: 'log_linear'.*linear; "),
    ("EulerDiscrete", {"final_sigmas_type": "sigma_min"}, "final_sigmas_type: 'sigma_min'.*scale"),
    ("EulerDiscrete", {"timestep_type": "continuous", "prediction_type": "v_prediction"}, "timestep_type.*logarithm"),
    ("EulerDiscrete", {"use_karras_sigmas": True, "sigma_max": 700.0}, "sigma_max: '700.0'.*write null"),
    ("EulerDiscrete", {"use_karras_sigmas": True, "use_beta_sigmas": True}, "use_karras_sigmas and use_beta_sigmas"),
    ("EulerDiscrete", {"use_karras_sigmas": "yes"}, "use_karras_sigmas: 'yes' is not of the right type"),
    ("EulerDiscrete", {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}, "rescale.*2\\^-24"),
    ("EulerAncestralDiscrete", {"prediction_type": "sample"}, "prediction_type: 'sample'"),
    ("HeunDiscrete", {"beta_schedule": "exp"}, "beta_schedule: 'exp'"),
    ("LMSDiscrete", {"timestep_spacing": "sideways"}, "timestep_spacing: 'sideways'.*linspace, leading"),
    ("LMSDiscrete", {"steps_offset": -1}, "steps_offset: -1"),
    ("KDPM2Discrete", {}, "timestep_spacing: 'linspace'.*write 'trailing'"),
    ("KDPM2Discrete", TRAILING | {"use_karras_sigmas": True}, "use_karras_sigmas: True.*rounds"),
    ("DEISMultistep", {"use_exponential_sigmas": True}, "use_exponential_sigmas: True.*whole"),
    ("DEISMultistep", {"solver_order": 4}, "solver_order: 4 is not supported; these are: 2, 1, 3"),
    ("DEISMultistep", {"use_flow_sigmas": True}, "use_flow_sigmas.*flow"),
    ("DEISMultistep", {"thresholding": True}, "thresholding: 'True'.*write false"),
    ("DPMSolverMultistep", {"use_beta_sigmas": True}, "use_beta_sigmas: True.*write false"),
    ("DPMSolverMultistep", {"use_lu_lambdas": True}, "use_lu_lambdas.*use_karras_sigmas"),
    ("DPMSolverMultistep", {"lambda_min_clipped": -5.1}, "lambda_min_clipped: '-5.1'"),
    ("DPMSolverMultistep", {"variance_type": "learned_range"}, "variance_type: 'learned_range'.*write null"),
    (
        "DPMSolverMultistep",
        {"use_karras_sigmas": True, "beta_schedule": "squaredcos_cap_v2"},
        "use_karras_sigmas: 'True'.*squaredcos",
    ),
    ("DPMSolverMultistep", {"final_sigmas_type": "sigma_min", "use_karras_sigmas": True}, "final_sigmas_type.*'zero'"),
    ("DPMSolverMultistep", {"final_sigmas_type": "sigma_min", "euler_at_final": True}, "euler_at_final: 'True'"),
    ("DPMSolverMultistep", {"solver_order": 3, "solver_type": "heun"}, "solver_type: 'heun'.*midpoint"),
    ("DPMSolverMultistep", {"algorithm_type": "sde-dpmsolver++", "solver_order": 1}, "sde-dpmsolver\\+\\+ with solver"),
    ("UniPCMultistep", {"solver_type": "bh1"}, "solver_type: 'bh1'.*NaN"),
    ("UniPCMultistep", {"lower_order_final": False}, "lower_order_final: 'False'.*NaN.*write true"),
    ("UniPCMultistep", {"predict_x0": False}, "predict_x0: 'False'.*write true"),
    ("UniPCMultistep", {"disable_corrector": [0]}, "disable_corrector"),
    ("UniPCMultistep", {"solver_p": {}}, "solver_p"),
    ("PNDM", TRAILING, "timestep_spacing: 'trailing'.*write 'leading'"),
    ("PNDM", {"timestep_spacing": "linspace"}, "timestep_spacing: 'linspace'.*write 'leading'"),
    ("PNDM", {"prediction_type": "sample"}, "prediction_type: 'sample'.*v_prediction"),
    ("LCM", {"original_inference_steps": 0}, "original_inference_steps: 0 is not supported; 1 to"),
    ("DPMSolverSinglestep", {"solver_order": 3}, "solver_order: 3 is not supported; these are: dpmsolver"),
    ("DPMSolverSinglestep", {"final_sigmas_type": "sigma_min"}, "final_sigmas_type: 'sigma_min'.*write zero"),
    ("DPMSolverSDE", {}, "_class_name: 'DPMSolverSDEScheduler'.*DPMSolverMultistepScheduler"),
    ("KDPM2AncestralDiscrete", {}, "_class_name"),
    ("EDMEuler", {}, "_class_name"),
]


@pytest.mark.parametrize(("name", "settings", "message"), REFUSED)
def test_what_cannot_be_followed_is_refused_by_its_key(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(FormatError, match=message) as caught:
        read_scheduler({"_class_name": f"{name}Scheduler", **settings}, "file")
    assert "\n" not in str(caught.value)


def test_the_first_noise_is_scaled_for_classes_in_sigma_alone() -> None:
    """By what they call init_noise_sigma, in our coordinates."""
    noise = torch.ones(1, 2, 2, 2)
    for settings, scaled in ((SD, True), (SD | TRAILING, True), (SD | LEADING, False)):
        read = read_scheduler({"_class_name": "EulerDiscreteScheduler", **settings}, "file")
        scheduler = default_zoo().make("scheduler", read.scheduler)
        grid = scheduler.grid(ScheduleConfig(**read.schedule).build(), 10)
        theirs = diffusers.EulerDiscreteScheduler(**settings)
        theirs.set_timesteps(10)
        wanted = float(theirs.init_noise_sigma) * grid.levels[0].alpha
        assert float(scheduler.begin(noise, grid)[0, 0, 0, 0]) == pytest.approx(wanted, rel=1e-6)
        assert (wanted < 0.999) == scaled
