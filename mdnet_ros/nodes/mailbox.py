"""A mailbox for one item between two threads: the newest wins."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

T = TypeVar('T')


class Mailbox(Generic[T]):
    """Holds the newest item until it is taken."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._item: T | None = None
        self._closed = False

    def put(self, item: T) -> T | None:
        """Leave an item.

        Returns:
            The item that was not taken in time and is lost now, or the given one if the mailbox
            is closed; else None.
        """
        with self._changed:
            if self._closed:
                return item
            replaced, self._item = self._item, item
            self._changed.notify()
            return replaced

    def take(self) -> T | None:
        """Wait for an item and take it; None once the mailbox is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._item is not None or self._closed)
            item, self._item = self._item, None
            return None if self._closed else item

    def close(self) -> T | None:
        """End the waiting of :meth:`take`; returns an item nobody took."""
        with self._changed:
            item, self._item, self._closed = self._item, None, True
            self._changed.notify_all()
            return item
