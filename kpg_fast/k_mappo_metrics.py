"""What an update of K-MAPPO reports: gathered as tensors, without waiting for any, and read once at its end."""

import math

import torch
from torch import Tensor

from kpg_fast.kernels.k_level_surrogate import STATS
from kpg_fast.minibatch import Minibatch
from kpg_fast.place import Fetched, pinned
from kpg_fast.seeds import per_seed, total
from kpg_fast.trainer import contraction

_M_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class Measured:
    """Means over the minibatches of an update, of S seeds.

    Args:
        levels: K.
    """

    def __init__(self, levels: int) -> None:
        self.levels, self.count = levels, 0
        self._sums: dict[str, Tensor] = {}
        self._log_m: Tensor | None = None
        self._host: Tensor | None = None

    def follow(self, measured: dict[str, Tensor]) -> None:
        """Add a minibatch's tensors [S], ``surrogate`` [S, 7] and ``log_m`` [S, T, E, N], NaN for rows not counted."""
        self._log_m = measured.pop("log_m", None)
        self.count += 1
        for name, value in measured.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value

    def table(self, whole: Minibatch) -> Tensor:
        """Everything that is to be read, float64 [S, columns]; ``whole`` is what the minibatches were parts of."""
        columns = [value.unsqueeze(1) if value.dim() == 1 else value for value in self._sums.values()]
        columns.append(explained_variance(whole)[:, None])
        if self._log_m is not None:
            columns.append(_quantiles(self._log_m.flatten(1)).exp())
        return torch.cat([column.double() for column in columns], 1)

    def fetch(self, table: Tensor, fetched: Fetched) -> Tensor:
        """Queue a copy of the table for the host, which :meth:`metrics` takes."""
        if table.device.type == "cpu":
            return table
        if self._host is None:
            self._host = pinned(tuple(table.shape), table.dtype)
        fetched.fetch([(table, self._host)])
        return self._host

    def metrics(self, table: Tensor) -> list[dict[str, float]]:
        """The metrics of every seed from the numbers of :meth:`table`."""
        means = [name for key in self._sums for name in (STATS if key == "surrogate" else (key,))]
        quantiles = [f"m/q{int(100 * q):02d}" for q in _M_QUANTILES]
        found = []
        for row in table.tolist():
            own = {name: value / self.count for name, value in zip(means, row, strict=False)}
            own["explained_variance"], *rest = row[len(means) :]
            own |= zip(quantiles, rest, strict=False)
            found.append(own | contraction([own[f"delta/{k}"] for k in range(1, self.levels + 1)]))
        return found


def explained_variance(whole: Minibatch) -> Tensor:
    """Share [S] of the returns' variance that the values explain: the advantage is what they left of the return."""
    valid = whole.data.valid[..., None].expand_as(whole.returns)
    returns, left = (per_seed(_variance, x, valid) for x in (whole.returns, whole.advantage))
    return torch.where(returns == 0, math.nan, 1 - left / returns)


def _variance(x: Tensor, counted: Tensor) -> Tensor:
    weight = counted.double()
    count = total(weight)
    mean = total(x * weight) / count
    return (total((x - mean).square() * weight) / (count - 1)).flatten()


def _quantiles(x: Tensor) -> Tensor:
    """Those of the numbers that are not NaN in each row of [S, M], [S, 5]; torch.nanquantile would wait for them."""
    ordered = x.float().sort(1).values  # NaN last
    counted = (~x.isnan()).sum(1, keepdim=True)
    ranks = torch.stack([q * (counted[:, 0] - 1).clamp_min(0).float() for q in _M_QUANTILES], 1)
    low, high = ordered.gather(1, ranks.floor().long()), ordered.gather(1, ranks.ceil().long())
    return torch.lerp(low, high, ranks - ranks.floor())
