"""Results of image matching."""

from __future__ import annotations

from dataclasses import dataclass, field

from mdnet_ros.evaluation.image_matching.pairs import StereoResult
from mdnet_ros.evaluation.image_matching.scene import SceneSettings
from mdnet_ros.evaluation.image_matching.subsets import SubsetResult
from mdnet_ros.evaluation.pose import solver_name
from mdnet_ros.evaluation.reports.results import EvaluationResult, ExtractorResult


@dataclass(frozen=True)
class ImageMatchingSettings:
    """Everything that decides the results besides extractors and images.

    Attributes:
        max_keypoints: the most keypoints of one image.
        scene: which pairs and subsets are measured.
        threshold: inlier threshold of the robust pose, pixels, where no validation scene
            chooses it.
        ratio: threshold of the ratio test, 1: none; None: chosen on the validation scene.
        validation_scene: scene on which each extractor's thresholds are chosen; it is not
            measured then.
        multiview: reconstruct subsets, too.
        known_intrinsics: give COLMAP the calibration; the benchmark does not.
        pose_solver: library that estimates the relative poses.
        pose_seeds: seeds of the robust relative pose, whose accuracies are averaged; the first is
            ``scene.seed``, the others follow.
    """

    max_keypoints: int = 2048
    scene: SceneSettings = SceneSettings()
    threshold: float = 1.0
    ratio: float | None = 1.0
    validation_scene: str | None = None
    multiview: bool = True
    known_intrinsics: bool = False
    pose_solver: str = field(default_factory=solver_name)
    pose_seeds: int = 5

    def seeds(self) -> range:
        """The seeds of the robust relative pose."""
        return range(self.scene.seed, self.scene.seed + self.pose_seeds)


@dataclass(frozen=True)
class MatchingChoice:
    """How one extractor's matches are filtered.

    Attributes:
        threshold: inlier threshold of the robust pose, pixels.
        ratio: threshold of the ratio test; 1: none.
        chosen_on: name of the validation scene; None where the user fixed both.
        validation_accuracy: mAA(10°) on the validation scene.
    """

    threshold: float
    ratio: float
    chosen_on: str | None = None
    validation_accuracy: float | None = None


@dataclass(frozen=True)
class SceneResult:
    """One extractor on one scene.

    Attributes:
        name: name of the scene.
        pair_source: how the pairs were chosen, in words.
        keypoints: mean number of keypoints of an image.
        milliseconds: mean time to extract an image, in the run that extracted it.
        pairs: the image pairs of the stereo task.
        subsets: the reconstructed subsets of the multiview task.
    """

    name: str
    pair_source: str
    keypoints: float
    milliseconds: float
    pairs: tuple[StereoResult, ...]
    subsets: tuple[SubsetResult, ...]


@dataclass(frozen=True)
class MatchedExtractor(ExtractorResult[SceneResult]):
    """One extractor on a data set, with the filter of its matches."""

    parts: tuple[SceneResult, ...]
    choice: MatchingChoice


ImageMatchingResult = EvaluationResult[ImageMatchingSettings, MatchedExtractor]
