"""Giving models back: folders that others can load, and repositories on the Hub."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from genzoo.cards import Card, Measured
from genzoo.errors import CardError, OptionError
from genzoo.files import write_whole

if TYPE_CHECKING:
    from torch import Tensor

    from genzoo.formats import Format
    from genzoo.generator import Generator

README = "README.md"
SAMPLES = "samples.png"

#: How many samples a model card shows.
SHOWN = 16


def save(
    model: Generator, folder: Path, *, layout: str = "genzoo", samples: bool = False, repo: str | None = None
) -> Path:
    """Write a model into a folder, in a registered layout; returns the folder.

    Args:
        model: one with a card.
        folder: made if it is not there; files of the layout are replaced, others stay.
        layout: a registered format that can be written.
        samples: make ``samples.png`` too, of seeds 0 to 15 with the card's own options.
        repo: where it will lie on the Hub, for the model card's example; by default the folder itself.

    Raises:
        CardError: a model without a card.
        FormatError: a layout that cannot be written, or that cannot hold this model.
        OptionError: samples of a model that makes none from seeds alone.
    """
    from genzoo.registry import default_zoo

    if model.card is None:
        raise CardError("this model has no card to be saved with; give it one: model.card = genzoo.Card(...)")
    form: Format = (model.zoo or default_zoo()).find("format", layout)()
    tensors: Mapping[str, Tensor] = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    form.write(model.card, tensors, folder)
    if samples:
        from genzoo.images import grid, save_png

        try:
            images = model.generate(range(SHOWN))
        except OptionError as error:
            raise OptionError(
                f"no samples of {model.card.name}: {error}; or leave them out, with --no-samples"
            ) from None
        save_png(folder / SAMPLES, grid(images, columns=8))
    write_whole(
        folder / README, readme(model.card, layout, f"hf:{repo}" if repo else f"./{folder.name}", samples=samples)
    )
    return folder


def push(
    model: Generator,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    create_pr: bool = False,
    layout: str = "genzoo",
    samples: bool = True,
    endpoint: str | None = None,
) -> str:
    """Upload a model to the Hub; returns the address of the commit, or of the pull request.

    Args:
        model: one with a card.
        repo_id: ``owner/name``; made if it is not there.
        private: of a new repository; by default as the owner's settings say.
        token: one that may write; by default the stored one.
        create_pr: propose the change rather than make it.
        layout, samples: see ``save``.
        endpoint: another Hub; by default HF_ENDPOINT.

    Raises:
        HubError: says which of many reasons it is, and what to do.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, constants

    from genzoo.hub import Access, Place, explained

    place = Place.parse(f"hf:{repo_id}")
    access = Access(Path(constants.HF_HUB_CACHE), token, endpoint=endpoint)
    with tempfile.TemporaryDirectory(prefix="genzoo-") as name:
        folder = save(model, Path(name), layout=layout, samples=samples, repo=place.repo)
        with explained(place, access):
            api = HfApi(endpoint=endpoint, token=token, library_name="genzoo")
            if not create_pr:
                api.create_repo(place.repo, private=private, exist_ok=True)
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            done = api.create_commit(
                place.repo,
                [CommitOperationAdd(path.relative_to(folder).as_posix(), path) for path in files],
                commit_message=f"Upload {model.card.name if model.card else 'model'} with genzoo",
                create_pr=create_pr,
            )
    return str(done.pr_url or done.commit_url)


def readme(card: Card, layout: str = "genzoo", name: str = "hf:OWNER/NAME", *, samples: bool = False) -> str:
    """The model card that the Hub shows: what it is, how to use it, what it reaches and how it was made."""
    front: dict[str, Any] = {
        "license": card.licence.lower() if card.licence != "unknown" else "other",
        "library_name": "diffusers" if layout == "diffusers" else "genzoo",
        "pipeline_tag": "image-to-image" if family(card).takes_images else "unconditional-image-generation",
        "tags": ["genzoo", card.generator],
    }
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n",
        f"# {plain(card.name)}\n",
        f"{plain(card.summary)}\n",
    ]
    if samples:
        parts.append(f"![samples of seeds 0 to {SHOWN - 1}]({SAMPLES})\n")
    parts += ["## Use\n", _usage(card, layout, name)]
    if card.results:
        parts += ["## Results\n", _results(card.results)]
    facts = [("images", " x ".join(map(str, card.shape))), ("classes", ", ".join(card.classes)), ("data", card.data)]
    facts += [("licence", card.licence), ("paper", card.paper)]
    if card.training is not None:
        made = card.training
        facts += [
            ("recipe", f"{made.recipe}, seed {made.seed}"),
            ("training", f"{made.steps} steps of {made.batch} images, {made.minutes:g} minutes on {made.hardware}"),
        ]
    parts += ["## Facts\n", "| | |\n|---|---|\n" + "".join(f"| {k} | {plain(str(v))} |\n" for k, v in facts if v)]
    return "\n".join(parts)


def family(card: Card) -> type[Generator]:
    """The class of a card's generator."""
    from genzoo.registry import default_zoo

    found: type[Generator] = default_zoo().find("generator", card.generator)
    return found


def _usage(card: Card, layout: str, name: str) -> str:
    labels = f", labels={card.classes[0]!r}" if card.classes else ""
    usage = family(card).usage.format(labels=labels, shape=", ".join(map(str, card.shape)))
    lines = ["import torch"] if "torch." in usage else []
    lines += ["import genzoo", "", f"model = genzoo.load({name!r})", usage]
    text = "```python\n" + "\n".join(lines) + "\n```\n"
    if layout == "diffusers":
        kind = "DDPMPipeline" if str(card.options.get("scheduler", "ddim")).startswith("ddpm") else "DDIMPipeline"
        more = (
            ""
            if kind == "DDPMPipeline"
            or (":" in str(card.options.get("scheduler", "")) and "clip=" in str(card.options["scheduler"]))
            else ", use_clipped_model_output=True"
        )
        steps = card.options.get("steps", 50)
        text += (
            f"or with the same pixels\n\n```python\nimport torch\nfrom diffusers import {kind}\n\n"
            f"seeds = [torch.Generator().manual_seed(seed) for seed in range(8)]\n"
            f"images = {kind}.from_pretrained({name.removeprefix('hf:')!r})(\n"
            f"    8, generator=seeds, num_inference_steps={steps}{more}\n).images\n```\n"
        )
    return text


def _results(results: tuple[Measured, ...]) -> str:
    rows = ["| metric | value | interval | n | extractor | settings |\n|---|---|---|---|---|---|\n"]
    for one in results:
        interval = f"{one.low:g} to {one.high:g}" if one.low is not None and one.high is not None else "-"
        cells = [one.metric, f"{one.value:g}", interval, str(one.n), one.extractor or "-", one.settings]
        rows.append("| " + " | ".join(map(plain, cells)) + " |\n")
    return "".join(rows)


def plain(text: str) -> str:
    """Text that means nothing to Markdown or HTML."""
    signs = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
    return " ".join("".join(signs.get(c, f"\\{c}" if c in "\\`*_[]|#" else c) for c in text).split())
