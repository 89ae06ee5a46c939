"""Where StarCraft II is, which version, which maps; what is missing and what to do about it."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kpg_fast.envs.smac.scenarios import Scenario, find, names
from kpg_fast.errors import UsageError, unknown_name

GAME_PAGE = "https://github.com/Blizzard/s2client-proto#downloads"
MAPS_PAGE = "https://github.com/oxwhirl/smac/releases/download/v0.1-beta1/SMAC_Maps.zip"
MAPS_V2_PAGE = "https://github.com/oxwhirl/smacv2/tree/main/smacv2/env/starcraft2/maps/SMAC_Maps"
LIBRARIES = {
    "smac": "pip install git+https://github.com/oxwhirl/smac.git",
    "smacv2": "pip install git+https://github.com/oxwhirl/smacv2.git",
}

# The versions Blizzard packs for Linux: build and data version (s2client-proto, buildinfo/versions.json).
_VERSIONS = {
    "3.16.1": (55958, "5BD7C31B44525DAB46E64C4602A81DC2"),
    "4.0.2": (59587, "B43D9EE00A363DAFAD46914E3E4AF362"),
    "4.1.2": (60321, "33D9FE28909573253B7FC352CE7AEA40"),
    "4.6.0": (67926, "7DE59231CBF06F1ECE9A25A27964D4AE"),
    "4.6.1": (67926, "BEA99B4A8E7B41E62ADC06D194801BAB"),
    "4.6.2": (69232, "B3E14058F1083913B80C20993AC965DB"),
    "4.7.0": (70154, "8E216E34BC61ABDE16A59A672ACB0F3B"),
    "4.7.1": (70154, "94596A85191583AD2EBFAE28C5D532DB"),
    "4.8.2": (71663, "FE90C92716FC6F8F04B74268EC369FA5"),
    "4.8.3": (72282, "0F14399BBD0BA528355FF4A8211F845B"),
    "4.8.4": (73286, "CD040C0675FD986ED37A4CA3C88C8EB5"),
    "4.8.6": (73620, "AA18FEAD6573C79EF707DF44ABF1BE61"),
    "4.9.0": (74071, "70C74A2DCA8A0D8E7AE8647CAC68ACCA"),
    "4.9.1": (74456, "218CB2271D4E2FA083470D30B1A05F02"),
    "4.9.2": (74741, "614480EF79264B5BD084E57F912172FF"),
    "4.9.3": (75025, "C305368C63621480462F8F516FB64374"),
    "4.10.0": (75689, "B89B5D6FA7CBF6452E721311BFBC6CB2"),
}


@dataclass(frozen=True)
class Installation:
    """A game that can be started."""

    folder: Path
    build: int
    data_version: str | None
    """Which data the build shall use; None: its newest."""

    @property
    def program(self) -> Path:
        """The executable."""
        return self.folder / "Versions" / f"Base{self.build:05d}" / "SC2_x64"

    def command(self, port: int, temporary: Path) -> list[str]:
        """How the game is started: listening on ``port`` of this machine, with a temporary folder of its own."""
        command = [str(self.program), "-listen", "127.0.0.1", "-port", str(port)]
        command += ["-dataDir", f"{self.folder}/", "-tempDir", f"{temporary}/"]
        return command + (["-dataVersion", self.data_version] if self.data_version else [])

    def environment(self) -> dict[str, str]:
        """The environment variables it is started with: its own libraries are found."""
        paths = [os.environ.get("LD_LIBRARY_PATH"), f"{self.folder}/Libs/"]
        return dict(os.environ) | {"LD_LIBRARY_PATH": ":".join(path for path in paths if path)}

    def map_path(self, scenario: Scenario) -> Path:
        """The scenario's map."""
        return self.folder / "Maps" / "SMAC_Maps" / f"{scenario.map_file}.SC2Map"


def locate(game_version: str | None = None) -> Installation:
    """The game that ``SC2PATH`` names (default ``~/StarCraftII``); ``UsageError`` says what is missing.

    Args:
        game_version: e.g. ``"4.10"``; None takes the newest build there is.
    """
    folder = _folder()
    if not folder.is_dir():
        raise UsageError(
            f"StarCraft II is not at {folder}. Download the Linux package from {GAME_PAGE} (4.10 is what most results"
            " are made with; unpacking it means accepting Blizzard's licence) and set SC2PATH to its folder"
        )
    builds = _builds(folder)
    if not builds:
        raise UsageError(f"{folder} has no Versions/Base*/SC2_x64 that can be run: SC2PATH must name the game's folder")
    if game_version is None:
        return Installation(folder, max(builds), None)
    if not isinstance(game_version, str):
        raise UsageError(f"game_version = {game_version!r}: must be text, since as a number 4.10 is 4.1")
    wanted = game_version + ".0" * (game_version.count(".") == 1)
    if wanted not in _VERSIONS:
        raise unknown_name("game version", game_version, _VERSIONS)
    build, data_version = _VERSIONS[wanted]
    if build not in builds:
        raise UsageError(f"StarCraft II {wanted} (build {build}) is not in {folder}, which has builds {sorted(builds)}")
    return Installation(folder, build, data_version)


def _folder() -> Path:
    return Path(os.environ.get("SC2PATH") or "~/StarCraftII").expanduser()


def _builds(folder: Path) -> list[int]:
    found = []
    for program in folder.glob("Versions/Base*/SC2_x64"):
        match = re.fullmatch(r"Base(\d+)", program.parent.name)
        if match and os.access(program, os.X_OK):
            found.append(int(match[1]))
    return found


def check_map(installation: Installation, scenario: Scenario) -> None:
    """Raise ``UsageError`` where the scenario's map is missing."""
    path = installation.map_path(scenario)
    if not path.is_file():
        page = MAPS_V2_PAGE if scenario.v2 else MAPS_PAGE
        raise UsageError(f"smac/{scenario.name} needs the map {path}: put the folder SMAC_Maps from {page} into Maps")


def check_client(client: str, scenario: Scenario) -> None:
    """Raise ``UsageError`` where the packages of a client are missing."""
    if client == "native":
        missing = [package for package, module in _NATIVE_PACKAGES.items() if not _importable(module)]
        if missing:
            raise UsageError(f"client='native' needs {' and '.join(missing)}: pip install 'kpg_fast[smac]'")
        return
    library = scenario.library
    if not _importable(f"{library}.env"):
        other = "" if find_spec(library) is None else f" (the installed {library!r} is another project's)"
        raise UsageError(
            f"smac/{scenario.name} with client='smac' is played through {library}, which is not installed{other}:"
            f" {LIBRARIES[library]}; or use client='native' (--client native)"
        )


_NATIVE_PACKAGES = {"pys2clientprotocol": "s2clientprotocol.sc2api_pb2", "websocket-client": "websocket"}


def _importable(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def library_version(scenario: Scenario) -> str:
    """The client library's version, with the commit where it was installed from one."""
    return _distribution(scenario.library) or "unknown"


def _distribution(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def diagnose() -> list[tuple[str, bool, str]]:
    """What SMAC needs on this machine: (what was looked at, whether it is well, what was found or what to do)."""
    return [*_diagnose_game(), *_diagnose_clients()]


def _diagnose_game() -> Iterator[tuple[str, bool, str]]:
    folder = _folder()
    origin = "SC2PATH" if os.environ.get("SC2PATH") else "SC2PATH is not set; the default"
    if not folder.is_dir():
        yield "SC2PATH", False, f"no folder {folder} ({origin}); download the game from {GAME_PAGE}"
        return
    yield "SC2PATH", True, f"{folder} ({origin})"
    named = {build: name for name, (build, _) in _VERSIONS.items()}
    builds = sorted(_builds(folder))
    listed = ", ".join(f"{named.get(build, 'unknown version')} (build {build})" for build in builds)
    yield "version", bool(builds), listed or f"no Versions/Base*/SC2_x64 in {folder}"
    installation = Installation(folder, builds[-1] if builds else 0, None)
    for kind, page, v2 in (("maps of SMAC", MAPS_PAGE, False), ("map of SMACv2", MAPS_V2_PAGE, True)):
        wanted = {installation.map_path(scenario) for scenario in map(find, names()) if scenario.v2 == v2}
        missing = sorted(path.name for path in wanted if not path.is_file())
        found = f"{len(wanted) - len(missing)} of {len(wanted)} in {folder}/Maps/SMAC_Maps"
        yield kind, not missing, found + (f"; missing {', '.join(missing)}, from {page}" if missing else "")


def _diagnose_clients() -> Iterator[tuple[str, bool, str]]:
    missing = [package for package, module in _NATIVE_PACKAGES.items() if not _importable(module)]
    yield "client native", not missing, f"pip install {' '.join(missing)}" if missing else "ready"
    for library, how in LIBRARIES.items():
        there = _importable(f"{library}.env")
        name = f"client smac ({library})"
        if there:
            yield name, True, f"{library} {_distribution(library)}, PySC2 {_distribution('PySC2')}"
        elif find_spec(library) is not None:
            yield name, False, f"the installed package {library!r} is another project's; {how}"
        else:
            yield name, False, how
    yield "protobuf", *_protobuf()


def _protobuf() -> tuple[bool, str]:
    found = _distribution("protobuf")
    if found is None:
        return False, "not installed: pip install 'kpg_fast[smac]'"
    from google.protobuf.internal import api_implementation

    kind: Any = api_implementation.Type()
    if kind != "python":
        return True, f"{found}, implementation {kind}"
    return False, (
        f"{found} in pure Python: client='smac' spends most of a step parsing; pys2clientprotocol with protobuf 6 or 7"
        " (pip install --no-deps for smac and PySC2, which pin an old one) brings the compiled one"
    )
