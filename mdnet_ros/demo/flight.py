"""Position and orientation of the demo's camera over time: laps through a hall."""

from __future__ import annotations

import cv2
import numpy as np

from mdnet_ros.data.poses import Pose

#: Speed along the course, metres per second of flight time.
_SPEED = 0.9
#: Length of the straight part of the course, metres: from z = 0 to z = _STRAIGHT on x = 0.
_STRAIGHT = 24.0
#: Radius of the arcs in which the course turns round at both ends, metres.
_RADIUS = 1.0
#: Turns of these arcs in radians, positive to the right. They end where they began, reversed.
_ARCS = (-np.pi / 3, 5 * np.pi / 3, -np.pi / 3)
#: Length of one such turn, metres.
_TURN = _RADIUS * sum(abs(arc) for arc in _ARCS)


def camera_pose(time: float) -> Pose:
    """Return the camera's pose: it follows the course, sways, turns and rolls.

    The course leads 24 m into the hall, turns round, comes back, turns round, and repeats. A lap
    takes 70 s.

    Args:
        time: seconds of flight since the start.

    Returns:
        The pose, camera to map, metres.
    """

    def wave(amplitude: float, period: float, phase: float = 0.0) -> float:
        return float(amplitude * np.sin(2 * np.pi * time / period + phase))

    course = _course(_SPEED * time)
    translation = np.array([wave(1.0, 6.5), wave(0.45, 4.3), wave(0.5, 5.0)])
    yaw = wave(0.28, 7.0) + wave(0.012, 0.71)
    pitch = wave(0.12, 5.1, 0.5) + wave(0.010, 0.53)
    roll = wave(0.5, 10.0) + wave(0.3, 2.7)
    rotation = np.eye(3)
    for vector in ((0.0, yaw, 0.0), (pitch, 0.0, 0.0), (0.0, 0.0, roll)):
        rotation = rotation @ cv2.Rodrigues(np.array(vector))[0]
    return course @ Pose(rotation, translation)


def _course(distance: float) -> Pose:
    """Pose of a traveller who looks ahead along the course, after so many metres of it."""
    halves, distance = divmod(distance, _STRAIGHT + _TURN) if distance > 0 else (0, distance)
    pose = Pose(np.eye(3), np.array([0.0, 0.0, min(distance, _STRAIGHT)]))
    rest = distance - _STRAIGHT
    for arc in _ARCS:
        if rest > 0:
            part = min(rest / _RADIUS, abs(arc))
            pose = pose @ _arc(np.copysign(part, arc))
            rest -= _RADIUS * part
    if halves % 2:  # the same way, seen from the other end
        reverse = Pose(np.diag([-1.0, 1.0, -1.0]), np.array([0.0, 0.0, _STRAIGHT]))
        pose = reverse @ pose
    return pose


def _arc(turn: float) -> Pose:
    """Motion along an arc of radius ``_RADIUS`` that turns by so many radians, right positive."""
    rotation = cv2.Rodrigues(np.array([0.0, turn, 0.0]))[0]
    side = np.sign(turn) * _RADIUS
    ahead = np.array([side * (1 - np.cos(turn)), 0.0, side * np.sin(turn)])
    return Pose(rotation, ahead)
