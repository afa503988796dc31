"""Editing: what must stay, what must come out, exact answers of a Gaussian mixture, and files that do harm."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from oracle import PAIR, oracle
from PIL import Image
from solver_oracle import Oracle, Smooth, flow
from torch import Tensor

from genzoo import cli
from genzoo.editing import Walk, renoise, tail
from genzoo.errors import GenzooError, OptionError
from genzoo.images import read_png, save_png, to_bytes, to_floats
from genzoo.noise import Noise
from genzoo.registry import default_zoo
from genzoo.schedule import ScheduleConfig
from genzoo.scheduler import Grid, Scheduler
from genzoo_plugins.dcgan.model import DCGAN
from genzoo_plugins.diffusion.model import Diffusion, DiffusionConfig
from genzoo_plugins.diffusion.schedulers import DDIM, DDPM
from genzoo_plugins.editing.editors import Inversion, RePaint, SDEdit, inverted
from genzoo_plugins.solvers.dpm_solver import DPMpp2M

LINEAR = ScheduleConfig().build()
SIDE = 8


def diffusion(**settings: Any) -> Diffusion:
    """A small model with patches of 2 pixels and random weights, the same every time."""
    rows = settings.get("num_classes", 3) + (1 if settings.get("null_class", True) else 0)
    network = {
        "kind": "unet", "sample_size": SIDE // 2, "in_channels": 4, "out_channels": 4, "block_out_channels": [16],
        "down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"], "layers_per_block": 1,
        "norm_num_groups": 8, "num_class_embeds": rows or None,
    }  # fmt: skip
    full = {"network": network, "num_classes": 3, "patch": 2, "prediction": "v", "schedule": {"kind": "cosine"}}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Diffusion(DiffusionConfig.model_validate({**full, **settings})).eval()


@pytest.fixture(scope="module")
def model() -> Diffusion:
    """One that no test changes."""
    return diffusion()


def pictures(count: int = 3) -> Tensor:
    """Bytes, as floats: what a file holds."""
    stream = torch.Generator().manual_seed(1)
    return to_floats(torch.randint(0, 256, (count, 1, SIDE, SIDE), generator=stream, dtype=torch.uint8))


def half() -> Tensor:
    """The right half may change."""
    mask = torch.zeros(SIDE, SIDE)
    mask[:, SIDE // 2 :] = 1
    return mask


WALKS = ["ddim", "ddpm", "ddim:eta=0.5,spacing=trailing", "dpmpp-2m", "heun", "unipc", "churn", "lcm", "pndm"]
WALKS += ["euler:spacing=even,start=level"]

# -- what must come out ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheduler", WALKS)
def test_strength_1_is_generation_and_0_the_image(model: Diffusion, scheduler: str) -> None:
    call: dict[str, Any] = {"scheduler": scheduler, "steps": 5, "labels": [0, 1, 2], "guidance": 2.0}
    made, image = model.generate([4, 5, 6], **call), pictures()
    everywhere = torch.ones(SIDE, SIDE)
    one_go = RePaint(resamplings=1, jump=5)
    for edit in ({}, {"method": "sdedit"}, {"mask": everywhere, "method": "sdedit"}):
        assert torch.equal(model.generate([4, 5, 6], image=image, strength=1, **edit, **call), made)
    assert torch.equal(model.generate([4, 5, 6], image=image, mask=everywhere, method=one_go, **call), made)
    for method in ("sdedit", "repaint"):
        again = {"image": image, "mask": half(), "method": method, **call}
        assert torch.equal(model.generate([4, 5, 6], strength=0, **again), image)
        assert torch.equal(model.generate([4, 5, 6], **{**again, "mask": 0 * half()}), image)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_strength_0_is_the_image_whatever_the_weights(dtype: torch.dtype) -> None:
    image = pictures()
    assert torch.equal(diffusion().to(dtype).generate(image=image, strength=0, steps=5, labels=1), image)


@pytest.mark.parametrize("method", ["sdedit", "repaint:resamplings=3,jump=2", "inversion"])
@pytest.mark.parametrize("strength", [0.3, 0.8, 1.0])
def test_known_pixels_are_kept_to_the_last_bit(model: Diffusion, method: str, strength: float) -> None:
    image = pictures()
    for model_ in (model, diffusion().bfloat16()):
        out = model_.generate(
            [1, 2, 3], image=image, mask=half(), method=method, strength=strength, steps=6, labels=[0, 1, 2]
        )
        assert torch.equal(out[..., : SIDE // 2], image[..., : SIDE // 2])
        assert not torch.equal(out[..., SIDE // 2 :], image[..., SIDE // 2 :])
        assert torch.equal(to_floats(to_bytes(out))[..., : SIDE // 2], image[..., : SIDE // 2]), "in a file as well"


KINDS: dict[str, dict[str, Any]] = {
    "eps": {"prediction": "eps", "schedule": {"kind": "linear"}},
    "x0": {"prediction": "x0"},
    "ends in pure noise": {"schedule": {"kind": "scaled-linear", "zero_terminal_snr": True}},
    "flow": {"prediction": "flow", "schedule": {"kind": "flow"}, "clip": None},
    "sigma": {"prediction": "edm", "schedule": {"kind": "edm"}},
    "ten levels": {"schedule": {"kind": "linear", "steps": 10, "beta_start": 0.01, "beta_end": 0.5}},
    "unconditional": {"num_classes": 0, "null_class": False},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["sdedit", "repaint:resamplings=2", "inversion"])
@pytest.mark.parametrize("scheduler", ["ddim:spacing=trailing", "dpmpp-2m", "heun", "ddpm:spacing=trailing"])
def test_any_diffusion_card_edits(kind: str, method: str, scheduler: str) -> None:
    """Of 4 x 8 pixels: as many steps as levels and one alone, the known half untouched, strength 1 and 0 exact."""
    if method == "inversion" and scheduler.startswith("ddpm"):
        return
    network = diffusion(**{k: v for k, v in KINDS[kind].items() if "class" in k}).config.network
    shape = network.model_copy(update={"sample_size": (2, 4)})
    model = diffusion(**KINDS[kind], network=shape.model_dump())
    image = pictures()[:, :, :4]
    mask = torch.zeros(4, SIDE)
    mask[:, :3] = 1
    call: dict[str, Any] = {"image": image, "method": method, "scheduler": scheduler}
    if model.num_classes:
        call["labels"] = [0, 1, 2]
    for steps, strength in ((10, 0.6), (10, 1.0), (1, 1.0)):
        out = model.generate([1, 2, 3], mask=mask, steps=steps, strength=strength, **call)
        assert out.shape == image.shape
        assert out.isfinite().all()
        assert float(out.abs().max()) <= 1
        assert torch.equal(out[..., 3:], image[..., 3:])
        assert not torch.equal(out[..., :3], image[..., :3])
    assert torch.equal(model.generate([1, 2, 3], mask=mask, steps=10, strength=0, **call), image)


@pytest.mark.parametrize("method", ["sdedit", "repaint:resamplings=2", "inversion"])
def test_an_edit_depends_on_its_own_image_mask_and_seed_alone(model: Diffusion, method: str) -> None:
    image = pictures()
    masks = torch.stack([half(), half().T, 1 - half()])[:, None]
    call: dict[str, Any] = {
        "method": method, "steps": 4, "scheduler": "ddim" if method == "inversion" else "ddpm", "strength": 0.9
    }  # fmt: skip
    together = model.generate([7, 8, 9], image=image, mask=masks, labels=[2, 0, 1], batch=2, exact=True, **call)
    for i, (seed, label) in enumerate(((7, 2), (8, 0), (9, 1))):
        alone = model.generate([seed], image=image[i], mask=masks[i], labels=label, batch=2, exact=True, **call)
        assert torch.equal(alone[0], together[i])
    spread = model.generate([7, 8], image=image[0], mask=masks[0], labels=1, **call)
    assert spread.shape == (2, 1, SIDE, SIDE)
    assert torch.equal(spread[0], spread[1]) == (method == "inversion"), "only inversion has no use for the seed"
    assert len(model.generate(image=image, labels=1, **{**call, "method": "sdedit"})) == 3, "seeds 0, 1, 2"


def test_a_small_strength_stays_near_and_a_large_one_goes_far(model: Diffusion) -> None:
    image = pictures()
    call: dict[str, Any] = {"image": image, "steps": 20, "scheduler": "ddim:spacing=trailing", "labels": [0, 1, 2]}
    far = [float((model.generate([1, 2, 3], strength=s, **call) - image).square().mean()) for s in (0.05, 0.3, 0.7, 1)]
    assert far == sorted(far)


def test_the_tail_of_a_grid_begins_at_its_nearest_level() -> None:
    grid = DDIM(spacing="trailing").grid(LINEAR, 10)
    assert tail(grid, 1.0) == grid
    for strength, first in ((0.6, 600), (0.64, 600), (0.65, 700), (0.05, 100), (0.99, 1000)):
        found = tail(grid, strength)
        assert found is not None
        assert found.times[0] == first
        assert found.times[-1] == 0
        assert found.schedule is grid.schedule
    assert tail(grid, 0.04) is tail(grid, 0.0) is None
    in_place = DDIM(end=1).grid(LINEAR, 10)
    assert in_place.times[-2:] == (1, 1)
    assert tail(in_place, 0.0) is None


def test_noising_back_keeps_the_level() -> None:
    grid, noise = DDIM().grid(LINEAR, 5), Noise([3], dtype=torch.float64)
    for here in grid.levels[1:]:
        there = grid.levels[0]
        x = here.alpha * 0.7 + here.sigma * noise.normal(100, 100)
        x = renoise(x, here, there, noise)
        assert float(x.mean()) == pytest.approx(there.alpha * 0.7, abs=0.04)
        assert float(x.std()) == pytest.approx(there.sigma, abs=0.03)


# -- inpainting, held against the exact answer -----------------------------------------------------------------------


def conditional_mean(known: float) -> float:
    """The mean of the second coordinate of PAIR where the first is known."""
    share = PAIR.weights / PAIR.deviations * torch.exp(-0.5 * ((known - PAIR.means[:, 0]) / PAIR.deviations) ** 2)
    return float(share @ PAIR.means[:, 1] / share.sum())


def inpainted(editor: Any, scheduler: Scheduler, steps: int, size: int = 70, known: float = 0.6) -> Tensor:
    """The second coordinates of size^2 samples whose first is known."""
    image = torch.full((1, 2, size, size), known, dtype=torch.float64)
    mask = torch.zeros_like(image, dtype=torch.bool)
    mask[:, 1] = True
    noise, denoiser = Noise([5], dtype=torch.float64), oracle(PAIR, LINEAR)
    start, grid = noise.normal(2, size, size), scheduler.grid(LINEAR, steps)
    walk = Walk(
        scheduler,
        grid,
        noise,
        start,
        image,
        mask,
        True,
        lambda: lambda x, t: denoiser(x, t, {}),
        lambda label: None,  # type: ignore[arg-type, return-value]
    )
    *_, out = editor.edit(walk)
    torch.testing.assert_close(out[:, 0], image[:, 0], rtol=0, atol=1e-9)
    return out[:, 1].flatten()


def test_resampling_comes_closer_to_the_conditional_mean_than_replacement() -> None:
    """Replacement learns of the known pixels too late, when the component has been chosen; resampling chooses again.

    Five standard errors are 0.025. Where the components are far apart, between both, ten resamplings do little.
    """
    walks = (SDEdit(), RePaint(resamplings=10))
    drawn = [inpainted(editor, DDPM(spacing="trailing"), 40) for editor in walks]
    replaced, resampled = (abs(float(x.mean()) - conditional_mean(0.6)) for x in drawn)
    assert replaced > 0.1
    assert resampled < 0.5 * replaced


def conditional_deviation(known: float) -> float:
    """Of the second coordinate of PAIR where the first is known."""
    share = PAIR.weights / PAIR.deviations * torch.exp(-0.5 * ((known - PAIR.means[:, 0]) / PAIR.deviations) ** 2)
    second = share @ (PAIR.deviations**2 + PAIR.means[:, 1] ** 2) / share.sum()
    return math.sqrt(float(second) - conditional_mean(known) ** 2)


def test_many_resamplings_draw_from_the_conditional() -> None:
    """Five standard errors of the mean are 0.035; the deviation's are 0.025 and less."""
    drawn = inpainted(RePaint(resamplings=20), DDPM(spacing="trailing", variance="large"), 100, size=40)
    assert float(drawn.mean()) == pytest.approx(conditional_mean(0.6), abs=0.035)
    assert float(drawn.std()) == pytest.approx(conditional_deviation(0.6), abs=0.025)


def test_the_step_to_clean_data_is_walked_once() -> None:
    grid = DDIM(spacing="trailing").grid(LINEAR, 7)
    for jump in (1, 2, 4, 10):
        *stretches, (final, once) = RePaint(resamplings=3, jump=jump).stretches(grid)
        assert (final.levels, once) == (grid.levels[-2:], 1)
        assert {times for _, times in stretches} == {3}
        walked = [level for stretch, _ in stretches for level in stretch.levels[1:]]
        assert [grid.levels[0], *walked] == list(grid.levels[:-1])
    assert list(RePaint(resamplings=1).stretches(grid)) == [(grid, 1)]


def test_one_resampling_is_replacement() -> None:
    scheduler = DPMpp2M()
    for jump in (6, 7):
        whole = inpainted(RePaint(resamplings=1, jump=jump), scheduler, 6, 5)
        assert torch.equal(whole, inpainted(SDEdit(), scheduler, 6, 5))
    for one_step in (DDIM(spacing="trailing"), DDPM(spacing="trailing")):
        assert torch.equal(inpainted(RePaint(resamplings=1), one_step, 6, 5), inpainted(SDEdit(), one_step, 6, 5))


# -- inversion -------------------------------------------------------------------------------------------------------


def slope(steps: list[int], errors: list[float]) -> float:
    """Of log error against log steps, by least squares."""
    logs = torch.tensor([[math.log(n), math.log(e)] for n, e in zip(steps, errors, strict=True)], dtype=torch.float64)
    centred = logs - logs.mean(0)
    return -float((centred[:, 0] * centred[:, 1]).sum() / (centred[:, 0] ** 2).sum())


@pytest.mark.parametrize(("order", "iterations"), [(1, 1), (1, 3), (2, 1), (2, 3)])
def test_inversion_converges_to_the_exact_flow(order: int, iterations: int) -> None:
    """From a level just above the data to nearly pure noise, where the flow keeps each sample's quantile."""
    schedule, steps, errors = Smooth(), [20, 40, 80, 160], []
    image = torch.linspace(-1.5, 1.5, 31, dtype=torch.float64).reshape(1, 1, 1, 31)
    for count in steps:
        grid = Grid.of(schedule, [900 - i * 750 / count for i in range(count + 1)])
        found = inverted(Oracle(schedule), image, grid, iterations=iterations, order=order)
        errors.append(float((found - flow(image, grid.levels[-1], grid.levels[0])).abs().max()))
    assert slope(steps, errors) == pytest.approx(order, abs=0.3)


def test_there_and_back_again() -> None:
    """From clean data: the error falls with the steps, at order 1; with more iterations it is DDIM's exact inverse."""
    image = torch.linspace(-1.2, 1.2, 31, dtype=torch.float64).reshape(1, 1, 1, 31)
    ddim, errors = DDIM(spacing="trailing"), []
    for steps in (25, 50, 100, 200):
        grid = ddim.grid(LINEAR, steps)
        x = inverted(Oracle(LINEAR), image, grid)
        *_, back = ddim.walk(Oracle(LINEAR), x, grid, Noise([0]))
        errors.append(float((back - image).abs().max()))
    assert slope([25, 50, 100, 200], errors) > 0.8
    x = inverted(Oracle(LINEAR), image, ddim.grid(LINEAR, 25), iterations=200)
    *_, back = ddim.walk(Oracle(LINEAR), x, ddim.grid(LINEAR, 25), Noise([0]))
    torch.testing.assert_close(back, image, rtol=0, atol=1e-9)


def test_reconstruction_ignores_what_is_wanted(model: Diffusion) -> None:
    call: dict[str, Any] = {"image": pictures(), "steps": 10, "labels": [0, 1, 2], "guidance": 3.0}
    back = Inversion(source=1, reconstruct=True)
    other = {**call, "labels": [2, 1, 0], "guidance": 1.0}
    assert torch.equal(model.generate(method=back, **call), model.generate(method=back, **other))
    under = model.generate(method=Inversion(source=1), **{**call, "labels": 1, "guidance": 1.0})
    # A walk that is told its times beforehand works out some products together, which moves the last bits.
    torch.testing.assert_close(model.generate(method=back, **call), under, rtol=0, atol=1e-5)
    free = model.generate(method=Inversion(), **{**call, "guidance": 0.0})
    torch.testing.assert_close(model.generate(method=Inversion(reconstruct=True), **call), free, rtol=0, atol=1e-5)


def test_a_boot_becomes_a_sandal() -> None:
    """By inversion, on real images of the test set, as the shipped classifier sees it; and back to the boot."""
    zoo = default_zoo()
    data = zoo.make("dataset", "fashion-mnist").load("test")
    boots = data.floats((data.labels == 9).nonzero()[:12, 0])
    classifier = zoo.make("extractor", "fashion-classifier")
    model = zoo.load("ddpm.fashion-mnist")

    def shares(images: Tensor, label: int) -> float:
        return float((classifier.over(images).logits.argmax(1) == label).float().mean())

    inversion = Inversion(source="Ankle boot")
    walk = {"scheduler": "ddim:spacing=trailing", "steps": 20}
    changed = model.generate(image=boots, method=inversion, labels="Sandal", guidance=3.0, **walk)
    assert shares(changed, 5) >= 0.9
    back = model.generate(
        image=boots, method=inversion.model_copy(update={"reconstruct": True, "iterations": 2}), **walk
    )
    assert shares(back, 9) == shares(boots, 9) >= 0.8
    assert float((back - boots).square().mean().sqrt()) < 0.1


# -- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"mask": torch.ones(8, 8)}, "give image="),
        ({"strength": 0.5}, "give image="),
        ({"image": torch.zeros(1, 9, 8)}, r"this model needs \(1, 8, 8\)"),
        ({"image": torch.zeros(3, 8, 8)}, "this model needs"),
        ({"image": torch.zeros(0, 1, 8, 8)}, "this model needs"),
        ({"image": torch.zeros(1, 8, 8, dtype=torch.uint8)}, "to_floats"),
        ({"image": torch.full((1, 8, 8), 1.1)}, r"\[-1, 1\]"),
        ({"image": torch.full((1, 8, 8), math.nan)}, r"\[-1, 1\]"),
        ({"image": torch.zeros(2, 1, 8, 8)}, "2 images for 3 seeds"),
        ({"image": torch.zeros(1, 8, 8), "mask": torch.full((8, 8), 0.5)}, "0 .keep. and 1"),
        ({"image": torch.zeros(1, 8, 8), "mask": torch.ones(8, 7)}, "mask has shape"),
        ({"image": torch.zeros(1, 8, 8), "mask": torch.ones(2, 1, 8, 8)}, "2 masks for 1 images"),
        ({"image": torch.zeros(1, 8, 8), "strength": 1.5}, "give 0 .the image. to 1"),
        ({"image": torch.zeros(1, 8, 8), "strength": math.nan}, "give 0"),
        ({"image": torch.zeros(1, 8, 8), "strength": "all"}, "give 0"),
        ({"image": torch.zeros(1, 8, 8), "method": "repant"}, "did you mean 'repaint'"),
        ({"image": torch.zeros(1, 8, 8), "method": "repaint"}, "give a mask, or method=sdedit"),
        ({"image": torch.zeros(1, 8, 8), "method": "repaint:jump=0"}, "jump"),
        ({"image": torch.zeros(1, 8, 8), "method": "inversion", "scheduler": "ddpm"}, "DDPM adds noise.*ddim or heun"),
        ({"image": torch.zeros(1, 8, 8), "method": "inversion", "scheduler": "lcm"}, "LCM adds noise"),
        ({"image": torch.zeros(1, 8, 8), "method": "inversion:source=shoe"}, "no label named 'shoe'"),
        ({"image": torch.zeros(1, 8, 8), "method": "inversion:source=3"}, "0 to 2"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(model: Diffusion, given: dict[str, Any], words: str) -> None:
    with pytest.raises(GenzooError, match=words) as caught:
        model.generate([1, 2, 3], labels=[0, 1, 2], steps=3, **given)
    assert "\n" not in str(caught.value)


def test_models_that_cannot_say_so() -> None:
    gan = DCGAN(DCGAN.Config.model_validate({"image_size": 28, "channels": 1, "latent": 8, "width_g": 4, "width_d": 4}))
    with pytest.raises(OptionError, match="a diffusion model can"):
        gan.generate([0], image=torch.zeros(1, 28, 28))
    with pytest.raises(OptionError, match="say what the image shows"):
        diffusion(null_class=False).generate([0], image=pictures(1), method="inversion", labels=0)


def test_the_editors_are_registered() -> None:
    assert default_zoo().names("editor") == ["inversion", "repaint", "sdedit"]


# -- files -----------------------------------------------------------------------------------------------------------


def png(path: Path, mode: str = "L", size: tuple[int, int] = (28, 28), **settings: Any) -> Path:
    Image.new(mode, size, **settings).save(path)
    return path


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def hand_made(width: int, height: int, *, data: bytes = b"", text: bytes = b"") -> bytes:
    """A PNG file whose header claims what it likes."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    words = chunk(b"zTXt", b"x\0\0" + zlib.compress(text)) if text else b""
    return b"\x89PNG\r\n\x1a\n" + header + words + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def test_grey_and_colours_become_each_other(tmp_path: Path) -> None:
    grey = png(tmp_path / "grey.png", "L", color=120)
    assert read_png(grey, (1, 28, 28)).unique().tolist() == [120]
    assert read_png(grey, (3, 28, 28)).shape == (3, 28, 28)
    red = png(tmp_path / "red.png", "RGB", color=(255, 0, 0))
    assert read_png(red, (3, 28, 28)).amax((1, 2)).tolist() == [255, 0, 0]
    assert read_png(red, (1, 28, 28)).unique().tolist() == [76], "as light as red looks"
    for mode, colour in (("1", 1), ("P", 0), ("RGBA", (9, 9, 9, 255)), ("LA", (9, 255))):
        assert read_png(png(tmp_path / f"{mode}.png", mode, color=colour), (1, 28, 28)).shape == (1, 28, 28)
    image = pictures(1)[0]
    save_png(tmp_path / "there.png", image)
    assert torch.equal(to_floats(read_png(tmp_path / "there.png", (1, SIDE, SIDE))), image)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: png(path, size=(29, 28)), "29x28 pixels; this model needs 28x28"),
        (lambda path: png(path, "RGBA", color=(1, 2, 3, 0)), "transparent"),
        (lambda path: png(path, "LA", color=(1, 254)), "transparent"),
        (lambda path: png(path, "I;16"), "8 bits"),
        (lambda path: Image.new("L", (28, 28)).save(path, "JPEG"), "not a readable PNG"),
        (lambda path: path.write_bytes(b""), "not a readable PNG"),
        (lambda path: path.write_bytes(hand_made(28, 28, data=os.urandom(812))[:-20]), "not a readable PNG"),
        (lambda path: path.write_bytes(hand_made(60_000, 60_000)), "pixels"),
        (lambda path: path.write_bytes(hand_made(10_000, 10_000)), "pixels"),
        (lambda path: path.write_bytes(hand_made(28, 28, text=b"x" * (8 << 20))), "not a readable PNG"),
        (lambda path: path.mkdir(), "not a regular file"),
        (os.mkfifo, "not a regular file"),
        (lambda path: None, "No such file"),
    ],
    ids=str,
)  # fmt: skip
def test_files_that_are_no_such_picture_are_refused(tmp_path: Path, make: Any, words: str) -> None:
    path = tmp_path / "in.png"
    make(path)
    with pytest.raises(GenzooError, match=words) as caught:
        read_png(path, (1, 28, 28))
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_any_damage_is_one_line_or_a_picture(tmp_path: Path) -> None:
    buffer, stream = io.BytesIO(), torch.Generator().manual_seed(0)
    Image.new("RGB", (28, 28), (1, 200, 30)).save(buffer, "PNG")
    whole, path = bytearray(buffer.getvalue()), tmp_path / "in.png"
    for _ in range(150):
        damaged = bytearray(whole)
        for place in torch.randint(len(whole), (3,), generator=stream).tolist():
            damaged[place] ^= 1 << int(torch.randint(8, (1,), generator=stream))
        path.write_bytes(damaged[: int(torch.randint(8, len(whole) + 1, (1,), generator=stream))])
        # Anything but a picture or one of our errors fails the test.
        with contextlib.suppress(GenzooError):
            assert read_png(path, (1, 28, 28)).shape == (1, 28, 28)


# -- the command -----------------------------------------------------------------------------------------------------


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, str]:
    typed = ["edit", *(str(argument) for argument in arguments)]
    monkeypatch.setattr(sys, "argv", ["genzoo", *typed])
    code = cli.run(typed)
    said = capsys.readouterr()
    return code, said.out, said.err


def test_the_command_changes_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, mask, out = tmp_path / "in.png", tmp_path / "mask.png", tmp_path / "new" / "out.png"
    boot = default_zoo().make("dataset", "fashion-mnist").load("test").pixels[0]
    save_png(source, boot)
    Image.fromarray(torch.cat([torch.zeros(28, 20), torch.full((28, 8), 255)], 1).byte().numpy()).save(mask)
    name, common = "ddpm.fashion-mnist", ("--image", source, "--label", "sandal", "--steps", "3", "-o", out)
    code, said, wrong = run(monkeypatch, capsys, name, *common, "--mask", mask, "--method", "repaint:resamplings=2")
    assert (code, said, wrong) == (0, f"1 version of {source} in {out}\n", "")
    with Image.open(out) as picture:
        about = json.loads(picture.info["genzoo:edit"])
    assert {"method": "repaint:resamplings=2", "strength": 1.0, "label": "sandal", "seed": 0}.items() <= about.items()
    assert torch.equal(read_png(out, (1, 28, 28))[..., :20], boot[..., :20])
    code, said, _ = run(monkeypatch, capsys, name, *common, "--method", "inversion:source=Ankle boot", "-n", "2")
    assert code == 0
    assert said.splitlines()[1].startswith("reconstruction error 0.")
    with Image.open(out) as picture:
        assert picture.size == (58, 28)
    for wrong_ones, words in (
        (("--image", source, "-o", out), "give --label: T-shirt/top, Trouser"),
        ((*common, "-o", tmp_path / "out.jpg"), "named .png"),
        ((*common, "--strength", "2"), "give 0"),
        ((*common, "--mask", tmp_path / "none.png"), "No such file"),
        ((*common, "--method", "repaint"), "give a mask"),
    ):
        code, _, said = run(monkeypatch, capsys, name, *wrong_ones)
        assert code == 2, said
        assert words in said
        assert said.count("\n") == 1
