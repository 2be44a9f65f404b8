"""One camera of the tracker node: its name, its publishers, its counters and its log lines."""

from __future__ import annotations

from collections.abc import Callable

from mdnet_ros.nodes.diagnostics import CameraDiagnostics, Reporter
from mdnet_ros.nodes.outputs import Outputs


class NodeCamera:
    """One camera of the tracker node.

    Args:
        number: its place among the cameras, from 0.
        name: the namespace of its topics; empty: none.
        warn: writes a line to the log.

    Attributes:
        diagnostics: counters, for the diagnostics.
        report: logs a problem and counts it.
        image_topic: resolved name of the topic of its images; empty until it is subscribed to.
        outputs: the publishers; None until the node is configured.
    """

    def __init__(self, number: int, name: str, warn: Callable[[str], object]) -> None:
        self.number = number
        self.name = name
        self.diagnostics = CameraDiagnostics()
        self.report = Reporter(
            lambda line: warn(f'{name}: {line}' if name else line), note=self.diagnostics.problem
        )
        self.image_topic = ''
        self.outputs: Outputs | None = None

    def drop(self, cause: str, detail: str) -> None:
        """Count an image that cannot be used, and log the reason."""
        self.diagnostics.drop(cause, detail)
        self.report(cause, f'frame dropped, {cause}: {detail}')
