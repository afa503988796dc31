"""The zoo: names, and that a broken plugin is named, skipped and shown, and never stops the others."""

from __future__ import annotations

import importlib
import json
import re
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import tiny
from click.testing import CliRunner

import genzoo
from genzoo import cli
from genzoo.cli.bench import working_models
from genzoo.errors import GenzooError, OptionError, UnknownName
from genzoo.frozen import Frozen
from genzoo.guidance import Guidance
from genzoo.registry import HOOKS, KINDS, PluginError, Zoo, default_zoo

GOOD = """
import genzoo

@genzoo.hookimpl
def register(zoo):
    zoo.scheduler("good", "good_module:Good")
"""


def plugin(text: str) -> Callable[[], Any]:
    """What an entry point's ``load`` does: run the text as a module."""

    def load() -> Any:
        module = types.ModuleType("a_plugin")
        exec(compile(text, "a_plugin.py", "exec"), module.__dict__)  # noqa: S102
        return module

    return load


HEAD = "import genzoo, sys\n@genzoo.hookimpl\n"

#: The text of a plugin -> what is said of it.
BROKEN = {
    "import error": ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
    "exit": ("import sys; sys.exit('goodbye')", "SystemExit: goodbye"),
    "exit without a word": ("raise SystemExit", "SystemExit: no message"),
    "syntax error": ("def register(zoo:", "SyntaxError: "),
    "any error": ("1 / 0", "ZeroDivisionError: division by zero"),
    "endless recursion": ("def f(): f()\nf()", "RecursionError: "),
    "escape sequence": ("raise ValueError('\\x1b[31m\\nred')", "ValueError: \\x1b[31m red"),
    "half a character": ("raise ValueError('\\udcff')", "ValueError: \\udcff"),
    "no hook": ("x = 1", "it implements no hook: mark register(zoo) with @genzoo.hookimpl"),
    "not marked": ("def register(zoo): pass", "register is not marked as a hook: write @genzoo.hookimpl above it"),
    "one of two not marked": (HEAD + "def commands(cli): pass\ndef register(zoo): pass", "register is not marked"),
    "misspelt": (HEAD + "def registr(zoo): pass", "unknown hook 'registr'; did you mean 'register'?"),
    "misspelt beside a good one": (
        HEAD + "def register(zoo): zoo.scheduler('left', 'm:C')\n@genzoo.hookimpl\ndef comands(cli): pass",
        "unknown hook 'comands'; did you mean 'commands'?",
    ),
    "misspelt and not marked": ("def registre(zoo): pass", "rename 'registre' and mark it with @genzoo.hookimpl"),
    "unknown hook": (HEAD + "def on_start(): pass", "unknown hook 'on_start'; known: register, commands"),
    "wrong signature": (HEAD + "def register(zoo, more): pass", "PluginValidationError: "),
    "wrong signature of the second": (
        HEAD + "def commands(cli): pass\n@genzoo.hookimpl\ndef register(zoo, more): pass",
        "PluginValidationError: ",
    ),
    "wrapper": ("import genzoo\n@genzoo.hookimpl(wrapper=True)\ndef register(zoo): return (yield)", "is a wrapper"),
    "bad return": (HEAD + "def register(zoo): return 7", "register(zoo) must return nothing, not int"),
    "raises half way": (HEAD + "def register(zoo): zoo.scheduler('left', 'm:C'); 1 / 0", "ZeroDivisionError: "),
    "exits half way": (HEAD + "def register(zoo): zoo.scheduler('left', 'm:C'); sys.exit()", "SystemExit: "),
    "no such kind": (HEAD + "def register(zoo): zoo.model('x', 'm:C')", "AttributeError: "),
    "taken name": (
        HEAD + "def register(zoo): zoo.scheduler('left', 'm:C'); zoo.scheduler('good', 'm:C')",
        "scheduler 'good' is taken by plugin 'good'; choose another name",
    ),
    "name given twice": (
        HEAD + "def register(zoo): zoo.scheduler('left', 'm:C'); zoo.scheduler('left', 'm:D')",
        "scheduler 'left' is taken by plugin 'bad'",
    ),
    "bad name": (HEAD + "def register(zoo): zoo.scheduler('Left Hand', 'm:C')", "use lower-case letters"),
    "name that is no text": (HEAD + "def register(zoo): zoo.scheduler(7, 'm:C')", "use lower-case letters"),
    "bad target": (HEAD + "def register(zoo): zoo.scheduler('left', 'm.C')", "write its class as 'module:Class'"),
    "target that is no class": (HEAD + "def register(zoo): zoo.scheduler('left', 7)", "give a class or"),
    "card with unknown keys": (HEAD + "def register(zoo): zoo.card({'name': 'a.b', 'sumary': 'x'})", "card: sumary"),
    "card that is none": (HEAD + "def register(zoo): zoo.card(7)", "TypeError: "),
    "missing catalogue": (HEAD + "def register(zoo): zoo.catalogue('none.yaml')", "none.yaml: No such file"),
}


@pytest.fixture
def zoo() -> Zoo:
    found = Zoo()
    assert found.add(plugin(GOOD), name="good", package="good-package", version="1.2")
    return found


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_plugin_is_named_and_leaves_nothing(zoo: Zoo, fault: str) -> None:
    text, words = BROKEN[fault]
    before = (dict(zoo.plugins), dict(zoo.entries), dict(zoo.shelf))
    assert not zoo.add(plugin(text), name="bad", package="bad-package", version="6.6")
    assert (zoo.plugins, zoo.entries, zoo.shelf) == before
    (broken,) = zoo.broken.values()
    assert (broken.name, broken.package, broken.version) == ("bad", "bad-package", "6.6")
    assert words in broken.cause
    assert broken.cause.isprintable()
    # The next one works, and nothing of the broken one is called again.
    assert zoo.add(plugin(GOOD.replace("good", "better")), name="better")
    assert zoo.names("scheduler") == ["better", "good"]
    zoo.extend_cli(click.Group())
    assert set(zoo.broken) == {"bad"}


def test_an_interrupt_is_no_fault_of_a_plugin(zoo: Zoo) -> None:
    for text in ("raise KeyboardInterrupt", HEAD + "def register(zoo): raise KeyboardInterrupt"):
        with pytest.raises(KeyboardInterrupt):
            zoo.add(plugin(text), name="interrupted")
    assert not zoo.broken
    assert zoo.add(plugin(GOOD.replace("good", "better")), name="interrupted")


def test_a_second_plugin_of_a_name_is_the_broken_one(zoo: Zoo) -> None:
    for package in ("other", "other", "third"):
        assert not zoo.add(plugin(GOOD), name="good", package=package, version="1")
    assert list(zoo.broken) == ["good (other)", "good (other, 2)", "good (third)"]
    assert all("a plugin named 'good' is here already" in broken.cause for broken in zoo.broken.values())
    assert zoo.plugins["good"].package == "good-package"


def test_one_module_is_one_plugin(zoo: Zoo) -> None:
    module = plugin(GOOD.replace("good", "better"))()
    assert zoo.add(lambda: module, name="first")
    assert not zoo.add(lambda: module, name="second")
    assert "its module is that of plugin 'first'" in zoo.broken["second"].cause
    assert zoo.plugins["first"].brings == (("scheduler", "better"),)


def test_a_plugin_may_be_an_object(zoo: Zoo) -> None:
    class Plugin:
        @genzoo.hookimpl
        def register(self, zoo: Any) -> None:
            zoo.scheduler("better", "m:C")

    assert zoo.add(Plugin, name="better")
    assert zoo.plugins["better"].root == Path(__file__).parent


def test_every_kind_can_be_registered() -> None:
    lines = "\n".join(f"    zoo.{kind}('one', 'm:C')" for kind in KINDS)
    zoo = Zoo()
    assert zoo.add(plugin(HEAD + "def register(zoo):\n" + lines), name="all"), zoo.broken
    assert {kind for kind, _ in zoo.plugins["all"].brings} == set(KINDS)
    for kind, base in KINDS.items():
        module, _, name = base.partition(":")
        found = getattr(importlib.import_module(module), name)
        assert isinstance(found, type)
        assert zoo.names(kind) == ["one"]


def test_the_hooks_are_those_of_hookspecs() -> None:
    from genzoo import hookspecs

    specified = [name for name, found in vars(hookspecs).items() if hasattr(found, "genzoo_spec")]
    assert sorted(specified) == sorted(HOOKS)


# -- what is found under a name ----------------------------------------------------------------------------------------

TARGETS = """
import genzoo
from genzoo.guidance import Guidance

class Unfinished(Guidance):
    pass

class Stranger:
    pass

function = len
"""


@pytest.fixture
def targets(zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Zoo]:
    """A plugin whose registrations are fine and whose classes are not."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "bad_targets.py").write_text(TARGETS)
    (tmp_path / "bad_exit.py").write_text("import sys; sys.exit(3)")
    (tmp_path / "bad_syntax.py").write_text("class")
    names = {
        "missing": "no_such_module:Thing",
        "exits": "bad_exit:Thing",
        "syntax": "bad_syntax:Thing",
        "nowhere": "bad_targets:Thing",
        "stranger": "bad_targets:Stranger",
        "function": "bad_targets:function",
        "unfinished": "bad_targets:Unfinished",
    }
    lines = "".join(f"    zoo.guidance({name!r}, {target!r})\n" for name, target in names.items())
    assert zoo.add(plugin(HEAD + "def register(zoo):\n" + lines), name="bad", package="bad-package", version="6.6")
    yield zoo
    for name in ("bad_targets", "bad_exit", "bad_syntax"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing", "cannot be loaded: ModuleNotFoundError: No module named 'no_such_module'"),
        ("exits", "cannot be loaded: SystemExit: 3"),
        ("syntax", "cannot be loaded: SyntaxError: "),
        ("nowhere", "cannot be loaded: AttributeError: "),
        ("stranger", "is not a subclass of genzoo.Guidance"),
        ("function", "is not a subclass of genzoo.Guidance"),
        ("unfinished", "does not implement __call__, evaluations"),
    ],
)
def test_a_class_that_is_none_is_an_error_that_names_the_plugin(targets: Zoo, name: str, words: str) -> None:
    with pytest.raises(PluginError) as caught:
        targets.make("guidance", name)
    assert str(caught.value).startswith(f"plugin 'bad' (bad-package 6.6): guidance '{name}' ")
    assert words in str(caught.value)


UNBUILT = """
import genzoo
from genzoo.frozen import Frozen

class Thing:
    pass

class Family(genzoo.Generator):
    class {nested}(Frozen):
        thing: Thing

class Steps(genzoo.Scheduler):
    thing: Thing
"""


@pytest.mark.parametrize(("kind", "name"), [("generator", "Family"), ("scheduler", "Steps")])
@pytest.mark.parametrize("nested", ["Config", "Options"])
def test_settings_that_cannot_be_built_are_the_fault_of_their_plugin(
    zoo: Zoo, kind: str, name: str, nested: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When it is registered where the class is given, when it is looked up where that is named."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "unbuilt.py").write_text(UNBUILT.format(nested=nested))
    monkeypatch.delitem(sys.modules, "unbuilt", raising=False)
    words = "PydanticSchemaGenerationError: Unable to generate pydantic-core schema for <class 'unbuilt.Thing'>"
    given = HEAD + f"def register(zoo):\n    import unbuilt\n    zoo.{kind}('x', unbuilt.{name})"
    assert not zoo.add(plugin(given), name="given")
    assert zoo.broken["given"].cause.startswith(words)
    assert (kind, "x") not in zoo.entries
    assert zoo.add(plugin(HEAD + f"def register(zoo): zoo.{kind}('x', 'unbuilt:{name}')"), name="named")
    with pytest.raises(PluginError, match=re.escape(f"plugin 'named' (local 0): {kind} 'x' cannot be loaded: {words}")):
        zoo.find(kind, "x")
    assert list(zoo.broken) == ["given"]


def test_a_bench_of_all_leaves_out_whose_plugin_fails(capsys: pytest.CaptureFixture[str]) -> None:
    zoo = Zoo.discover()
    card = {**tiny.card("bad.one"), "generator": "bad"}
    text = HEAD + f"def register(zoo):\n    zoo.generator('bad', 'no_such_module:Bad')\n    zoo.card({card})"
    assert zoo.add(plugin(text), name="bad")
    others = [found.name for found in default_zoo().cards() if not found.guides]
    assert "bad.one" in [found.name for found in zoo.cards()]
    assert working_models(zoo) == others
    assert capsys.readouterr().err.startswith("bad.one is left out: plugin 'bad' (local 0): generator 'bad' cannot be")


def test_a_catalogue_in_the_folder_of_a_plugin_is_read(
    zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["tiny.first", "tiny.second"]
    (tmp_path / "mine.yaml").write_text(json.dumps({"version": 1, "cards": [tiny.card(name) for name in names]}))
    (tmp_path / "catalogued.py").write_text(HEAD + "def register(zoo): zoo.catalogue('mine.yaml')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "catalogued", raising=False)
    assert zoo.add(lambda: importlib.import_module("catalogued"), name="mine"), zoo.broken
    assert zoo.plugins["mine"].brings == tuple(("card", name) for name in names)
    assert [(zoo.card(name).name, zoo.root(name)) for name in names] == [(name, tmp_path) for name in names]


def test_an_interrupt_while_a_class_is_imported_passes(zoo: Zoo, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "interrupting.py").write_text("raise KeyboardInterrupt")
    zoo.add(plugin(HEAD + "def register(zoo): zoo.guidance('x', 'interrupting:X')"), name="x")
    with pytest.raises(KeyboardInterrupt):
        zoo.find("guidance", "x")


def test_unknown_names_suggest_the_nearest() -> None:
    zoo = default_zoo()
    with pytest.raises(UnknownName, match=r"no scheduler named 'dddim'; did you mean 'ddim'\?"):
        zoo.make("scheduler", "dddim:eta=1")
    with pytest.raises(UnknownName, match=r"no guidance named 'zzz'; known: .*cfg"):
        zoo.make("guidance", "zzz")
    with pytest.raises(UnknownName, match=r"no generator named 'x'; none is registered"):
        Zoo().find("generator", "x")
    for card in zoo.cards():
        with pytest.raises(UnknownName, match=f"did you mean '{card.name}'?"):
            zoo.card(card.name[:-1])


def test_an_unknown_name_says_that_a_broken_plugin_may_have_it(zoo: Zoo) -> None:
    zoo.add(plugin("1 / 0"), name="bad")
    with pytest.raises(UnknownName, match=r"\(1 broken; see genzoo plugins\)"):
        zoo.card("ddpm.test")


def test_an_object_is_made_from_a_line() -> None:
    made = default_zoo().make("scheduler", "ddim: eta = 0.5, spacing = trailing")
    assert (made.eta, made.spacing) == (0.5, "trailing")
    assert made == default_zoo().make("scheduler", "ddim:eta=5e-1,spacing=trailing,")
    assert default_zoo().make("scheduler", "ddim") == default_zoo().make("scheduler", "ddim:")


@pytest.mark.parametrize(
    ("kind", "spec", "words"),
    [
        ("scheduler", "ddim:etta=1", "scheduler ddim: etta: unknown key; did you mean 'eta'?; its options: "),
        ("scheduler", "ddim:eta=7", "scheduler ddim: eta: Input should be less than or equal to 1"),
        ("scheduler", "ddim:eta=much", "scheduler ddim: eta: "),
        ("scheduler", "ddim:eta=no", "scheduler ddim: eta: "),
        ("scheduler", "ddim:eta=1e999", "'1e999' is beyond the range"),
        ("scheduler", "ddim:eta=\x1b", "control character"),
        ("scheduler", "ddim:eta", "write options as name:key=value,key=value"),
        ("scheduler", "ddim:=1", "write options as name:key=value,key=value"),
        ("scheduler", "ddim:eta=0,eta=1", "eta stands there twice"),
        ("scheduler", "ddim:eta=1=2", "scheduler ddim: eta: "),
        ("guidance", "none:scale=2", "guidance none: scale: unknown key; its options: none"),
        ("dataset", "fashion-mnist:x=2", "dataset fashion-mnist: "),
        ("extractor", "fashion-classifier:x=2", "extractor fashion-classifier: "),
    ],
)
def test_options_that_do_not_fit(kind: str, spec: str, words: str) -> None:
    with pytest.raises(GenzooError) as caught:
        default_zoo().make(kind, spec)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_class_itself_may_be_registered() -> None:
    class Quiet(Guidance):
        def __call__(self, denoiser: Any, condition: Any, null: Any) -> Any:
            return denoiser

        @property
        def evaluations(self) -> int:
            return 1

    class Plugin:
        @genzoo.hookimpl
        def register(self, zoo: Any) -> None:
            zoo.guidance("quiet", Quiet)

    zoo = Zoo()
    assert zoo.add(Plugin, name="quiet")
    assert isinstance(zoo.make("guidance", "quiet"), Quiet)
    with pytest.raises(OptionError, match="loud: unknown key"):
        zoo.make("guidance", "quiet:loud=1")


# -- shown -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Iterator[Zoo]:
    """An empty zoo, which is what the command line finds installed.

    ``default_zoo`` itself stays, for a module that is imported meanwhile would keep another in its place.
    """
    zoo = Zoo()
    monkeypatch.setattr(Zoo, "discover", classmethod(lambda cls: zoo))
    default_zoo.cache_clear()
    yield zoo
    default_zoo.cache_clear()


@pytest.fixture
def shown(program: Zoo) -> Zoo:
    """Two plugins that work, and every kind of broken one beside them."""
    found = program
    found.add(plugin(GOOD), name="good", package="good-package", version="1.2")
    for fault, (text, _) in BROKEN.items():
        found.add(plugin(text), name=fault.replace(" ", "-"), package="bad-package", version="6.6")
    found.add(plugin(GOOD.replace("good", "better")), name="better", package="better-package", version="3")
    return found


def test_broken_plugins_are_shown(shown: Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["plugins"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[:4] == [
        "good (good-package 1.2)",
        "  scheduler: good",
        "better (better-package 3)",
        "  scheduler: better",
    ]
    for line, (fault, (_, words)) in zip(out[4:], BROKEN.items(), strict=True):
        assert line.startswith(f"BROKEN {fault.replace(' ', '-')} (bad-package 6.6): ")
        assert words.replace("plugin 'bad'", f"plugin '{fault.replace(' ', '-')}'") in line
    assert cli.run(["plugins", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [item["name"] for item in told["plugins"]] == ["good", "better"]
    assert told["plugins"][0]["brings"] == [["scheduler", "good"]]
    assert len(told["broken"]) == len(BROKEN)
    for item in told["broken"]:
        assert item.keys() == {"name", "package", "version", "cause"}
        assert (item["package"], item["version"]) == ("bad-package", "6.6")


COMMANDS = HEAD + "def commands(cli):\n"

GREETING = """
    import click
    @cli.command()
    @click.option("--name", default="you")
    def greet(name):
        'Say hello.'
        click.echo("hello " + name)
"""


def test_a_plugin_adds_a_command(program: Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    assert program.add(plugin(COMMANDS + GREETING), name="greeter")
    for _ in range(2):  # the second run finds the program as the first did
        assert cli.run(["greet", "--name", "her"]) == 0
        assert capsys.readouterr().out == "hello her\n"
    assert not program.broken
    assert cli.run(["--help"]) == 0
    assert "greet      Say hello." in capsys.readouterr().out
    assert cli.run(["gret"]) == 2
    assert "did you mean 'genzoo greet'?" in capsys.readouterr().err
    assert "greet" not in cli.cli.list_commands(click.Context(cli.cli))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("    1 / 0", "ZeroDivisionError: "),
        ("    import sys; sys.exit(7)", "SystemExit: 7"),
        (GREETING + "    1 / 0", "ZeroDivisionError: "),
        (GREETING.replace("greet", "list"), "command 'list' exists already; choose another name"),
        (GREETING + GREETING.replace("greet", "generate"), "command 'generate' exists already"),
        ("    cli.add_command(7)", "AttributeError: "),
    ],
)
def test_commands_that_break_are_shown_and_left_out(
    program: Zoo, capsys: pytest.CaptureFixture[str], body: str, words: str
) -> None:
    register = "\n@genzoo.hookimpl\ndef register(zoo): zoo.scheduler('good', 'm:C')\n"
    assert program.add(plugin(COMMANDS + body + register), name="bad", package="bad-package", version="6.6")
    assert program.add(plugin(COMMANDS + GREETING.replace("greet", "wave")), name="good")
    for _ in range(2):
        assert cli.run(["wave"]) == 0
        assert cli.run(["list"]) == 0
        assert cli.run(["greet"]) == 2
        capsys.readouterr()
        assert cli.run(["plugins"]) == 0
        (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("BROKEN")]
        assert line.startswith("BROKEN bad commands (bad-package 6.6): ")
        assert words in line
    assert program.names("scheduler") == ["good"], "what else it brings works"


def test_two_plugins_may_not_add_one_command(program: Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("first", "second"):
        assert program.add(plugin(COMMANDS + GREETING.replace("hello", name)), name=name)
    assert cli.run(["greet"]) == 0
    assert capsys.readouterr().out == "first you\n"
    (broken,) = program.broken.values()
    assert broken.name == "second commands"
    assert "command 'greet' exists already" in broken.cause


def test_a_command_that_breaks_when_it_runs_is_one_line(program: Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    assert program.add(plugin(COMMANDS + GREETING + "        1 / 0\n"), name="bad")
    assert cli.run(["greet"]) == 1
    captured = capsys.readouterr().err
    assert captured.count("\n") == 1
    assert captured.startswith("genzoo: ZeroDivisionError: division by zero: a fault")
    assert cli.run(["--debug", "greet"]) == 1
    assert "Traceback" in capsys.readouterr().err


# -- what is installed -------------------------------------------------------------------------------------------------


def distribution(folder: Path, package: str, points: str, metadata: str | None = None, version: str = "4.2") -> None:
    home = folder / f"{package.replace('-', '_')}-{version}.dist-info"
    home.mkdir()
    (home / "entry_points.txt").write_text(points)
    if metadata is None:
        metadata = f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n"
    if metadata:
        (home / "METADATA").write_text(metadata)


def test_every_installed_plugin_is_discovered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Good and broken ones beside the built-in: an import error, a taken name, metadata in disorder."""
    built_in = default_zoo()
    (tmp_path / "good_plugin.py").write_text(GOOD.replace("good_module", "m"))
    (tmp_path / "bad_plugin.py").write_text("import no_such_module")
    (tmp_path / "thief_plugin.py").write_text(
        HEAD + "def register(zoo): zoo.scheduler('mine', 'm:C'); zoo.scheduler('ddim', 'm:C')"
    )
    distribution(tmp_path, "a-good-package", "[genzoo]\nmy-good = good_plugin\n")
    distribution(tmp_path, "a-bad-package", "[genzoo]\nmy-bad = bad_plugin\n")
    distribution(tmp_path, "a-thief", "[genzoo]\nmy-thief = thief_plugin\n")
    distribution(tmp_path, "a-namesake", "[genzoo]\ndiffusion = good_plugin\n")
    distribution(tmp_path, "a-void", "[genzoo]\nmy-void = no_plugin_here\n", metadata="")
    distribution(tmp_path, "a-mess", "[genzoo]\nthis is no entry point\n")
    distribution(tmp_path, "another-mess", "[console_scripts]\nneither is this\n")
    monkeypatch.syspath_prepend(tmp_path)
    zoo = Zoo.discover()
    assert zoo.plugins["my-good"][:3] == ("my-good", "a-good-package", "4.2")
    assert zoo.plugins["my-good"].root == tmp_path
    assert zoo.plugins.keys() == built_in.plugins.keys() | {"my-good"}
    assert zoo.names("scheduler") == sorted([*built_in.names("scheduler"), "good"])
    causes = {broken.name: broken.cause for broken in zoo.broken.values()}
    assert causes["my-bad"] == "ModuleNotFoundError: No module named 'no_such_module'"
    assert "scheduler 'ddim' is taken by plugin 'diffusion'" in causes["my-thief"]
    assert "a plugin named 'diffusion' is here already" in causes["diffusion (a-namesake)"]
    assert any("no_plugin_here" in cause for cause in causes.values())
    assert {broken.package for broken in zoo.broken.values()} >= {"a-bad-package", "a-thief", "a-namesake"}
    assert zoo.shelf.keys() == built_in.shelf.keys()


def test_the_built_in_plugins_all_work() -> None:
    zoo = default_zoo()
    assert not zoo.broken
    assert {plugin.package for plugin in zoo.plugins.values()} >= {"genzoo"}
    for kind, name in zoo.entries:
        assert isinstance(zoo.find(kind, name), type)


def test_a_bad_catalogue_is_shown_and_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "registry.yaml").write_text("version: 1\ncards: [x]")
    monkeypatch.setattr("genzoo.cards.catalogue_path", lambda: tmp_path / "registry.yaml")
    zoo = Zoo.discover()
    assert not zoo.shelf
    assert zoo.broken["registry.yaml"].cause.startswith(f"{tmp_path / 'registry.yaml'}:2: document: cards.0: ")
    assert zoo.names("generator") == default_zoo().names("generator")


def test_a_card_that_guides_nothing_that_is_like_it_is_shown_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slip of the pen would else take a model out of every comparison, and nobody would see it."""
    better = {**tiny.card("tiny.better"), "classes": ["left", "right"]}
    weaker = {
        "weak": {},
        "unconditional": {"classes": []},
        "stray": {"guides": "tiny.bettter"},
        "itself": {"guides": "tiny.itself"},
        "larger": {"shape": [1, 16, 16]},
        "other": {"classes": ["right", "left"]},
    }
    guiding = {**better, "guides": better["name"]}
    cards = [better, *({**guiding, **changes, "name": f"tiny.{tag}"} for tag, changes in weaker.items())]
    (tmp_path / "registry.yaml").write_text(json.dumps({"version": 1, "cards": cards}))
    monkeypatch.setattr("genzoo.cards.catalogue_path", lambda: tmp_path / "registry.yaml")
    zoo = Zoo.discover()
    assert zoo.shelf.keys() == {"tiny.better", "tiny.weak", "tiny.unconditional"}
    assert [card.name for card in zoo.contenders()] == ["tiny.better"]
    causes = {broken.name: broken.cause for broken in zoo.broken.values()}
    assert causes.keys() == {f"card tiny.{tag}" for tag in ("stray", "itself", "larger", "other")}
    assert "no model named 'tiny.bettter'; did you mean 'tiny.better'?" in causes["card tiny.stray"]
    assert "tiny.itself cannot guide itself" in causes["card tiny.itself"]
    for tag in ("larger", "other"):
        assert f"tiny.{tag} and tiny.better, which it guides, are not of the same" in causes[f"card tiny.{tag}"]


def test_settings_of_a_plugin_are_frozen() -> None:
    class Settings(Frozen):
        x: int = 1

    with pytest.raises(ValueError, match="frozen"):
        Settings().x = 2  # type: ignore[misc]


def test_click_runs_the_group_as_well(program: Zoo) -> None:
    assert CliRunner().invoke(cli.cli, ["list"]).exit_code == 0
