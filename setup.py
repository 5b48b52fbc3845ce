"""Build steps that setup.cfg can't express.

configs/ and tools/ go into the wheel as mamba_vision/.mim, as in OpenMMLab's projects.
"""

import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

MIM_FOLDERS = ("configs", "tools")


class BuildWithMim(build_py):
    """Copy the configs and tools beside the package, where `mim train` and mamba_vision.utils.paths look for them."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:  # a clone has them at its root
            return
        target = Path(self.build_lib) / "mamba_vision" / ".mim"
        shutil.rmtree(target, ignore_errors=True)
        for folder in MIM_FOLDERS:
            shutil.copytree(folder, target / folder, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))


class SdistWithMim(sdist):
    """The same folders in the source distribution."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        super().make_release_tree(base_dir, files)
        for folder in MIM_FOLDERS:
            shutil.copytree(
                folder, Path(base_dir) / folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
            )


setup(
    # kernels/ lies at the root of the project and is installed as mamba_vision.kernels (package_dir in setup.cfg)
    packages=[
        *find_packages(include=["mamba_vision", "mamba_vision.*"]),
        "mamba_vision.kernels",
        *(f"mamba_vision.kernels.{name}" for name in find_packages("kernels")),
    ],
    cmdclass={"build_py": BuildWithMim, "sdist": SdistWithMim},
)
