"""Scheduler classes of the diffusers library, each with the keys that it reads, as registered schedulers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from genzoo.formats import FormatError
from genzoo_plugins.formats.keys import Keys

VARIANCES = {"fixed_small": "small", "fixed_small_log": "small", "fixed_large": "large"}

#: Other grids and other kinds of model: each changes the images where it is on.
OFF = frozenset({"use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_flow_sigmas"})
OFF |= {"use_dynamic_shifting", "rescale_betas_zero_snr"}


@dataclass(frozen=True)
class Asked:
    """What a scheduler's file says that its class reads as all do.

    Attributes:
        prediction: eps, v or x0.
        clip: x_0 is clamped to [-clip, clip]; None leaves it.
        spacing: leading, trailing or linspace.
        offset: added to leading times.
    """

    prediction: str
    clip: float | None
    spacing: str
    offset: int


#: (registered name, its options, steps by default).
Chosen = tuple[str, list[str], int]


@dataclass(frozen=True)
class Sampler:
    """A scheduler class of the library.

    Attributes:
        read: the scheduler that its own keys make.
        spacing: where the file says none.
        clips, thresholds, zero_snr: whether it knows clip_sample, thresholding, rescale_betas_zero_snr. The library
            passes over a key that the class does not know, as conversions between classes leave them behind.
    """

    read: Callable[[Keys, Asked], Chosen]
    spacing: str = "leading"
    clips: bool = False
    thresholds: bool = True
    zero_snr: bool = True


def _ddpm(keys: Keys, asked: Asked) -> Chosen:
    variance = keys.choose("variance_type", "fixed_small", VARIANCES)
    if variance == "large" and (asked.spacing == "trailing" or asked.offset):
        raise FormatError(
            f"{keys.source}: variance_type: 'fixed_large' is not supported with timestep_spacing 'trailing' or a "
            "steps_offset: the library adds noise to the finished image there"
        )
    return "ddpm", [*_grid(asked, "leading"), *([f"variance={variance}"] if variance != "small" else [])], 1000


def _ddim(keys: Keys, asked: Asked) -> Chosen:
    options = _grid(asked, "leading")
    # A leading grid has that stride by itself.
    options += ["stride=even"] if asked.spacing != "leading" else []
    options += [f"clip={asked.clip}"] if asked.clip is not None else []
    options += [] if keys.get("set_alpha_to_one", True, bool) else ["end=1"]
    return "ddim", options, 50


def _plms(keys: Keys, asked: Asked) -> Chosen:
    if asked.spacing == "linspace":
        raise FormatError(
            f"{keys.source}: timestep_spacing: 'linspace' is not supported for PNDMScheduler, whose steps then end "
            "between the times of its own grid, so that its mean is of other times than it takes them for; write "
            "'leading'"
        )
    if not keys.get("skip_prk_steps", False, bool):
        raise FormatError(f"{keys.source}: skip_prk_steps: False is not supported for PNDMScheduler; True is")
    if asked.prediction != "eps":
        raise FormatError(
            f"{keys.source}: prediction_type: only 'epsilon' is supported for PNDMScheduler, which otherwise takes the "
            "mean of what the network said at different times for one at the last; DDIMScheduler has no such slip"
        )
    return "plms", [*_grid(asked, ""), *([] if keys.get("set_alpha_to_one", False, bool) else ["end=1"])], 50


def _dpm_solver(keys: Keys, asked: Asked) -> Chosen:
    _refuse_others(keys, ("euler_at_final", "use_lu_lambdas"))
    keys.refuse("variance_type", None, *VARIANCES, "fixed_large_log")
    keys.refuse("lambda_min_clipped", float("-inf"))
    order, kind = keys.get("solver_order", 2, int), keys.get("algorithm_type", "dpmsolver++", str)
    variant = keys.choose("solver_type", "midpoint", {"midpoint": "midpoint", "heun": "heun"})
    known = {("dpmsolver++", 1): "dpmpp-1s", ("dpmsolver++", 2): "dpmpp-2m", ("dpmsolver++", 3): "dpmpp-3m"}
    known |= {("sde-dpmsolver++", 2): "dpmpp-2m-sde"}
    if (kind, order) not in known:
        raise FormatError(
            f"{keys.source}: algorithm_type: {kind[:60]!r} of solver_order {order} is not supported; these are: "
            f"{', '.join(f'{kind} of order {order}' for kind, order in known)}"
        )
    options = _grid(asked, "log-snr", inner=asked.spacing != "trailing")
    lowers = keys.get("lower_order_final", True, bool)
    if order == 2:
        options += [f"variant={variant}"] if variant != "midpoint" else []
    if order == 3:
        options += ["variant=published"]
    if order > 1:
        options += [] if lowers else ["lower_order_final=false"]
    return known[kind, order], options, 50


def _unipc(keys: Keys, asked: Asked) -> Chosen:
    _refuse_others(keys)
    keys.refuse("predict_x0", True)
    keys.refuse("disable_corrector", [])
    for name in ("solver_p", "sigma_min", "sigma_max", "shift_terminal"):
        keys.refuse(name, None)
    # bh1 divides 0 by 0 in its last step there.
    keys.choose("solver_type", "bh2", {"bh2": "bh2"})
    order = keys.get("solver_order", 2, int)
    if order not in (1, 2, 3):
        raise FormatError(f"{keys.source}: solver_order: {order} is not supported; 1, 2 and 3 are")
    options = [*_grid(asked, "log-snr", inner=asked.spacing != "trailing"), f"order={order}"]
    options += [] if keys.get("lower_order_final", True, bool) else ["lower_order_final=false"]
    return "unipc", options, 50


def _refuse_others(keys: Keys, more: tuple[str, ...] = ()) -> None:
    """What would make another grid or another end of it."""
    for name in sorted(OFF | set(more)):
        keys.refuse(name, False)
    keys.choose("final_sigmas_type", "zero", {"zero": "zero"})


def _grid(asked: Asked, usual: str, *, inner: bool = False) -> list[str]:
    """The options of a scheduler whose own spacing is ``usual``."""
    options = [f"spacing={asked.spacing}"] if asked.spacing != usual else []
    options += [f"offset={asked.offset}"] if asked.offset and asked.spacing == "leading" else []
    return options + (["inner=true"] if inner else [])


SAMPLERS: Mapping[str, Sampler] = {
    "DDPMScheduler": Sampler(_ddpm, clips=True),
    "DDIMScheduler": Sampler(_ddim, clips=True),
    "PNDMScheduler": Sampler(_plms, thresholds=False, zero_snr=False),
    "DPMSolverMultistepScheduler": Sampler(_dpm_solver, spacing="linspace", zero_snr=False),
    "UniPCMultistepScheduler": Sampler(_unipc, spacing="linspace", zero_snr=False),
}

#: Every key that a scheduler of images of the library reads: one that the class at hand does not know has no effect.
KNOWN = frozenset({"beta_end", "beta_schedule", "beta_start", "num_train_timesteps", "rescale_betas_zero_snr"})
KNOWN |= {"sigma_schedule", "snr_shift_scale", "trained_betas"}
KNOWN |= {"clip_sample", "clip_sample_range", "dynamic_thresholding_ratio", "predict_x0"}
KNOWN |= {"prediction_type", "sample_max_value", "thresholding", "variance_type"}
KNOWN |= {"final_sigmas_type", "flow_shift", "interpolation_type", "lambda_min_clipped"}
KNOWN |= {"set_alpha_to_one", "shift_terminal", "sigma_data", "sigma_max", "sigma_min", "steps_offset"}
KNOWN |= {"time_shift_type", "timestep_scaling", "timestep_spacing", "timestep_type", "use_beta_sigmas"}
KNOWN |= {"use_dynamic_shifting", "use_exponential_sigmas", "use_flow_sigmas", "use_karras_sigmas"}
KNOWN |= {"use_lu_lambdas"}
KNOWN |= {"algorithm_type", "corrector_order", "disable_corrector", "eta", "euler_at_final"}
KNOWN |= {"lower_order_final", "noise_sampler_seed", "original_inference_steps", "predictor_order"}
KNOWN |= {"s_churn", "skip_prk_steps", "solver_order", "solver_p", "solver_type", "tau_func"}
