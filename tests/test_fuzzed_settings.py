"""Settings files with pieces cut out, doubled or replaced: a model comes of them, or one line that names the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small import UNET, apart, small_card

from genzoo.errors import CardError, GenzooError
from genzoo.registry import default_zoo
from genzoo.tensors import write
from genzoo.weights import build

#: What stands in settings files, and what should not.
PIECES = ["", "{", "}", "[", "]", ",", ":", '"', "null", "true", "-1", "0", "0.5", '"0"', "1e400", "NaN", "-Infinity"]
PIECES += ["9" * 30, "9" * 5000, "[" * 5000, "\\ud800", "\\u0000", "\x00", "\x1b[31m", "\u202e", '"a":1,', "../../x"]

#: Each is (files of settings, the one that is changed).
LAYOUTS = ["config.json", "unet/config.json", "scheduler/scheduler_config.json", "model_index.json"]

ANY: dict[str, Any] = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
}


@pytest.fixture(name="folders", scope="module")
def _folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, str]]:
    """For each settings file a model's folder, and the file's text."""
    made = build(default_zoo(), small_card(options={"steps": 2})).eval()
    own, pipeline = (tmp_path_factory.mktemp(name) for name in ("own", "pipeline"))
    with pytest.MonkeyPatch.context() as patch, apart(own, patch):
        made.save_pretrained(own)
        tensors = {
            name.removeprefix("denoiser.network."): tensor
            for name, tensor in made.state_dict().items()
            if name.startswith("denoiser.network.")
        }
        write(pipeline / "unet" / "diffusion_pytorch_model.safetensors", tensors)
    (pipeline / "scheduler").mkdir()
    index = {"_class_name": "DDPMPipeline", "unet": ["diffusers", "UNet2DModel"]}
    scheduler = {"_class_name": "DDPMScheduler", "beta_end": 0.02, "clip_sample": True, "num_train_timesteps": 1000}
    for name, data in (
        ("unet/config.json", {"_class_name": "UNet2DModel", **UNET}),
        ("scheduler/scheduler_config.json", scheduler),
        ("model_index.json", index),
    ):
        (pipeline / name).write_text(json.dumps(data, indent=1))
    return {
        name: (folder := own if name == "config.json" else pipeline, (folder / name).read_text()) for name in LAYOUTS
    }


@st.composite
def changes(draw: st.DrawFn) -> tuple[str, list[tuple[int, int, str]]]:
    """A settings file, and a few changes of it: where, how much goes, and what comes."""
    some = st.tuples(st.integers(0, 2000), st.integers(0, 12), st.sampled_from(PIECES) | st.text(max_size=4))
    return draw(st.sampled_from(LAYOUTS)), draw(st.lists(some, min_size=1, max_size=3))


def load_changed(folders: dict[str, tuple[Path, str]], change: tuple[str, list[tuple[int, int, str]]]) -> None:
    name, edits = change
    folder, text = folders[name]
    changed = text
    for at, gone, piece in edits:
        start = at % (len(changed) + 1)
        changed = changed[:start] + piece + changed[start + gone :]
    said = ""
    try:
        (folder / name).write_text(changed, errors="surrogatepass")
        model = default_zoo().load(str(folder))
    except GenzooError as error:
        said = str(error)
    else:
        assert all(bool(torch.isfinite(tensor).all()) for tensor in model.state_dict().values())
    finally:
        (folder / name).write_text(text)
    assert "\n" not in said
    assert len(said) < 3000
    # The file, the model that it describes, or the weights that it no longer fits.
    assert not said or str(folder) in said or "diffusion." in said, said


@settings(max_examples=60, **ANY)
@given(changes())
def test_changed_settings_are_a_model_or_one_line(
    folders: dict[str, tuple[Path, str]], change: tuple[str, list[tuple[int, int, str]]]
) -> None:
    load_changed(folders, change)


@pytest.mark.slow
@settings(max_examples=1000, **ANY)
@given(changes())
def test_a_thousand_changed_settings_are_models_or_one_line(
    folders: dict[str, tuple[Path, str]], change: tuple[str, list[tuple[int, int, str]]]
) -> None:
    load_changed(folders, change)


@pytest.mark.parametrize(
    ("find", "put", "message"),
    [
        ('"licence": "MIT"', '"licens": "MIT"', r"config\.json:\d+: card: licens: unknown key; did you mean 'licence'"),
        ('"licence": "MIT"', '"licence": 7', r"config\.json:\d+: card: licence: "),
        ('"version": 1', '"version": "' + "v" * 10_000 + '"', r"config\.json: version '.{1,40} is not read"),
        ('"version": 1', '"version": 2, "more": 1', r"config\.json: version 2 is of a newer genzoo.*; update genzoo"),
        ('"version": 1', '"version": true', r"config\.json: version True is not read; 1 is"),
        ('"version": 1', '"version": 1, "version": 1', r"'version' stands there twice"),
        ('"licence": "MIT"', '"licence": 1e400', r"1e400 is beyond the range"),
        ('"licence": "MIT"', '"licence": NaN', r"NaN is no number"),
    ],
)
def test_file_line_and_key_are_named(folders: dict[str, tuple[Path, str]], find: str, put: str, message: str) -> None:
    folder, text = folders["config.json"]
    assert find in text
    changed = text.replace(find, put)
    (folder / "config.json").write_text(changed)
    try:
        with pytest.raises((CardError, GenzooError), match=message) as caught:
            default_zoo().load(str(folder))
    finally:
        (folder / "config.json").write_text(text)
    assert "\n" not in str(caught.value)
    if ":\\d+:" in message:
        line = int(str(caught.value).split("config.json:")[1].split(":")[0])
        assert "licen" in changed.splitlines()[line - 1]
