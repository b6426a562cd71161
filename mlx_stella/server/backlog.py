"""Who goes next: requests whose texts wait for the model, and the batch that is taken of them.

Knows tokens, bytes and clients; nothing of models, threads or protocols. There is no timer: what
comes while a batch is computed waits here, and the next batch is formed of it.
"""

from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Generic, TypeVar

from mlx_stella.encoding.batching import fit
from mlx_stella.errors import StellaError

PATIENCE = 8
"""Batches of interactive requests after which bulk gets one, however many more there are."""


class BacklogFullError(StellaError):
    """More waits for the model than there is room for; ``retry_after_ms`` later there may be."""

    retry_after_ms = 1000


_LOOKAHEAD = 8
"""A batch is chosen from so many times the texts that fit."""


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
        Clients take turns: each the oldest of its requests, then each the next one. The group is
        that of the client whose turn it is. A batch is formed around the text whose turn it is, of
        texts of about its length among those whose turn is near, so that little is padded.

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
        total, seen = 0, _LOOKAHEAD * batches * first.budget
        for request, row in _turns(lane, first.group):
            found.append((request, row))
            total += request.lengths[row]
            if total >= seen:
                break
        lengths = [request.lengths[row] for request, row in found]
        chosen = _well_filled(lengths, first.budget, batches)
        return self._remove(lane, [found[place] for place in chosen])

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
            gone = set(rows)
            request.rows = [row for row in request.rows if row not in gone]
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


def _well_filled(lengths: Sequence[int], budget: int, batches: int) -> list[int]:
    """Which texts go, of those that wait, in the order of their turns.

    Each batch is a stretch of the texts by length, around the first that is in none yet; it grows
    to the side that adds less padding, until it is full.

    Returns:
        Places in ``lengths``, ascending, that ``plan`` puts into at most so many batches.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
    rank = {place: number for number, place in enumerate(order)}
    left: list[int | None] = [lengths[place] for place in order]
    for place in range(len(lengths)):
        if not batches:
            break
        if left[rank[place]] is not None:
            start, end = _stretch(left, rank[place], budget)
            left[start:end] = [None] * (end - start)
            batches -= 1
    return [place for place in range(len(lengths)) if left[rank[place]] is None]


def _stretch(left: Sequence[int | None], middle: int, budget: int) -> tuple[int, int]:
    """Start and end of a batch around a place; ``left`` are lengths, descending, or None."""
    start, end = middle, middle + 1
    longest = shortest = left[middle] or 0
    while True:
        count = end - start + 1
        longer = left[start - 1] if start else None
        shorter = left[end] if end < len(left) else None
        if longer is not None and not fit(longer, shortest, count, budget):
            longer = None
        if shorter is not None and not fit(longest, shorter, count, budget):
            shorter = None
        if longer is None and shorter is None:
            return start, end
        costs_less = shorter is None or (
            longer is not None and (longer - longest) * (count - 1) <= longest - shorter
        )
        if longer is not None and costs_less:
            start, longest = start - 1, longer
        elif shorter is not None:
            end, shortest = end + 1, shorter
