"""Which of several processes this is, started by ``mlx.launch``, and what they tell each other.

``mlx.launch`` stops all ranks as soon as one ends with an error. So a rank with something to
report waits for the others: every run ends with a :meth:`Ranks.merge`.
"""

import os
from pathlib import Path

import mlx.core as mx
import numpy as np

from mlx_stella.errors import StellaError


class Ranks:
    """One process of a launch, or the only one.

    Attributes:
        rank: its number, from 0; size: how many there are.
    """

    def __init__(self, group: mx.distributed.Group | None = None):
        self._group = group
        self.rank = 0 if group is None else group.rank()
        self.size = 1 if group is None else group.size()

    def merge(self, values: np.ndarray) -> np.ndarray:
        """The largest value of each place over all ranks, which wait here for each other.

        Args:
            values: int32 (n,), with the same n everywhere.

        Raises:
            StellaError: another rank is gone.
        """
        if self._group is None:
            return values
        try:
            return np.array(mx.distributed.all_max(mx.array(values), group=self._group))
        except RuntimeError as error:
            raise StellaError(
                f"another rank was lost ({error}); what it left is done by the next run",
                where=f"rank {self.rank}",
                remedy="run it again",
            ) from None

    def meet(self) -> None:
        """Wait until all ranks are here. Raises as :meth:`merge`."""
        self.merge(np.zeros(1, np.int32))


def launched() -> Ranks:
    """The ranks of this launch; a single one where ``mlx.launch`` did not start this process.

    Raises:
        StellaError: the other ranks cannot be reached.
    """
    hostfile = os.environ.get("MLX_HOSTFILE")
    is_alone = hostfile is not None and not Path(hostfile).read_text().strip()  # of -n 1
    if "MLX_RANK" not in os.environ or is_alone:
        return Ranks()
    try:
        group = mx.distributed.init()
    except RuntimeError as error:
        raise StellaError(f"mlx.launch: {error}", remedy="check the hostfile") from None
    if group.rank() != int(os.environ["MLX_RANK"]):
        raise StellaError(
            f"mlx.launch: rank {os.environ['MLX_RANK']} found no others", remedy="--backend ring"
        )
    return Ranks(group)
