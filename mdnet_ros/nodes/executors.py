"""Executors of a node: one for its ``image`` and ``camera_info`` callbacks, one for the rest.

rclpy's executors go through all entities that they serve, in Python, a few times for each message.
With services, parameters and timers that takes milliseconds per image, during which they hold the
interpreter's lock that the network needs too.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.executors import (
    Executor,
    ExternalShutdownException,
    MultiThreadedExecutor,
    SingleThreadedExecutor,
)
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node

#: It has no public name that is the same from Humble to Rolling.
InvalidHandle = rclpy_implementation.InvalidHandle
#: So that diagnostics, masks, and parameters with services do not wait for each other.
_THREADS = 3
#: Seconds to wait for the end of a running callback.
_PATIENCE = 2.0


class QuickGroup(MutuallyExclusiveCallbackGroup):
    """Callback group for the cheap callbacks that come with every image."""


class _Quick(SingleThreadedExecutor):
    """Executor of a node's callbacks in a :class:`QuickGroup`, in the thread that waits."""

    def __init__(self, node: Node) -> None:
        super().__init__(context=node.context)
        self._node = node

    def get_nodes(self) -> list[Node]:
        return [self._node]  # not added: a node can be added to one executor only, the other one

    def can_execute(self, entity: Any) -> bool:
        return isinstance(entity.callback_group, QuickGroup) and super().can_execute(entity)


class _Rest(MultiThreadedExecutor):
    """Executor of all other callbacks of a node.

    Args:
        node: the node.
        quick: executor of its quick callbacks; is woken when the node's entities change.
    """

    def __init__(self, node: Node, quick: _Quick) -> None:
        super().__init__(_THREADS, context=node.context)
        self._quick = quick
        self.add_node(node)

    def wake(self) -> None:
        super().wake()
        self._quick.wake()

    def can_execute(self, entity: Any) -> bool:
        return not isinstance(entity.callback_group, QuickGroup) and super().can_execute(entity)


def executors_of(node: Node) -> tuple[Executor, ...]:
    """Return the two executors that serve a node together; see :func:`spinning`."""
    quick = _Quick(node)
    return quick, _Rest(node, quick)


def executor_of(node: Node) -> Executor:
    """Return an executor that runs all callbacks of a node, one after the other."""
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    return executor


@contextmanager
def spinning(*executors: Executor, stop: threading.Event | None = None) -> Iterator[None]:
    """Run executors, each in a thread of its own, while the block runs.

    Args:
        executors: the executors; they are shut down at the end.
        stop: stops the executors when it is set. It is set at the end of the block, or before if
            a callback raises or the context is shut down.

    Raises:
        Exception: what a callback raised, after the block has ended.
    """
    ended = stop or threading.Event()
    failures: list[Exception] = []

    def serve(executor: Executor) -> None:
        try:
            # Not by spin(), which only shutdown() ends, by destroying what spin() still uses.
            while not ended.is_set() and executor.context.ok():
                # A subscription may be destroyed just when the executor is about to take a
                # message from it.
                with suppress(InvalidHandle):
                    executor.spin_once()
        except ExternalShutdownException:
            pass
        except Exception as error:
            failures.append(error)
        finally:
            ended.set()

    threads = [
        threading.Thread(target=serve, args=(executor,), name=f'executor {number}', daemon=True)
        for number, executor in enumerate(executors)
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for executor in executors:
            executor.create_task(_nothing)  # wakes it
        for executor, thread in zip(executors, threads, strict=True):
            thread.join(_PATIENCE)
            if not thread.is_alive():
                executor.shutdown(timeout_sec=_PATIENCE)
    if failures:
        raise failures[0]


def _nothing() -> None:
    pass
