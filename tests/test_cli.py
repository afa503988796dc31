"""The command line: light where it says so, one line and exit code 2 for a mistake, pictures that say how they came."""

from __future__ import annotations

import gc
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import tiny
import torch
import yaml
from PIL import Image

from genzoo import __version__, cli
from genzoo.cards import Card
from genzoo.cli.arguments import Sampling, parse_duration, parse_seeds, sampling_options, sampling_values
from genzoo.errors import OptionError
from genzoo.generator import DEFAULT_BATCH
from genzoo.registry import default_zoo
from genzoo.weights import build, write


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In an empty folder, which no command may write to that was told of another."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("GENZOO_CACHE", str(tmp_path / "cache"))
    yield
    assert not list((tmp_path / "here").iterdir())


@pytest.fixture(scope="module")
def gan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.model_folder(tmp_path_factory.mktemp("models") / "gan")


@pytest.fixture(scope="module")
def ddpm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusion model of 8x8 pictures and two classes with random weights."""
    folder = tmp_path_factory.mktemp("models") / "ddpm"
    model = yaml.safe_load(tiny.recipe_text(folder))["settings"]["model"]
    card = {**tiny.card("tiny.ddpm"), "generator": "diffusion", "shape": [1, 8, 8], "classes": ["left", "right"]}
    card |= {"config": model, "options": {"steps": 2}, "data": None}
    drawn = torch.random.get_rng_state()
    torch.manual_seed(0)
    made = build(default_zoo(), Card.model_validate(card))
    torch.random.set_rng_state(drawn)
    asset = write(folder / "model.safetensors", made.state_dict())
    (folder / "card.yaml").write_text(yaml.safe_dump({**card, "weights": asset.model_dump()}))
    return folder


class Outcome:
    """What a command said, and its exit code."""

    def __init__(self, code: int, said: pytest.CaptureResult[str]) -> None:
        self.code, self.out, self.err = code, said.out, said.err


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a command in this process, as if it had been typed."""

    def call(*arguments: str | Path) -> Outcome:
        typed = [str(argument) for argument in arguments]
        monkeypatch.setattr(sys, "argv", ["genzoo", *typed])
        capsys.readouterr()
        return Outcome(cli.run(typed), capsys.readouterr())

    return call


# -- light -------------------------------------------------------------------------------------------------------------

LIGHT: list[list[str]] = [
    ["list"],
    ["list", "ddpm*", "--json"],
    *(["show", card.name] for card in default_zoo().cards()[:1]),
    ["plugins"],
    ["plugins", "--json"],
    ["--help"],
    ["compare", "--help"],
    ["--version"],
    [],
]


@pytest.mark.parametrize("arguments", LIGHT, ids=" ".join)
def test_without_torch(arguments: list[str]) -> None:
    script = (
        "import sys; from genzoo import cli; code = cli.run(sys.argv[1:])\n"
        "print([name for name in ('torch', 'numpy', 'PIL', 'safetensors') if name in sys.modules], file=sys.stderr)\n"
        "sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "[]\n")
    assert done.stdout


def cpu_seconds(command: list[str], bytecode: Path) -> float:
    """User and system time of a process, which other processes stretch less than the time by the clock.

    Compiled modules are kept in the folder ``bytecode``, as an installation keeps them, whatever is set here.
    """
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**kept, "PYTHONPYCACHEPREFIX": str(bytecode)},
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return used.ru_utime + used.ru_stime


@pytest.mark.slow
def test_the_light_commands_start_within_twice_the_time_of_their_libraries(tmp_path: Path) -> None:
    """Medians of one run, in turn, so that whatever else the machine does falls upon all alike."""
    base = [sys.executable, "-c", "import click, pydantic, pluggy, yaml"]
    commands = {" ".join(arguments): [sys.executable, "-m", "genzoo", *arguments] for arguments in LIGHT}
    commands["base"] = base
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(16):
        for name, command in commands.items():
            taken[name].append(cpu_seconds(command, tmp_path))
    # The first of each has compiled modules.
    medians = {name: statistics.median(times[1:]) for name, times in taken.items()}
    ratios = {name: median / medians["base"] for name, median in medians.items()}
    assert max(ratios.values()) < 2, ratios


# -- what is told ------------------------------------------------------------------------------------------------------


def test_version_and_help(run: Any) -> None:
    assert run("--version").out == f"genzoo, version {__version__}\n"
    assert "Start with: genzoo compare" in run("--help").out
    assert run("-h").out == run("--help").out == run().out
    for name in cli.COMMANDS:
        told = run(name, "--help")
        assert told.code == 0
        assert told.out.startswith(f"Usage: genzoo {name}")


def test_every_command_is_where_the_table_says() -> None:
    group = cli.cli
    context = click.Context(group)
    assert group.list_commands(context) == sorted(cli.COMMANDS)
    modules = {f"genzoo.cli.{module}" for module in cli.COMMANDS.values()}
    for name in cli.COMMANDS:
        assert group.get_command(context, name) is not None
    held = [command.name for module in modules for command in sys.modules[module].COMMANDS]
    assert sorted(held) == sorted(cli.COMMANDS)
    files = {f"genzoo.cli.{path.stem}" for path in Path(cli.__file__).parent.glob("*.py")}
    assert modules == files - {"genzoo.cli.__init__", "genzoo.cli.arguments", "genzoo.cli.progress"}


def test_garbage_is_collected_in_commands_that_run_long() -> None:
    context = click.Context(cli.cli)
    try:
        for name, collected in [("list", False), ("plugins", False), ("generate", True), ("a-plugins-own", True)]:
            gc.disable()
            cli.cli.get_command(context, name)
            assert gc.isenabled() == collected
    finally:
        gc.enable()


def test_list_and_show(run: Any, tmp_path: Path) -> None:
    cards = default_zoo().cards()
    assert [line.split()[0] for line in run("list").out.splitlines()] == [card.name for card in cards]
    told = json.loads(run("list", "--json").out)
    assert [Card.model_validate_json(json.dumps(item), strict=True) for item in told] == cards
    for card in cards:
        assert Card.model_validate_json(run("show", card.name, "--json").out, strict=True) == card
        shown = run("show", card.name).out
        assert card.summary in shown
        if card.weights is not None:
            assert card.weights.sha256 in shown
    default_zoo().load(cards[0].name).save_pretrained(tmp_path / "saved")
    assert cards[0].summary in run("show", str(tmp_path / "saved")).out
    nothing = run("list", "nothing*")
    assert (nothing.code, nothing.out) == (0, "")
    assert "no model matches 'nothing*'" in nothing.err


def test_plugins(run: Any) -> None:
    zoo = default_zoo()
    shown = run("plugins").out
    for plugin in zoo.plugins.values():
        assert f"{plugin.name} ({plugin.package} {plugin.version})" in shown
    told = json.loads(run("plugins", "--json").out)
    assert [item["name"] for item in told["plugins"]] == list(zoo.plugins)


# -- pictures ----------------------------------------------------------------------------------------------------------


def test_pictures_are_named_by_seed_and_say_what_made_them(run: Any, gan: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run("generate", gan, "-n", "5", "--seed", "7", "--label", "class 3", "--label", "4", "-o", out)
    assert done.code == 0, done.err
    assert done.out == f"5 pictures and grid.png in {out}\n"
    assert sorted(path.name for path in out.iterdir()) == [*(f"{seed:010d}.png" for seed in range(7, 12)), "grid.png"]
    for i, path in enumerate(sorted(out.glob("0*.png"))):
        with Image.open(path) as picture:
            assert (picture.size, picture.mode) == ((28, 28), "L")
            told = picture.info
        assert told["genzoo:seed"] == str(7 + i)
        assert told["genzoo:label"] == ("class 3", "4")[i % 2]
        assert (
            told["genzoo:command"]
            == f"genzoo generate {gan} -n 5 --seed 7 --label 'class 3' --label 4 -o {tmp_path}/out"
        )
        assert Card.model_validate_json(told["genzoo:card"]).name == "tiny.dcgan"
        assert json.loads(told["genzoo:versions"])["genzoo"] == __version__
        assert json.loads(told["genzoo:versions"])["torch"] == torch.__version__
        json.loads(told["genzoo:options"])
    with Image.open(out / "grid.png") as sheet:
        assert sheet.size == (2 * 28 + 2, 3 * 28 + 4)
        assert "genzoo:command" in sheet.info


def pixels(path: Path) -> bytes:
    with Image.open(path) as picture:
        return picture.tobytes()


@pytest.mark.parametrize("family", ["gan", "ddpm"])
def test_a_picture_is_the_same_whatever_the_count(
    run: Any, family: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    model = request.getfixturevalue(family)
    for name, count, first in (("many", 11, 0), ("few", 3, 0), ("one", 1, 6), ("late", 4, 5)):
        common = ("--exact", "--batch", "8", "-o", tmp_path / name)
        assert run("generate", model, "-n", str(count), "--seed", str(first), *common).code == 0
    for name, seeds in (("few", range(3)), ("one", [6]), ("late", range(5, 9))):
        for seed in seeds:
            assert pixels(tmp_path / name / f"{seed:010d}.png") == pixels(tmp_path / "many" / f"{seed:010d}.png")
    assert len({pixels(path) for path in (tmp_path / "many").glob("0*.png")}) == 11


def test_options_reach_the_model(run: Any, ddpm: Path, tmp_path: Path) -> None:
    given = ("--steps", "3", "--scheduler", "ddim:eta=0.5,spacing=trailing", "--guidance", "2", "--label", "left")
    assert run("generate", ddpm, "-n", "1", "-o", tmp_path / "out", *given).code == 0
    with Image.open(tmp_path / "out" / "0000000000.png") as picture:
        options = json.loads(picture.info["genzoo:options"])
    assert options == {"steps": 3, "scheduler": "ddim:eta=0.5,spacing=trailing", "guidance": 2.0}
    again = ("-O", "steps=3", "-O", "scheduler=ddim:eta=0.5,spacing=trailing", "-O", "guidance=2", "--label", "0")
    assert run("generate", ddpm, "-n", "1", "-o", tmp_path / "again", *again).code == 0
    assert pixels(tmp_path / "out" / "0000000000.png") == pixels(tmp_path / "again" / "0000000000.png")


# -- films -------------------------------------------------------------------------------------------------------------


def film(path: Path) -> list[bytes]:
    """The frames of an animation, in grey."""
    with Image.open(path) as picture:
        assert picture.info["loop"] == 0
        frames = []
        for i in range(getattr(picture, "n_frames", 1)):
            picture.seek(i)
            frames.append(picture.convert("L").tobytes())
    return frames


@pytest.mark.parametrize(("family", "options"), [("gan", ()), ("ddpm", ("--steps", "3"))])
@pytest.mark.parametrize("suffix", ["gif", "png"])
def test_an_interpolation_is_a_film_through_the_seeds(
    run: Any, request: pytest.FixtureRequest, tmp_path: Path, family: str, options: tuple[str, ...], suffix: str
) -> None:
    model, out = request.getfixturevalue(family), tmp_path / f"film.{suffix}"
    same = ("--label", "1", "--exact", "--batch", "4", *options)
    done = run("generate", model, "--interpolate", "--seeds", "3,8,15", "--frames", "4", "-o", out, *same)
    assert (done.code, done.out) == (0, f"9 frames in {out}\n"), done.err
    frames = film(out)
    assert len(set(frames)) == len(frames) == 9
    assert run("generate", model, "--seeds", "3,8,15", "-o", tmp_path / "stills", *same).code == 0
    for i, seed in enumerate((3, 8, 15)):
        assert frames[4 * i] == pixels(tmp_path / "stills" / f"{seed:010d}.png")
    loop = run("generate", model, "--interpolate", "--loop", "--seeds", "3,8,15", "--frames", "4", "-o", out, *same)
    assert loop.out == f"12 frames in {out}\n"
    assert film(out)[:9] == frames


def test_a_film_says_how_it_came(run: Any, gan: Path, tmp_path: Path) -> None:
    typed = f"genzoo generate {gan} --interpolate -n 2 -o {tmp_path}/film"
    for suffix in ("gif", "png"):
        out = tmp_path / f"film.{suffix}"
        assert run("generate", gan, "--interpolate", "-n", "2", "-o", out).out == f"25 frames in {out}\n"
        with Image.open(out) as picture:
            told = picture.info.get("comment", b"").decode() or picture.info["genzoo:command"]
        assert f"{typed}.{suffix}" in told


def test_a_trajectory_shows_how_pictures_come_into_being(run: Any, ddpm: Path, tmp_path: Path) -> None:
    still, moving = tmp_path / "walk.png", tmp_path / "walk.gif"
    typed = ("generate", ddpm, "--trajectory", "--seeds", "4,2", "--steps", "6", "--exact", "--batch", "2")
    assert run(*typed, "-o", moving).out == f"6 steps of 2 pictures in {moving}\n"
    assert run(*typed, "--frames", "3", "-o", still).out == f"3 of 6 steps of 2 pictures in {still}\n"
    assert run("generate", ddpm, "--seeds", "4,2", "--steps", "6", "--exact", "--batch", "2", "-o", tmp_path).code == 0
    with Image.open(still) as picture:
        assert picture.size == (3 * 8 + 4, 2 * 8 + 2)
        for row, seed in enumerate((4, 2)):
            last = picture.crop((20, 10 * row, 28, 10 * row + 8)).tobytes()
            assert last == pixels(tmp_path / f"{seed:010d}.png")
    assert len(film(moving)) == 6


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--interpolate"], "a film needs a file: give -o FILE.gif or -o FILE.png"),
        (["--interpolate", "-o", "x.jpg"], "a film needs a file"),
        (["--trajectory", "-o", "folder"], "a film needs a file"),
        (["--trajectory", "-o", "x.png"], "this model makes its pictures in one step"),
        (["--trajectory", "--interpolate", "-o", "x.png"], "give one of them"),
        (["--trajectory", "--loop", "-o", "x.png"], "--loop is for --interpolate"),
        (["--frames", "3"], "--frames is for --interpolate and --trajectory"),
        (["--interpolate", "--frames", "0", "-o", "x.gif"], "0 is not in the range"),
        (["--interpolate", "-n", "1", "-o", "x.gif"], "1 seeds; give two or more"),
        (["--interpolate", "--seeds", "3,3", "-o", "x.gif"], "a seed stands there twice"),
        (["--interpolate", "--label", "1", "--label", "2", "-o", "x.gif"], "noise has no way between classes"),
        (["--interpolate", "-O", "space=z", "-o", "x.gif"], "no option named 'space'"),
    ],
)
def test_mistakes_with_films(run: Any, gan: Path, arguments: list[str], words: str) -> None:
    check_one_line(run("generate", gan, *arguments), words)


def test_all_that_a_style_generator_can_do_is_reachable(run: Any, tmp_path: Path) -> None:
    """Truncation, the mixing of styles by layers, noise in the layers, and both spaces of interpolation."""
    sizes = {"image_size": 28, "base": 7, "channels": 1, "latent": 8, "mapping_layers": 2, "widths": [8, 8, 8]}
    told = tiny.card("tiny.stylegan", generator="stylegan", config={**sizes, "num_classes": 10})
    drawn = torch.random.get_rng_state()
    torch.manual_seed(0)
    made = build(default_zoo(), Card.model_validate({**told, "shape": (1, 28, 28)}))
    torch.random.set_rng_state(drawn)
    torch.nn.init.normal_(made.get_buffer("mean_latent"), generator=torch.Generator().manual_seed(1))
    torch.nn.init.ones_(made.network.get_parameter("conv1.noise.weight"))
    folder = tmp_path / "model"
    pinned = write(folder / "model.safetensors", made.state_dict())
    (folder / "card.yaml").write_text(yaml.safe_dump({**told, "weights": pinned.model_dump()}))
    seen = {}
    for i, extra in enumerate(
        ([], ["truncation=0.5"], ["mix=9"], ["mix=9", "mix_layers=0-0"], ["mix=9", "mix_layers=2-4"],
         ["layer_noise=fixed"], ["layer_noise=none"])
    ):  # fmt: skip
        options = [word for item in extra for word in ("-O", item)]
        done = run("generate", folder, "-n", "1", "--label", "3", "-o", tmp_path / str(i), *options)
        assert done.code == 0, done.err
        seen[tuple(extra)] = pixels(tmp_path / str(i) / "0000000000.png")
    assert len(set(seen.values())) == len(seen)
    films = []
    for space in ("w", "z"):
        out = tmp_path / f"{space}.png"
        typed = ("--interpolate", "-n", "2", "--frames", "3", "--label", "3", "-O", f"space={space}", "-o", out)
        assert run("generate", folder, *typed).code == 0
        films.append(film(out))
    assert len(films[0]) == len(films[1]) == 4
    assert films[0][0] == films[1][0] == seen[()]
    assert films[0][1] != films[1][1]


# -- mistakes ----------------------------------------------------------------------------------------------------------

#: What is typed after ``genzoo generate MODEL -o OUT`` -> what is said. A later -n takes the place of an earlier one.
MISTAKES = {
    "zero": ("gan", ["-n", "0"], "-n 0 is out of range; give 1 to"),
    "negative": ("gan", ["-n", "-3"], "-n -3 is out of range; give 1 to"),
    "count that is none": ("gan", ["-n", "many"], "'many' is not a valid integer; see genzoo generate --help"),
    "misspelt label": ("gan", ["--label", "clas 3"], "no label named 'clas 3'; did you mean 'class 3'?"),
    "label out of range": ("gan", ["--label", "10"], "label 10 is out of range; this model knows 0 to 9"),
    "negative label": ("gan", ["--label", "-1"], "no label named '-1'"),
    "second label wrong": ("gan", ["--label", "1", "--label", "x"], "no label named 'x'"),
    "zero steps": ("ddpm", ["--steps", "0"], "steps: Input should be greater than or equal to 1 (got 0)"),
    "steps beyond the schedule": ("ddpm", ["--steps", "5000"], "steps=5000"),
    "steps of a model without": ("gan", ["--steps", "5"], "no option named 'steps'"),
    "unknown scheduler": ("ddpm", ["--scheduler", "dddim"], "no scheduler named 'dddim'; did you mean 'ddim'?"),
    "unknown scheduler option": ("ddpm", ["--scheduler", "ddim:et=1"], "et: unknown key; did you mean 'eta'?"),
    "unknown guidance": ("ddpm", ["--guidance", "cfgg"], "no guidance named 'cfgg'; did you mean 'cfg'?"),
    "unknown option": ("gan", ["--labell", "3"], "No such option '--labell'"),
    "unknown -O": ("ddpm", ["-O", "step=3"], "no option named 'step'; did you mean 'steps'?"),
    "-O without value": ("ddpm", ["-O", "steps"], "-O 'steps': write KEY=VALUE"),
    "-O of the wrong type": ("ddpm", ["-O", "steps=no"], "steps: Input should be a valid integer (got 'no')"),
    "negative seed": ("gan", ["--seed", "-1"], "seed -1 is out of range"),
    "seeds beyond the last": ("gan", ["--seed", "4294967295", "-n", "2"], "seed 4294967296 is out of range"),
    "zero batch": ("gan", ["--batch", "0"], "batch=0 is out of range"),
    "unknown device": ("gan", ["--device", "abacus"], "device 'abacus' is not usable here"),
    "unknown type": ("gan", ["--dtype", "int3"], "dtype 'int3' is unknown; known: float32"),
    "too many words": ("gan", ["more"], "Got unexpected extra argument (more); see genzoo generate --help"),
}


def check_one_line(outcome: Outcome, words: str, code: int = 2) -> None:
    assert outcome.code == code, outcome.err
    assert outcome.out == ""
    assert outcome.err.startswith("genzoo: ")
    assert outcome.err.count("\n") == 1, outcome.err
    assert words in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_and_writes_nothing(
    run: Any, name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    family, arguments, words = MISTAKES[name]
    out = tmp_path / "out"
    check_one_line(run("generate", request.getfixturevalue(family), "-n", "2", "-o", out, *arguments), words)
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["lst"], "no command named 'lst'; did you mean 'genzoo list'?"),
        (["xyzzy"], "no command named 'xyzzy'; see genzoo --help"),
        (["--debugg", "list"], "No such option '--debugg'"),
        (["generate"], "Missing argument 'NAME'; see genzoo generate --help"),
        (["generate", "dcgan.fashion-mnis"], "no model named 'dcgan.fashion-mnis'"),
        (["generate", "\udcff"], "no model named '\\udcff'"),
        (["generate", "./nowhere"], "nowhere"),
        (["show", "x" * 500], "no model named"),
        (["generate", "x" * 500], "no model named"),
        (["train", "no-such-recipe", "--out", "runs"], "no recipe named 'no-such-recipe'"),
        (["compare", "no.such"], "no model named 'no.such'"),
        (["compare", "-n", "0"], "-n 0 is out of range"),
        (["compare", "--seeds", "9-3"], "--seeds '9-3': a range runs upwards"),
        (["report", "none.json"], "none.json: No such file or directory"),
    ],
)
def test_other_mistakes(run: Any, arguments: list[str], words: str) -> None:
    check_one_line(run(*arguments), words)


def test_unknown_models_suggest_the_nearest(run: Any) -> None:
    for card in default_zoo().cards():
        check_one_line(run("generate", card.name + "s"), f"did you mean {card.name!r}?")


def test_debug_shows_where(run: Any) -> None:
    for arguments in (["--debug", "show", "no.such"], ["show", "no.such", "--debug"]):
        done = run(*arguments)
        assert done.code == 2
        assert "Traceback (most recent call last)" in done.err
        assert done.err.splitlines()[-1].startswith("genzoo: no model named 'no.such'")


def test_an_output_that_is_a_file(run: Any, gan: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    check_one_line(run("generate", gan, "-n", "1", "-o", tmp_path / "file"), "is a file")
    check_one_line(run("generate", gan, "-n", "1", "-o", tmp_path / "file" / "out"), "Not a directory")
    assert (tmp_path / "file").read_text() == "mine"


def test_faults_that_are_nobodys_mistake(run: Any, gan: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from genzoo_plugins.dcgan.model import DCGAN

    def failing(error: BaseException) -> Any:
        def sample(self: Any, noise: Any, options: Any) -> Iterator[torch.Tensor]:
            raise error
            yield torch.zeros(1)

        return sample

    generate = ("generate", gan, "-n", "1", "-o", tmp_path / "out")
    for error, code, words in (
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 12 bytes"), 2, "smaller --batch"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), 2, "smaller --batch"),
        (MemoryError(), 2, "smaller --batch"),
        (OSError(28, "No space left on device", "/full/x.png"), 2, "/full/x.png: No space left on device; check"),
        (KeyError("x"), 1, "KeyError: 'x': a fault of the program or of a plugin; add --debug"),
    ):
        monkeypatch.setattr(DCGAN, "sample", failing(error))
        check_one_line(run(*generate), words, code)
        assert not (tmp_path / "out").exists()
    monkeypatch.setattr(DCGAN, "sample", failing(KeyboardInterrupt()))
    interrupted = run(*generate)
    assert interrupted.code == 130
    assert interrupted.err.strip() == "genzoo: interrupted"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (torch.full((2, 1, 28, 28), torch.nan), "made images that hold NaN or infinity"),
        (torch.zeros(2, 3, 28, 28), "made images of (3, 28, 28), but says it makes (1, 28, 28)"),
    ],
)
def test_pictures_that_are_none_are_not_written(
    run: Any, gan: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wrong: torch.Tensor, words: str
) -> None:
    from genzoo_plugins.dcgan.model import DCGAN

    monkeypatch.setattr(DCGAN, "sample", lambda self, noise, options: iter([wrong]))
    check_one_line(run("generate", gan, "-n", "2", "-o", tmp_path / "out"), words)
    assert not (tmp_path / "out").exists()


# -- weights that are not what the card says ---------------------------------------------------------------------------


class Canary:
    """A pickle of this would make a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.path),))


def spoil(folder: Path, fault: str, canary: Path) -> str:
    """Break a model's folder; returns what has to be said about it."""
    weights, card = folder / "model.safetensors", folder / "card.yaml"
    raw = weights.read_bytes()
    told = yaml.safe_load(card.read_text())
    words = {
        "missing": f"{weights}: the weights are missing",
        "truncated": f"{weights}: {len(raw) // 2} bytes where its card says {len(raw)}",
        "empty": f"{weights}: 0 bytes where its card says {len(raw)}",
        "changed": f"{weights}: changed: sha256",
        "pinned and truncated": f"{weights}: cut short: {len(raw) // 2} bytes where its header says {len(raw)}",
        "other shape": "network.main.1.weight is (8,), not (12,); network.main.4.bias is (4,), not (6,); and 3 more",
        "folder": f"{weights}: not a regular file",
        "link out": f"{weights}: a link that leaves {folder}",
        "pickle": f"{weights}: not a safetensors file",
        "unknown key": f"{card}:",
        "unknown config key": "config of tiny.dcgan: width: unknown key",
        "huge config": "config of tiny.dcgan: width_g: Input should be less than or equal to 1024",
        "unknown generator": "card tiny.dcgan: no generator named 'dcgann'; did you mean 'dcgan'?",
        "other image shape": "card tiny.dcgan: shape is (1, 32, 32), but its config makes images of (1, 28, 28)",
        "not YAML": f"{card}:2: not readable",
        "not text": f"{card}:1: not UTF-8 text",
    }[fault]
    if fault == "missing":
        weights.unlink()
    elif fault in ("truncated", "empty"):
        weights.write_bytes(raw[: len(raw) // 2] if fault == "truncated" else b"")
    elif fault == "changed":
        weights.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    elif fault == "pinned and truncated":
        weights.write_bytes(raw[: len(raw) // 2])
        told["weights"] |= pin(weights)
    elif fault == "other shape":
        told["config"] |= {"width_g": 6, "num_classes": None}
        told["classes"] = []
        small = build(default_zoo(), Card.model_validate({**tiny.card(), "config": {**told["config"], "width_g": 4},
                                                          "classes": (), "shape": (1, 28, 28)}))  # fmt: skip
        told["weights"] = write(weights, small.state_dict()).model_dump()
    elif fault == "folder":
        weights.unlink()
        weights.mkdir()
    elif fault == "link out":
        weights.rename(folder.parent / "outside.safetensors")
        weights.symlink_to(folder.parent / "outside.safetensors")
    elif fault == "pickle":
        import pickle  # noqa: TID251 - to see that it is not read

        weights.write_bytes(pickle.dumps(Canary(canary)))
        told["weights"] |= pin(weights)
    elif fault == "unknown key":
        told["wieghts"] = told.pop("weights")
    elif fault == "unknown config key":
        told["config"]["width"] = 4
    elif fault == "huge config":
        told["config"]["width_g"] = 10**9
    elif fault == "unknown generator":
        told["generator"] = "dcgann"
    elif fault == "other image shape":
        told["shape"] = [1, 32, 32]
    card.write_text(yaml.safe_dump(told, sort_keys=False))
    if fault == "not YAML":
        card.write_text("name: x\nsummary: [")
    elif fault == "not text":
        card.write_bytes(b"\xff")
    return words


def pin(path: Path) -> dict[str, Any]:
    from genzoo.files import sha256_of

    return {"sha256": sha256_of(path), "size": path.stat().st_size}


SPOILT = [
    "missing", "truncated", "empty", "changed", "pinned and truncated", "other shape", "folder", "link out",
    "pickle", "unknown key", "unknown config key", "huge config", "unknown generator", "other image shape",
    "not YAML", "not text",
]  # fmt: skip


@pytest.mark.parametrize("fault", SPOILT)
def test_a_model_that_is_not_what_its_card_says(run: Any, gan: Path, tmp_path: Path, fault: str) -> None:
    folder = shutil.copytree(gan, tmp_path / "model")
    words = spoil(folder, fault, tmp_path / "canary")
    before = sorted((path, path.stat().st_mtime_ns) for path in folder.iterdir())
    check_one_line(run("generate", folder, "-n", "2", "-o", tmp_path / "out"), words)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "canary").exists()
    assert sorted((path, path.stat().st_mtime_ns) for path in folder.iterdir()) == before


# -- the process -------------------------------------------------------------------------------------------------------


def test_a_mistake_ends_the_process_with_2(gan: Path, tmp_path: Path) -> None:
    """As a shell sees it: nothing else on standard error, as a library's warnings."""
    command = [sys.executable, "-m", "genzoo", "generate", str(gan), "--label", "clas 3", "-o", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "genzoo: no label named 'clas 3'; did you mean 'class 3'?\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_signal_ends_it_without_litter(gan: Path, tmp_path: Path, number: int, code: int, word: str) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "genzoo", "generate", str(gan), "-n", "30000", "--batch", "4", "-o", str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 100
        while not list(out.glob("*.png")) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(number)
        said = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert said[0] == ""
    assert said[1].split("\n")[-2] == f"genzoo: {word}"
    assert "Traceback" not in said[1]
    names = [path.name for path in out.iterdir()]
    assert names
    assert all(re.fullmatch(r"\d{10}\.png", name) for name in names), "a picture is there whole or not at all"
    for path in out.iterdir():
        pixels(path)


# -- arguments ---------------------------------------------------------------------------------------------------------


def test_seeds_and_durations() -> None:
    assert parse_seeds("0-3") == [0, 1, 2, 3]
    assert parse_seeds("5, 9-10,3") == [5, 9, 10, 3]
    for text in ("", "a", "3-1", "1,1", "0-3,2", "-1", "1-2-3", "0-99999999", "1e3", "12345678901"):
        with pytest.raises(OptionError, match="--seeds"):
            parse_seeds(text)
    assert [parse_duration(text) for text in ("90", "90s", "30m", "1.5h", " 2m ")] == [90, 90, 1800, 5400, 120]
    for text in ("", "0", "-3", "1d", "m", "1e9h", "999999999h", "nan", "1,5h"):
        with pytest.raises(OptionError, match="--time-limit"):
            parse_duration(text)
        with pytest.raises(OptionError, match="--budget"):
            parse_duration(text, "--budget")


@pytest.mark.parametrize(("dtype", "exact"), [(True, True), (False, True), (True, False)])
def test_sampling_reaches_a_command_as_one(dtype: bool, exact: bool) -> None:
    given: list[Sampling] = []

    @click.command()
    @sampling_options(dtype=dtype, exact=exact)
    def command(sampling: Sampling) -> None:
        given.append(sampling)

    more = [*(["--dtype", "bf16"] if dtype else []), *(["--exact"] if exact else [])]
    typed = ["--steps", "5", "--guidance", "2", "-O", "clip=true", "--batch", "3", "--device", "meta", *more]
    command.main(typed, standalone_mode=False)
    options = {"steps": 5, "guidance": 2, "clip": True}
    assert given == [Sampling(options, 3, "meta", "bf16" if dtype else None, exact)]
    assert given[0].asking(labels=1, steps=6).call == {"batch": 3, "exact": exact, **options, "labels": 1, "steps": 6}
    command.main([], standalone_mode=False)
    assert given[1] == Sampling({}, DEFAULT_BATCH, "cpu")
    shown = [parameter.name for parameter in command.params]
    assert shown == [
        "steps", "scheduler", "guidance", "extra", "batch", "device", *["dtype"] * dtype, *["exact"] * exact
    ]  # fmt: skip


def test_options_are_read_as_a_file_would_say_them() -> None:
    given = sampling_values(5, "ddim:eta=1", "2.5", ("clip=true", "name=a=b", "none=null", "rate=1e-4"))
    assert given == {
        "steps": 5, "scheduler": "ddim:eta=1", "guidance": 2.5, "clip": True, "name": "a=b", "none": None, "rate": 1e-4,
    }  # fmt: skip
    assert sampling_values(None, None, None, ()) == {}
    assert sampling_values(None, None, "cfg:scale=3", ()) == {"guidance": "cfg:scale=3"}
    for text in ("steps", "=3", ""):
        with pytest.raises(OptionError, match="write KEY=VALUE"):
            sampling_values(None, None, None, (text,))
