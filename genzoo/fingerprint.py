"""The fingerprint of the code that runs, which a version does not tell: of a checkout, or of a package that was edited.

Light: never imports torch.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Mapping
from pathlib import Path

from genzoo.plugins import GROUP

#: Hexadecimal digits of a digest that are told: enough for no two to be the same by chance.
DIGITS = 16


@functools.cache
def fingerprint() -> str:
    """The digest of genzoo's own code, its built-in plugins among it, as it lies there at the first call."""
    return digest_of(own_folders())


def own_folders() -> dict[str, Path]:
    """Package name -> folder: genzoo, and every plugin that is installed with it."""
    found = {"genzoo": Path(__file__).parent}
    try:
        points = importlib.metadata.distribution("genzoo").entry_points.select(group=GROUP)
    except importlib.metadata.PackageNotFoundError:
        return found  # on the path without being installed: no plugin is found either
    for point in points:
        spec = importlib.util.find_spec(point.module)
        if spec is not None and spec.submodule_search_locations:
            found[point.module] = Path(spec.submodule_search_locations[0])
    return found


def digest_of(folders: Mapping[str, Path]) -> str:
    """The first digits of a sha256 over the names and texts of all Python files below some packages' folders.

    Line ends and compiled files do not count, nor where the folders lie: it is the same for a checkout on any system
    and for what is installed from it.
    """
    whole = hashlib.sha256()
    for package, folder in sorted(folders.items()):
        for path in sorted(folder.rglob("*.py"), key=lambda path: path.relative_to(folder).as_posix()):
            text = path.read_bytes().replace(b"\r\n", b"\n")
            whole.update(f"{package}/{path.relative_to(folder).as_posix()}\n{len(text)}\n".encode() + text)
    return whole.hexdigest()[:DIGITS]
