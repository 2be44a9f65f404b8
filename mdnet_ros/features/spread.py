"""A choice of points that covers the image evenly."""

from __future__ import annotations

import numpy as np


def spread_evenly(
    points: np.ndarray, priority: np.ndarray, count: int, image_size: tuple[int, int]
) -> np.ndarray:
    """Choose points spread evenly over the image, those of high priority first.

    The image is divided into about as many square cells as points are wanted. The first point of
    each cell by priority is taken, then the second of each, and so on until there are enough. If
    the priority is the age of a track, one that was chosen mostly is chosen again, because it gets
    older with every frame.

    Args:
        points: (N, 2), pixels.
        priority: (N,) int, larger for points to be chosen sooner, such as the age of their track.
        count: the most points to choose.
        image_size: (width, height), pixels.

    Returns:
        At most ``count`` rows, int64, ascending; the same for the same input. Of points with the
        same priority the one in the first row is taken.
    """
    total = len(points)
    if count >= total:
        return np.arange(total)
    width, height = image_size
    side = np.sqrt(width * height / max(1, count))
    columns = int(np.ceil(width / side))
    x, y = np.floor((points + 0.5) / side).astype(np.int64).T
    cells = y * columns + x
    order = np.lexsort((np.arange(total), -np.asarray(priority, np.int64), cells))
    starts = np.nonzero(np.diff(cells[order], prepend=-1))[0]
    sizes = np.diff(np.append(starts, total))
    rank = np.empty(total, np.int64)  # in its cell, by priority
    rank[order] = np.arange(total) - np.repeat(starts, sizes)
    best = np.lexsort((np.arange(total), -np.asarray(priority, np.int64), rank))
    return np.sort(best[:count])
