"""Who goes next: requests whose texts wait for the model, and the batch that is taken of them.

Knows tokens, bytes and clients; nothing of models, threads or protocols. There is no timer: what
comes while a batch is computed waits here, and the next batch is formed of it.
"""

from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Generic, TypeVar

from mlx_stella.encoding.batching import plan
from mlx_stella.errors import StellaError

PATIENCE = 8
"""Batches of interactive requests after which bulk gets one, however many more there are."""


class BacklogFullError(StellaError):
    """More waits for the model than there is room for; ``retry_after_ms`` later there may be."""

    retry_after_ms = 1000


@dataclass(eq=False, kw_only=True)
class Waiting:
    """A request whose texts wait.

    Attributes:
        group: texts of equal groups may go through the model together.
        client: whose turn it is; clients take turns, a request each.
        is_interactive: somebody waits for it; it goes before bulk.
        lengths: tokens of each text.
        size_bytes: what the request holds in memory.
        budget: padded tokens of a batch of this group.
        rows: the texts that were not taken yet, shortest first: they are taken from the end.
    """

    group: Hashable
    client: Hashable
    is_interactive: bool
    lengths: Sequence[int]
    size_bytes: int
    budget: int
    rows: list[int] = field(init=False)
    number: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.rows = sorted(range(len(self.lengths)), key=self.lengths.__getitem__)

    @property
    def tokens(self) -> int:
        """Of the texts that were not taken yet."""
        return sum(self.lengths[row] for row in self.rows)


W = TypeVar("W", bound=Waiting)

_Queues = dict[Hashable, dict[Hashable, deque[W]]]
"""Client -> group -> its requests, oldest first. Clients stand in the order of their turns."""


class Backlog(Generic[W]):
    """What waits, bounded in tokens and in bytes. For one thread at a time.

    Attributes:
        tokens, size_bytes: of all that waits.
    """

    def __init__(self, most_tokens: int, most_bytes: int):
        self._most_tokens, self._most_bytes = most_tokens, most_bytes
        self._interactive: _Queues[W] = {}
        self._bulk: _Queues[W] = {}
        self._passed_over = 0
        self._numbers = count()
        self.tokens = self.size_bytes = 0

    def __bool__(self) -> bool:
        return bool(self._interactive or self._bulk)

    def add(self, request: W) -> None:
        """Let a request wait.

        Raises:
            BacklogFullError: there is no room for it.
        """
        tokens = request.tokens
        if self.tokens + tokens > self._most_tokens:
            raise BacklogFullError(f"{self.tokens} tokens are waiting", remedy="try again later")
        if self.size_bytes + request.size_bytes > self._most_bytes:
            waiting = f"requests of {self.size_bytes / 1e6:.0f} MB are waiting"
            raise BacklogFullError(waiting, remedy="try again later")
        if not request.rows:
            return
        self.tokens += tokens
        self.size_bytes += request.size_bytes
        request.number = next(self._numbers)
        groups = self._lane(request).setdefault(request.client, {})
        groups.setdefault(request.group, deque()).append(request)

    def drop(self, request: W) -> bool:
        """Forget a request; false if none of its texts waited any more."""
        if not request.rows:
            return False
        self.tokens -= request.tokens
        request.rows.clear()
        self._leave(request)
        return True

    def take(self, batches: int = 1) -> list[tuple[W, list[int]]]:
        """What goes through the model next: requests of one group, and rows of each.

        Interactive requests go first, but bulk is not passed over more than ``PATIENCE`` times.
        Clients take turns: each the oldest of its requests, or as much of it as fits, then each
        the next one. The group is that of the client whose turn it is.

        Returns:
            Rows that :func:`~mlx_stella.encoding.batching.plan` puts into at most so many batches
            of the budget; an empty list if nothing waits.
        """
        lane = self._next_lane()
        if not lane:
            return []
        own = next(iter(lane.values()))
        first = min((queue[0] for queue in own.values()), key=lambda request: request.number)
        found: list[tuple[W, int]] = []
        total, room = 0, batches * first.budget
        for request, row in _turns(lane, first.group):
            found.append((request, row))
            total += request.lengths[row]
            if total >= room:
                break
        lengths = [request.lengths[row] for request, row in found]
        return self._remove(lane, found[: _fitting(lengths, first.budget, batches)])

    def _next_lane(self) -> _Queues[W]:
        if self._interactive and not (self._bulk and self._passed_over >= PATIENCE):
            self._passed_over += bool(self._bulk)
            return self._interactive
        self._passed_over = 0
        return self._bulk

    def _remove(self, lane: _Queues[W], found: list[tuple[W, int]]) -> list[tuple[W, list[int]]]:
        taken: dict[W, list[int]] = {}
        for request, row in found:
            taken.setdefault(request, []).append(row)
        for client in dict.fromkeys(request.client for request in taken):
            lane[client] = lane.pop(client)  # behind all others
        for request, rows in taken.items():
            del request.rows[-len(rows) :]
            self.tokens -= sum(request.lengths[row] for row in rows)
            if not request.rows:
                self._leave(request)
        return list(taken.items())

    def _leave(self, request: W) -> None:
        self.size_bytes -= request.size_bytes
        lane = self._lane(request)
        groups = lane[request.client]
        groups[request.group].remove(request)
        if not groups[request.group]:
            del groups[request.group]
        if not groups:
            del lane[request.client]

    def _lane(self, request: W) -> _Queues[W]:
        return self._interactive if request.is_interactive else self._bulk


def _turns(lane: _Queues[W], group: Hashable) -> Iterator[tuple[W, int]]:
    """The texts of a group, in the order in which their clients' turns come."""
    queues = [iter(groups[group]) for groups in lane.values() if group in groups]
    while queues:
        for queue in list(queues):
            if (request := next(queue, None)) is None:
                queues.remove(queue)
            else:
                yield from ((request, row) for row in reversed(request.rows))


def _fitting(lengths: Sequence[int], budget: int, batches: int) -> int:
    """How many of the texts, from the first on, make no more batches than that; at least one."""
    fits, beyond = 1, len(lengths) + 1
    while beyond - fits > 1:
        middle = (fits + beyond) // 2
        if len(plan(lengths[:middle], budget)) <= batches:
            fits = middle
        else:
            beyond = middle
    return fits
