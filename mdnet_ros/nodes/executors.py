"""Which executor serves which callback: what comes with every image has one to itself.

rclpy's executors go through all that they serve, in Python, a few times for each message. With
services, parameters and timers that costs milliseconds an image, of the cores and of the
interpreter's lock that the network wants too.
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

#: No public name for it is the same from Humble to Rolling.
InvalidHandle = rclpy_implementation.InvalidHandle
#: Diagnostics, masks, and parameters with services do not wait for each other.
_THREADS = 3
#: Seconds that a callback in hand may take to end.
_PATIENCE = 2.0


class QuickGroup(MutuallyExclusiveCallbackGroup):
    """Of callbacks that come with every image and only put things down."""


class _Quick(SingleThreadedExecutor):
    """Serves a node's quick callbacks, in the thread that waits for them."""

    def __init__(self, node: Node) -> None:
        super().__init__(context=node.context)
        self._node = node

    def get_nodes(self) -> list[Node]:
        return [self._node]  # not added: a node belongs to one executor, the other

    def can_execute(self, entity: Any) -> bool:
        return isinstance(entity.callback_group, QuickGroup) and super().can_execute(entity)


class _Rest(MultiThreadedExecutor):
    """Serves all other callbacks of a node.

    Args:
        node: whose.
        quick: serves its quick callbacks; is woken when the node's entities change.
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
    """Those that serve a node together; see :func:`spinning`."""
    quick = _Quick(node)
    return quick, _Rest(node, quick)


def executor_of(node: Node) -> Executor:
    """One that serves all callbacks of a node, one after the other."""
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    return executor


@contextmanager
def spinning(*executors: Executor, stop: threading.Event | None = None) -> Iterator[None]:
    """Let executors serve their callbacks, in a thread each, while the block runs.

    Args:
        executors: are shut down at the end.
        stop: ends the serving; is set at the end of the block, and before it if a callback
            raises or the context is shut down.

    Raises:
        Exception: what a callback raised, when the block has ended.
    """
    ended = stop or threading.Event()
    failures: list[Exception] = []

    def serve(executor: Executor) -> None:
        try:
            # Not by spin(), which only shutdown() ends: by destroying what spin() still uses.
            while not ended.is_set() and executor.context.ok():
                # A subscription may be destroyed just as the executor is about to take from it:
                # there is nothing to serve there any more.
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
            executor.create_task(_nothing)  # so that it looks up
        for executor, thread in zip(executors, threads, strict=True):
            thread.join(_PATIENCE)
            if not thread.is_alive():
                executor.shutdown(timeout_sec=_PATIENCE)
    if failures:
        raise failures[0]


def _nothing() -> None:
    pass
