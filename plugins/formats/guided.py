"""Checkpoints of OpenAI's improved-diffusion and guided-diffusion, once converted: genzoo's U-Net under other names.

A file holds tensors and no settings. Widths, depth, the places of attention, how levels are resampled, classes and a
learned variance follow from names and shapes; the rest (the side of an image, heads, the noise schedule) is asked for
in a ``config.json`` beside it, under the names of the flags that the model was trained with.
"""

from __future__ import annotations

import re
from typing import Any

from genzoo.cards import Card
from genzoo.errors import CardError, WeightsError
from genzoo.formats import Files, Format, FormatError, card_of
from genzoo.tensors import Tensors
from genzoo_plugins.formats.guided_network import Heads, Plan, network_config, translated
from genzoo_plugins.formats.keys import Keys

PAPER = "Diffusion models beat GANs on image synthesis, arXiv:2105.05233"

SETTINGS = "config.json"

#: What must be given, for no tensor says it.
WANTED = ("image_size", "diffusion_steps", "noise_schedule")

#: Flags that follow from the tensors: where they are given, they must agree.
IMPLIED = frozenset({"num_channels", "num_res_blocks", "channel_mult", "attention_resolutions", "class_cond"})
IMPLIED |= {"learn_sigma", "resblock_updown", "use_scale_shift_norm"}

#: Flags of training, of memory, and of one run of sampling.
IDLE = frozenset({"dropout", "use_checkpoint", "use_fp16", "use_kl", "rescale_learned_sigmas", "sigma_small"})
IDLE |= {"timestep_respacing", "use_ddim", "large_size", "small_size"}

#: Everything that a settings file may hold.
FLAGS = {*WANTED, *IMPLIED, *IDLE, "num_heads", "num_head_channels", "num_heads_upsample", "use_new_attention_order"}
FLAGS |= {"predict_xstart", "rescale_timesteps"}


class Guided(Format):
    """One safetensors file with ``input_blocks``, ``middle_block``, ``output_blocks``, and its flags beside it."""

    def detect(self, files: Files) -> str | None:
        weights = [name for name in files.names if name.endswith(".safetensors")]
        settings = [name for name in files.names if name.endswith(".json")]
        if len(weights) != 1:
            return f"{len(weights)} safetensors files, not one"
        try:
            # Settings of another library are seen before its weights, perhaps gigabytes, are fetched.
            if settings and (settings != [SETTINGS] or not files.json(SETTINGS).keys() <= FLAGS):
                return f"{settings[0]} holds no flags of guided-diffusion"
            names = files.header(weights[0]).slots
        except (CardError, WeightsError) as error:
            return str(error)
        wanted = ("time_embed.0.weight", "input_blocks.1.0.in_layers.2.weight", "middle_block.1.qkv.weight")
        lost = [name for name in wanted if name not in names]
        return f"no tensor {lost[0]}" if lost else None

    def read(self, files: Files) -> tuple[Card, Tensors]:
        name = next(name for name in files.names if name.endswith(".safetensors"))
        plan = Plan.of(files.header(name).slots, files.source)
        if SETTINGS not in files:
            raise FormatError(
                f"{files.source}: no {SETTINGS} beside {name}: it must say {', '.join(WANTED)} and num_heads or "
                'num_head_channels, which no tensor shows; as {"image_size": 64, "diffusion_steps": 1000, '
                '"noise_schedule": "cosine", "num_head_channels": 64, "use_new_attention_order": true}; load the folder'
            )
        keys = Keys(files.json(SETTINGS), f"{files.source}: {SETTINGS}", IDLE)
        lost = [flag for flag in WANTED if flag not in keys.data]
        if lost:
            raise FormatError(f"{keys.source}: {', '.join(lost)}: missing, and no tensor shows it; add it")
        side = keys.get("image_size", None, int)
        _compare(plan, side, keys)
        heads = _heads(keys)
        card = card_of(
            files,
            "diffusion",
            "A diffusion model of OpenAI's guided-diffusion",
            shape=(plan.in_channels, side, side),
            config={
                "network": network_config(plan, heads, side),
                "schedule": _schedule(keys),
                "prediction": "x0" if keys.get("predict_xstart", False, bool) else "eps",
                "num_classes": plan.classes,
                "null_class": False,
            },
            options={"steps": 50, "scheduler": "ddim"},
            paper=PAPER,
        )
        keys.finish()
        return card, translated(files.tensors(name), plan, heads, files.source)


def _numbers(keys: Keys, flag: str) -> tuple[int, ...]:
    """A flag that is a list of numbers with commas between."""
    text = keys.get(flag, "", str)
    if not re.fullmatch(r"(\d{1,6}(,\s*\d{1,6})*)?", text, re.ASCII):
        raise FormatError(f"{keys.source}: {flag}: {text[:60]!r} is no list of whole numbers; write it as '32,16,8'")
    return tuple(int(part) for part in text.split(",") if part)


def _compare(plan: Plan, side: int, keys: Keys) -> None:
    """Refuse flags that say other than the tensors do."""
    found: dict[str, Any] = {
        "num_channels": plan.time_channels,
        "num_res_blocks": plan.layers,
        "class_cond": plan.classes > 0,
        "learn_sigma": plan.out_channels == 2 * plan.in_channels,
        "resblock_updown": plan.resampled or len(plan.widths) == 1,
        "use_scale_shift_norm": plan.scale_shift,
    }
    given = {flag: keys.get(flag, value, type(value)) for flag, value in found.items()}
    if mults := _numbers(keys, "channel_mult"):
        given["channel_mult"] = tuple(mult * plan.time_channels for mult in mults)
        found["channel_mult"] = plan.widths
    if "attention_resolutions" in keys.data:
        sides = _numbers(keys, "attention_resolutions")
        given["attention_resolutions"] = tuple(side >> i in sides for i in range(len(plan.widths)))
        found["attention_resolutions"] = plan.attended
    wrong = [
        f"{flag}: {given[flag]!r}, where the tensors show {found[flag]!r}"
        for flag in given
        if given[flag] != found[flag]
    ]
    if wrong:
        raise FormatError(f"{keys.source}: {'; '.join(wrong)}; mend it, or leave it out")
    if plan.out_channels not in (plan.in_channels, 2 * plan.in_channels):
        raise FormatError(
            f"{keys.source}: {plan.in_channels} channels in and {plan.out_channels} out: models that enlarge a given "
            "image are not supported"
        )


def _heads(keys: Keys) -> Heads:
    width, count = keys.get("num_head_channels", -1, int), keys.get("num_heads", 0, int)
    grouped = not keys.get("use_new_attention_order", False, bool)
    keys.refuse("num_heads_upsample", -1, count)
    if width > 0:
        return Heads(width, None, grouped)
    if count < 1:
        raise FormatError(
            f"{keys.source}: num_heads: missing, and no tensor shows it; add it, or num_head_channels (the code's own "
            "default is num_heads 4)"
        )
    return Heads(None, count, grouped)


def _schedule(keys: Keys) -> dict[str, Any]:
    steps = keys.get("diffusion_steps", None, int)
    kind = keys.choose("noise_schedule", "", {"linear": "linear", "cosine": "cosine"})
    if keys.get("rescale_timesteps", False, bool) and steps != 1000:
        raise FormatError(f"{keys.source}: rescale_timesteps: True is not supported with other than 1000 steps")
    if kind == "cosine":
        return {"kind": kind, "steps": steps}
    if steps < 21:
        raise FormatError(f"{keys.source}: diffusion_steps: {steps} is not supported for 'linear': 21 or more are")
    # Stretched, so that any number of steps ends in as much noise as 1000 do.
    return {"kind": kind, "steps": steps, "beta_start": 0.1 / steps, "beta_end": 20 / steps}
