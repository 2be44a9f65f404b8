"""Published results of the Image Matching Benchmark with 2048 keypoints.

They are from F. Fraundorfer's lecture "Machine Learned Features". Reports show them beside measured
metrics, marked as such: they are of other scenes.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedImbRow:
    """Metrics of one method on one part of the benchmark; the benchmark's names in parentheses.

    Attributes:
        name: name of the method.
        dataset: ``Phototourism`` or ``PragueParks``.
        features: keypoints of an image (NF).
        inliers: inliers of the robust pose of a pair (NI).
        repeatability: repeatability at 3 px.
        matching_score: matching score at 3 px.
        stereo_accuracy: mAA(10°) of the stereo task.
        matches: matches of a pair (NM).
        landmarks: triangulated points (NL).
        track_length: images that a point is seen in (TL).
        ate: absolute trajectory error.
        multiview_accuracy: mAA(10°) of the multiview task.
        source: where the results were published.
    """

    name: str
    dataset: str
    features: float
    inliers: float
    repeatability: float
    matching_score: float
    stereo_accuracy: float
    matches: float
    landmarks: float
    track_length: float
    ate: float
    multiview_accuracy: float
    source: str = 'lecture "Machine learned features"'


_TOURISM, _PARKS = 'Phototourism', 'PragueParks'
PUBLISHED_IMB = (
    PublishedImbRow(
        'MD-2-Net', _TOURISM, 2047.5, 233.0, 0.396, 0.792, 0.455, 238.6, 1391.5, 4.604, 0.411, 0.708
    ),
    PublishedImbRow(
        'R2D2', _TOURISM, 2048.0, 201.5, 0.429, 0.746, 0.390, 294.3, 1225.9, 4.280, 0.478, 0.640
    ),
    PublishedImbRow(
        'ASLFeat', _TOURISM, 2042.6, 126.0, 0.431, 0.749, 0.337, 157.5, 1106.6, 4.415, 0.533, 0.556
    ),
    PublishedImbRow(
        'Upright-SIFT', _TOURISM,
        1892.8, 98.6, 0.333, 0.788, 0.383, 148.0, 1165.7, 4.118, 0.524, 0.555,
    ),
    PublishedImbRow(
        'MD-2-Net', _PARKS, 2048.0, 175.5, 0.039, 0.027, 0.542, 236.3, 605.8, 3.197, 6.753, 0.451
    ),
    PublishedImbRow(
        'R2D2', _PARKS, 2048.0, 167.0, 0.032, 0.025, 0.539, 338.9, 526.0, 3.170, 6.837, 0.444
    ),
    PublishedImbRow(
        'ASLFeat', _PARKS, 2048.0, 110.5, 0.059, 0.029, 0.401, 217.1, 574.4, 3.036, 6.414, 0.400
    ),
    PublishedImbRow(
        'Upright-SIFT', _PARKS,
        2048.0, 119.8, 0.060, 0.027, 0.414, 157.3, 433.3, 2.989, 5.666, 0.361,
    ),
)  # fmt: skip
