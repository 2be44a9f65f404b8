"""Thresholds of the visual odometry."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class OdometrySettings:
    """Thresholds of the odometry.

    Attributes:
        max_error: largest reprojection error of an inlier, pixels. Two views alone must agree
            within half of it.
        min_angle: parallax from which a landmark is triangulated, degrees.
        init_angle: parallax that a share ``init_share`` of the landmarks must have between two
            views that start a map, after the rotation that aligns the views best, degrees.
        init_share: see ``init_angle``; half of the landmarks where the motion is ambiguous.
        min_points: landmarks that a pose needs.
        free_keyframes: keyframes whose poses are adjusted, the newest ones.
        fixed_keyframes: keyframes before these that take part with fixed poses.
        max_points: landmarks in an adjustment, at most.
        keyframe_angle: median parallax to the last keyframe that makes a keyframe, degrees.
        keyframe_overlap: share of the last keyframe's tracks below which a frame becomes a
            keyframe.
        seed: seed of the robust fits.
    """

    max_error: float = 3.0
    min_angle: float = 1.0
    init_angle: float = 1.0
    init_share: float = 0.16
    min_points: int = 10
    free_keyframes: int = 8
    fixed_keyframes: int = 8
    max_points: int = 1000
    keyframe_angle: float = 1.0
    keyframe_overlap: float = 0.6
    seed: int = 0
