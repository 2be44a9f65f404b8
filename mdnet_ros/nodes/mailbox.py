"""A mailbox between two threads that holds one item: a new one replaces it."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

T = TypeVar('T')


class Mailbox(Generic[T]):
    """Holds the newest item until it is taken; safe to use from several threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._item: T | None = None
        self._closed = False

    def put(self, item: T) -> T | None:
        """Put an item in, in place of the one there.

        Returns:
            The item that was replaced, or the given one if the mailbox is closed; else None.
        """
        with self._changed:
            if self._closed:
                return item
            replaced, self._item = self._item, item
            self._changed.notify()
            return replaced

    def take(self) -> T | None:
        """Wait for an item and take it out; returns None once the mailbox is closed."""
        with self._changed:
            while self._item is None and not self._closed:
                self._changed.wait()
            item, self._item = self._item, None
            return None if self._closed else item

    def close(self) -> T | None:
        """Close the mailbox, which ends the wait in :meth:`take`; returns the item left in it."""
        with self._changed:
            item, self._item, self._closed = self._item, None, True
            self._changed.notify_all()
            return item
