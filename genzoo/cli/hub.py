"""Models from elsewhere and for elsewhere: ``pull``, ``push``, ``convert``, ``export``, ``verify``, ``cache``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from genzoo.cli.arguments import FOLDER
from genzoo.registry import default_zoo

_CACHE = click.option("--cache-dir", type=click.Path(path_type=Path), help="Where downloads are kept.")


@click.command()
@click.argument("name")
@click.option("--revision", help="A branch, tag or commit.")
@click.option("--update", is_flag=True, help="Move on to where the branch is now.")
@_CACHE
@click.option("--token", help="For private and gated repositories; better is: hf auth login.")
def pull(name: str, revision: str | None, update: bool, cache_dir: Path | None, token: str | None) -> None:
    """Fetch NAME, as hf:owner/repo[@revision][/folder], check it, and pin it in genzoo.lock."""
    from genzoo.errors import OptionError
    from genzoo.formats import recognise
    from genzoo.hub import pull as fetch
    from genzoo.weights import assign, build, floating

    if name in default_zoo().shelf:
        raise OptionError(f"{name} is installed already, with its weights; try: genzoo generate {name}")
    files = fetch(name, revision=revision, update=update, cache_dir=cache_dir, token=token)
    card, tensors = recognise(default_zoo(), files)
    # In the file's own dtype, so that nothing is converted to be looked at.
    assign(build(default_zoo(), card, materialise=False, dtype=floating(tensors)), tensors, files.source)
    size = sum(t.numel() * t.element_size() for t in tensors.values())
    pinned = f"pinned in {files.lock.path}" if files.lock.kept else "not pinned"
    click.echo(f"{card.name}: {size / 1e6:.1f} MB at commit {files.listing.commit}, {pinned}")
    click.echo(f"try: genzoo generate {files.source}")


@click.command()
@click.argument("name")
@click.option("--repo", required=True, metavar="OWNER/NAME", help="The repository; made if it is not there.")
@click.option("--private/--public", default=None, help="Of a new repository.")
@click.option("--create-pr", is_flag=True, help="Propose the change, as a pull request.")
@click.option("--samples/--no-samples", default=True, show_default=True, help="Show samples on the model card.")
@click.option("--token", help="One that may write; better is: hf auth login.")
def push(name: str, repo: str, private: bool | None, create_pr: bool, samples: bool, token: str | None) -> None:
    """Upload the model NAME to the Hub, with its model card."""
    from genzoo.publish import push as upload

    model = default_zoo().load(name)
    click.echo(upload(model, repo, private=private, create_pr=create_pr, samples=samples, token=token))


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--key", help="Take only what stands under this name, as g_ema.")
@click.option(
    "--memory", type=click.IntRange(1), metavar="MB", help="Memory for the reader; by default 4 x the file + 1 GB."
)
def convert(source: Path, out: Path, key: str | None, memory: int | None) -> None:
    """Write the tensors of SOURCE (.pt, .pth, .bin, .ckpt) to OUT.safetensors, without running what it holds."""
    from genzoo.convert import convert as work

    asset = work(source, out, key=key, memory=memory * 10**6 if memory else None)
    click.echo(f"{out}: {asset.size / 1e6:.1f} MB, sha256 {asset.sha256}")


@click.command()
@click.argument("name")
@click.option("--format", "layout", default="genzoo", show_default=True, help="A layout, as diffusers.")
@click.option("-o", "--out", required=True, type=FOLDER, help="The folder to write.")
def export(name: str, layout: str, out: Path) -> None:
    """Write the model NAME as a folder that other libraries load."""
    from genzoo.publish import save

    save(default_zoo().load(name), out, layout=layout)
    click.echo(f"{out}: {name} in the layout {layout}")


@click.command()
@_CACHE
def verify(cache_dir: Path | None) -> int:
    """Check again every file: those of the catalogue, and those that genzoo.lock pins. Exits with 2 if one is wrong."""
    from huggingface_hub import constants

    from genzoo.errors import WeightsError
    from genzoo.files import sha256_of
    from genzoo.hub import Lock
    from genzoo.hub import verify as check
    from genzoo.weights import inside

    zoo, wrong, total = default_zoo(), 0, 0
    for card in zoo.cards():
        if card.weights is not None:
            total += 1
            try:
                path = inside(zoo.root(card.name), card.weights.file)
                # Read, not remembered, as what is pinned is.
                if sha256_of(path, WeightsError) != card.weights.sha256:
                    raise WeightsError(f"{path}: changed; reinstall the package that brings it")
            except WeightsError as error:
                wrong += 1
                click.echo(str(error), err=True)
    cache = Path(cache_dir or constants.HF_HUB_CACHE).expanduser().absolute()
    for place, file, state in check(Lock.find(cache), cache):
        total += state != "absent"
        if state == "changed":
            wrong += 1
            click.echo(f"hf:{place}: {file} was changed in the cache; run: genzoo pull hf:{place}", err=True)
    click.echo(f"{total - wrong} of {total} files are as they were pinned")
    return 2 if wrong else 0


@click.group()
def cache() -> None:
    """What was pulled from the Hub."""


def _scan(cache_dir: Path | None) -> Any:
    from huggingface_hub import CacheNotFound, scan_cache_dir

    try:
        return scan_cache_dir(cache_dir)
    except CacheNotFound:
        return None


@cache.command("list")
@_CACHE
def cache_list(cache_dir: Path | None) -> None:
    """The repositories, with their sizes and commits."""
    repos = _models(_scan(cache_dir))
    for repo in repos:
        for revision in sorted(repo.revisions, key=lambda r: r.commit_hash):
            click.echo(f"{_size(revision.size_on_disk)}  {revision.commit_hash[:12]}  hf:{repo.repo_id}")
    click.echo(f"{_size(sum(r.size_on_disk for r in repos))}  in all")


@cache.command("size")
@click.argument("name", required=False)
@_CACHE
def cache_size(name: str | None, cache_dir: Path | None) -> None:
    """What each repository takes on the disk, the largest first; or NAME alone, as hf:owner/repo."""
    found = _scan(cache_dir)
    repos = _models(found) if name is None else [_cached(name, found)]
    for repo in sorted(repos, key=lambda r: -r.size_on_disk):
        click.echo(f"{_size(repo.size_on_disk)}  hf:{repo.repo_id}")
    if name is None:
        click.echo(f"{_size(sum(r.size_on_disk for r in repos))}  in all")


@cache.command("remove")
@click.argument("name")
@_CACHE
def cache_remove(name: str, cache_dir: Path | None) -> None:
    """Remove the repository NAME, as hf:owner/repo, with all that was fetched of it."""
    found = _scan(cache_dir)
    plan = found.delete_revisions(*(revision.commit_hash for revision in _cached(name, found).revisions))
    plan.execute()
    click.echo(f"{name}: {plan.expected_freed_size_str} freed")


def _size(count: int) -> str:
    return f"{count / 1e6:10.1f} MB"


def _models(found: Any) -> list[Any]:
    """The repositories of models in the cache, by name."""
    return sorted((r for r in found.repos if r.repo_type == "model"), key=lambda r: r.repo_id) if found else []


def _cached(name: str, found: Any) -> Any:
    """The repository of that name in the cache."""
    from genzoo.hub import HubError, Place

    place = Place.parse(name)
    if place.revision or place.folder:
        raise HubError("name", f"{name}: whole repositories are meant here; write hf:{place.repo}")
    for repo in _models(found):
        if repo.repo_id == place.repo:
            return repo
    raise HubError("offline", f"{name} is not in the cache; see genzoo cache list")


COMMANDS = (pull, push, convert, export, verify, cache)
