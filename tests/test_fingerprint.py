"""The fingerprint of the code: it changes with the code, and with nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import genzoo
from genzoo.bench import environment
from genzoo.fingerprint import digest_of, fingerprint, own_folders
from genzoo.registry import default_zoo


def package(folder: Path) -> dict[str, Path]:
    (folder / "inner").mkdir(parents=True)
    (folder / "one.py").write_text("x = 1\ny = 2\n")
    (folder / "inner" / "two.py").write_text("z = 3\n")
    return {"some": folder}


def test_it_is_the_same_wherever_the_code_lies_and_however_its_lines_end(tmp_path: Path) -> None:
    here, there = package(tmp_path / "here"), package(tmp_path / "there")
    (tmp_path / "there" / "one.py").write_bytes(b"x = 1\r\ny = 2\r\n")
    (tmp_path / "there" / "one.pyc").write_bytes(b"compiled")
    (tmp_path / "there" / "notes.md").write_text("notes")
    assert digest_of(here) == digest_of(there)


def test_whatever_changes_the_code_changes_it(tmp_path: Path) -> None:
    seen = [digest_of(package(tmp_path / "plain"))]
    edited, moved, added, split = (package(tmp_path / name) for name in ("edited", "moved", "added", "split"))
    (tmp_path / "edited" / "inner" / "two.py").write_text("z = 4\n")
    (tmp_path / "moved" / "inner" / "two.py").rename(tmp_path / "moved" / "two.py")
    (tmp_path / "added" / "inner" / "three.py").touch()
    (tmp_path / "split" / "one.py").write_text("x = 1\n")
    (tmp_path / "split" / "inner" / "two.py").write_text("y = 2\nz = 3\n")
    seen += [digest_of(folders) for folders in (edited, moved, added, split)]
    seen += [digest_of({"other": tmp_path / "plain"})]
    assert len(set(seen)) == len(seen)


def test_it_covers_genzoo_and_all_that_is_installed_with_it() -> None:
    folders = own_folders()
    built_in = {p.root.resolve() for p in default_zoo().plugins.values() if p.package == "genzoo"}
    assert {folder.resolve() for folder in folders.values()} == {Path(genzoo.__file__).parent.resolve(), *built_in}


def test_results_name_it(tmp_path: Path) -> None:
    """Taken anew in another process and folder, without torch, it is the same."""
    told = environment("cpu").versions
    assert told["genzoo code"] == fingerprint()
    assert told["genzoo"] == genzoo.__version__
    code = "import sys, genzoo.fingerprint as f; print(f.fingerprint(), 'torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert out.stdout.split() == [fingerprint(), "False"]
