"""Plug-ins for RTAB-Map, which imports them by path; see docs/howto/rtabmap.md.

RTAB-Map appends a plug-in's folder to the module path and imports the file under its own name, so
nothing else may lie in this folder that another program could import by accident.
"""

from __future__ import annotations

from pathlib import Path

#: RTAB-Map's parameter PyDetector/Path.
DETECTOR_PATH = Path(__file__).with_name('mdnet_rtabmap_detector.py')
#: RTAB-Map's parameter PyMatcher/Path.
MATCHER_PATH = Path(__file__).with_name('mdnet_rtabmap_matcher.py')
#: Number of columns appended to a descriptor: 1 in the column of the keypoint's set, 0 in the
#: others. RTAB-Map does not know sets; with these columns its own nearest neighbours stay inside
#: a set too: for unit-norm descriptors, another set is farther away than any angle below 90°.
SET_COLUMNS = 8


def rtabmap_parameters() -> list[tuple[str, str]]:
    """Return names and values of the parameters that make RTAB-Map use the plug-ins."""
    return [
        ('Vis/FeatureType', '15'),
        ('Kp/DetectorStrategy', '15'),
        ('PyDetector/Path', str(DETECTOR_PATH)),
        ('Vis/CorNNType', '6'),
        ('PyMatcher/Path', str(MATCHER_PATH)),
    ]
