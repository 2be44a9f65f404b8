"""What image matching gives."""

from __future__ import annotations

from dataclasses import dataclass

from mdnet_ros.evaluation.image_matching.pairs import PairResult
from mdnet_ros.evaluation.image_matching.scene import SceneSettings
from mdnet_ros.evaluation.image_matching.subsets import BagResult


@dataclass(frozen=True)
class ImageMatchingSettings:
    """What decides the figures, besides extractors and images.

    Attributes:
        max_keypoints: the most keypoints of one image.
        scene: which pairs and subsets are taken.
        threshold: of the robust pose, pixels, where no validation scene chooses it.
        ratio: of the ratio test, 1: none; None: chosen on the validation scene.
        validation_scene: the scene on which each extractor's threshold is chosen; it is not
            measured then.
        multiview: reconstruct subsets, too.
        known_intrinsics: give COLMAP the calibration; the benchmark does not.
    """

    max_keypoints: int = 2048
    scene: SceneSettings = SceneSettings()
    threshold: float = 1.0
    ratio: float | None = 1.0
    validation_scene: str | None = None
    multiview: bool = True
    known_intrinsics: bool = False


@dataclass(frozen=True)
class MatchingChoice:
    """How one extractor's matches are filtered.

    Attributes:
        threshold: of the robust pose, pixels.
        ratio: of the ratio test; 1: none.
        chosen_on: the validation scene, or None where the user fixed both.
        validation_accuracy: mAA(10°) there.
    """

    threshold: float
    ratio: float
    chosen_on: str | None = None
    validation_accuracy: float | None = None


@dataclass(frozen=True)
class SceneResult:
    """One extractor on one scene.

    Attributes:
        name: of the scene.
        pair_source: how the pairs were chosen.
        keypoints: mean of an image.
        milliseconds: mean time to extract an image, when it was.
        pairs: stereo.
        bags: multiview.
    """

    name: str
    pair_source: str
    keypoints: float
    milliseconds: float
    pairs: tuple[PairResult, ...]
    bags: tuple[BagResult, ...]


@dataclass(frozen=True)
class ExtractorResult:
    """One extractor on a data set."""

    name: str
    licence: str
    choice: MatchingChoice
    scenes: tuple[SceneResult, ...]


@dataclass(frozen=True)
class ImageMatchingResult:
    """A whole evaluation.

    Attributes:
        settings: of the protocol.
        solver: the library that estimated the poses.
        extractors: in the order they were asked for.
        omitted: what was left out and why, one line each.
    """

    settings: ImageMatchingSettings
    solver: str
    extractors: tuple[ExtractorResult, ...]
    omitted: tuple[str, ...]
