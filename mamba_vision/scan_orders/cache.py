"""A bounded memory for index tables, shared by all layers of all models.

Twenty-four layers that scan alike on one grid hold one table, and a model that sees many image sizes forgets the
oldest.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

MAX_ENTRIES = 128
MAX_BYTES = 512 * 2**20  # three orders over a 128 x 128 x 128 volume take 100 MiB with their inverses


class BoundedCache:
    """Least recently used entries go once there are more than `max_entries`, or they hold more than `max_bytes`."""

    def __init__(self, max_entries: int = MAX_ENTRIES, max_bytes: int = MAX_BYTES) -> None:
        self.max_entries, self.max_bytes = max_entries, max_bytes
        self._entries: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()
        self._holders: list[list] = []

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def bytes(self) -> int:
        """Bytes that the entries hold together."""
        return self._bytes

    def get(self, key: Hashable, make: Callable[[], Any], size: Callable[[Any], int]) -> Any:
        """The entry of `key`, made when it is not there. An entry larger than the whole cache is not kept."""
        with self._lock:
            found = self._entries.get(key)
            if found is not None:
                self._entries.move_to_end(key)
                made = found[0]
        if found is None:
            made = make()
            self._keep(key, made, size(made))
        for held in self._holders:
            held.append(made)
        return made

    def _keep(self, key: Hashable, made: Any, taken: int) -> None:
        with self._lock:
            if key not in self._entries and taken <= self.max_bytes:
                self._entries[key] = (made, taken)
                self._bytes += taken
                while len(self._entries) > self.max_entries or self._bytes > self.max_bytes:
                    self._bytes -= self._entries.popitem(last=False)[1][1]

    @contextmanager
    def holding(self) -> Iterator[list]:
        """A list of all that is handed out inside the block, so that its tensors outlive the cache's forgetting."""
        held: list = []
        self._holders.append(held)
        try:
            yield held
        finally:
            self._holders = [other for other in self._holders if other is not held]

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()
            self._bytes = 0
