"""The U-Nets give what diffusers' give from the same weights, and refuse what they cannot do."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import published
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from genzoo_plugins.diffusion import memory
from genzoo_plugins.diffusion.unet import UNet2D, UNet2DCondition, UNet2DConditionConfig, UNet2DConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

TWO_LEVELS: dict[str, Any] = {
    "sample_size": 16,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "block_out_channels": [16, 32],
    "layers_per_block": 1,
    "norm_num_groups": 8,
}

#: google/ddpm-cifar10-32, a quarter as wide.
CIFAR10: dict[str, Any] = {**published.CIFAR10, "block_out_channels": [32, 64, 64, 64]}

PLAIN: dict[str, dict[str, Any]] = {
    "one head": TWO_LEVELS | {"attention_head_dim": None},
    "heads of 8": TWO_LEVELS | {"attention_head_dim": 8, "in_channels": 4, "out_channels": 5},
    "padding 0": TWO_LEVELS | {"downsample_padding": 0},
    "cos first, odd shift": TWO_LEVELS | {"flip_sin_to_cos": True, "freq_shift": 1},
    "sin first": TWO_LEVELS | {"flip_sin_to_cos": False, "freq_shift": 0, "time_embedding_dim": 24},
    "classes": TWO_LEVELS | {"num_class_embeds": 10},
    "class timestep": TWO_LEVELS | {"class_embed_type": "timestep"},
    "class identity": TWO_LEVELS | {"class_embed_type": "identity"},
    "scale shift": TWO_LEVELS | {"resnet_time_scale_shift": "scale_shift"},
    "scale shift, middle norm": TWO_LEVELS
    | {"resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": 4, "mid_block_scale_factor": 1.5},
    "resnet blocks": TWO_LEVELS
    | {
        "down_block_types": ["ResnetDownsampleBlock2D", "DownBlock2D"],
        "up_block_types": ["ResnetUpsampleBlock2D", "UpBlock2D"],
    },
    "resnet samplers": TWO_LEVELS
    | {
        "down_block_types": ["AttnDownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "AttnUpBlock2D"],
        "downsample_type": "resnet",
        "upsample_type": "resnet",
    },
    "samplers only where asked": TWO_LEVELS | {"downsample_type": "resnet", "upsample_type": "resnet"},
    "no middle": TWO_LEVELS | {"mid_block_type": None},
    "no middle attention": TWO_LEVELS | {"add_attention": False, "act_fn": "gelu"},
    "learned time": TWO_LEVELS | {"time_embedding_type": "learned", "num_train_timesteps": 1000},
    "fourier time": TWO_LEVELS | {"time_embedding_type": "fourier", "center_input_sample": True},
    "one level": TWO_LEVELS
    | {"down_block_types": ["AttnDownBlock2D"], "up_block_types": ["UpBlock2D"], "block_out_channels": [16]},
    "oblong": TWO_LEVELS | {"sample_size": [8, 16], "dropout": 0.5},
    "cifar10": CIFAR10,
    "imagenet64": published.IMAGENET64,
}

#: Stable Diffusion 1.5's configuration with every key that diffusers now writes, narrow and shallow.
STABLE1: dict[str, Any] = {
    "act_fn": "silu",
    "attention_head_dim": 8,
    "attention_type": "default",
    "block_out_channels": [16, 32, 32],
    "center_input_sample": False,
    "class_embeddings_concat": False,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "cross_attention_dim": 24,
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "downsample_padding": 1,
    "dual_cross_attention": False,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "norm_eps": 1e-05,
    "norm_num_groups": 8,
    "only_cross_attention": False,
    "out_channels": 4,
    "resnet_time_scale_shift": "default",
    "resnet_out_scale_factor": 1.0,
    "sample_size": 16,
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
    "upcast_attention": False,
    "use_linear_projection": False,
}

CONDITION: dict[str, dict[str, Any]] = {
    "stable diffusion 1": STABLE1,
    "stable diffusion 2": STABLE1
    | {"attention_head_dim": [2, 4, 4], "use_linear_projection": True, "upcast_attention": True},
    "uneven levels": STABLE1
    | {
        "layers_per_block": [1, 2, 1],
        "transformer_layers_per_block": [1, 2, 1],
        "cross_attention_dim": [24, 24, 24],
        "mid_block_scale_factor": 1.25,
        "act_fn": "gelu",
    },
    "classes, plain middle": STABLE1
    | {"num_class_embeds": 10, "mid_block_type": "UNetMidBlock2D", "resnet_time_scale_shift": "scale_shift"},
    "class timestep, no middle": STABLE1 | {"class_embed_type": "timestep", "mid_block_type": None, "act_fn": "mish"},
    "no context": STABLE1
    | {
        "down_block_types": ["DownBlock2D"] * 3,
        "up_block_types": ["UpBlock2D"] * 3,
        "mid_block_type": "UNetMidBlock2D",
    },
}

CASES = [pytest.param(UNet2D, keys, id=name) for name, keys in PLAIN.items()]
CASES += [pytest.param(UNet2DCondition, keys, id=name) for name, keys in CONDITION.items()]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def ours(kind: type[nn.Module], keys: dict[str, Any]) -> Any:
    config = UNet2DConfig if kind is UNet2D else UNet2DConditionConfig
    return kind(config(**keys)).eval()


def theirs(kind: type[nn.Module], keys: dict[str, Any]) -> Any:
    """Diffusers' network of these keys, with norms and biases that matter."""
    diffusers = pytest.importorskip("diffusers")
    known = {"UNet2D": diffusers.UNet2DModel, "UNet2DCondition": diffusers.UNet2DConditionModel}
    torch.manual_seed(0)
    model = known[kind.__name__](**keys).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.ndim == 1 and name != "time_proj.weight":
                value.add_(0.3 * torch.randn_like(value))
    return model


def norms(model: nn.Module) -> dict[str, tuple[float, int | None]]:
    kinds = (nn.GroupNorm, nn.LayerNorm)
    found = ((name, module) for name, module in model.named_modules() if isinstance(module, kinds))
    return {name: (module.eps, getattr(module, "num_groups", None)) for name, module in found}


def inputs(keys: dict[str, Any], batch: int = 2) -> dict[str, Tensor]:
    size = keys["sample_size"] if isinstance(keys["sample_size"], list) else [min(keys["sample_size"], 32)] * 2
    torch.manual_seed(1)
    given = {
        "sample": torch.randn(batch, keys.get("in_channels", 3), *size),
        "timestep": torch.tensor([981, 7, 500][:batch]),
    }
    if keys.get("class_embed_type") == "identity":
        given["class_labels"] = torch.randn(batch, 4 * keys["block_out_channels"][0])
    elif keys.get("class_embed_type") == "timestep":
        given["class_labels"] = torch.tensor([3, 250, 40][:batch])
    elif keys.get("num_class_embeds"):
        given["class_labels"] = torch.tensor([0, keys["num_class_embeds"] - 1, 1][:batch])
    if any(block.startswith("CrossAttn") for block in keys["down_block_types"]):
        given["encoder_hidden_states"] = torch.randn(batch, 7, 24)
    return given


@pytest.mark.parametrize(("kind", "keys"), CASES)
def test_same_output_as_diffusers(kind: type[nn.Module], keys: dict[str, Any]) -> None:
    given, reference, model = inputs(keys), theirs(kind, keys), ours(kind, keys)
    model.load_state_dict(reference.state_dict(), strict=True)
    # The outputs barely feel an eps of 1e-6 for one of 1e-5, so it is compared by itself.
    assert norms(model) == norms(reference)
    with torch.inference_mode():
        for timestep in (given["timestep"], given["timestep"][0]):
            given["timestep"] = timestep
            theirs_given: dict[str, Any] = dict(given)
            if kind is UNet2DCondition:
                theirs_given.setdefault("encoder_hidden_states", None)
            wanted = reference(**theirs_given).sample
            scale = wanted.abs().max().item()
            assert (model(**given) - wanted).abs().max().item() <= 1e-5 * scale

            last = {k: v.to(memory_format=torch.channels_last) if v.ndim == 4 else v for k, v in given.items()}
            got = model.to(memory_format=torch.channels_last)(**last)
            assert (got - wanted).abs().max().item() <= 1e-5 * scale
            assert got.is_contiguous(memory_format=torch.channels_last)
            model.to(memory_format=torch.contiguous_format)


@pytest.mark.parametrize(("kind", "keys"), CASES)
def test_a_batch_may_pass_in_parts(
    kind: type[nn.Module], keys: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    model, given = ours(kind, keys), inputs(keys, batch=3)
    model.to(memory_format=torch.channels_last)
    model.conv_in.register_forward_hook(lambda module, args, out: asked.append(len(out)))
    with torch.no_grad():
        for timestep in (given["timestep"], 7):
            given["timestep"] = timestep
            wanted = model(**given)
            assert asked.pop() == 3
            with monkeypatch.context() as patched:
                patched.setattr(memory, "LARGEST", 2 * int(4 * model.widest * given["sample"][0, 0].numel()))
                found = model(**given)
            assert [asked.pop(), asked.pop()] == [1, 2]
            torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
            assert found.is_contiguous(memory_format=torch.channels_last)
    monkeypatch.setattr(memory, "LARGEST", 1)
    model(**given)
    assert asked == [3], "gradients want the whole batch"


def test_the_widest_map_is_known_beforehand() -> None:
    model, given, seen = ours(UNet2D, CIFAR10), inputs(CIFAR10), []
    for module in model.modules():
        module.register_forward_hook(
            lambda module, args, out: seen.extend(t.numel() for t in (*args, out) if isinstance(t, Tensor))
        )
    with torch.no_grad():
        model(**given)
    assert max(seen) == model.widest * given["sample"][:, 0].numel()


@pytest.mark.parametrize(("kind", "keys"), [(UNet2D, published.IMAGENET64), (UNet2DCondition, STABLE1)])
def test_built_on_meta_and_filled(kind: type[nn.Module], keys: dict[str, Any]) -> None:
    real, given = ours(kind, keys), inputs(keys)
    with torch.device("meta"):
        model = ours(kind, keys)
    model.load_state_dict(real.state_dict(), assign=True)
    with torch.inference_mode():
        torch.testing.assert_close(model(**given), real(**given), rtol=0, atol=0)


@pytest.mark.parametrize(("kind", "keys"), [(UNet2D, PLAIN["classes"]), (UNet2DCondition, STABLE1)])
def test_autocast_and_bfloat16_stay_near(kind: type[nn.Module], keys: dict[str, Any]) -> None:
    model, given = ours(kind, keys), inputs(keys)
    with torch.inference_mode():
        wanted = model(**given)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            cast = model(**given)
        low = {k: v.bfloat16() if v.is_floating_point() else v for k, v in given.items()}
        half = model.bfloat16()(**low)
    assert half.dtype is torch.bfloat16
    for got in (cast, half):
        assert (got.float() - wanted).abs().max() < 0.05 * wanted.abs().max()


@pytest.mark.parametrize("keys", [PLAIN["one head"], published.IMAGENET64])
def test_gradients_reach_every_weight(keys: dict[str, Any]) -> None:
    model = ours(UNet2D, keys).train()
    model(**inputs(keys)).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        *((UNet2D, PLAIN[name]) for name in ("classes", "heads of 8", "scale shift, middle norm", "resnet samplers")),
        *((UNet2DCondition, CONDITION[name]) for name in ("stable diffusion 1", "stable diffusion 2")),
    ],
)
def test_same_gradients_as_diffusers(kind: type[nn.Module], keys: dict[str, Any]) -> None:
    given, reference, model = inputs(keys), theirs(kind, keys), ours(kind, keys)
    model.load_state_dict(reference.state_dict(), strict=True)
    model.to(memory_format=torch.channels_last)
    weights = torch.randn_like(given["sample"])[:, :1]
    for network in (reference, model):
        found = network(**given)
        ((found if network is model else found.sample) * weights).sum().backward()
    gradients = dict(model.named_parameters())
    for name, wanted in reference.named_parameters():
        assert wanted.grad is not None
        got, scale = gradients[name].grad, wanted.grad.abs().max().item()
        # A bias before a norm, or of the keys, has no gradient but rounding.
        assert (got - wanted.grad).abs().max().item() <= 1e-4 * scale + 2e-4, name


def test_no_graph_break_under_compile() -> None:
    model, given = ours(UNet2D, PLAIN["classes"]), inputs(PLAIN["classes"])
    with torch.no_grad():
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(**given), model(**given))


@pytest.mark.parametrize("name", ["one head", "heads of 8"])
def test_frozen_weights_are_compiled_as_they_are_computed(name: str) -> None:
    """With sizes folded, projections joined, and kernels called as they stand: seen in the compiler's graph."""
    given, model = inputs(PLAIN[name]), ours(UNet2D, PLAIN[name]).eval().requires_grad_(False)
    model.to(memory_format=torch.channels_last)
    seen: list[str] = []

    def backend(graph: torch.fx.GraphModule, example: list[Tensor]) -> Any:
        seen.extend(str(node.target) for node in graph.graph.nodes)
        return graph

    with torch.inference_mode():
        compiled = torch.compile(model, backend=backend, fullgraph=True, dynamic=False)
        torch.testing.assert_close(compiled(**given), model(**given), atol=1e-5, rtol=1e-5)
    told = " ".join(seen)
    assert "conv_transpose2d" in told
    assert ("genzoo_plugins.narrow_attention" in told) == (name == "heads of 8")


def test_timestep_as_a_number() -> None:
    model, sample = ours(UNet2D, TWO_LEVELS), inputs(TWO_LEVELS)["sample"]
    with torch.inference_mode():
        for timestep in (3, 3.5):
            same = model(sample, torch.full((2,), float(timestep)))
            torch.testing.assert_close(model(sample, timestep), same, rtol=1e-5, atol=1e-5)


def test_keys_and_defaults_are_those_of_diffusers() -> None:
    diffusers = pytest.importorskip("diffusers")
    pairs = [(UNet2DConfig, diffusers.UNet2DModel), (UNet2DConditionConfig, diffusers.UNet2DConditionModel)]
    for config, model in pairs:
        parameters = inspect.signature(model.__init__).parameters
        wanted = {name: p.default for name, p in parameters.items() if name != "self"}
        assert config().model_dump() == wanted


REFUSED: list[tuple[dict[str, Any], list[str]]] = [
    (
        {"down_block_types": ["DownBlock2D", "SkipDownBlock2D"]},
        ["down_block_types", "SkipDownBlock2D", "AttnDownBlock2D"],
    ),
    (
        {"up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"]},
        ["up_block_types", "CrossAttnUpBlock2D", "AttnUpBlock2D"],
    ),
    ({"mid_block_type": "UNetMidBlock2DCrossAttn"}, ["mid_block_type", "UNetMidBlock2DCrossAttn", "'UNetMidBlock2D'"]),
    ({"time_embedding_type": "rotary"}, ["time_embedding_type", "rotary", "positional", "fourier", "learned"]),
    ({"resnet_time_scale_shift": "spatial"}, ["resnet_time_scale_shift", "spatial", "scale_shift"]),
    ({"downsample_type": "fir"}, ["downsample_type", "fir", "conv", "resnet"]),
    ({"upsample_type": "fir"}, ["upsample_type", "fir", "conv", "resnet"]),
    ({"class_embed_type": "projection"}, ["class_embed_type", "projection", "timestep", "identity"]),
    ({"act_fn": "tanh"}, ["act_fn", "tanh", "silu"]),
    ({"downsample_padding": 2}, ["downsample_padding", "2", "0 or 1"]),
    (
        {"up_block_types": ["UpBlock2D"] * 3},
        ["down_block_types has 2", "up_block_types has 3", "block_out_channels has 2"],
    ),
    ({"block_out_channels": [16]}, ["down_block_types has 2", "up_block_types has 2", "block_out_channels has 1"]),
    ({"block_out_channels": [16, 36]}, ["block_out_channels 36", "norm_num_groups 8"]),
    ({"attention_head_dim": 5}, ["block_out_channels 32", "attention_head_dim 5"]),
    ({"attn_norm_num_groups": 5}, ["block_out_channels", "32", "attn_norm_num_groups 5"]),
    ({"time_embedding_type": "learned"}, ["learned", "num_train_timesteps"]),
    ({"freq_shift": 8}, ["freq_shift 8", "block_out_channels (16)"]),
    ({"sample_size": 15}, ["sample_size 15", "multiple of 2", "block_out_channels"]),
    ({"dropout": 1.0}, ["dropout"]),
    ({"norm_eps": 0.0}, ["norm_eps"]),
    ({"layers_per_block": 0}, ["layers_per_block"]),
    ({"layers_per_block": True}, ["layers_per_block"]),
    ({"widths": [1]}, ["widths"]),
]


@pytest.mark.parametrize(("change", "words"), REFUSED, ids=lambda v: ",".join(v) if isinstance(v, dict) else "")
def test_refused(change: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ValidationError) as caught:
        UNet2DConfig(**(TWO_LEVELS | change))
    assert all(word in str(caught.value) for word in words), caught.value


REFUSED_CONDITION: list[tuple[dict[str, Any], list[str]]] = [
    ({"addition_embed_type": "text_time"}, ["addition_embed_type", "text_time", "None"]),
    ({"conv_in_kernel": 5}, ["conv_in_kernel", "5", "3"]),
    ({"only_cross_attention": True}, ["only_cross_attention", "True", "False"]),
    ({"encoder_hid_dim": 768}, ["encoder_hid_dim", "768", "None"]),
    ({"resnet_out_scale_factor": 2.0}, ["resnet_out_scale_factor", "2.0", "1"]),
    ({"time_cond_proj_dim": 256}, ["time_cond_proj_dim", "256", "None"]),
    ({"layers_per_block": [1, 2]}, ["layers_per_block has 2", "block_out_channels has 3"]),
    ({"cross_attention_dim": [24, 24]}, ["cross_attention_dim has 2", "block_out_channels has 3"]),
    ({"attention_head_dim": [8]}, ["attention_head_dim has 1", "block_out_channels has 3"]),
    ({"num_attention_heads": [8]}, ["num_attention_heads has 1", "block_out_channels has 3"]),
    ({"num_attention_heads": 3}, ["block_out_channels 16", "3 heads", "num_attention_heads"]),
    ({"attention_head_dim": 3}, ["block_out_channels 16", "3 heads", "attention_head_dim"]),
    ({"cross_attention_dim": [24, 32, 24]}, ["cross_attention_dim", "24", "32"]),
    ({"down_block_types": ["CrossAttnDownBlock2D"]}, ["down_block_types has 1", "up_block_types has 3"]),
]


@pytest.mark.parametrize(
    ("change", "words"), REFUSED_CONDITION, ids=lambda v: ",".join(v) if isinstance(v, dict) else ""
)
def test_refused_condition(change: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ValidationError) as caught:
        UNet2DConditionConfig(**(STABLE1 | change))
    assert all(word in str(caught.value) for word in words), caught.value


def test_num_attention_heads_goes_before_attention_head_dim() -> None:
    config = UNet2DConditionConfig(**(STABLE1 | {"attention_head_dim": 8, "num_attention_heads": [2, 4, 4]}))
    assert config.heads == (2, 4, 4)


def test_wrong_inputs_are_refused_with_advice() -> None:
    model, classes, told = ours(UNet2D, TWO_LEVELS), ours(UNet2D, PLAIN["classes"]), ours(UNet2DCondition, STABLE1)
    x = torch.zeros(2, 3, 16, 16)
    latent, context = torch.zeros(2, 4, 16, 16), torch.zeros(2, 7, 24)
    labels = torch.tensor([1, 2])
    for call, words in [
        (lambda: model(torch.zeros(2, 3, 15, 16), 0), "15x16.*multiples of 2.*16x16"),
        (lambda: model(torch.zeros(2, 1, 16, 16), 0), r"in_channels.*\(2, 1, 16, 16\)"),
        (lambda: model(x[0], 0), r"sample must be \(N, 3, H, W\)"),
        (lambda: model(x, torch.zeros(3)), r"timestep must be .*\(2,\), got \(3,\)"),
        (lambda: model(x, 0, class_labels=labels), "class_labels .*without classes"),
        (lambda: model(x, 0, encoder_hidden_states=context), "encoder_hidden_states .*without cross-attention"),
        (lambda: classes(x, 0), r"pass class_labels.*\(2,\)"),
        (lambda: classes(x, 0, class_labels=labels[:1]), r"class_labels must have shape \(2,\), got \(1,\)"),
        (lambda: classes(x, 0, class_labels=labels.float()), "integers below 10"),
        (lambda: told(latent, 0), r"pass encoder_hidden_states of shape \(2, S, 24\)"),
        (lambda: told(latent, 0, encoder_hidden_states=context[:, :, :8]), r"\(2, S, 24\), got \(2, 7, 8\)"),
        (lambda: told(torch.zeros(2, 4, 18, 16), 0, encoder_hidden_states=context), "multiples of 4.*20x16"),
    ]:
        with pytest.raises(ValueError, match=words):
            call()
