"""What the meter of a replay hands to the odometry."""

from __future__ import annotations

import numpy as np

from mdnet_ros import FrameTracker
from mdnet_ros.evaluation.replay.meter import rejected
from mdnet_ros.features.extractor import MDNetExtractor
from mdnet_ros.features.types import TrackedFrame


def tracked(refinement: str) -> TrackedFrame:
    """The last of three crops of a photograph that move, with a patch that changes."""
    from skimage import data

    photo = data.camera()
    extract, tracker = MDNetExtractor('md2net-light', 'cpu', 400), FrameTracker(
        refinement=refinement  # type: ignore[arg-type]
    )
    for i in range(3):
        image = np.ascontiguousarray(photo[40 + 3 * i : 280 + 3 * i, 60 + 2 * i : 380 + 2 * i])
        image[100:160, 100:200] = np.roll(image[100:160, 100:200], 9 * i, axis=1)
        frame = tracker.update(extract(image), i, image)
    return frame


def test_as_detected_what_is_no_inlier_is_rejected() -> None:
    frame = tracked('none')
    matches = frame.correspondences
    wrong = matches.indices[~matches.inlier]
    assert len(wrong)
    np.testing.assert_array_equal(np.nonzero(rejected(frame))[0], np.sort(wrong))


def test_a_match_that_could_not_be_refined_is_not_rejected() -> None:
    frame = tracked('flow')
    assert frame.refined is not None
    matches = frame.correspondences
    loose = matches.indices[~matches.inlier & ~frame.refined[matches.indices]]
    wrong = matches.indices[~matches.inlier & frame.refined[matches.indices]]
    assert len(loose)
    assert len(wrong)
    np.testing.assert_array_equal(np.nonzero(rejected(frame))[0], np.sort(wrong))
