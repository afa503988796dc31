"""Who may import whom: light modules never torch, the core never a plugin, a plugin never another or a private name."""

from __future__ import annotations

import ast
import importlib.metadata
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
CORE = sorted((ROOT / "genzoo").rglob("*.py"))
PLUGINS = sorted((ROOT / "plugins").rglob("*.py"))

#: What never imports torch, by being imported alone.
LIGHT = [
    "genzoo",
    "genzoo.cards",
    "genzoo.digests",
    "genzoo.documents",
    "genzoo.errors",
    "genzoo.events",
    "genzoo.files",
    "genzoo.frozen",
    "genzoo.hooks",
    "genzoo.hookspecs",
    "genzoo.merge",
    "genzoo.milestones",
    "genzoo.options",
    "genzoo.plugins",
    "genzoo.record",
    "genzoo.registrar",
    "genzoo.registry",
    "genzoo.results",
    "genzoo.runs",
    "genzoo.uncertainty",
    "genzoo.spec",
]

#: These too, but they draw and fill in templates.
REPORT = ["genzoo.report", "genzoo.report.table", "genzoo.report.page", "genzoo.report.plots"]

#: What the light ones do without: each would cost more than the rest of the start.
HEAVY = ["torch", "numpy", "PIL", "safetensors", "matplotlib", "jinja2", "torchmetrics", "huggingface_hub", "tqdm"]


class Import(NamedTuple):
    """One imported name: "module" or "module.name", and whether it happens when the module is imported."""

    name: str
    line: int
    at_once: bool


def imports(path: Path, package: str) -> Iterator[Import]:
    """Every import of a file, those inside functions as well; those for type checkers alone are left out."""

    def seen(node: ast.AST, at_once: bool) -> Iterator[Import]:
        inside = list(ast.iter_child_nodes(node))
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            inside = list(node.orelse)
        elif isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, at_once) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package.rsplit(".", node.level - 1)[0] if node.level else ""
            module = ".".join(filter(None, [start, node.module]))
            yield from (Import(f"{module}.{alias.name}", node.lineno, at_once) for alias in node.names)
        for child in inside:
            yield from seen(child, at_once and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))

    yield from seen(ast.parse(path.read_text()), True)


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = ("genzoo_plugins", *parts[1:]) if parts[0] == "plugins" else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def found(path: Path) -> list[Import]:
    module = module_of(path)
    return list(imports(path, module if path.name == "__init__.py" else module.rpartition(".")[0]))


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_the_rules_see_an_import(tmp_path: Path) -> None:
    """The finder itself: plain, from, relative, inside a function; not for type checkers alone."""
    file = tmp_path / "x.py"
    file.write_text(
        "import a.b, c\nfrom d import e as f\nfrom . import g\nfrom ..h import i\n"
        "if TYPE_CHECKING:\n    import j\nelse:\n    import k\n"
        "def l():\n    import m\nclass N:\n    import o\ntry:\n    import p\nexcept ImportError:\n    pass\n"
    )
    listed = [(item.name, item.at_once) for item in imports(file, "q.r")]
    names = ["a.b", "c", "d.e", "q.r.g", "q.h.i", "k"]
    assert listed == [*((name, True) for name in names), ("m", False), ("o", True), ("p", True)]


@pytest.mark.parametrize("path", CORE, ids=named)
def test_the_core_never_imports_a_plugin(path: Path) -> None:
    wrong = [item for item in found(path) if item.name.partition(".")[0] in ("genzoo_plugins", "plugins")]
    assert not wrong
    # Nor by a text, as importlib would take.
    texts = [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
    assert not [text for text in texts if isinstance(text, str) and text.startswith(("genzoo_plugins.", "plugins."))]


@pytest.mark.parametrize("path", PLUGINS, ids=named)
def test_a_plugin_imports_its_own_and_public_names(path: Path) -> None:
    family = ".".join(module_of(path).split(".")[:2])
    for name, line, _ in found(path):
        parts = name.split(".")
        assert parts[0] != "plugins", f"{path}:{line}: import genzoo_plugins"
        if parts[0] == "genzoo_plugins":
            assert ".".join(parts[:2]) == family, f"{path}:{line}: {name} is another plugin's"
        if parts[0] == "genzoo":
            private = [part for part in parts if part.startswith("_") and not part.startswith("__")]
            assert not private, f"{path}:{line}: {name} is private"
            assert parts[1:2] not in (["cli"], ["report"]), f"{path}:{line}: {name} is not for plugins"


@pytest.mark.parametrize("path", PLUGINS, ids=named)
def test_a_plugin_reaches_for_no_private_attribute_of_the_core(path: Path) -> None:
    """``genzoo.x._y``, or ``name._y`` of a module that was imported from genzoo."""
    modules = {item.name.rpartition(".")[2] for item in found(path) if item.name.startswith("genzoo.")} | {"genzoo"}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            root = ast.unparse(node.value).partition(".")[0]
            assert root not in modules, f"{path}:{node.lineno}: {ast.unparse(node)} is private"


def test_the_hook_of_a_plugin_lies_in_a_light_module() -> None:
    """What an entry point names is imported by every command, so it imports nothing but the light names."""
    points = importlib.metadata.entry_points(group="genzoo")
    built_in = [point.value for point in points if point.dist is not None and point.dist.name == "genzoo"]
    assert built_in
    homes = {module_of(path): path for path in PLUGINS}
    for module in built_in:
        for name, line, at_once in found(homes[module]):
            if at_once:
                assert name.startswith(("genzoo.", "__future__.")), f"{module}:{line}: imports {name}"
                assert name in LIGHT or name.rpartition(".")[0] in LIGHT, f"{module}:{line}: imports {name}"


def test_every_plugin_of_the_tree_has_its_entry_point() -> None:
    points = importlib.metadata.entry_points(group="genzoo")
    families = {path.parent.name for path in PLUGINS if path.parent.parent == ROOT / "plugins"}
    assert {point.value for point in points} >= {f"genzoo_plugins.{family}" for family in families}


@pytest.mark.parametrize(
    "path", [path for path in CORE if path.parent == ROOT / "genzoo" / "cli"] + [ROOT / "genzoo" / "__main__.py"],
    ids=named,
)  # fmt: skip
def test_a_command_imports_torch_only_when_it_runs(path: Path) -> None:
    heavy = ("torch", "numpy", "PIL", "safetensors", "tqdm", "huggingface_hub", "matplotlib", "jinja2")
    for name, line, at_once in found(path):
        if at_once:
            assert name.partition(".")[0] not in heavy, f"{path}:{line}: {name} at import"
            light = not name.startswith("genzoo.") or name.startswith("genzoo.cli")
            assert light or name in LIGHT or name.rpartition(".")[0] in LIGHT, f"{path}:{line}: {name} is not light"


def test_light_modules_leave_torch_alone() -> None:
    """In a process of its own, with the zoo discovered: what was imported, after each module in turn."""
    script = f"""
import importlib, sys
for name in {LIGHT!r} + ["genzoo.cli", "genzoo.cli.catalogue"]:
    importlib.import_module(name)
    heavy = [found for found in {HEAVY!r} if found in sys.modules]
    if heavy:
        sys.exit(f"{{name}} imports {{heavy}}")
from genzoo.registry import Zoo, default_zoo
import genzoo
genzoo.list_models()
default_zoo().cards()
heavy = [found for found in {HEAVY!r} if found in sys.modules]
if heavy:
    sys.exit(f"finding out what is installed imports {{heavy}}")
for name in {REPORT!r}:
    importlib.import_module(name)
    if "torch" in sys.modules:
        sys.exit(f"{{name}} imports torch")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


#: Mathematics: these know tensors and each other, and neither files nor the network nor the command line.
PURE = [
    "noise",
    "schedule",
    "grids",
    "denoiser",
    "scheduler",
    "guidance",
    "contrast",
    "editing",
    "metric",
    "neighbours",
    "uncertainty",
]
WITH_FILES = [
    "tensors",
    "weights",
    "hub",
    "images",
    "data",
    "train",
    "evaluate",
    "comparison",
    "subject",
    "sheets",
    "bench",
    "checkpoints",
    "cli",
    "report",
]


@pytest.mark.parametrize("name", PURE)
def test_mathematics_knows_no_files(name: str) -> None:
    for item in found(ROOT / "genzoo" / f"{name}.py"):
        assert item.name.split(".")[:2] not in [["genzoo", other] for other in WITH_FILES], item
        assert item.name.partition(".")[0] not in ("os", "pathlib", "io", "huggingface_hub", "safetensors", "PIL"), item
