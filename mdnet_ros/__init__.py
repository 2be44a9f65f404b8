"""mdnet_ros: learned keypoints, descriptors and tracks for robots (MD-Net, ICPR 2022).

The names below are the public, ROS-free API. ROS nodes live in :mod:`mdnet_ros.nodes`,
training in :mod:`mdnet_ros.training`, measurements in :mod:`mdnet_ros.evaluation`.
"""

from mdnet_ros.errors import MDNetError
from mdnet_ros.features.extractor import Extractor, MDNetExtractor
from mdnet_ros.features.matching import match_mutual_nearest
from mdnet_ros.features.tracking import FrameTracker
from mdnet_ros.features.types import Correspondences, Features, Matches, TrackedFrame

__version__ = '0.1.0'

__all__ = [
    'Correspondences',
    'Extractor',
    'Features',
    'FrameTracker',
    'MDNetError',
    'MDNetExtractor',
    'Matches',
    'TrackedFrame',
    'match_mutual_nearest',
    '__version__',
]
