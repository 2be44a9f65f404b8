"""Points followed from image to image by optical flow (Lucas and Kanade, IJCAI 1981; OpenCV's)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

#: Side of the patch that is aligned, pixels. 9 finds a tenth fewer points, 21 takes twice as long.
_WINDOW = 11
#: Distance from the start at which aligning back must end, pixels.
_MAX_BACKWARD_ERROR = 0.5
#: Least eigenvalue of a patch's gradient matrix as OpenCV scales it; patches with less texture in
#: any direction cannot be aligned precisely (Shi and Tomasi, CVPR 1994).
_MIN_EIGENVALUE = 1.5e-3
_CRITERIA = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 5, 0.03)
#: Two tracks whose pixels differ by no more than this in x and in y show the same point.
SAME_POINT = 2
#: Motion is predicted from at most about so many points.
_SAMPLE = 512
#: Columns and rows of the grid in whose cells the motion of the image is taken to be alike.
_CELLS = (8, 6)


@dataclass(frozen=True)
class FlowResult:
    """Points followed from one image to another.

    Attributes:
        points: (N, 2) float32, pixels in the second image; meaningful where ``found``.
        found: (N,) bool, True where the alignment succeeded and led back to its start.
    """

    points: np.ndarray
    found: np.ndarray


def follow(
    previous: np.ndarray, image: np.ndarray, points: np.ndarray, start: np.ndarray
) -> FlowResult:
    """Find the points of one image in another by aligning the patches around them.

    Args:
        previous: (H, W) uint8, the image of ``points``.
        image: (H, W) uint8, the image to find them in.
        points: (N, 2) float32, pixels.
        start: (N, 2) float32, pixels in ``image`` at which the search begins; it reaches a few
            pixels from there.

    Returns:
        N results. A point is found if its patch has texture in all directions, the alignment
        stays inside the image, and aligning back ends within half a pixel of the point.
    """
    ends, found = _align(previous, image, points, start)
    rows = np.nonzero(found)[0]
    # The search back begins at the true place: where both agree it ends after one step.
    back, found_back = _align(image, previous, ends[rows], points[rows])
    miss = np.linalg.norm(back - points[rows], axis=1)
    height, width = image.shape
    inside = ((ends[rows] >= 0) & (ends[rows] <= (width - 1, height - 1))).all(axis=1)
    found[rows] = found_back & (miss <= _MAX_BACKWARD_ERROR) & inside
    return FlowResult(ends, found)


def _align(
    previous: np.ndarray, image: np.ndarray, points: np.ndarray, start: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return (N, 2) float32 ends of an alignment and (N,) bool, True where OpenCV found one."""
    if not len(points):
        return np.zeros((0, 2), np.float32), np.zeros(0, bool)
    ends, found, _ = cv2.calcOpticalFlowPyrLK(
        previous, image,
        np.ascontiguousarray(points, np.float32), np.array(start, np.float32),
        winSize=(_WINDOW, _WINDOW), maxLevel=0, criteria=_CRITERIA,
        flags=cv2.OPTFLOW_USE_INITIAL_FLOW, minEigThreshold=_MIN_EIGENVALUE,
    )
    return ends, found.ravel() == 1


def patch_correlation(
    previous: np.ndarray, image: np.ndarray, points: np.ndarray, ends: np.ndarray
) -> np.ndarray:
    """Compare the patches around points of two images by normalised cross-correlation.

    Args:
        previous: (H, W) uint8, the image of ``points``.
        image: (H, W) uint8, the image of ``ends``.
        points: (N, 2) float32, pixels.
        ends: (N, 2) float32, pixels.

    Returns:
        (N,) float32 in [-1, 1]; 0 where a patch is flat.
    """
    if not len(points):
        return np.zeros(0, np.float32)
    patches = []
    for pixels, centres in ((previous, points), (image, ends)):
        steps = np.arange(_WINDOW, dtype=np.float32) - _WINDOW // 2
        x = (centres[:, 0, None, None] + steps[None, None, :]).repeat(_WINDOW, axis=1)
        y = (centres[:, 1, None, None] + steps[None, :, None]).repeat(_WINDOW, axis=2)
        shape = (len(centres), _WINDOW * _WINDOW)
        patch = cv2.remap(
            pixels, x.reshape(shape), y.reshape(shape), cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        ).astype(np.float32)
        patch -= patch.mean(axis=1, keepdims=True)
        patches.append(patch / np.linalg.norm(patch, axis=1, keepdims=True).clip(1e-6))
    return np.einsum('ij,ij->i', *patches)


def predict_motion(
    points: np.ndarray, motion: np.ndarray, at: np.ndarray, image_size: tuple[int, int]
) -> np.ndarray:
    """Predict the motion of some points from that of others: the median of their grid cell.

    Args:
        points: (N, 2) float32, pixels of points with known motion.
        motion: (N, 2) float32, their motion, pixels.
        at: (M, 2) float32, pixels.
        image_size: (width, height), pixels.

    Returns:
        (M, 2) float32; the median of all points in cells that hold none, 0 without points.
    """
    if not len(points) or not len(at):
        return np.zeros_like(at)
    step = -(-len(points) // _SAMPLE)
    points, motion = points[::step], motion[::step]
    cells, wanted = _cell_of(points, image_size), _cell_of(at, image_size)
    count = np.bincount(cells, minlength=_CELLS[0] * _CELLS[1])
    middle = (np.cumsum(count) - count + count // 2).clip(max=len(points) - 1)
    medians = np.empty((len(count), 2), np.float32)
    for axis in range(2):
        in_order = motion[np.lexsort((motion[:, axis], cells)), axis]
        medians[:, axis] = np.where(count > 0, in_order[middle], np.median(motion[:, axis]))
    return medians[wanted]


def _cell_of(points: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """(N,) int64, the grid cell that each point lies in."""
    column, row = (
        np.clip((points + 0.5) / image_size * _CELLS, 0, np.array(_CELLS) - 1).astype(np.int64).T
    )
    return row * _CELLS[0] + column


def nearby(
    points: np.ndarray, others: np.ndarray, ranks: np.ndarray, image_size: tuple[int, int]
) -> np.ndarray:
    """Find for each point the highest-ranking other within :data:`SAME_POINT` pixels of it.

    Args:
        points: (N, 2) float32, pixels inside the image.
        others: (M, 2) float32, pixels inside the image.
        ranks: (M,) int64, different for each of the others.
        image_size: (width, height), pixels.

    Returns:
        (N,) int64, its row in ``others``, or -1. Distances are those of whole pixels.
    """
    if not len(others) or not len(points):
        return np.full(len(points), -1, np.int64)
    order = np.argsort(ranks, kind='stable')
    # Each pixel gets the number of the highest-ranking point in it, in a map with a margin.
    stride = image_size[0] + 2 * SAME_POINT
    numbers = np.zeros(stride * (image_size[1] + 2 * SAME_POINT), np.int32)
    numbers[_pixels(others[order], image_size, stride)] = np.arange(1, len(order) + 1)
    steps = np.arange(-SAME_POINT, SAME_POINT + 1)
    around = (steps[:, None] * stride + steps).reshape(-1)
    number = numbers[_pixels(points, image_size, stride)[:, None] + around].max(axis=1)
    return np.where(number > 0, order[number - 1], -1)


def _pixels(points: np.ndarray, image_size: tuple[int, int], stride: int) -> np.ndarray:
    """Return (N,) int64, the places of points in a map with a margin of ``SAME_POINT`` pixels."""
    x, y = np.clip(np.rint(points), 0, np.array(image_size) - 1).astype(np.int64).T
    return (y + SAME_POINT) * stride + x + SAME_POINT


def distinct(points: np.ndarray, ranks: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Mark the points that have none of higher rank within :data:`SAME_POINT` pixels.

    Args:
        points: (N, 2) float32, pixels inside the image.
        ranks: (N,) int64, different for each.
        image_size: (width, height), pixels.

    Returns:
        (N,) bool.
    """
    return nearby(points, points, ranks, image_size) == np.arange(len(points))
