"""StarCraft II: the maps of SMAC and the battles of SMACv2 on the real game, which must be installed (docs/smac.md)."""

from dataclasses import dataclass, fields, replace
from numbers import Real
from typing import Any

from kpg_fast.envs.smac.client import Client
from kpg_fast.envs.smac.installation import Installation, check_client, check_map, diagnose, locate
from kpg_fast.envs.smac.layout import Layout, option_defaults
from kpg_fast.envs.smac.parity import compare_clients
from kpg_fast.envs.smac.scenarios import find, names
from kpg_fast.envs.smac.supervisor import SmacEnv, Supervision
from kpg_fast.envs.vec_env import EnvSpec, StepArrays
from kpg_fast.errors import UsageError, unknown_name

__all__ = ["SmacEnv", "compare_clients", "diagnose", "make_env", "names"]

_CLIENTS = ("smac", "native")
# The game fails past 2^19 loops; resets take a few besides the steps.
_LOOPS_OF_A_GAME = 480_000


def make_env(name: str, num_envs: int, seed: int = 0, device: str = "cpu", **options: Any) -> SmacEnv:
    """Games of one scenario, started and ready to be reset.

    Args:
        name: one of :func:`names`, e.g. ``3s5z_vs_3s6z``, ``10gen_terran_5v5``.
        num_envs: how many games.
        seed: with the number of the environment and of its game it determines the game's random numbers.
        device: ``cpu``; the games run nowhere else.
        options: the library's own, by their names there (``difficulty``, ``step_mul``, ``obs_last_action``, ...), the
            attributes of `Supervision` (``sync``, ``timeout``, ...), and
            ``client``: ``"smac"``, the libraries smac and smacv2 with one process an environment, or ``"native"``, our
            own, compiled;
            ``bootstrap_time_limit``: the time limit truncates an episode; published results have it terminate one;
            ``blank_enemies``: keep smacv2's habit of wiping enemies that are seen (its issue 50); native only;
            ``pipeline``: send the requests of a step at once; native only.

    Raises:
        UsageError: an unknown scenario or option, or the game, a map or a package that is missing.
        EnvironmentFailure: the game is there, but cannot be brought to play.
    """
    if num_envs < 1:
        raise UsageError(f"num_envs = {num_envs}: must be at least 1")
    if device != "cpu":
        raise UsageError(f"StarCraft II runs on the cpu, not on {device!r}")
    scenario = find(name)
    known = _defaults_of(_Choice) | _defaults_of(Supervision) | option_defaults(scenario)
    for option, value in options.items():
        if option not in known:
            raise unknown_name(f"option of smac/{name}", option, known)
        _check_kind(option, value, known[option])
    choice = _Choice(**_take(options, _Choice))
    rules = Supervision(**_take(options, Supervision))
    if choice.client not in _CLIENTS:
        raise unknown_name("client", choice.client, _CLIENTS)
    layout = Layout.build(
        scenario, options, choice.bootstrap_time_limit, choice.blank_enemies, native=choice.client == "native"
    )
    rules.check()
    rules = replace(rules, restart_after=min(rules.restart_after, _LOOPS_OF_A_GAME // layout.options["step_mul"]))
    installation = locate(layout.options["game_version"])
    check_map(installation, scenario)
    check_client(choice.client, scenario)
    spec = _spec(layout, num_envs)
    return SmacEnv(spec, _client(choice, layout, installation, spec, rules), rules, seed)


@dataclass(frozen=True)
class _Choice:
    """Our own options that do not concern the supervision; see :func:`make_env`."""

    client: str = "smac"
    bootstrap_time_limit: bool = False
    blank_enemies: bool = True
    pipeline: bool = True


def _defaults_of(kind: type[_Choice] | type[Supervision]) -> dict[str, Any]:
    return {field.name: field.default for field in fields(kind)}


def _check_kind(option: str, value: Any, default: Any) -> None:
    """Raise ``UsageError`` for text that is no number, and the like."""
    if isinstance(default, bool):
        fits, wanted = value in (True, False), "true or false"
    elif isinstance(default, Real):
        fits, wanted = isinstance(value, Real) and not isinstance(value, bool), "a number"
    elif isinstance(default, dict):
        fits, wanted = isinstance(value, dict), "a dictionary"
    else:
        return
    if not fits:
        raise UsageError(f"{option} = {value!r}: must be {wanted}")


def _take(options: dict[str, Any], kind: type[_Choice] | type[Supervision]) -> dict[str, Any]:
    """Remove from ``options`` what is ``kind``'s."""
    return {name: options.pop(name) for name in _defaults_of(kind) if name in options}


def _client(choice: _Choice, layout: Layout, installation: Installation, spec: EnvSpec, rules: Supervision) -> Client:
    if choice.client == "native":
        from kpg_fast.envs.smac.native import NativeClient

        return NativeClient(layout, installation, StepArrays.empty(spec), rules.launch_timeout, choice.pipeline)
    from kpg_fast.envs.smac.library import LibraryClient

    return LibraryClient(layout, spec, rules.launch_timeout)


def _spec(layout: Layout, num_envs: int) -> EnvSpec:
    scenario = layout.scenario
    return EnvSpec(
        name=f"smac/{scenario.name}",
        num_envs=num_envs,
        num_agents=scenario.n_agents,
        obs_size=layout.obs_size,
        state_size=layout.state_size,
        num_actions=layout.n_actions,
        max_episode_steps=scenario.limit,
        facts={"map": scenario.map_file, "difficulty": layout.options["difficulty"]},
    )
