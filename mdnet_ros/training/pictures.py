"""Pictures for the training log: heatmaps, keypoints and matches of a validation pair."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from mdnet_ros.features.detection import DetectionSettings, detect
from mdnet_ros.features.matching import mutual_nearest
from mdnet_ros.features.network import MDNet
from mdnet_ros.training.views import ViewPair
from mdnet_ros.training.warps import apply_homography

_COLOURS = ((0, 0, 255), (255, 160, 0), (0, 200, 0), (200, 0, 200))
_KEYPOINTS = 200


@torch.no_grad()
def draw_pair(network: MDNet, pairs: ViewPair, which: int) -> np.ndarray:
    """One pair as a picture: views with keypoints, heatmap of each set, matches.

    Matches that are right within 3 px are green, wrong ones red.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    network.eval()
    count = len(pairs.to_second)
    images = pairs.images[[which, count + which]]
    output = network(images.contiguous(memory_format=torch.channels_last))
    side = images.shape[-1]
    found = detect(output, DetectionSettings(_KEYPOINTS), (side, side))
    views, heats = [], []
    for v in range(2):
        gray = (images[v, 0].cpu().numpy() * 255).astype(np.uint8)
        view = cv2.cvtColor(gray, cv2.COLOR_GRAY2BGR)
        for n in range(found.valid.shape[1]):
            for x, y in found.keypoints[v, n][found.valid[v, n]].cpu().numpy():
                colour = _COLOURS[n % len(_COLOURS)]
                cv2.circle(view, (round(float(x)), round(float(y))), 2, colour, 1, cv2.LINE_AA)
        views.append(view)
        for n in range(min(2, found.valid.shape[1])):
            heat = output.logits[v, n].float().sigmoid().cpu().numpy()
            heats.append(cv2.applyColorMap((heat * 255).astype(np.uint8), cv2.COLORMAP_INFERNO))
    top = np.hstack([views[0], views[1]])
    matches = np.hstack([views[0], views[1]])
    one, two = found[0], found[1]
    partner, _ = mutual_nearest(
        one.descriptors[0], one.valid[0], two.descriptors[0], two.valid[0]
    )
    truth = apply_homography(pairs.to_second[which : which + 1], one.keypoints)[0]
    for n, i in (partner >= 0).nonzero().tolist():
        a, b = one.keypoints[0, n, i], two.keypoints[0, n, partner[n, i]]
        right = float((truth[n, i] - b).norm()) <= 3.0
        cv2.line(
            matches,
            (round(float(a[0])), round(float(a[1]))),
            (round(float(b[0])) + side, round(float(b[1]))),
            (0, 220, 0) if right else (0, 0, 255), 1, cv2.LINE_AA,
        )
    half = len(heats) // 2
    rows = [top, *(np.hstack([heats[n], heats[half + n]]) for n in range(half)), matches]
    return cv2.cvtColor(np.vstack(rows), cv2.COLOR_BGR2RGB)
