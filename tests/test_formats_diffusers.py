"""Folders that diffusers wrote give diffusers' pixels; what is not understood is refused by its name."""

from __future__ import annotations

import contextlib
import json
import shutil
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml
from published import CIFAR10, IMAGENET64
from safetensors.torch import load_file, save_file
from small import UNET as TINY
from small import make_network
from torch import Tensor

from genzoo.errors import CardError, GenzooError, WeightsError
from genzoo.formats import FormatError, LocalFiles, recognise
from genzoo.registry import default_zoo
from genzoo_plugins.formats.keys import Keys
from genzoo_plugins.formats.samplers import SAMPLERS
from genzoo_plugins.formats.sampling import read_scheduler

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import diffusers
    from diffusers import (
        DDIMPipeline,
        DDIMScheduler,
        DDPMPipeline,
        DDPMScheduler,
        DPMSolverMultistepScheduler,
    )

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

#: Of google/ddpm-cifar10-32.
CIFAR10_SCHEDULER: dict[str, Any] = {
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "beta_start": 0.0001,
    "clip_sample": True,
    "num_train_timesteps": 1000,
    "trained_betas": None,
    "variance_type": "fixed_large",
}
#: google/ddpm-cat-256, a quarter as wide, at 64 pixels.
CAT: dict[str, Any] = {
    **CIFAR10,
    "block_out_channels": [32, 32, 64, 64, 128, 128],
    "down_block_types": ["DownBlock2D"] * 4 + ["AttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "AttnUpBlock2D"] + ["UpBlock2D"] * 4,
    "sample_size": 64,
}
#: 1aurent/ddpm-mnist in its keys.
MNIST: dict[str, Any] = {
    "in_channels": 1,
    "out_channels": 1,
    "sample_size": 32,
    "block_out_channels": [32, 32, 64, 64],
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "down_block_types": ["DownBlock2D", "DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D", "UpBlock2D"],
}
DDPM, DDIM, DPM = DDPMScheduler, DDIMScheduler, DPMSolverMultistepScheduler

#: name -> (network, scheduler class, its settings, steps, options of the pipeline).
CASES: dict[str, tuple[dict[str, Any], Any, dict[str, Any], int, dict[str, Any]]] = {
    "cifar10 ddpm": (CIFAR10, DDPM, CIFAR10_SCHEDULER, 2, {}),
    "cifar10 ddim": (CIFAR10, DDIM, {k: v for k, v in CIFAR10_SCHEDULER.items() if k != "variance_type"}, 2, {}),
    "cat ddpm": (CAT, DDPM, {**CIFAR10_SCHEDULER, "variance_type": "fixed_small"}, 3, {}),
    "cat ddim": (CAT, DDIM, {}, 3, {}),
    "mnist ddpm": (MNIST, DDPM, {}, 5, {}),
    "mnist ddim": (MNIST, DDIM, {}, 5, {}),
    "defaults ddpm": (TINY, DDPM, {}, 20, {}),
    "defaults ddim": (TINY, DDIM, {}, 20, {}),
    "ddpm all steps": (TINY, DDPM, {"num_train_timesteps": 60}, 60, {}),
    "ddim all steps": (TINY, DDIM, {"num_train_timesteps": 60}, 60, {}),
    "ddpm large": (TINY, DDPM, {"variance_type": "fixed_large"}, 13, {}),
    "ddpm small log": (TINY, DDPM, {"variance_type": "fixed_small_log"}, 13, {}),
    "ddpm scaled linear": (
        TINY,
        DDPM,
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
        9,
        {},
    ),
    "ddpm cosine": (TINY, DDPM, {"beta_schedule": "squaredcos_cap_v2"}, 9, {}),
    "ddpm sigmoid": (TINY, DDPM, {"beta_schedule": "sigmoid"}, 9, {}),
    "ddpm listed": (
        TINY,
        DDPM,
        {"trained_betas": [0.001 * (k + 1) for k in range(50)], "num_train_timesteps": 50},
        10,
        {},
    ),
    "ddpm v": (TINY, DDPM, {"prediction_type": "v_prediction"}, 9, {}),
    "ddpm x0": (TINY, DDPM, {"prediction_type": "sample"}, 9, {}),
    "ddpm no clip": (TINY, DDPM, {"clip_sample": False, "beta_end": 0.002}, 9, {}),
    "ddpm clip to 2": (TINY, DDPM, {"clip_sample_range": 2.0}, 9, {}),
    "ddpm trailing": (TINY, DDPM, {"timestep_spacing": "trailing"}, 7, {}),
    "ddpm linspace": (TINY, DDPM, {"timestep_spacing": "linspace"}, 7, {}),
    "ddpm offset": (TINY, DDPM, {"steps_offset": 1}, 10, {}),
    "ddpm zero snr": (
        TINY,
        DDPM,
        {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"},
        8,
        {},
    ),
    "ddim eta 0.5": (TINY, DDIM, {}, 10, {"eta": 0.5}),
    "ddim eta 1": (TINY, DDIM, {}, 10, {"eta": 1.0}),
    "ddim no clip": (TINY, DDIM, {"clip_sample": False, "beta_end": 0.002}, 10, {}),
    "ddim clip to 3": (TINY, DDIM, {"clip_sample_range": 3.0}, 10, {}),
    "ddim corrected": (TINY, DDIM, {}, 10, {"use_clipped_model_output": True}),
    "ddim trailing": (TINY, DDIM, {"timestep_spacing": "trailing"}, 10, {}),
    "ddim trailing, uneven": (TINY, DDIM, {"timestep_spacing": "trailing"}, 7, {}),
    "ddim linspace": (TINY, DDIM, {"timestep_spacing": "linspace"}, 10, {}),
    "ddim linspace, uneven": (TINY, DDIM, {"timestep_spacing": "linspace"}, 13, {"eta": 0.5}),
    "ddim linspace, last alpha": (TINY, DDIM, {"timestep_spacing": "linspace", "set_alpha_to_one": False}, 9, {}),
    "ddim v": (TINY, DDIM, {"prediction_type": "v_prediction"}, 10, {}),
    "ddim x0": (TINY, DDIM, {"prediction_type": "sample"}, 10, {}),
    "ddim last alpha": (TINY, DDIM, {"set_alpha_to_one": False}, 10, {}),
    "ddim as stable diffusion": (
        TINY,
        DDIM,
        {
            "set_alpha_to_one": False,
            "steps_offset": 1,
            "clip_sample": False,
            "beta_schedule": "scaled_linear",
            "beta_start": 0.00085,
            "beta_end": 0.012,
        },
        10,
        {},
    ),
    "ddim cosine": (TINY, DDIM, {"beta_schedule": "squaredcos_cap_v2"}, 10, {}),
    "ddim zero snr": (
        TINY,
        DDIM,
        {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"},
        10,
        {},
    ),
    "dpm-solver": (TINY, DPM, {"beta_end": 0.002}, 11, {}),
    "dpm-solver of order 1": (TINY, DPM, {"beta_end": 0.002, "solver_order": 1}, 11, {}),
    "dpm-solver of order 3": (TINY, DPM, {"beta_end": 0.002, "solver_order": 3}, 20, {}),
    "dpm-solver leading": (TINY, DPM, {"beta_end": 0.002, "timestep_spacing": "leading", "steps_offset": 1}, 20, {}),
    "dpm-solver trailing": (TINY, DPM, {"beta_end": 0.002, "timestep_spacing": "trailing"}, 7, {}),
    "dpm-solver heun v": (TINY, DPM, {"solver_type": "heun", "prediction_type": "v_prediction"}, 9, {}),
    "dpm-solver to the end": (TINY, DPM, {"beta_end": 0.002, "lower_order_final": False}, 9, {}),
    "dpm-solver sde": (TINY, DPM, {"beta_end": 0.002, "algorithm_type": "sde-dpmsolver++"}, 9, {}),
    "oblong": ({**TINY, "sample_size": [8, 16]}, DDIM, {}, 5, {}),
    "two channels": ({**TINY, "in_channels": 2, "out_channels": 2}, DDPM, {}, 5, {}),
    "fourier": ({**TINY, "time_embedding_type": "fourier"}, DDPM, {"steps_offset": 1}, 5, {}),
}


def save_pipeline(folder: Path, config: dict[str, Any], kind: Any, settings: dict[str, Any]) -> Any:
    pipeline = (DDIMPipeline if kind is DDIMScheduler else DDPMPipeline)(make_network(config), kind(**settings))
    pipeline.save_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def pictures(pipeline: Any, seeds: list[int], steps: int, **options: Any) -> Tensor:
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    out = pipeline(
        batch_size=len(seeds), generator=generators, num_inference_steps=steps, output_type="np", **options
    ).images
    return torch.from_numpy(out).permute(0, 3, 1, 2) * 2 - 1


def flatten(folder: Path) -> None:
    """Make the older, flat layout of a sub-foldered one."""
    for part, names in (
        ("unet", ("config.json", "diffusion_pytorch_model.safetensors")),
        ("scheduler", ("scheduler_config.json",)),
    ):
        for name in names:
            shutil.move(folder / part / name, folder / name)
        (folder / part).rmdir()


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


@pytest.mark.parametrize("name", CASES)
def test_pixels_are_those_of_the_original_pipeline(tmp_path: Path, name: str) -> None:
    config, kind, settings, steps, options = CASES[name]
    pipeline = save_pipeline(tmp_path, config, kind, settings)
    wanted = pictures(pipeline, [3, 4], steps, **options)
    model = default_zoo().load(str(tmp_path))
    given: dict[str, Any] = {}
    if options:
        spec = str(model.card.options["scheduler"]) if model.card else ""
        if "use_clipped_model_output" in options:
            spec = "ddim"
        if "eta" in options:
            spec += f",eta={options['eta']}"
        given = {"scheduler": spec}
    found = model.generate([3, 4], steps=steps, **given)
    assert wanted.std() > 0.05
    assert float((found - wanted).abs().max()) < 1e-4


def test_many_cases_are_tried() -> None:
    assert len(CASES) >= 20


def test_every_key_of_a_scheduler_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the library's class reads is asked for, whatever other classes' keys stand in the file."""
    asked: list[Keys] = []
    real = Keys.finish
    monkeypatch.setattr(Keys, "finish", lambda keys: asked.append(keys) or real(keys))
    everything: dict[str, Any] = {}
    own: dict[str, dict[str, Any]] = {}
    for name in (name for name in dir(diffusers) if name.endswith("Scheduler") and not name.startswith("Flax")):
        kind: Any = getattr(diffusers, name)
        with contextlib.suppress(AttributeError, ImportError, TypeError):
            own[name] = {k: v for k, v in kind().config.items() if not k.startswith("_")}
            if "beta_start" in own[name]:
                everything |= own[name]
    # Those take effect together with another key, which is refused.
    idle = {"dynamic_thresholding_ratio", "sample_max_value", "flow_shift", "time_shift_type"}
    for name in SAMPLERS:
        # The spacing that KDPM2 has where a file names none is refused.
        settings = {**everything, **own[name], **({"timestep_spacing": "trailing"} if "KDPM2" in name else {})}
        read_scheduler({"_class_name": name, **settings}, "file")
        assert set(own[name]) <= asked[-1].seen | idle, name
        with pytest.raises(FormatError, match="use_magic: not known here"):
            read_scheduler({"_class_name": name, **settings, "use_magic": 1}, "file")
    # As the files of Stable Diffusion 2.1 have it, whose conversion left another class's key behind.
    read = read_scheduler({"_class_name": "DDIMScheduler", "skip_prk_steps": True, "clip_sample": False}, "file")
    assert read.scheduler == "ddim"


def test_a_pipeline_makes_its_own_scheduler_of_the_file(tmp_path: Path) -> None:
    """The library's DDIMPipeline walks by DDIM, whatever class its folder names."""
    save_pipeline(tmp_path, TINY, DDPM, {})
    edit(tmp_path / "model_index.json", lambda index: index.update(_class_name="DDIMPipeline"))
    pipeline = DDIMPipeline.from_pretrained(tmp_path)
    pipeline.set_progress_bar_config(disable=True)
    model = default_zoo().load(str(tmp_path))
    assert model.card is not None
    assert model.card.options == {"steps": 50, "scheduler": "ddim:clip=1.0"}
    assert float((model.generate([1, 2], steps=10) - pictures(pipeline, [1, 2], 10)).abs().max()) < 1e-4


def test_ddim_of_a_folder_that_says_ddpm(tmp_path: Path) -> None:
    save_pipeline(tmp_path, TINY, DDPM, CIFAR10_SCHEDULER)
    pipeline = DDIMPipeline.from_pretrained(tmp_path)
    pipeline.set_progress_bar_config(disable=True)
    found = default_zoo().load(str(tmp_path)).generate([1, 2], steps=10, scheduler="ddim:clip=1")
    assert float((found - pictures(pipeline, [1, 2], 10)).abs().max()) < 1e-4


@pytest.mark.parametrize("guided", [False, True])
def test_class_conditional_networks(tmp_path: Path, guided: bool) -> None:
    config = IMAGENET64 if not guided else {**TINY, "num_class_embeds": 11}
    pipeline = save_pipeline(tmp_path, config, DDIM, {"clip_sample": True})
    if guided:
        path = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
        save_file(load_file(path), path, {"genzoo.null_class": "true"})
    model = default_zoo().load(str(tmp_path))
    assert model.num_classes == (10 if guided else 1000)
    labels, scale = torch.tensor([7, 2]), 2.5
    noise = torch.cat([torch.randn(1, *model.shape, generator=torch.Generator().manual_seed(seed)) for seed in (5, 6)])
    scheduler = DDIMScheduler()
    scheduler.set_timesteps(3)
    x = noise
    with torch.no_grad():
        for t in scheduler.timesteps:
            eps = pipeline.unet(x, t, class_labels=labels).sample
            if guided:
                free = pipeline.unet(x, t, class_labels=torch.tensor([10, 10])).sample
                eps = free + scale * (eps - free)
            x = scheduler.step(eps, t, x).prev_sample
    found = model.generate([5, 6], labels=[7, 2], steps=3, **({"guidance": scale} if guided else {}))
    assert float((found - x.clamp(-1, 1)).abs().max()) < 1e-4


def test_an_exact_guidance_of_one_needs_no_null_class(tmp_path: Path) -> None:
    save_pipeline(tmp_path, {**TINY, "num_class_embeds": 10}, DDIM, {})
    model = default_zoo().load(str(tmp_path))
    assert model.num_classes == 10
    with pytest.raises(GenzooError, match="null class"):
        model.generate([1], steps=2, guidance=2.0)


# -- layouts -----------------------------------------------------------------------------------------------------------


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    save_pipeline(tmp_path / "pipeline", TINY, DDPM, {})
    return tmp_path / "pipeline"


def _draw(folder: Path) -> Tensor:
    return default_zoo().load(str(folder)).generate([1, 2], steps=4)


def test_flat_and_nested_are_the_same(folder: Path) -> None:
    wanted = _draw(folder)
    flatten(folder)
    assert torch.equal(_draw(folder), wanted)
    (folder / "model_index.json").unlink()
    assert torch.equal(_draw(folder), wanted)


OLD = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


@pytest.mark.parametrize("square", [True, False])
def test_old_attention_names_and_shapes(folder: Path, square: bool) -> None:
    wanted = _draw(folder)
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = {}
    for name, tensor in load_file(path).items():
        for new, old in OLD.items():
            if f".{new}." in name:
                name = name.replace(f".{new}.", f".{old}.")
                tensor = tensor[:, :, None, None].contiguous() if square and tensor.ndim == 2 else tensor
        tensors[name] = tensor
    assert any(".proj_attn." in name for name in tensors)
    save_file(tensors, path)
    assert torch.equal(_draw(folder), wanted)


def test_keys_that_are_missing_take_the_classs_defaults(folder: Path) -> None:
    wanted = _draw(folder)
    edit(folder / "unet" / "config.json", lambda c: [c.pop(k) for k in list(c) if k not in (*TINY, "_class_name")])
    edit(folder / "scheduler" / "scheduler_config.json", lambda c: [c.pop(k) for k in list(c) if k != "_class_name"])
    assert torch.equal(_draw(folder), wanted)


def test_old_words_in_the_schedulers_file(folder: Path) -> None:
    wanted = _draw(folder)

    def old(config: dict[str, Any]) -> None:
        config["timesteps"] = config.pop("num_train_timesteps")
        config.update(timestep_values=None, tensor_format="pt", predict_epsilon=True)

    edit(folder / "scheduler" / "scheduler_config.json", old)
    assert torch.equal(_draw(folder), wanted)


def test_half_precision_and_shards(folder: Path) -> None:
    wanted = _draw(folder)
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    path.unlink()
    names = sorted(tensors)
    places = {name: f"diffusion_pytorch_model-0000{i % 3 + 1}-of-00003.safetensors" for i, name in enumerate(names)}
    for shard in set(places.values()):
        save_file({name: tensors[name] for name in names if places[name] == shard}, path.with_name(shard))
    index = path.with_name("diffusion_pytorch_model.safetensors.index.json")
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    assert torch.equal(_draw(folder), wanted)

    lost = path.with_name("diffusion_pytorch_model-00002-of-00003.safetensors")
    raw = lost.read_bytes()
    lost.unlink()
    with pytest.raises(FormatError, match="1 of 3 shards are missing: diffusion_pytorch_model-00002"):
        _draw(folder)
    lost.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(WeightsError, match="cut short"):
        _draw(folder)
    lost.write_bytes(raw)
    moved = next(name for name in names if places[name] == lost.name)
    index.write_text(json.dumps({"weight_map": {k: v for k, v in places.items() if k != moved}}))
    with pytest.raises(FormatError, match="is not where"):
        _draw(folder)
    for elsewhere in ("../../etc/passwd", "/etc/passwd", "./" + lost.name, lost.name.upper(), "x\n\x1b[31m"):
        index.write_text(json.dumps({"weight_map": {**places, moved: elsewhere}}))
        with pytest.raises(FormatError, match="missing") as caught:
            _draw(folder)
        assert str(caught.value).isprintable()

    for file in path.parent.glob("*.safetensors*"):
        file.unlink()
    save_file(
        {name: tensor.half() for name, tensor in tensors.items()},
        path.with_name("diffusion_pytorch_model.fp16.safetensors"),
    )
    assert float((_draw(folder) - wanted).abs().mean()) < 0.02


def test_the_card_says_where_it_comes_from(folder: Path) -> None:
    (folder / "README.md").write_text("---\ntags: [x]\nlicense: apache-2.0\n---\n# A model\n")
    card, tensors = recognise(default_zoo(), LocalFiles(folder))
    assert (card.name, card.licence, card.shape) == ("diffusion.pipeline", "apache-2.0", (3, 8, 8))
    assert all(name.startswith("denoiser.network.") for name in tensors)
    assert "genzoo" not in yaml.safe_dump(card.options)


# -- what is refused ---------------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "thresholding": ("scheduler", {"thresholding": True}, "thresholding"),
    "laplace": ("scheduler", {"beta_schedule": "laplace"}, "beta_schedule: 'laplace'"),
    "log of the large variance": ("scheduler", {"variance_type": "fixed_large_log"}, "variance_type"),
    "learned variance": ("scheduler", {"variance_type": "learned_range"}, "variance_type"),
    "noise on the finished image": (
        "scheduler",
        {"variance_type": "fixed_large", "timestep_spacing": "trailing"},
        "variance_type.*trailing",
    ),
    "other scheduler": ("scheduler", {"_class_name": "IPNDMScheduler"}, "IPNDM.*EulerDiscreteScheduler"),
    "consistency": ("scheduler", {"_class_name": "CMStochasticIterativeScheduler"}, "CMStochastic"),
    "a class that is no word": ("scheduler", {"_class_name": ["x"]}, "_class_name"),
    "the older solver": (
        "scheduler",
        {"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "dpmsolver"},
        "algorithm_type: dpmsolver with solver_order: 2",
    ),
    "a predictor of eps": ("scheduler", {"_class_name": "UniPCMultistepScheduler", "predict_x0": False}, "predict_x0"),
    "infinity where it may not be": ("scheduler", {"beta_end": float("inf")}, "beta_end|must be plain data"),
    "eps of pure noise": ("scheduler", {"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr"),
    "old prediction": ("scheduler", {"predict_epsilon": False}, "predict_epsilon"),
    "unknown prediction": ("scheduler", {"prediction_type": "flow"}, "prediction_type: 'flow'"),
    "unknown spacing": ("scheduler", {"timestep_spacing": "karras"}, "timestep_spacing"),
    "unknown key": ("scheduler", {"use_magic": 1}, "use_magic"),
    "steps as text": ("scheduler", {"num_train_timesteps": "1000"}, "num_train_timesteps"),
    "steps as truth": ("scheduler", {"num_train_timesteps": True}, "num_train_timesteps"),
    "offset below 0": ("scheduler", {"steps_offset": -1}, "steps_offset: -1"),
    "offset beyond any": ("scheduler", {"steps_offset": 10**30}, "steps_offset"),
    "no steps": ("scheduler", {"num_train_timesteps": 0}, "steps"),
    "endless steps": ("scheduler", {"num_train_timesteps": 10**12}, "steps"),
    "betas reversed": ("scheduler", {"beta_start": 0.5, "beta_end": 0.1}, "beta_start"),
    "betas beyond 1": ("scheduler", {"beta_end": 2.0}, "beta_end"),
    "listed betas beyond 1": ("scheduler", {"trained_betas": [0.1, 1.5]}, "betas"),
    "listed words": ("scheduler", {"trained_betas": ["a"]}, "betas"),
    "negative clip": ("scheduler", {"clip_sample_range": -1.0}, "clip"),
    "unknown block": ("unet", {"down_block_types": ["DownBlock2D", "SkipDownBlock2D"]}, "down_block_types"),
    "unknown key of the network": ("unet", {"use_magic": 1}, "use_magic"),
    "class_embed_type": ("unet", {"class_embed_type": "identity"}, "class_embed_type"),
    "no size": ("unet", {"sample_size": None}, "sample_size"),
    "size of text": ("unet", {"sample_size": "8"}, "sample_size"),
    "size of 7": ("unet", {"sample_size": 7}, "sample_size"),
    "huge": ("unet", {"block_out_channels": [65536, 65536], "layers_per_block": 60}, "asks for more"),
    "wider than its weights": ("unet", {"block_out_channels": [8, 32]}, "do not fit"),
    "learned sigma": ("unet", {"out_channels": 6}, "out_channels"),
    "other pipeline": ("index", {"_class_name": "LDMPipeline"}, "LDMPipeline"),
    "pipeline of code": ("index", {"_class_name": ["my_module", "Pipeline"]}, "not supported"),
    "other network": ("unet", {"_class_name": "UNet1DModel"}, "UNet1DModel"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_understood_is_refused_by_name(folder: Path, name: str) -> None:
    part, change, message = REFUSED[name]
    path = {
        "scheduler": folder / "scheduler" / "scheduler_config.json",
        "unet": folder / "unet" / "config.json",
        "index": folder / "model_index.json",
    }[part]
    edit(path, lambda data: data.update(change))
    with pytest.raises(GenzooError, match=message) as caught:
        default_zoo().load(str(folder))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not JSON"),
        ("[]", "mapping"),
        ('{"a": 1, "a": 2}', "twice"),
        ('{"beta_end": NaN}', "NaN"),
        ('{"beta_end": 1e999}', "beta_end|range|finite|Infinity|document|clip"),
        ('{"num_train_timesteps": ' + "9" * 5000 + "}", "not readable"),
        ("[" * 100_000, "not readable"),
        ("\xff", "UTF-8"),
    ],
)
def test_settings_that_are_not_json(folder: Path, content: str, message: str) -> None:
    (folder / "scheduler" / "scheduler_config.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(GenzooError, match=message):
        default_zoo().load(str(folder))


def test_unknown_layouts_say_what_was_tried(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(FormatError, match=r"no known layout.*genzoo: no config.json.*diffusers: no unet/config.json"):
        default_zoo().load(str(tmp_path))


def test_a_network_without_its_scheduler(folder: Path) -> None:
    with pytest.raises(FormatError, match=r"scheduler_config.json beside the UNet2DModel"):
        default_zoo().load(str(folder / "unet"))


def test_pickles_point_to_convert(folder: Path) -> None:
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    path.rename(path.with_suffix(".bin"))
    with pytest.raises(FormatError, match="genzoo convert"):
        default_zoo().load(str(folder))


def test_nothing_is_loaded_from_a_link_out_of_the_folder(folder: Path, tmp_path: Path) -> None:
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    path.rename(tmp_path / "elsewhere.safetensors")
    path.symlink_to(tmp_path / "elsewhere.safetensors")
    with pytest.raises(WeightsError, match="leaves"):
        default_zoo().load(str(folder))


def test_a_missing_path_says_so(tmp_path: Path) -> None:
    with pytest.raises((WeightsError, CardError), match="no such file"):
        default_zoo().load(str(tmp_path / "nothing"))
