"""The house: what may import what, what the links on the top level are, and what a file may hold."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "kpg_fast"

# csrc <- kernels <- kpg_fast -> envs: what each folder may import of this package. csrc is below them all; hot loops of
# environments live there too.
ALLOWED = {
    "kpg_fast.kernels": ("kpg_fast.kernels", "kpg_fast._C", "kpg_fast.errors"),
    "kpg_fast.envs": ("kpg_fast.envs", "kpg_fast._C", "kpg_fast.errors"),
}


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports(name: str, path: Path) -> Iterator[str]:
    """Everything of this package that a module names in its imports, also within functions and strings."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] + "." if node.level else ""
            found = [f"{base}{node.module or ''}".rstrip(".") + f".{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            found = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        else:
            continue
        yield from (module for module in found if module.partition(".")[0] == "kpg_fast")


def within(module: str, folder: str) -> bool:
    return module == folder or module.startswith(folder + ".")


@pytest.mark.parametrize("folder", ALLOWED)
def test_imports_run_one_way(folder: str) -> None:
    seen = 0
    for name, path in modules():
        if within(name, folder):
            for module in imports(name, path):
                seen += 1
                assert any(within(module, allowed) for allowed in ALLOWED[folder]), f"{path} imports {module}"
    assert seen


def test_reader_of_imports_sees_every_form(tmp_path: Path) -> None:
    source = tmp_path / "module.py"
    source.write_text(
        "import kpg_fast.runs.run\nfrom kpg_fast import config\n"
        "from . import a\nfrom ..trainer import b\nimport numpy\n"
        "def f():\n    from kpg_fast.runs.plot import draw\n    importlib.import_module('kpg_fast.command_line.main')\n"
    )
    assert set(imports("kpg_fast.envs.module", source)) == {
        "kpg_fast.runs.run",
        "kpg_fast.config",
        "kpg_fast.envs.a",
        "kpg_fast.trainer.b",
        "kpg_fast.runs.plot.draw",
        "kpg_fast.command_line.main",
    }


def test_csrc_knows_nothing_of_torch() -> None:
    sources = [*(ROOT / "csrc").rglob("*.cpp"), *(ROOT / "csrc").rglob("*.hpp")]
    assert sources
    for path in sources:
        included = re.findall(r'#include\s*[<"]([^>"]+)', path.read_text())
        assert not [name for name in included if name.startswith(("torch", "ATen", "c10"))], path


@pytest.mark.parametrize("name", ["kernels", "envs"])
def test_links_lead_into_the_package(name: str) -> None:
    link = ROOT / name
    assert link.is_symlink()
    assert str(link.readlink()) == f"kpg_fast/{name}"
    assert link.resolve() == PACKAGE / name


def test_top_level_packages_are_ours_alone() -> None:
    """Installing must not bring packages called kernels, envs, bench or tests."""
    from setuptools import find_packages

    assert 'find_packages(include=["kpg_fast*"])' in (ROOT / "setup.py").read_text()
    assert {name.partition(".")[0] for name in find_packages(str(ROOT), include=["kpg_fast*"])} == {"kpg_fast"}


def test_files_are_of_a_readable_length() -> None:
    long = [
        f"{path.relative_to(ROOT)}: {lines}"
        for folder in ("kpg_fast", "csrc", "bench", "tests")
        for pattern in ("*.py", "*.cpp", "*.hpp")
        for path in (ROOT / folder).rglob(pattern)
        if (lines := len(path.read_text().splitlines())) > 400
    ]
    assert not long
