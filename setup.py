"""What pyproject.toml cannot say: an installed package has the notebooks in it."""

from pathlib import Path
from shutil import copytree, ignore_patterns

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildPy(build_py):
    """Copy notebooks/ into the package that is built."""

    def run(self) -> None:
        """Build, then copy; an editable installation has them beside it."""
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib) / "xray_helpers" / "notebooks"
            copytree("notebooks", target, dirs_exist_ok=True, ignore=ignore_patterns(".*"))


setup(cmdclass={"build_py": BuildPy})
