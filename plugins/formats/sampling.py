"""scheduler_config.json of the diffusers library: the noise schedule and the scheduler, read and written."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from genzoo.cards import Card
from genzoo.formats import FormatError
from genzoo_plugins.formats.keys import Keys
from genzoo_plugins.formats.pipeline import IDLE, VERSION

KINDS = {"linear": "linear", "scaled_linear": "scaled-linear", "squaredcos_cap_v2": "cosine"}
PREDICTIONS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
VARIANCES = {"fixed_small": "small", "fixed_small_log": "small", "fixed_large": "large"}


@dataclass
class Sampling:
    """What a scheduler's file says, in genzoo's words."""

    schedule: dict[str, Any]
    prediction: str
    clip: float | None
    scheduler: str
    steps: int


def read_scheduler(data: Mapping[str, Any], source: str) -> Sampling:
    """A scheduler_config.json with every key honoured, or refused by its name."""
    keys, name = Keys(data, source, IDLE), data.get("_class_name", "DDPMScheduler")
    if name not in READERS:
        raise FormatError(
            f"{source}: _class_name: {str(name)[:60]!r} is not supported; these are: {', '.join(READERS)}"
        )
    schedule = _schedule(keys)
    prediction = keys.choose("prediction_type", "epsilon", PREDICTIONS)
    # What older files call the same.
    keys.refuse("predict_epsilon", True)
    keys.refuse("thresholding", False, None)
    for idle in ("dynamic_thresholding_ratio", "sample_max_value"):  # they belong to thresholding
        keys.seen.add(idle)
    clips = keys.get("clip_sample", name != "PNDMScheduler", bool)
    clip = keys.get("clip_sample_range", 1.0, float) if clips else None
    keys.seen.add("clip_sample_range")
    if schedule["zero_terminal_snr"] and prediction == "eps":
        raise FormatError(
            f"{source}: rescale_betas_zero_snr: a prediction of eps says nothing about the image where there is only "
            "noise; v_prediction and sample are supported"
        )
    spacing = keys.choose("timestep_spacing", "leading", {word: word for word in ("leading", "trailing", "linspace")})
    offset = keys.get("steps_offset", 0, int)
    found = Sampling(schedule, prediction, clip, "", 0)
    scheduler, options, steps = READERS[name](keys, found, spacing, offset)
    options += [f"offset={offset}"] if offset and spacing == "leading" else []
    keys.finish()
    found.scheduler, found.steps = ":".join(filter(None, [scheduler, ",".join(options)])), min(steps, schedule["steps"])
    return found


#: (registered name, its options, steps by default).
Chosen = tuple[str, list[str], int]


def _ddpm(keys: Keys, found: Sampling, spacing: str, offset: int) -> Chosen:
    options = [f"spacing={spacing}"] if spacing != "leading" else []
    variance = keys.choose("variance_type", "fixed_small", VARIANCES)
    if variance == "large" and (spacing == "trailing" or offset):
        raise FormatError(
            f"{keys.source}: variance_type: 'fixed_large' is not supported with timestep_spacing 'trailing' or a "
            "steps_offset: the library adds noise to the finished image there"
        )
    options += [f"variance={variance}"] if variance != "small" else []
    keys.seen.add("set_alpha_to_one")  # a DDIM setting that conversions leave behind
    return "ddpm", options, 1000


def _refuse_linspace(keys: Keys, spacing: str) -> None:
    if spacing == "linspace":
        raise FormatError(
            f"{keys.source}: timestep_spacing: 'linspace' is not supported for {keys.data['_class_name']}, whose steps "
            "then end between the times of its own grid, so that the network is told a wrong time; write 'trailing', "
            "which begins in the noise as it does, or 'leading'"
        )


def _ddim(keys: Keys, found: Sampling, spacing: str, offset: int) -> Chosen:
    _refuse_linspace(keys, spacing)
    options = [f"spacing={spacing}"] if spacing != "leading" else []
    options += [f"clip={found.clip}"] if found.clip is not None else []
    options += [] if keys.get("set_alpha_to_one", True, bool) else ["end=1"]
    keys.refuse("variance_type", "fixed_small", "fixed_large", "fixed_small_log", "fixed_large_log")  # not read
    return "ddim", options, 50


def _plms(keys: Keys, found: Sampling, spacing: str, offset: int) -> Chosen:
    _refuse_linspace(keys, spacing)
    if not keys.get("skip_prk_steps", False, bool):
        raise FormatError(f"{keys.source}: skip_prk_steps: False is not supported for PNDMScheduler; True is")
    if found.clip is not None:
        raise FormatError(f"{keys.source}: clip_sample: True is not supported for PNDMScheduler, which never clips")
    if found.prediction != "eps":
        raise FormatError(
            f"{keys.source}: prediction_type: only 'epsilon' is supported for PNDMScheduler, which otherwise takes the "
            "mean of what the network said at different times for one at the last; DDIMScheduler has no such slip"
        )
    options = [f"spacing={spacing}"]
    options += [] if keys.get("set_alpha_to_one", False, bool) else ["end=1"]
    return "plms", options, 50


READERS: Mapping[str, Callable[[Keys, Sampling, str, int], Chosen]] = {
    "DDPMScheduler": _ddpm,
    "DDIMScheduler": _ddim,
    "PNDMScheduler": _plms,
}


def _schedule(keys: Keys) -> dict[str, Any]:
    keys.seen.add("timesteps")
    old = keys.data.get("timesteps", 1000)
    steps = keys.get("num_train_timesteps", old, int)
    start, end = keys.get("beta_start", 1e-4, float), keys.get("beta_end", 0.02, float)
    word = keys.get("beta_schedule", "linear", str)
    out: dict[str, Any] = {"steps": steps, "zero_terminal_snr": keys.get("rescale_betas_zero_snr", False, bool)}
    listed = keys.get("trained_betas", None, (list, type(None)))
    if listed is not None:
        # The list goes first; the other keys are then not read.
        return {**out, "kind": "listed", "steps": len(listed), "betas": listed}
    if word == "sigmoid":
        if not 1 <= steps <= 4096:
            raise FormatError(
                f"{keys.source}: num_train_timesteps: {steps} is not supported for 'sigmoid': 1 to 4096 are"
            )
        return {**out, "kind": "listed", "betas": _sigmoid(steps, start, end)}
    kind = keys.choose("beta_schedule", "linear", {**KINDS, "sigmoid": ""})
    return {**out, "kind": kind, "beta_start": start, "beta_end": end}


def _sigmoid(steps: int, start: float, end: float) -> list[float]:
    """beta_k = start + (end - start) / (1 + exp(-u_k)), u from -6 to 6 (Xu et al. 2022, GeoDiff)."""
    places = [-6 + 12 * k / max(steps - 1, 1) for k in range(steps)]
    return [start + (end - start) / (1 + math.exp(-u)) for u in places]


def scheduler_file(card: Card) -> dict[str, Any]:
    """scheduler_config.json of a card: its schedule, and the scheduler among its options."""
    name, _, rest = str(card.options.get("scheduler", "ddim")).partition(":")
    given = dict(part.partition("=")[::2] for part in rest.split(",") if part)
    if name not in ("ddim", "ddpm"):
        raise FormatError(f"{card.name}: its scheduler {name!r} is not written in this layout; ddim and ddpm are")
    schedule, clip = card.config.get("schedule") or {}, card.config.get("clip", 1.0)
    words = {ours: theirs for theirs, ours in KINDS.items()}
    kind = schedule.get("kind", "linear")
    if "flow" in (kind, card.config.get("prediction")):
        raise FormatError(f"{card.name}: a flow schedule or prediction is not written in this layout; write 'genzoo'")
    out: dict[str, Any] = {
        "_class_name": "DDIMScheduler" if name == "ddim" else "DDPMScheduler",
        "_diffusers_version": VERSION,
        "num_train_timesteps": schedule.get("steps", 1000),
        "beta_start": schedule.get("beta_start", 1e-4),
        "beta_end": schedule.get("beta_end", 0.02),
        "beta_schedule": words.get(kind, "linear"),
        "trained_betas": schedule["betas"] if kind == "listed" else None,
        "rescale_betas_zero_snr": schedule.get("zero_terminal_snr", False),
        "prediction_type": {ours: theirs for theirs, ours in PREDICTIONS.items()}[card.config.get("prediction", "eps")],
        "timestep_spacing": given.pop("spacing", "leading"),
        "steps_offset": int(given.pop("offset", 0)),
        "thresholding": False,
    }
    clip = float(given.pop("clip", clip)) if clip is not None or "clip" in given else None
    out |= {"clip_sample": clip is not None, "clip_sample_range": clip if clip is not None else 1.0}
    if name == "ddim":
        given.pop("eta", None)  # an argument of the pipeline, there
        out["set_alpha_to_one"] = given.pop("end", "0") == "0"
    else:
        out["variance_type"] = {"small": "fixed_small", "large": "fixed_large"}[given.pop("variance", "small")]
    if given:
        raise FormatError(f"{card.name}: {', '.join(given)}: an option of {name} that this layout cannot say")
    return out
