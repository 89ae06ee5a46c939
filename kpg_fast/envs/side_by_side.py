"""Several batches of one environment as one: their arrays lie side by side, and each plays as if it were alone."""

from kpg_fast.envs.parts import Parts
from kpg_fast.envs.vec_env import Array


class SideBySide(Parts):
    """Batches of the same environment, size and options, e.g. under different seeds."""

    def state_dict(self) -> dict[str, Array]:
        """See :class:`VecEnv`; the names of a part's begin with its number."""
        return {f"{index}/{name}": x for index, part in enumerate(self.parts) for name, x in part.state_dict().items()}

    def load_state_dict(self, state: dict[str, Array]) -> None:
        """See :class:`VecEnv`."""
        for index, part in enumerate(self.parts):
            start = f"{index}/"
            part.load_state_dict({name.removeprefix(start): x for name, x in state.items() if name.startswith(start)})
