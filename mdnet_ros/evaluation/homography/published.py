"""Published results on HPatches; reports show them beside measured ones, marked as such.

They are mean matching accuracy and matching score at 1, 2 and 3 px on the 108-sequence protocol,
with mutual nearest neighbours. MD-2-Net and the methods with a matching score are from
F. Fraundorfer's lecture "Machine Learned Features".
"""

from __future__ import annotations

from dataclasses import dataclass, field

Triple = tuple[float, float, float]

_LECTURE = 'lecture "Machine learned features"'
_CURVES = 'result curves cached by feature repositories'


@dataclass(frozen=True)
class PublishedRow:
    """Metrics of one method.

    Attributes:
        name: name of the method.
        source: where the results were published.
        mma: MMA at 1, 2 and 3 px, by group (``viewpoint``, ``illumination``, ``overall``).
        ms: matching score at 1, 2 and 3 px, by group; empty where it was not published.
    """

    name: str
    source: str
    mma: dict[str, Triple]
    ms: dict[str, Triple] = field(default_factory=dict)


def _lecture(name: str, mma: tuple[Triple, ...], ms: tuple[Triple, ...]) -> PublishedRow:
    groups = ('viewpoint', 'illumination', 'overall')
    return PublishedRow(
        name, _LECTURE, dict(zip(groups, mma, strict=True)), dict(zip(groups, ms, strict=True))
    )


PUBLISHED = (
    _lecture(
        'MD-2-Net',
        ((0.316, 0.600, 0.722), (0.480, 0.658, 0.765), (0.398, 0.630, 0.743)),
        ((0.171, 0.313, 0.393), (0.242, 0.323, 0.368), (0.206, 0.317, 0.369)),
    ),
    _lecture(
        'R2D2',
        ((0.280, 0.568, 0.700), (0.377, 0.660, 0.797), (0.326, 0.612, 0.747)),
        ((0.118, 0.228, 0.273), (0.170, 0.285, 0.336), (0.143, 0.255, 0.304)),
    ),
    _lecture(
        'ASLFeat',
        ((0.332, 0.565, 0.675), (0.469, 0.664, 0.774), (0.398, 0.613, 0.723)),
        ((0.203, 0.338, 0.398), (0.290, 0.398, 0.456), (0.245, 0.367, 0.426)),
    ),
    _lecture(
        'Upright-SIFT',
        ((0.313, 0.472, 0.533), (0.344, 0.475, 0.528), (0.327, 0.473, 0.531)),
        ((0.167, 0.247, 0.277), (0.161, 0.216, 0.238), (0.164, 0.232, 0.258)),
    ),
    *(
        PublishedRow(name, _CURVES, {'overall': mma})
        for name, mma in {
            'DISK': (0.437, 0.670, 0.776),
            'DISK, 2048 keypoints': (0.415, 0.669, 0.753),
            'R2D2, several scales': (0.333, 0.622, 0.758),
            'R2D2, synthetic training': (0.405, 0.612, 0.699),
            'ASLFeat v2': (0.407, 0.632, 0.743),
            'ALIKE-L': (0.450, 0.662, 0.745),
            'ALIKE-N': (0.435, 0.631, 0.708),
            'SuperPoint': (0.343, 0.549, 0.654),
            'HardNet++': (0.331, 0.522, 0.616),
            'RootSIFT': (0.313, 0.486, 0.562),
        }.items()
    ),
)
