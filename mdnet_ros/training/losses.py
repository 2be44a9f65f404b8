"""The training's losses. Each is its own function; :mod:`mdnet_ros.training.objective` adds them.

Heatmaps are D = sigmoid(z) of the logits z. Sources: MD-Net (Santellani et al., ICPR 2022), by its
abstract and the lecture "MD-Net: Multi-Detector Network", for similarity, peaky, intersection,
triplet and the descriptor-based weighting, marked [MD-Net] below; ALIKE (Zhao et al., 2022) for the
reprojection of soft arg-max peaks.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from mdnet_ros.features.detection import slide_max

#: Side of the moving window of the peaky loss, pixels [MD-Net].
WINDOW = 16
#: Margin of the triplet loss [MD-Net].
MARGIN = 0.5


def masked_mean(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Weighted mean; 0 where nothing has weight.

    Args:
        values: any shape.
        weight: broadcastable to it, not negative.
    """
    weight = weight.to(values.dtype).expand_as(values)
    return (values * weight).sum() / weight.sum().clamp(min=1e-6)


def similarity_loss(
    heatmap: torch.Tensor, other: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    """Heatmaps of two views should correspond: L_sim = (D - unwarp(D'))² [MD-Net].

    Args:
        heatmap: (B, K, H, W) in [0, 1], of one view.
        other: (B, K, H, W), the other view's heatmap resampled into this one.
        weight: (B, 1, H, W), 0 where the views do not overlap.

    Returns:
        Scalar; 0 for a perfect pair.
    """
    return masked_mean((heatmap - other) ** 2, weight)


def peaky_loss(
    heatmap: torch.Tensor, weight: torch.Tensor | None = None, window: int = WINDOW
) -> torch.Tensor:
    """Every window should hold one clear peak: L_peaky = 1 - (max_p D - mean_p D)
    [MD-Net].

    Unweighted, this drives windows on flat ground to a saturated peak as well; weigh windows by
    how reliable their descriptors are.

    Args:
        heatmap: (B, K, H, W) in [0, 1].
        weight: (B, K or 1, H, W), averaged over each window; all ones if None.
        window: side of the moving window p, pixels; it moves by a quarter of that.

    Returns:
        Scalar in [0, 1]; near 0 for a single full peak in each window.
    """
    stride = max(1, window // 4)
    sharpness = F.max_pool2d(heatmap, window, stride) - F.avg_pool2d(heatmap, window, stride)
    if weight is None:
        return (1.0 - sharpness).mean()
    return masked_mean(1.0 - sharpness, F.avg_pool2d(weight.to(heatmap.dtype), window, stride))


def windows_of(maps: torch.Tensor, window: int, offset: tuple[int, int]) -> torch.Tensor:
    """Cut maps into a grid of windows that starts at an offset.

    Args:
        maps: (B, C, H, W).
        window: side, pixels.
        offset: (y, x) of the first window, pixels; less than the side.

    Returns:
        (B, C, N, window²).
    """
    b, c, h, w = maps.shape
    # One window less than fits without an offset: as many for every offset.
    rows, cols = h // window - 1, w // window - 1
    cut = maps[:, :, offset[0] : offset[0] + rows * window, offset[1] : offset[1] + cols * window]
    cut = cut.reshape(b, c, rows, window, cols, window).permute(0, 1, 2, 4, 3, 5)
    return cut.reshape(b, c, rows * cols, window * window)


def agreement_loss(
    logits: torch.Tensor, other: torch.Tensor, valid: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    """Similarity and peakiness at once: both views put the peak of a window in the same pixel.

    Each window's logits make a distribution over its pixels, p = softmax(z) in one view and
    q = softmax(z') in the other, resampled. The loss is the symmetric cross-entropy
    -½ Σ (p log q + q log p), relative to that of a uniform window: 0 when both are the same single
    pixel, 1 when nothing in the window stands out. Unlike the peaky loss it gains nothing from a
    peak on flat ground that the other view does not repeat, and it leaves the level of the
    scores free for :func:`reliability_loss`.

    Args:
        logits: (B, K, N, P) windows of one view.
        other: (B, K, N, P) the same windows, resampled from the other view.
        valid: (B, 1, N, P) bool, the pixel is seen by both.
        weight: (B, 1 or K, N) of each window.
    """
    p_log = logits.masked_fill(~valid, -1e4).log_softmax(-1)
    q_log = other.masked_fill(~valid, -1e4).log_softmax(-1)
    p_log, q_log = p_log.clamp(min=-30.0), q_log.clamp(min=-30.0)
    cross = -0.5 * (p_log.exp() * q_log + q_log.exp() * p_log).sum(-1)
    uniform = valid.sum(-1).clamp(min=2).to(cross.dtype).log()
    return masked_mean(cross / uniform, weight)


def intersection_loss(
    logits: torch.Tensor, valid: torch.Tensor, weight: torch.Tensor, side: int = WINDOW
) -> torch.Tensor:
    """Sets should be complementary: no two of them peak at the same place.

    With p_n the distribution of set n over a window, two sets share
    Σ_x max_{|d| ≤ 1} p_n(x + d) · p_m(x): 0 when they are disjoint, 1 when they peak in the same
    pixel. What a set shares with each of the others adds up, and the mean over the sets counts: up
    to K - 1. (The mean over the pairs let four sets end as two with a copy each.)

    Args:
        logits: (B, K, N, P) windows with P = side².
        valid: (B, 1, N, P) bool.
        weight: (B, 1, N) of each window.
        side: side of a window, pixels.
    """
    b, k, n, _ = logits.shape
    if k < 2:
        return logits.sum() * 0.0
    p = logits.masked_fill(~valid, -1e4).softmax(-1)
    near = slide_max(p.reshape(b * k, n, side, side), 1).reshape_as(p)
    overlap = torch.einsum('bknp,bmnp->bkmn', near, p)
    pairs = [overlap[:, i, j] for i in range(k) for j in range(i + 1, k)]
    return (k - 1) * masked_mean(torch.stack(pairs, 1), weight)


def reliability_loss(
    logits: torch.Tensor, quality: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    """Make a detection's score the chance that its match is right (descriptor-based weighting).

    The binary cross-entropy between sigmoid(logit at the peak) and the measured quality of the
    keypoint's match. Detections whose descriptors do not discriminate, or that the other view
    does not repeat, are pushed down; those that match precisely are pushed up; and the scores
    stay calibrated instead of saturating.

    Args:
        logits: (B, K, M) at detected peaks.
        quality: (B, K, M) in [0, 1], no gradient.
        weight: (B, K, M), 0 for padding and for keypoints the other view cannot see.
    """
    loss = F.binary_cross_entropy_with_logits(logits, quality.to(logits.dtype), reduction='none')
    return masked_mean(loss, weight)


def reprojection_loss(
    keypoints: torch.Tensor, partners: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    """Sub-pixel accuracy: repeated peaks should lie exactly on each other.

    Mean L1 distance between a view's refined peaks, warped by the true map, and the other
    view's refined peaks.

    Args:
        keypoints: (B, K, M, 2) pixels in the other view.
        partners: (B, K, M, 2) pixels.
        weight: (B, K, M), 1 where the two are the same physical point.
    """
    return masked_mean((keypoints - partners).abs().sum(-1), weight)


def triplet_loss(
    similarity: torch.Tensor,
    negatives: torch.Tensor,
    negatives_back: torch.Tensor,
    weight: torch.Tensor,
    temperature: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """L = [m - S(f, f₊) + S(f, f₋)]₊ with m = 0.5, in both directions [MD-Net].

    S(f, f₋) is the soft maximum over the negatives, τ log Σ exp(S / τ): never below the
    hardest one's, and the nearer to it the smaller τ. Starting with the hardest alone collapses
    all descriptors to one within a few hundred steps, so the training lowers τ slowly; the soft
    maximum also pushes on all hard negatives at once.

    Args:
        similarity: (B, N, N), of descriptor i of the first view to descriptor j of the second;
            the diagonal holds the true matches.
        negatives: (B, N, N) bool, j of the second view competes for i of the first.
        negatives_back: (B, N, N) bool, i of the first view competes for j of the second.
        weight: (B, N) of each true match.
        temperature: τ > 0.

    Returns:
        The loss, and the (B, N) similarity of the hardest negative in the second view, for logging
        (no gradient).
    """
    positive = similarity.diagonal(dim1=1, dim2=2)
    raised = ((similarity - 1.0) / temperature).clamp(min=-80.0).exp()
    loss = similarity.new_zeros(())
    for axis, allowed in ((2, negatives), (1, negatives_back)):
        total = (raised * allowed).sum(axis)
        negative = 1.0 + temperature * total.clamp(min=1e-35).log()
        violation = F.relu(MARGIN - positive + negative)
        loss = loss + 0.5 * masked_mean(violation, weight * allowed.any(axis))
    hardest = similarity.detach().masked_fill(~negatives, -1.0).amax(2)
    return loss, hardest


def dual_softmax_loss(
    similarity: torch.Tensor,
    negatives: torch.Tensor,
    negatives_back: torch.Tensor,
    weight: torch.Tensor,
    temperature: float,
) -> torch.Tensor:
    """The chance of the true match in both directions: L = -½ log p(j | i) - ½ log p(i | j).

    p is the soft-max of S / t over the true match and its negatives, as in the dual-softmax
    matching of LoFTR (Sun et al. 2021, eq. 1) and the NRE of Germain et al. (2021). Unlike the
    triplet it goes on learning where the margin is kept.

    Args:
        similarity, negatives, negatives_back, weight: as in :func:`triplet_loss`.
        temperature: t > 0.
    """
    positive = similarity.diagonal(dim1=1, dim2=2)
    raised = ((similarity - 1.0) / temperature).clamp(min=-80.0).exp()
    own = ((positive - 1.0) / temperature).clamp(min=-80.0).exp()
    loss = similarity.new_zeros(())
    for axis, allowed in ((2, negatives), (1, negatives_back)):
        total = (raised * allowed).sum(axis)
        loss = loss + 0.5 * masked_mean(((own + total) / own).log(), weight)
    return loss
