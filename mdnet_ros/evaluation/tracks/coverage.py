"""How much of the image the tracks cover."""

from __future__ import annotations

import numpy as np

from mdnet_ros.features.types import TrackedFrame

#: Columns and rows of the grid that coverage is counted on.
GRID = (10, 8)


def tracks_by_cell(frame: TrackedFrame) -> np.ndarray:
    """(rows, columns) int64 of :data:`GRID`: keypoints seen before, by the cell they lie in."""
    points = frame.features.keypoints[frame.ages > 0]
    cells = np.floor((points + 0.5) / frame.features.image_size * GRID).astype(int)
    column, row = np.clip(cells, 0, np.array(GRID) - 1).T
    counts = np.bincount(row * GRID[0] + column, minlength=GRID[0] * GRID[1])
    return counts.reshape(GRID[1], GRID[0])


def coverage_of(frame: TrackedFrame) -> float:
    """Share of the cells of a grid over the image that hold a keypoint seen before."""
    return float((tracks_by_cell(frame) > 0).mean())
