"""The compiled part. The rest of the project's metadata is in pyproject.toml."""

import os
from glob import glob

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension, build_ext
from setuptools import find_packages, setup


def is_stale(obj: str, src: str) -> bool:
    """Whether an object file is older than its source or any header."""
    inputs = [src, *glob("csrc/*.hpp")]
    return not os.path.exists(obj) or max(map(os.path.getmtime, inputs)) > os.path.getmtime(obj)


ParallelCompile("KPG_BUILD_JOBS", default=2, needs_recompile=is_stale).install()

# No -march=native: a file that wants a wider instruction set says so by a target pragma and is chosen at run time.
# libgomp is the one torch has already loaded, so both share one pool of threads.
extension = Pybind11Extension(
    "kpg_fast._C",
    sorted(glob("csrc/*.cpp")),
    depends=glob("csrc/*.hpp"),
    include_dirs=["csrc"],
    cxx_std=17,
    extra_compile_args=["-O3", "-fopenmp", "-fno-math-errno", "-fno-trapping-math", "-Wall", "-Wextra"],
    extra_link_args=["-fopenmp"],
)

setup(
    packages=find_packages(include=["kpg_fast*"]),
    ext_modules=[extension],
    cmdclass={"build_ext": build_ext},
)
