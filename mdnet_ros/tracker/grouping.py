"""Groups items of several cameras by their stamps, without ROS."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar('T')
#: How many items of a camera may wait for items of the others.
_CAPACITY = 16


@dataclass(frozen=True)
class Grouped(Generic[T]):
    """Result of adding an item.

    Attributes:
        group: one item of each camera, in the order of the cameras; None if one is missing.
        left_over: camera number and item of those that will not be part of a group any more.
    """

    group: tuple[T, ...] | None
    left_over: tuple[tuple[int, T], ...] = ()


class StampGrouper(Generic[T]):
    """Makes groups of one item from each camera.

    Items that were added before those of a group are left over, whatever their stamps, so that a
    clock that jumps or a bag that starts again cannot block anything.

    Args:
        cameras: number of cameras.
    """

    def __init__(self, cameras: int) -> None:
        self._waiting: list[deque[tuple[int, T]]] = [deque() for _ in range(cameras)]

    def add(
        self, camera: int, stamp_ns: int, item: T, max_difference_ns: int = 0
    ) -> Grouped[T]:
        """Add an item of a camera.

        Args:
            camera: number of the camera.
            stamp_ns: stamp of the item in nanoseconds.
            item: the item.
            max_difference_ns: no two stamps of a group lie farther apart than this; 0: they
                are equal.
        """
        queue = self._waiting[camera]
        queue.append((stamp_ns, item))
        chosen = self._partners(camera, stamp_ns, max_difference_ns)
        if chosen is not None:
            return self._take(chosen)
        if len(queue) > _CAPACITY:
            return Grouped(None, ((camera, queue.popleft()[1]),))
        return Grouped(None)

    def clear(self) -> tuple[tuple[int, T], ...]:
        """Remove all waiting items and return them with their camera numbers."""
        waiting = tuple(
            (camera, item) for camera, queue in enumerate(self._waiting) for _, item in queue
        )
        for queue in self._waiting:
            queue.clear()
        return waiting

    def _partners(
        self, camera: int, stamp_ns: int, max_difference_ns: int
    ) -> list[int] | None:
        """Return the position in each queue of the items that belong to a camera's newest one."""
        chosen = []
        for index, queue in enumerate(self._waiting):
            if index == camera:
                chosen.append(len(queue) - 1)
                continue
            if not queue:
                return None
            # Among equally near items the newest.
            chosen.append(
                -min(
                    (abs(stamp - stamp_ns), -position)
                    for position, (stamp, _) in enumerate(queue)
                )[1]
            )
        stamps = [queue[position][0] for queue, position in zip(self._waiting, chosen, strict=True)]
        return chosen if max(stamps) - min(stamps) <= max_difference_ns else None

    def _take(self, chosen: list[int]) -> Grouped[T]:
        left_over: list[tuple[int, T]] = []
        group: list[T] = []
        for camera, (queue, position) in enumerate(zip(self._waiting, chosen, strict=True)):
            left_over += [(camera, queue.popleft()[1]) for _ in range(position)]
            group.append(queue.popleft()[1])
        return Grouped(tuple(group), tuple(left_over))
