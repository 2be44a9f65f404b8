"""Plots, and matches drawn over images, for reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np

from mdnet_ros.errors import MissingDependencyError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Line colours that stay apart for colour-blind readers (Okabe and Ito), in this order.
PALETTE = (
    '#0072B2', '#D55E00', '#009E73', '#CC79A7', '#56B4E9', '#E69F00', '#000000', '#7F7F7F',
    '#8C564B', '#6A3D9A', '#B2DF8A', '#A6761D',
)  # fmt: skip
#: BGR colours of correct and wrong matches.
RIGHT_COLOUR = (90, 170, 0)
WRONG_COLOUR = (40, 60, 225)


def new_figure(width: float = 8.0, height: float = 4.0) -> Figure:
    """Create a matplotlib figure that needs no window system; its size is in inches.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependencyError('matplotlib', 'evaluate', 'plotting') from None
    return Figure(figsize=(width, height), layout='constrained')


def bar_figure(names: Sequence[str], panels: Mapping[str, Sequence[float]]) -> Figure:
    """Plot horizontal bars, a panel for each title and a bar for each name.

    Args:
        names: names of the bars.
        panels: values of the bars by title.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    count = len(names)
    figure = new_figure(2.0 + 3.6 * len(panels), 1.4 + 0.3 * count)
    axes = np.atleast_1d(figure.subplots(1, len(panels), sharey=True))
    order = np.arange(count)[::-1]
    colours = [PALETTE[i % len(PALETTE)] for i in range(count)]
    for axis, (title, values) in zip(axes, panels.items(), strict=True):
        bars = axis.barh(order, values, color=colours)
        axis.bar_label(bars, fmt='%.3f', padding=3, fontsize=9)
        axis.set(title=title, xlim=(0, max([*values, 0.1]) * 1.18))
        axis.spines[['top', 'right']].set_visible(False)
    axes[0].set_yticks(order, list(names))
    return figure


def draw_matches(
    image_a: np.ndarray,
    image_b: np.ndarray,
    points_a: np.ndarray,
    points_b: np.ndarray,
    right: np.ndarray,
    max_width: int = 1100,
) -> np.ndarray:
    """Draw two images side by side with lines between matches, wrong ones faint and below.

    Args:
        image_a: (H, W, 3) uint8 BGR.
        image_b: (H, W, 3) uint8 BGR.
        points_a: (M, 2) pixels of ``image_a``.
        points_b: (M, 2) pixels of ``image_b``.
        right: (M,) bool, which matches are correct.
        max_width: largest width of the picture, pixels.

    Returns:
        (H', W', 3) uint8 BGR.
    """
    gap = 6
    height = max(image_a.shape[0], image_b.shape[0])
    canvas = np.full((height, image_a.shape[1] + gap + image_b.shape[1], 3), 255, np.uint8)
    canvas[: image_a.shape[0], : image_a.shape[1]] = image_a
    canvas[: image_b.shape[0], image_a.shape[1] + gap :] = image_b
    factor = min(1.0, max_width / canvas.shape[1])
    canvas = cv2.resize(canvas, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    from_a = (np.asarray(points_a) + 0.5) * factor
    from_b = (np.asarray(points_b) + [image_a.shape[1] + gap + 0.5, 0.5]) * factor
    ends = [np.round(points).astype(int) for points in (from_a, from_b)]
    plain = canvas.copy()
    for group, colour in ((~right, WRONG_COLOUR), (right, RIGHT_COLOUR)):
        for a, b in zip(ends[0][group].tolist(), ends[1][group].tolist(), strict=True):
            cv2.line(canvas, a, b, colour, 1, cv2.LINE_AA)
        if colour == WRONG_COLOUR:
            canvas = cv2.addWeighted(canvas, 0.4, plain, 0.6, 0.0)  # the image shows through
        for point in (*ends[0][group].tolist(), *ends[1][group].tolist()):
            cv2.circle(canvas, point, 2, colour, -1, cv2.LINE_AA)
    return canvas
