"""Which executor serves which callback: what comes with every image has one to itself.

rclpy's executors go through all that they serve, in Python, a few times for each message. With
services, parameters and timers that costs milliseconds an image, of the cores and of the
interpreter's lock that the network wants too.
"""

from __future__ import annotations

from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.executors import Executor, MultiThreadedExecutor, SingleThreadedExecutor
from rclpy.node import Node

#: Diagnostics, masks, and parameters with services do not wait for each other.
_THREADS = 3


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
    """Those that serve a node together, each to be spun in a thread of its own."""
    quick = _Quick(node)
    return quick, _Rest(node, quick)
