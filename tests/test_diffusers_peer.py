"""Pipelines of diffusers as generators: their own pixels, under genzoo's seeds and options, and no foreign code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from genzoo.bench import row
from genzoo.bench.records import Task
from genzoo.errors import GenzooError, OptionError, WeightsError
from genzoo.formats import LocalFiles
from genzoo.hub import Access, HubFiles, Listing
from genzoo.registry import default_zoo
from genzoo.weights import find_card
from genzoo_plugins.diffusers_peer import source

diffusers = pytest.importorskip("diffusers")


@pytest.fixture(scope="module")
def pipeline() -> Any:
    torch.manual_seed(0)
    network = diffusers.UNet2DModel(
        sample_size=8, layers_per_block=1, block_out_channels=(8, 16), norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    ).eval()  # fmt: skip
    made = diffusers.DDIMPipeline(network, diffusers.DDIMScheduler())
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def folder(pipeline: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pipeline")
    pipeline.save_pretrained(path)
    return path


def test_its_pixels_are_the_pipelines_own(pipeline: Any, folder: Path) -> None:
    streams = [torch.Generator().manual_seed(seed) for seed in (3, 5)]
    theirs = pipeline(batch_size=2, generator=streams, num_inference_steps=3, output_type="np").images
    model = default_zoo().load(f"diffusers:{folder}")
    images = model.generate([3, 5], steps=3)
    assert torch.equal(images, torch.from_numpy(theirs).permute(0, 3, 1, 2) * 2 - 1)
    assert model.shape == (3, 8, 8)
    assert not model.num_classes
    # An image depends on its seed alone.
    torch.testing.assert_close(images[1:], model.generate([5], steps=3), atol=1e-5, rtol=0)


def test_genzoo_reads_the_same_folder_to_the_same_pixels(folder: Path) -> None:
    zoo = default_zoo()
    theirs, ours = (zoo.load(name).generate([1, 2], steps=3) for name in (f"diffusers:{folder}", str(folder)))
    torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=0)


def test_a_card_comes_without_its_weights(folder: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(folder, copied)
    (copied / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    card, _ = find_card(default_zoo(), f"diffusers:{copied}")
    assert (card.name, card.generator, card.shape) == ("diffusers.copied", "diffusers-pipeline", (3, 8, 8))
    with pytest.raises(WeightsError, match="diffusers cannot load it"):
        default_zoo().load(f"diffusers:{copied}")


def test_a_pickle_is_not_opened(pipeline: Any, tmp_path: Path) -> None:
    pipeline.save_pretrained(tmp_path, safe_serialization=False)
    assert list(tmp_path.glob("unet/*.bin"))
    with pytest.raises(WeightsError, match="diffusers cannot load it"):
        default_zoo().load(f"diffusers:{tmp_path}")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_class_name": "EvilPipeline"}, "no pipeline of diffusers"),
        ({"_class_name": ["pipeline", "EvilPipeline"]}, "no pipeline of diffusers"),
        ({"_class_name": None}, "no pipeline of diffusers"),
        ({"unet": ["evil", "UNet2DModel"]}, "nothing is run"),
        ({"unet": ["os", "system"]}, "nothing is run"),
    ],
)
def test_code_that_is_not_diffusers_own_is_not_run(
    folder: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(folder, copied)
    marker = tmp_path / "ran"
    for name in ("pipeline.py", "evil.py"):
        (copied / name).write_text(f"open({str(marker)!r}, 'w')\nclass EvilPipeline: pass\n")
    index = json.loads((copied / "model_index.json").read_text())
    (copied / "model_index.json").write_text(json.dumps({**index, **changes}))
    with pytest.raises(WeightsError, match=message):
        default_zoo().load(f"diffusers:{copied}")
    assert not marker.exists()


def test_names_that_lead_nowhere(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such file or folder"):
        default_zoo().load(f"diffusers:{tmp_path / 'none'}")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(WeightsError, match=r"no model_index\.json"):
        default_zoo().load(f"diffusers:{tmp_path}")
    with pytest.raises(GenzooError):
        default_zoo().load("diffusers:owner/repo", local_files_only=True, cache_dir=tmp_path / "cache")


def test_options_that_the_pipeline_does_not_take(folder: Path) -> None:
    model = default_zoo().load(f"diffusers:{folder}")
    for option, value in (("guidance", 2.0), ("prompt", "a cat")):
        with pytest.raises(OptionError, match=f"leave {option} out"):
            model.generate([0], steps=1, **{option: value})
    with pytest.raises(OptionError, match="leave noise out"):
        model.generate(noise=torch.zeros(1, 3, 8, 8), steps=1)
    with pytest.raises(OptionError, match="loaded by name"):
        type(model)(model.Config())


def test_its_evaluations_are_counted(folder: Path) -> None:
    model = default_zoo().load(f"diffusers:{folder}")
    seen = []
    hook = model.parts["unet"].register_forward_hook(lambda *args: seen.append(1))
    model.generate([0], steps=4)
    hook.remove()
    assert model.nfe(model.options(steps=4)) == len(seen) == 4
    assert model.nfe(model.options()) == 50


def test_it_is_measured_like_any_model(folder: Path) -> None:
    found = row.measure(Task(model=f"diffusers:{folder}", options={"steps": 2}, batch=2, seconds=0.05), default_zoo())
    assert found.status == "ok", found.why
    assert found.nfe == 2
    assert found.network is not None
    assert found.difference == pytest.approx(0, abs=1e-5)


class Pulled(HubFiles):
    """A pulled repository, whose files lie in a folder."""

    def __init__(self, folder: Path) -> None:
        self.local = LocalFiles(folder)
        self.source, self.title, self.names = "hf:me/pipe", "pipe", self.local.names
        self.listing, self.access = Listing("a" * 40, {}), Access(folder / "cache")

    def path(self, name: str) -> Path:
        return self.local.path(name)


def test_a_repository_is_loaded_at_the_commit_whose_index_was_checked(
    pipeline: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def from_pretrained(name: str, **given: Any) -> Any:
        asked.update(given)
        return pipeline

    monkeypatch.setattr(source, "files_of", lambda name, hub: Pulled(folder))
    monkeypatch.setattr(diffusers.DiffusionPipeline, "from_pretrained", from_pretrained)
    default_zoo().load("diffusers:me/pipe", revision="main")
    assert asked["revision"] == "a" * 40
    assert asked["cache_dir"] == folder / "cache"
    assert asked["use_safetensors"] is True
    assert asked["trust_remote_code"] is False
