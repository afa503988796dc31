"""What is given back can be loaded: by genzoo, by diffusers, from a folder and from a Hub."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner
from hub_server import Hub
from mounts import read_only, small_disk
from PIL import Image
from safetensors.torch import load_file
from small import NETWORK, apart, small_card, small_draft
from tiny import image_folder, recipe_text
from toy_family import toy_zoo

import genzoo.cli.hub
from genzoo.cards import Card
from genzoo.convert import ConvertError, convert
from genzoo.errors import CardError, GenzooError, OptionError, WeightsError
from genzoo.formats import FormatError, recognise
from genzoo.generator import Generator
from genzoo.header import read_header
from genzoo.hub import HubError, pull
from genzoo.publish import push, readme, save
from genzoo.registry import default_zoo
from genzoo.tensors import write
from genzoo.train import read_recipe, train
from genzoo.weights import assign, build

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from diffusers import DDIMPipeline, DDPMPipeline

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

RESULT = {
    "metric": "frechet",
    "value": 12.5,
    "low": 11.0,
    "high": 14.0,
    "n": 10000,
    "settings": "steps=20|<b>",
    "command": "c",
}


def model(config: dict[str, Any] | None = None, **changes: Any) -> Generator:
    card = small_card(
        **{
            "summary": "a small one <script>alert(1)</script>",
            "config": {"network": NETWORK, **(config or {})},
            "options": {"steps": 5},
            "results": [RESULT],
            **changes,
        }
    )
    torch.manual_seed(0)
    made = build(default_zoo(), card).eval().requires_grad_(False)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return made


@pytest.fixture(autouse=True)
def nothing_of_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with apart(tmp_path, monkeypatch):
        yield


def test_saved_and_loaded_are_the_same(tmp_path: Path) -> None:
    made = model()
    made.save_pretrained(tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["README.md", "config.json", "model.safetensors"]
    wanted = made.generate([1, 2])
    for place in ("out", "out/model.safetensors"):
        loaded = default_zoo().load(str(tmp_path / place))
        assert torch.equal(loaded.generate([1, 2]), wanted)
        assert loaded.card is not None
        assert loaded.card.results == made.card.results  # type: ignore[union-attr]
    loaded.save_pretrained(tmp_path / "again")
    first, second = (tmp_path / f / "model.safetensors" for f in ("out", "again"))
    assert first.read_bytes() == second.read_bytes()
    inside = read_header(first).metadata["genzoo.card"]
    # A card inside that pins another file is not believed.
    pin = {"file": "other.safetensors", "sha256": "0" * 64, "size": 7}
    write(
        tmp_path / "lie.safetensors",
        made.state_dict(),
        {"genzoo.card": json.dumps(json.loads(inside) | {"weights": pin})},
    )
    lying = default_zoo().load(str(tmp_path / "lie.safetensors"))
    assert lying.card is not None
    assert lying.card.weights is None


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    model().save_pretrained(tmp_path / "out")
    path = tmp_path / "out" / "model.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-3] ^= 1
    path.write_bytes(raw)
    with pytest.raises(GenzooError, match="changed"):
        default_zoo().load(str(tmp_path / "out"))


@pytest.mark.parametrize("layout", ["genzoo", "diffusers"])
def test_a_full_disk_leaves_the_model_that_was_there(tmp_path: Path, layout: str) -> None:
    made, folder = model(), tmp_path / "disk" / "out"
    size = sum(tensor.nbytes for tensor in made.state_dict().values())
    with small_disk(tmp_path / "disk", "300k"):
        save(made, folder, layout=layout)
        before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        (tmp_path / "disk" / "filler").write_bytes(bytes(40_000))
        with torch.no_grad():
            next(made.parameters()).mul_(0.5)
        with pytest.raises(WeightsError, match=rf"safetensors: no space left; the weights take {size} bytes"):
            save(made, folder, layout=layout)
        assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
        torch.save({"a": torch.ones(100_000)}, tmp_path / "big.pt")
        with pytest.raises(ConvertError, match=r"no space left in .*disk; 400000 bytes are needed"):
            convert(tmp_path / "big.pt", tmp_path / "disk" / "big.safetensors")
        assert sorted(path.name for path in (tmp_path / "disk").iterdir()) == ["filler", "out"]
    with read_only(tmp_path), pytest.raises(OSError, match="Read-only") as caught:
        save(made, tmp_path / "out")
    assert str(tmp_path / "out") in str(caught.value.filename)


def test_a_model_without_a_card_says_so(tmp_path: Path) -> None:
    made = model()
    made.card = None
    with pytest.raises(CardError, match="no card"):
        made.save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_model_card_is_inert_and_its_example_works(tmp_path: Path) -> None:
    made = model()
    save(made, tmp_path / "out", samples=True)
    text = (tmp_path / "out" / "README.md").read_text()
    assert "<script" not in text
    assert "<b>" not in text
    assert "steps=20\\|" in text
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["license"] == "mit"
    assert "| frechet | 12.5 | 11 to 14 | 10000 |" in text
    with Image.open(tmp_path / "out" / "samples.png") as image:
        assert image.size == (78, 18)
    code = text.split("```python\n")[1].split("```")[0]
    scope: dict[str, Any] = {}
    exec(compile(code, "README", "exec"), scope)  # noqa: S102
    assert torch.equal(scope["images"], made.generate(range(8)))
    labelled = Card.model_validate({**made.card.model_dump(), "classes": ['a "b"'], "results": []})  # type: ignore[union-attr]
    assert "labels='a \"b\"'" in readme(labelled)
    assert "guides" not in text
    assert "| guides | better.one |" in readme(labelled.model_copy(update={"guides": "better.one"}))


def test_a_family_that_only_the_models_own_zoo_knows_is_given_back_too(tmp_path: Path) -> None:
    draft = {**small_draft(), "generator": "bell", "config": {}, "options": {}, "classes": ["left", "right"]}
    zoo = toy_zoo()
    bell = build(zoo, Card.model_validate({**draft, "shape": (1, 8, 8)}))
    assert bell.zoo is zoo
    save(bell, tmp_path / "out")
    assert "labels='left'" in (tmp_path / "out" / "README.md").read_text()
    assert zoo.load(str(tmp_path / "out")).classes == ("left", "right")


EXPORTS: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "default": ({}, "ddim", {"use_clipped_model_output": True}),
    "ddim of diffusers": ({}, "ddim:clip=1.0", {}),
    "ddim trailing v cosine": (
        {"prediction": "v", "schedule": {"kind": "cosine"}},
        "ddim:spacing=trailing",
        {"use_clipped_model_output": True},
    ),
    "ddim no clip": ({"clip": None, "schedule": {"beta_end": 0.002}}, "ddim", {}),
    "ddim linspace": ({}, "ddim:spacing=linspace,stride=even,clip=1.0", {}),
    "ddim end": ({}, "ddim:end=1,offset=1,clip=2.0", {}),
    "ddpm": ({}, "ddpm", {}),
    "ddpm large": ({}, "ddpm:variance=large", {}),
    "ddpm listed": (
        {"schedule": {"kind": "listed", "steps": 50, "betas": [0.001 * k for k in range(1, 51)]}},
        "ddpm",
        {},
    ),
    "ddpm scaled": ({"schedule": {"kind": "scaled-linear", "beta_end": 0.012}, "prediction": "x0"}, "ddpm", {}),
}


@pytest.mark.parametrize("name", EXPORTS)
def test_exported_pixels_are_the_same_in_diffusers_and_back(tmp_path: Path, name: str) -> None:
    config, scheduler, options = EXPORTS[name]
    made = model(config, options={"steps": 5, "scheduler": scheduler})
    wanted = made.generate([3, 4])
    save(made, tmp_path / "out", layout="diffusers")
    pipeline = (DDPMPipeline if scheduler.startswith("ddpm") else DDIMPipeline).from_pretrained(tmp_path / "out")
    pipeline.set_progress_bar_config(disable=True)
    seeds = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
    found = pipeline(2, generator=seeds, num_inference_steps=5, output_type="np", **options).images
    assert float((torch.from_numpy(found).permute(0, 3, 1, 2) * 2 - 1 - wanted).abs().max()) < 1e-4
    back = default_zoo().load(str(tmp_path / "out"))
    given = {"scheduler": scheduler} if "use_clipped_model_output" in options else {}
    assert torch.equal(back.generate([3, 4], steps=5, **given), wanted)


@pytest.mark.parametrize("scheduler", ["ddim", "ddim:clip=1.0", "ddim:eta=0.5", "ddpm"])
def test_both_examples_of_an_exported_card_give_the_same_pixels(
    tmp_path: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(model(options={"steps": 3, "scheduler": scheduler}), tmp_path / "out", layout="diffusers")
    text = (tmp_path / "out" / "README.md").read_text()
    monkeypatch.setattr(DDPMPipeline, "progress_bar", lambda pipeline, steps: steps)
    monkeypatch.setattr(DDIMPipeline, "progress_bar", lambda pipeline, steps: steps)
    found = []
    for code in text.split("```python\n")[1:]:
        scope: dict[str, Any] = {}
        exec(compile(code.split("```")[0], "README", "exec"), scope)  # noqa: S102
        found.append(scope["images"])
    ours, theirs = found
    assert len(theirs) == 8
    for one, picture in zip(ours, theirs, strict=True):
        pixels = ((one + 1) * 127.5).round().permute(1, 2, 0)
        assert float((pixels - torch.from_numpy(np.array(picture, dtype=np.float32))).abs().max()) <= 1
    labelled = {"network": {**NETWORK, "num_class_embeds": 4}, "num_classes": 3}
    save(model(labelled), tmp_path / "labelled", layout="diffusers")
    assert "DDIMPipeline" not in (tmp_path / "labelled" / "README.md").read_text()


def test_classes_survive_an_export(tmp_path: Path) -> None:
    network = {**NETWORK, "num_class_embeds": 4}
    made = model({"network": network, "num_classes": 3})
    save(made, tmp_path / "out", layout="diffusers")
    back = default_zoo().load(str(tmp_path / "out"))
    assert back.num_classes == 3
    assert torch.equal(
        back.generate([1], labels=2, guidance=2.0, steps=5, scheduler="ddim"),
        made.generate([1], labels=2, guidance=2.0),
    )


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        (
            {"patch": 2, "network": {**NETWORK, "sample_size": 4, "in_channels": 12, "out_channels": 12}},
            {},
            "patch=2 folds.*strided",
        ),
        ({}, {"scheduler": "ddim:grid=karras"}, "grid"),
        ({}, {"scheduler": "ddim:spacing=karras"}, "spacing=karras"),
        ({}, {"scheduler": "ddim:spacing=linspace"}, "stride=even"),
        ({}, {"scheduler": "ddim:spacing=trailing", "steps": 7}, "stride=even"),
        ({}, {"scheduler": "dpm-solver"}, "dpm-solver"),
    ],
)
def test_what_the_layout_cannot_say_is_refused(
    tmp_path: Path, config: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(FormatError, match=message):
        save(model(config, options=options), tmp_path / "out", layout="diffusers")
    assert not (tmp_path / "out" / "unet").exists()
    with pytest.raises(FormatError, match="is read, and not written"):
        save(model(), tmp_path / "out", layout="dcgan-script")


def test_push_and_pull(tmp_path: Path) -> None:
    made = model()
    with Hub() as hub:
        address = push(made, "me/small", endpoint=hub.endpoint, token="hf_x", samples=True)
        assert "/commit/" in address
        files = pull("hf:me/small", endpoint=hub.endpoint, cache_dir=tmp_path / "cache")
        card, tensors = recognise(default_zoo(), files)
        back = build(default_zoo(), card, materialise=False)
        assign(back, tensors, files.source)
        back.requires_grad_(False)  # as ``load`` gives it: kernels differ otherwise
        assert torch.equal(back.generate([1, 2]), made.generate([1, 2]))
        assert {"README.md", "config.json", "model.safetensors", "samples.png"} <= set(files.names)
        assert "genzoo.load('hf:me/small')" in files.text("README.md")
        first = hub.repos["me/small"].refs["main"]
        with torch.no_grad():
            next(made.parameters()).mul_(0.5)
        assert "/discussions/" in push(
            made, "me/small", endpoint=hub.endpoint, token="hf_x", create_pr=True, samples=False
        )
        assert hub.repos["me/small"].refs["main"] == first
        push(made, "me/small", endpoint=hub.endpoint, token="hf_x", samples=False)
        newer = pull("hf:me/small", endpoint=hub.endpoint, cache_dir=tmp_path / "cache", update=True)
        assert newer.listing.commit != first
        _, changed = recognise(default_zoo(), newer)
        assert not torch.equal(changed["denoiser.network.conv_in.weight"], tensors["denoiser.network.conv_in.weight"])
    with pytest.raises(HubError, match="no place"):
        push(made, "no repository", samples=False)


def test_a_model_pushes_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = model()
    with Hub() as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.endpoint)
        assert "/commit/" in made.push_to_hub("me/itself", token="hf_x")
        assert "/discussions/" in made.push_to_hub("me/itself", token="hf_x", create_pr=True)
        files = pull("hf:me/itself", endpoint=hub.endpoint, cache_dir=tmp_path / "cache")
        assert {"README.md", "model.safetensors", "samples.png"} <= set(files.names)


def test_a_private_repository_stays_private(tmp_path: Path) -> None:
    """And a proposal makes the repository, where there is none, as the Hub's own client does."""
    made = model()
    with Hub() as hub:
        for create_pr in (False, True):
            name = f"me/hidden{create_pr}"
            push(made, name, endpoint=hub.endpoint, token="hf_x", private=True, create_pr=create_pr, samples=False)
            with pytest.raises(HubError) as caught:
                pull(f"hf:{name}", endpoint=hub.endpoint, cache_dir=tmp_path / "none", token=False)
            assert caught.value.cause == "missing"
            revision = "refs/pr/1" if create_pr else None
            files = pull(
                f"hf:{name}", revision=revision, endpoint=hub.endpoint, cache_dir=tmp_path / "cache", token="hf_x"
            )
            assert recognise(default_zoo(), files)[0].name == "diffusion.small"


def test_examples_of_other_families_work(tmp_path: Path) -> None:
    """What is no generator of images from seeds shows on its card how it is asked instead, and pushes no samples."""
    translator = small_card(
        name="cyclegan.small",
        generator="cyclegan",
        shape=(3, 16, 16),
        config={"network": "resnet", "depth": 1, "width": 4, "image_size": 16, "in_channels": 3, "out_channels": 3},
    )
    network = {"block_out_channels": [8, 16], "norm_num_groups": 4, "sample_size": 8, "cross_attention_dim": 6}
    network |= {"down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"], "attention_head_dim": 2}
    network |= {"up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"], "layers_per_block": 1}
    latent = small_card(
        name="latent-diffusion.small",
        generator="latent-diffusion",
        shape=(4, 8, 8),
        config={"network": network},
        options={"steps": 1},
    )
    for card, task in ((translator, "image-to-image"), (latent, "unconditional-image-generation")):
        made = build(default_zoo(), card).eval()
        folder = tmp_path / card.name
        made.save_pretrained(folder)
        text = (folder / "README.md").read_text()
        assert yaml.safe_load(text.split("---\n")[1])["pipeline_tag"] == task
        exec(compile(text.split("```python\n")[1].split("```")[0], "README", "exec"), {})  # noqa: S102
        with pytest.raises(OptionError, match="--no-samples"):
            save(made, tmp_path / "other", samples=True)
        assert not (tmp_path / "other").exists()


@pytest.mark.slow
def test_what_train_makes_is_exported(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(recipe_text(image_folder(tmp_path / "data"), steps=4))
    for _ in train(read_recipe(tmp_path / "recipe.yaml"), tmp_path / "run", zoo=default_zoo()):
        pass
    made = default_zoo().load(str(tmp_path / "run" / "model"))
    save(made, tmp_path / "out", layout="diffusers")
    back = default_zoo().load(str(tmp_path / "out"))
    found = back.generate([1, 2], labels=1, scheduler="ddim", steps=3, guidance=2.0)
    assert torch.equal(found, made.generate([1, 2], labels=1, scheduler="ddim", steps=3, guidance=2.0))


def test_the_commands(tmp_path: Path) -> None:
    run = CliRunner()
    names = {command.name: command for command in genzoo.cli.hub.COMMANDS}
    assert set(names) == {"pull", "push", "convert", "export", "verify", "cache"}
    for command in names.values():
        assert run.invoke(command, ["--help"]).exit_code == 0
    model().save_pretrained(tmp_path / "in")
    done = run.invoke(names["export"], [str(tmp_path / "in"), "--format", "diffusers", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert load_file(tmp_path / "out" / "unet" / "diffusion_pytorch_model.safetensors")
    done = run.invoke(names["cache"], ["list", "--cache-dir", str(tmp_path / "none")])
    assert "in all" in done.output
    with pytest.raises(HubError, match="not in the cache"):
        run.invoke(names["cache"], ["remove", "hf:a/b", "--cache-dir", str(tmp_path)], catch_exceptions=False)
    done = run.invoke(names["verify"], ["--cache-dir", str(tmp_path / "none")], standalone_mode=False)
    assert "files are as they were pinned" in done.output
