"""One step that pyproject.toml cannot express: the catalogue at the top of the repository travels in the wheel.

An editable install reads it where it lies.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildPy(build_py):
    """Put registry.yaml beside the modules of genzoo."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib) / "genzoo" / "registry.yaml"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile("registry.yaml", target)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """The catalogue is one of the files that were built."""
        return [*super().get_outputs(include_bytecode), str(Path(self.build_lib) / "genzoo" / "registry.yaml")]


setup(cmdclass={"build_py": BuildPy})
