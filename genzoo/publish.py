"""Giving models back: folders that others can load, and repositories on the Hub."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from genzoo.cards import Card, Measured
from genzoo.errors import CardError, OptionError, WeightsError
from genzoo.files import FULL, write_whole

if TYPE_CHECKING:
    from torch import Tensor

    from genzoo.formats import Format
    from genzoo.generator import Generator
    from genzoo.registry import Zoo

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
        WeightsError: no space left.
    """
    from genzoo.registry import default_zoo

    if model.card is None:
        raise CardError("this model has no card to be saved with; give it one: model.card = genzoo.Card(...)")
    zoo = model.zoo or default_zoo()
    form: Format = zoo.find("format", layout)()
    tensors: Mapping[str, Tensor] = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    shown = _samples(model, model.card) if samples else None
    with _told_full(folder, sum(tensor.nbytes for tensor in tensors.values())):
        form.write(model.card, tensors, folder, zoo)
        if shown is not None:
            from genzoo.images import save_png

            save_png(folder / SAMPLES, shown)
        name = f"hf:{repo}" if repo else f"./{folder.name}"
        write_whole(folder / README, readme(model.card, layout, name, samples=samples, zoo=zoo))
    return folder


def _samples(model: Generator, card: Card) -> Tensor:
    """The picture of samples that a model card shows."""
    from genzoo.images import grid

    try:
        return grid(model.generate(range(SHOWN)), columns=8)
    except OptionError as error:
        raise OptionError(f"no samples of {card.name}: {error}; or leave them out, with --no-samples") from None


@contextlib.contextmanager
def _told_full(folder: Path, needed: int) -> Iterator[None]:
    """A full disk inside the block is an error that says what is needed."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise WeightsError(f"{error.filename or folder}: no space left; the weights take {needed} bytes") from None


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
        private: of a new repository; by default as the owner's settings say. One that is there stays as it is.
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
            api.create_repo(place.repo, private=private, exist_ok=True)
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            done = api.create_commit(
                place.repo,
                [CommitOperationAdd(path.relative_to(folder).as_posix(), path) for path in files],
                commit_message=f"Upload {model.card.name if model.card else 'model'} with genzoo",
                create_pr=create_pr,
            )
    return str(done.pr_url or done.commit_url)


def readme(
    card: Card,
    layout: str = "genzoo",
    name: str = "hf:OWNER/NAME",
    *,
    samples: bool = False,
    zoo: Zoo | None = None,
) -> str:
    """The model card that the Hub shows: what it is, how to use it, what it reaches and how it was made.

    Args:
        card: of the model.
        layout: that its folder has.
        name: that the example loads.
        samples: whether ``samples.png`` lies beside it.
        zoo: where the generator, and what the card names, is looked up; the usual one by default.
    """
    from genzoo.registry import default_zoo

    zoo = zoo or default_zoo()
    family: type[Generator] = zoo.find("generator", card.generator)
    form: Format = zoo.find("format", layout)()
    front: dict[str, Any] = {
        "license": card.licence.lower() if card.licence != "unknown" else "other",
        "library_name": form.library,
        "pipeline_tag": "image-to-image" if family.takes_images else "unconditional-image-generation",
        "tags": ["genzoo", card.generator],
    }
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n",
        f"# {plain(card.name)}\n",
        f"{plain(card.summary)}\n",
    ]
    if samples:
        parts.append(f"![samples of seeds 0 to {SHOWN - 1}]({SAMPLES})\n")
    parts += ["## Use\n", _usage(card, family, form, name, zoo)]
    if card.results:
        parts += ["## Results\n", _results(card.results)]
    facts = [("images", " x ".join(map(str, card.shape))), ("classes", ", ".join(card.classes)), ("data", card.data)]
    facts += [("guides", card.guides), ("licence", card.licence), ("paper", card.paper)]
    if card.training is not None:
        made = card.training
        facts += [
            ("recipe", f"{made.recipe}, seed {made.seed}"),
            ("training", f"{made.steps} steps of {made.batch} images, {made.minutes:g} minutes on {made.hardware}"),
        ]
    parts += ["## Facts\n", "| | |\n|---|---|\n" + "".join(f"| {k} | {plain(str(v))} |\n" for k, v in facts if v)]
    return "\n".join(parts)


def _usage(card: Card, family: type[Generator], form: Format, name: str, zoo: Zoo) -> str:
    """The example: how the model is loaded and asked, and the same in the layout's own library."""
    asked: dict[str, Any] = {"labels": card.classes[0]} if card.classes else {}
    if not form.keeps_options:
        asked |= {"steps": 50, "scheduler": "ddim", **card.options}
    given = "".join(f", {option}={value!r}" for option, value in asked.items())
    usage = family.usage.format(labels=given, shape=", ".join(map(str, card.shape)))
    lines = ["import torch"] if "torch." in usage else []
    lines += ["import genzoo", "", f"model = genzoo.load({name!r})", usage]
    text = "```python\n" + "\n".join(lines) + "\n```\n"
    if example := form.example(card, name.removeprefix("hf:"), zoo):
        text += f"or with the same pixels\n\n```python\n{example}```\n"
    return text


def _results(results: tuple[Measured, ...]) -> str:
    """The card's published numbers as a table."""
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
