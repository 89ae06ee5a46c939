"""Whole episodes to compare clients by: which scenarios and options, who acts how, what is kept of them."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kpg_fast.envs.smac.scenarios import names

GOLDEN = Path(__file__).parent / "golden.npz"
SEED = 11
EPISODES = 2
_SMALL_V2 = {"dist_type": "mask", "mask_probability": 0.5}


def _v2(n: int, m: int, **parts: Any) -> dict[str, Any]:
    team = {
        "dist_type": "weighted_teams",
        "unit_types": ["marine", "marauder", "medivac"],
        "weights": [0.3, 0.3, 0.4],
        "exception_unit_types": ["medivac"],
        "observe": True,
    }
    starts = {"dist_type": "reflect_position", "map_x": 32, "map_y": 32}
    return {"n_units": n, "n_enemies": m, "team_gen": team, "start_positions": starts} | parts


_OBS = {
    "obs_last_action": True,
    "obs_pathing_grid": True,
    "obs_terrain_height": True,
    "obs_timestep_number": True,
    "state_timestep_number": True,
}
# name of the case: scenario and options
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in names()},
    "MMM all observations": ("MMM", _OBS),
    "3s_vs_5z all rewards": ("3s_vs_5z", {"reward_only_positive": False, "reward_defeat": -50}),
    "3s_vs_3z own health": ("3s_vs_3z", {"obs_all_health": False}),
    "8m no health": ("8m", {"obs_all_health": False, "obs_own_health": False}),
    "2s3z sparse": ("2s3z", {"reward_sparse": True, "reward_scale": False, "obs_instead_of_state": True}),
    "3m other steps": ("3m", {"step_mul": 4, "move_amount": 3, "state_last_action": False, "game_version": "4.6.2"}),
    "terran all observations": ("10gen_terran_5v5", _OBS),
    "terran cones": ("10gen_terran_10v10", {"conic_fov": True, "prob_obs_enemy": 0.4}),
    "terran won": ("10gen_terran_9v2", {}),
    "protoss won": ("10gen_protoss_9v3", {}),
    "terran fewer enemies": ("10gen_terran_7v4", {"capability_config": _v2(7, 4)}),
    "zerg half seen": ("10gen_zerg_10v10", {"prob_obs_enemy": 0.5, "state_timestep_number": True}),
    "protoss plain": ("10gen_protoss_5v5", {"use_unit_ranges": False, "obs_own_pos": False, "fully_observable": True}),
    "terran masked": ("10gen_terran_5v5", {"capability_config": _v2(5, 5, enemy_mask=_SMALL_V2)}),
}


def choose(avail: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mostly attack what can be attacked, so that a battle comes to its end; ``avail`` is [N, A], the result [N]."""
    weight = np.where(np.arange(avail.shape[1]) >= 6, 8.0, 1.0)
    return (rng.random(avail.shape) * avail * weight).argmax(-1).astype(np.int32)


@dataclass
class Recording:
    """What is kept: every reward, a digest of every observation, state and mask, and some of them in full."""

    rewards: list[float] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)  # 0 goes on, 1 ended, 2 won
    digests: list[int] = field(default_factory=list)
    kept: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = field(default_factory=list)
    keep: tuple[int, ...] = (0, 5, 12)

    def look(self, obs: np.ndarray, state: np.ndarray, avail: np.ndarray) -> None:
        obs, state = np.asarray(obs, np.float32), np.asarray(state, np.float32)
        avail = np.asarray(avail, np.bool_)
        # + 0.0: the sign of a zero is nobody's business
        data = (obs + 0.0).tobytes() + (state + 0.0).tobytes() + avail.tobytes()
        if len(self.digests) in self.keep:
            self.kept.append((obs.copy(), state.copy(), avail.copy()))
        self.digests.append(int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little"))

    def step(self, reward: float, ended: bool, won: bool) -> None:
        self.rewards.append(float(reward))
        self.ends.append(2 if won else int(ended))

    def arrays(self, case: str) -> dict[str, np.ndarray]:
        parts = {
            "rewards": np.array(self.rewards),
            "ends": np.array(self.ends, np.int8),
            "digests": np.array(self.digests, np.uint64),
            "obs": np.stack([obs for obs, _, _ in self.kept]),
            "state": np.stack([state for _, state, _ in self.kept]),
            "avail": np.stack([avail for _, _, avail in self.kept]),
        }
        return {f"{case}/{name}": part for name, part in parts.items()}


def compare(case: str, recording: Recording, golden: dict[str, np.ndarray]) -> None:
    """Assert that a recording equals the golden one: exactly, and rewards to 1e-6."""
    found = recording.arrays(case)
    for name in ("obs", "state", "avail"):
        np.testing.assert_array_equal(found[f"{case}/{name}"], golden[f"{case}/{name}"], err_msg=f"{case}: {name}")
    np.testing.assert_array_equal(found[f"{case}/ends"], golden[f"{case}/ends"], err_msg=f"{case}: ends")
    np.testing.assert_allclose(
        found[f"{case}/rewards"], golden[f"{case}/rewards"], rtol=0, atol=1e-6, err_msg=f"{case}: rewards"
    )
    np.testing.assert_array_equal(found[f"{case}/digests"], golden[f"{case}/digests"], err_msg=f"{case}: digests")


def play(env: Any, rng: np.random.Generator, keep: tuple[int, ...] = Recording.keep) -> Recording:
    """Play the episodes on environment 0 of one of ours."""
    from kpg_fast.envs import StepArrays

    out, recording, ended = StepArrays.empty(env.spec), Recording(keep=keep), 0
    env.reset(out)
    recording.look(out.obs[0], out.state[0], out.avail_actions[0])
    while ended < EPISODES:
        before = out.avail_actions[0].copy()
        env.step(choose(before, rng)[None], out)
        assert out.valid[0]
        over = bool(out.terminated[0] or out.truncated[0])
        recording.step(out.reward[0], over, bool(out.won[0]))
        if over:
            ended += 1
            recording.look(out.last_obs[0], out.last_state[0], np.zeros_like(before))
        if ended < EPISODES:
            recording.look(out.obs[0], out.state[0], out.avail_actions[0])
    return recording
