"""Read the header of a ROS message, deserialised by rclpy or by ``rosbags``."""

from __future__ import annotations

from typing import Any


def stamp_nanoseconds(header: Any) -> int:
    """Return the stamp of a ``std_msgs/Header`` in nanoseconds."""
    return int(header.stamp.sec) * 1_000_000_000 + int(header.stamp.nanosec)
