"""What the meter of a replay hands to the odometry."""

from __future__ import annotations

import numpy as np

from mdnet_ros import FrameTracker
from mdnet_ros.evaluation.replay.meter import doubtful_matches
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


def test_as_detected_what_is_no_inlier_was_found_wrong() -> None:
    frame = tracked('none')
    matches = frame.correspondences
    outliers = matches.indices[~matches.inlier]
    assert len(outliers)
    wrong, unverified = doubtful_matches(frame)
    np.testing.assert_array_equal(np.nonzero(wrong)[0], np.sort(outliers))
    assert not unverified.any()


def test_a_match_that_could_not_be_refined_was_not_found_wrong() -> None:
    frame = tracked('flow')
    assert frame.refined is not None
    matches = frame.correspondences
    outliers = matches.indices[~matches.inlier]
    refined = frame.refined[outliers]
    assert refined.any()
    assert not refined.all()
    wrong, unverified = doubtful_matches(frame)
    np.testing.assert_array_equal(np.nonzero(wrong)[0], np.sort(outliers[refined]))
    np.testing.assert_array_equal(np.nonzero(unverified)[0], np.sort(outliers[~refined]))
