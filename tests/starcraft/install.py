"""Make a folder that launchers take for a StarCraft II installation. Also a command: ``python install.py FOLDER``."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

# The builds SMAC results are published with: 4.6.2 and 4.10.0.
VERSIONS = {"4.6.2": 69232, "4.10.0": 75689}
_HERE = Path(__file__).resolve().parent
_MARK = "faults.json"  # no real game has one


def install(folder: Path, versions: tuple[str, ...] = ("4.10.0",), maps: bool = True) -> Path:
    """Lay the installation out in ``folder`` and return it, ready to be named by ``SC2PATH``."""
    sys.path.insert(0, str(_HERE.parent))
    from starcraft.units import EMPTY_MAP, MAPS

    for version in versions:
        program = folder / "Versions" / f"Base{VERSIONS[version]:05d}" / "SC2_x64"
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{_HERE / "main.py"}" "{folder}" {version} "$@"\n')
        program.chmod(0o755)
    if maps:
        (folder / "Maps" / "SMAC_Maps").mkdir(parents=True, exist_ok=True)
        for name in [*MAPS, EMPTY_MAP]:
            (folder / "Maps" / "SMAC_Maps" / f"{name}.SC2Map").write_bytes(b"no map " * 2500)
    clear_faults(folder)
    return folder


def set_faults(folder: Path, *faults: dict[str, Any]) -> None:
    """Give games launched from now on these faults (`starcraft.faults`)."""
    clear_faults(folder)
    (folder / _MARK).write_text(json.dumps(faults))


def clear_faults(folder: Path) -> None:
    """Back to health; launches are counted from 0 again."""
    (folder / _MARK).write_text("[]")
    for name in ("launches", "spent"):
        (folder / name).unlink(missing_ok=True)


def launches(folder: Path) -> int:
    """How many games have been started since the faults were last set or cleared."""
    counter = folder / "launches"
    return len(counter.read_text().split()) if counter.exists() else 0


if __name__ == "__main__":
    target = Path(sys.argv[1]).resolve()
    if target.exists() and any(target.iterdir()) and not (target / _MARK).is_file():
        sys.exit(f"{target} holds something else than a stand-in: it is not replaced")
    shutil.rmtree(target, ignore_errors=True)
    print(install(target, tuple(VERSIONS)))
