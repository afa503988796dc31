"""The proof that the doors are open: a plugin package of one module and an entry point, built, installed, and used."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
from PIL import Image

from genzoo.results import read_results

ROOT = Path(__file__).parent.parent
EXAMPLE = Path(__file__).parent / "example_plugin"

#: Runs commands one after the other in one fresh process, each as if it had been typed; says what each said.
DRIVER = """
import contextlib, io, json, sys, warnings
from genzoo import cli
warnings.simplefilter("error")
told = []
for command in json.loads(sys.argv[1]):
    sys.argv = ["genzoo", *command]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.run(command)
    told.append({"code": code, "out": out.getvalue(), "err": err.getvalue()})
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of its own that the example was built and installed into."""
    folder = tmp_path_factory.mktemp("third")
    # A copy: a build leaves folders beside its sources.
    source = shutil.copytree(EXAMPLE, folder / "source", ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    offline = ["--no-build-isolation", "--no-deps", "--no-index"]
    environment = {**os.environ, "PIP_NO_INPUT": "1"}
    for command in (
        [*pip, "wheel", *offline, "-w", str(folder / "wheels"), str(source)],
        [*pip, "install", "--no-deps", "--no-index", "--target", str(folder / "site"), "--find-links",
         str(folder / "wheels"), "hello-zoo"],
    ):  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, cwd=folder)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / "site"


def run(site: Path, folder: Path, *commands: list[str]) -> list[dict[str, Any]]:
    """What each command said, in a fresh process that finds the packages in ``site`` as well."""
    environment = {**os.environ, "PYTHONPATH": str(site), "GENZOO_CACHE": str(folder / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, json.dumps(commands)],
        capture_output=True, text=True, timeout=300, env=environment, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told: list[dict[str, Any]] = json.loads(done.stdout)
    return told


def test_the_wheel_is_one_module_and_an_entry_point(installed: Path) -> None:
    names = {path.name for path in installed.iterdir()} - {"__pycache__"}
    assert names == {"hello_zoo.py", "hello_zoo-1.0.dist-info"}
    assert (installed / "hello_zoo-1.0.dist-info" / "entry_points.txt").read_text().split() == [
        "[genzoo]",
        "hello",
        "=",
        "hello_zoo",
    ]


def test_it_is_listed_and_generates_and_is_compared(installed: Path, tmp_path: Path) -> None:
    other = tiny.model_folder(tmp_path / "tiny-dcgan")
    out, report = tmp_path / "pictures", tmp_path / "report"
    listed, shown, plugins, generated, wrong, compared = run(
        installed,
        tmp_path,
        ["list", "blobs*"],
        ["show", "blobs.hello", "--json"],
        ["plugins", "--json"],
        ["generate", "blobs.hello", "-n", "10", "-O", "spread=0.0", *_labels(), "-o", str(out)],
        ["generate", "blobs.hello", "-O", "spred=0.0", "-o", str(tmp_path / "none")],
        ["compare", "blobs.hello", str(other), "-n", "60", "--no-speed", "-o", str(report)],
    )
    assert listed["out"].startswith("blobs.hello  -  Blobs of light")
    assert json.loads(shown["out"])["options"] == {"spread": 0.15}
    (hello,) = [item for item in json.loads(plugins["out"])["plugins"] if item["name"] == "hello"]
    assert hello == {
        "name": "hello", "package": "hello-zoo", "version": "1.0",
        "brings": [["generator", "blobs"], ["card", "blobs.hello"]],
    }  # fmt: skip
    assert not json.loads(plugins["out"])["broken"]

    assert generated["code"] == 0, generated["err"]
    pictures = []
    for path in sorted(out.glob("0*.png")):
        with Image.open(path) as picture:
            pictures.append(picture.tobytes())
    assert len(pictures) == 10
    assert len(set(pictures)) == 10, "without spread, the class alone decides"

    assert wrong == {
        "code": 2,
        "out": "",
        "err": "genzoo: no option named 'spred'; did you mean 'spread'? (blobs.hello)\n",
    }
    assert not (tmp_path / "none").exists()

    assert compared["code"] == 0, compared["err"]
    results = read_results(report / "results.json")
    rows = {row.name: row for row in results.models}
    assert {"blobs.hello", "tiny.dcgan"} <= rows.keys()
    for name in ("blobs.hello", "tiny.dcgan"):
        assert rows[name].failed is None
        assert {"frechet", "label-accuracy"} <= {score.metric for score in rows[name].scores}
        assert name in compared["out"]
    (page,) = report.glob("*.html")
    assert "blobs.hello" in page.read_text()


def _labels() -> list[str]:
    return [word for label in range(10) for word in ("--label", str(label))]


def test_without_it_nothing_of_it_is_known(tmp_path: Path) -> None:
    (wrong,) = run(tmp_path, tmp_path, ["generate", "blobs.hello"])
    assert wrong["code"] == 2
    assert wrong["err"].startswith("genzoo: no model named 'blobs.hello'")


README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize(("file", "language"), [("pyproject.toml", "toml"), ("hello_zoo.py", "python")])
def test_the_readme_shows_exactly_this_text(file: str, language: str) -> None:
    marker = f"<!-- example: {file} -->"
    if marker not in README:
        pytest.skip(f"README.md has no {marker}")
    found = re.search(rf"^{re.escape(marker)}\n+```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert found is not None
    assert found[1] == (EXAMPLE / file).read_text()
