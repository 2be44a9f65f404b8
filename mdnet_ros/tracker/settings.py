"""The tracker's parameters in one table, from which they are declared, checked and documented."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, cast

from mdnet_ros.data.image_decoding import RawValueRange
from mdnet_ros.errors import SettingError
from mdnet_ros.features.backends.base import PRECISIONS
from mdnet_ros.features.backends.choice import RUNTIMES
from mdnet_ros.features.detection import MAX_NMS_RADIUS, MIN_BORDER, DetectionSettings
from mdnet_ros.features.geometry import VERIFICATIONS, Verification
from mdnet_ros.features.network import MIN_SIDE
from mdnet_ros.features.refinement import REFINEMENTS, Refinement
from mdnet_ros.features.tracking import TrackingSettings
from mdnet_ros.tracker.clouds import DESCRIPTOR_ENCODINGS, DescriptorEncoding
from mdnet_ros.tracker.drawing import COLOUR_BY, ColourBy
from mdnet_ros.tracker.vins import VINS_LAYOUTS, VinsLayout

#: Pattern of a name that can be the namespace of topics.
_CAMERA_NAME = r'[A-Za-z]\w*(/[A-Za-z]\w*)*'


@dataclass(frozen=True)
class Setting:
    """Description of a parameter.

    Attributes:
        name: name of the parameter.
        default: default value; its type is that of the parameter.
        description: what the parameter does, with its unit.
        low: smallest allowed number, or None.
        high: largest allowed number, or None.
        choices: allowed strings; empty: any.
        read_only: whether it is fixed once the node runs.
        reloads: whether the network is loaded again when it is set at run time.
    """

    name: str
    default: bool | int | float | str
    description: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    read_only: bool = False
    reloads: bool = False

    def check(self, value: Any) -> None:
        """Raise :class:`SettingError` if the value has the wrong type or is out of range."""
        kind: type = type(self.default)
        number: Any = value
        if type(value) is not kind:
            whole = kind is float and type(value) is int
            example = f', for example {value}.0' if whole else ''
            raise SettingError(
                f'{self.name}: expected {_TYPE_NAMES[kind]}{example}, got {value!r}'
            )
        if self.choices and value not in self.choices:
            raise SettingError(
                f"{self.name}: expected one of {', '.join(self.choices)}, got '{value}'"
            )
        in_range = self.low is None or self.high is None or self.low <= number <= self.high
        if not in_range:
            raise SettingError(f'{self.name}: expected {self.range}, got {value}')

    @property
    def range(self) -> str:
        """The allowed values in words."""
        if self.choices:
            return ', '.join(self.choices)
        if self.low is not None and self.high is not None:
            return f'{self.low:g} to {self.high:g}'
        return ''


_TYPE_NAMES: dict[type, str] = {bool: 'true or false', int: 'an integer', float: 'a number',
                                str: 'a string'}


def _setting(
    default: Any,
    description: str,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    read_only: bool = False,
    reloads: bool = False,
) -> Any:
    about = (description, low, high, choices, read_only, reloads)
    return field(default=default, metadata={'about': about})


@dataclass(frozen=True)
class TrackerSettings:
    """Values of all parameters of the tracker node; :data:`SETTINGS` describes each.

    Raises:
        SettingError: for a value of the wrong type or out of range.
    """

    weights: str = _setting(
        'md2net', 'Network: md2net, md2net-light, or the path of a .safetensors file or of one '
        'that mdnet export wrote. Setting it, even to the same value, loads the file again.',
        reloads=True)
    device: str = _setting(
        'auto', 'Where the network runs: auto (CUDA if there is one), cpu, cuda or cuda:N.',
        reloads=True)
    precision: str = _setting(
        'auto', 'Arithmetic of the network: auto is fp16 on CUDA, bf16 on CPUs with instructions '
        'for it, else fp32. Set to fp32, descriptors are compared in float32 too; otherwise in 8 '
        'bits on CPUs with instructions for these (AVX-512 VNNI).',
        choices=('auto', *PRECISIONS), reloads=True)
    runtime: str = _setting(
        'torch', 'What runs a weights file: torch, or openvino (CPU only; needs '
        'the extra of that name).', choices=RUNTIMES, reloads=True)
    threads: int = _setting(
        0, 'CPU threads of the network; 0 leaves the choice to torch.', 0, 256)
    max_keypoints: int = _setting(
        2048, 'The most keypoints of one image, shared by the sets as evenly as possible.', 1,
        65536)
    score_threshold: float = _setting(
        0.0, 'Keypoints scoring less are dropped.', 0.0, 1.0)
    nms_radius: int = _setting(
        2, 'Before sub-pixel refinement, keypoints of a set are more than this apart in x or in y, '
        'pixels.', 0, MAX_NMS_RADIUS)
    border: int = _setting(
        8, 'Keypoints closer to the edge of the image are left out, pixels; less than '
        f'{MIN_BORDER} acts as {MIN_BORDER}, which sub-pixel refinement needs.', 0, 512)
    max_side: int = _setting(
        0, f'Larger images are shrunk to this longer side first, pixels; 0: never, else at least '
        f'{MIN_SIDE}. Keypoints stay in pixels of the original image.', 0, 16384)
    mask: str = _setting(
        '', 'Path of a gray image: no keypoint where it is black. It is stretched to the size of '
        'the camera image. Empty: keypoints everywhere.')
    min_similarity: float = _setting(
        0.0, 'Matches whose descriptors have a lower cosine are dropped.', -1.0, 1.0)
    max_gap: int = _setting(
        2, 'Through how many frames a track may be missing and still keep its id.', 0, 100)
    verification: Verification = _setting(
        'fundamental', 'Geometric model that marks outliers among the matches.',
        choices=VERIFICATIONS)
    max_error: float = _setting(
        2.0, 'Distance to the geometric model up to which a match is an inlier, pixels.',
        0.05, 100.0)
    refinement: Refinement = _setting(
        'none', 'Positions of tracks: none, as detected; flow, aligned by optical flow, which also '
        'propagates tracks through up to max_gap frames in which they are not detected. With flow, '
        'keypoints and correspondences have the fields refined and missed.', choices=REFINEMENTS)
    restart_after: float = _setting(
        1.0, 'All tracks are restarted after a gap between stamps longer than this, seconds.',
        0.01, 86400.0)
    descriptor_encoding: DescriptorEncoding = _setting(
        'float32', 'Descriptors in the keypoints message: float32, int8 (a quarter of the size, '
        'normalise after reading) or none.', choices=DESCRIPTOR_ENCODINGS)
    vins_layout: VinsLayout = _setting(
        'none', 'Layout of the tracks topic: mono (VINS-Mono, 5 channels), fusion (VINS-Fusion, '
        '9 channels) or none (not published). Needs camera_info.', choices=VINS_LAYOUTS)
    max_tracks: int = _setting(
        0, 'The most tracks of one image on the tracks topic, spread evenly over the image, the '
        'oldest first; with refinement flow, those of the last message and those refined in this '
        'image before all others; 0: all.', 0, 65536)
    camera_id: int = _setting(
        0, 'Camera in the VINS-Fusion layout of a camera\'s own tracks: 0 left, 1 right.', 0, 1)
    overlay: bool = _setting(
        True, 'Draw the tracks on the overlay topic while somebody subscribes to it.')
    overlay_colour_by: ColourBy = _setting(
        'age', 'What the colour of a track on the overlay shows.', choices=COLOUR_BY)
    overlay_trail: int = _setting(
        12, 'How many frames the trails on the overlay reach back.', 0, 200)
    overlay_max_rate: float = _setting(
        0.0, 'At most so many overlays per second; 0: one for each frame.', 0.0, 1000.0)
    cameras: str = _setting(
        '', 'Names of several cameras, separated by commas, for example left,right: each has its '
        'topics below its name, one network serves them all. Empty: one camera, no name.',
        read_only=True)
    max_stamp_difference: float = _setting(
        0.0, 'Images of several cameras belong together when their stamps differ by no more, '
        'seconds. 0: equal stamps; else less than half the time between two images.', 0.0, 10.0)
    stereo: bool = _setting(
        False, 'Match the first of two cameras, the left one, with the second: topic stereo, and '
        'with vins_layout fusion both in one tracks topic.', read_only=True)
    rectified: bool = _setting(
        False, 'The images are rectified already: P of camera_info holds for them, not K and D.',
        read_only=True)
    count_low: int = _setting(
        0, 'Raw value of a 16UC1 image (thermal camera) that becomes black.', 0, 65535,
        read_only=True)
    count_high: int = _setting(
        0, 'Raw value of a 16UC1 image that becomes white. Not above count_low: the 1st and 99th '
        'percentile of each image are used.', 0, 65535, read_only=True)
    image_transport: str = _setting(
        'raw', 'Input: raw (topic image) or compressed (topic image/compressed).',
        choices=('raw', 'compressed'), read_only=True)
    qos_reliability: str = _setting(
        'best_effort', 'Reliability asked of the image publisher. best_effort takes any publisher; '
        'reliable only a reliable one.', choices=('best_effort', 'reliable'), read_only=True)
    qos_depth: int = _setting(
        5, 'Queue length of the image subscription. Images are taken off it at once and the newest '
        'is served, so that length adds no latency; with a short one, images of a burst are lost '
        'before they can be counted.', 1, 100, read_only=True)
    autostart: bool = _setting(
        True, 'Configure and activate at start. If false, wait for lifecycle transitions.',
        read_only=True)
    diagnostics_period: float = _setting(
        1.0, 'Time between two messages on /diagnostics, seconds.', 0.1, 60.0, read_only=True)
    expected_rate: float = _setting(
        0.0, 'Images per second that should come in; diagnostics warn below 80 % of it. '
        '0: no expectation.', 0.0, 10000.0)
    warn_latency: float = _setting(
        0.2, 'Diagnostics warn when the median from image received to tracks published is '
        'longer, seconds.', 0.0, 3600.0)
    error_latency: float = _setting(
        1.0, 'Diagnostics report an error when that median is longer, seconds.', 0.0, 3600.0)
    warn_drops: float = _setting(
        1.0, 'Diagnostics warn when a larger share of the recent frames was dropped, 0 to 1.',
        0.0, 1.0)
    warn_matches: int = _setting(
        20, 'Diagnostics warn when a frame has fewer inlier matches.', 0, 65536)

    def __post_init__(self) -> None:
        for setting in SETTINGS.values():
            setting.check(getattr(self, setting.name))
        if 0 < self.max_side < MIN_SIDE:
            raise SettingError(f'max_side: expected 0 or at least {MIN_SIDE}, got {self.max_side}')
        names = self.camera_names
        for name in names:
            if name and not re.fullmatch(_CAMERA_NAME, name):
                raise SettingError(
                    f"cameras: expected names of letters, digits and underscores, got '{name}'"
                )
        if len(set(names)) < len(names) or (len(names) > 1 and '' in names):
            raise SettingError(f"cameras: expected different names, got '{self.cameras}'")
        if self.stereo and len(names) != 2:
            raise SettingError(
                f"stereo: expected two names in cameras, left first, got '{self.cameras}'"
            )
        if self.error_latency < self.warn_latency:
            raise SettingError(
                f'error_latency: expected at least warn_latency ({self.warn_latency}), '
                f'got {self.error_latency}'
            )

    @property
    def camera_names(self) -> tuple[str, ...]:
        """The names of the cameras; an empty string for a single camera without a name."""
        return tuple(name.strip('/ ') for name in self.cameras.split(','))

    @property
    def raw_range(self) -> RawValueRange:
        """The range of the raw values of 16UC1 images."""
        return RawValueRange(self.count_low, self.count_high)

    @property
    def exact(self) -> bool:
        """Whether descriptors are compared in float32."""
        return self.precision == 'fp32'

    @property
    def detection(self) -> DetectionSettings:
        """The settings of the keypoint detection."""
        return DetectionSettings(
            self.max_keypoints, self.score_threshold, self.nms_radius, self.border
        )

    @property
    def tracking(self) -> TrackingSettings:
        """The settings of matching and tracking."""
        return TrackingSettings(
            self.max_gap, self.min_similarity, self.verification, self.max_error,
            exact=self.exact, refinement=self.refinement, border=self.border,
        )

    def changed(self, values: Mapping[str, Any]) -> TrackerSettings:
        """Return these settings with some values replaced.

        Raises:
            SettingError: for a value of the wrong type or out of range.
        """
        return replace(self, **cast(Any, dict(values)))


#: Every parameter by name, in the order of the documentation.
SETTINGS: dict[str, Setting] = {
    f.name: Setting(f.name, cast(Any, f.default), *f.metadata['about'])
    for f in fields(TrackerSettings)
}


_PAGE = """# Parameters of the tracker

Written by `python -m mdnet_ros.tracker.settings > docs/parameters.md`; do not edit.

Set them in a file of `config/`, as `-p NAME:=VALUE`, or, where *live* says yes, at run time:
`ros2 param set /tracker NAME VALUE`. A value that is refused comes back with the reason, and the
node keeps all old values, also where several are set at once. *reloads*: the network is loaded
while frames are still processed with the old one; then all tracks are restarted, and ids are not
reused.

The `qos_overrides` of REP 2003 exist for every topic, for history, depth and reliability.

"""


def settings_markdown() -> str:
    """Return ``docs/parameters.md``, with the parameters as a Markdown table."""
    lines = [
        '| parameter | type | default | allowed | live | what it does |',
        '|---|---|---|---|---|---|',
    ]
    types = {bool: 'bool', int: 'integer', float: 'double', str: 'string'}
    for setting in SETTINGS.values():
        default = str(setting.default)
        if isinstance(setting.default, bool):
            default = default.lower()
        live = 'no' if setting.read_only else 'reloads' if setting.reloads else 'yes'
        lines.append(
            f'| `{setting.name}` | {types[type(setting.default)]} | '
            f'{f"`{default}`" if default else "empty"} | {setting.range} | {live} | '
            f'{setting.description} |'
        )
    return _PAGE + '\n'.join(lines) + '\n'


if __name__ == '__main__':
    print(settings_markdown(), end='')
