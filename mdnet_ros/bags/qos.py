"""The quality of service that publishers offered while a bag was recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

#: History depth written for publishers that keep every message: DDS knows no number for it.
_KEEP_ALL_DEPTH = 1000


@dataclass(frozen=True)
class TopicQos:
    """The part of a publisher's quality of service that decides who receives its messages.

    Attributes:
        reliable: lost messages are sent again; otherwise best effort.
        transient_local: late subscribers receive the last messages ("latched").
        depth: number of messages the publisher keeps, at least 1.
    """

    reliable: bool = True
    transient_local: bool = False
    depth: int = 10


def qos_of_profiles(profiles: Sequence[Any]) -> TopicQos | None:
    """Combine the profiles of a topic's publishers, as ``rosbags`` reads them.

    Args:
        profiles: one ``rosbags.interfaces.Qos`` per publisher.

    Returns:
        Transient local if any publisher was, reliable if all were, and the sum of the depths, so
        that one publisher can keep what several kept. None if nothing was recorded.
    """
    if not profiles:
        return None
    depths = [
        _KEEP_ALL_DEPTH if profile.history.name == 'KEEP_ALL' else max(1, profile.depth)
        for profile in profiles
    ]
    return TopicQos(
        reliable=all(profile.reliability.name != 'BEST_EFFORT' for profile in profiles),
        transient_local=any(profile.durability.name == 'TRANSIENT_LOCAL' for profile in profiles),
        depth=min(sum(depths), _KEEP_ALL_DEPTH),
    )


def profile_of_qos(qos: TopicQos) -> Any:
    """Convert to the profile that ``rosbags`` writes into a bag."""
    from rosbags.interfaces import (
        Qos,
        QosDurability,
        QosHistory,
        QosLiveliness,
        QosReliability,
        QosTime,
    )

    # rosbag2 writes "no deadline" and "no lifespan" as the largest duration.
    unlimited = QosTime(9223372036, 854775807)
    return Qos(
        history=QosHistory.KEEP_LAST,
        depth=qos.depth,
        reliability=QosReliability.RELIABLE if qos.reliable else QosReliability.BEST_EFFORT,
        durability=(
            QosDurability.TRANSIENT_LOCAL if qos.transient_local else QosDurability.VOLATILE
        ),
        deadline=unlimited,
        lifespan=unlimited,
        liveliness=QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=unlimited,
        avoid_ros_namespace_conventions=False,
    )
