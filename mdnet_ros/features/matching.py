"""Matches descriptors by mutual nearest neighbour inside each keypoint set."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

from mdnet_ros.features.types import Features, Matches, StepMatches

#: Score of an impossible pair: below every cosine, and every product of 8-bit descriptors.
_NEVER, _NEVER_INT = -2.0, -(2**31) + 1
#: Cosines in one tile of the table on the CPU: 4 MiB of float32, which fits in a cache.
_TILE = 1 << 20
#: Largest entry of an 8-bit descriptor.
_LEVELS = 127


def mutual_nearest(
    desc_a: torch.Tensor,
    valid_a: torch.Tensor,
    desc_b: torch.Tensor,
    valid_b: torch.Tensor,
    exact: bool = True,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Find mutual nearest neighbours by cosine, within each entry of the batch.

    Args:
        desc_a: (K, M, D) unit-norm descriptors; M, N may be 0.
        valid_a: (K, M) bool.
        desc_b: (K, N, D).
        valid_b: (K, N) bool.
        exact: compare float32 products. Otherwise products of descriptors rounded to 8 bits are
            compared, if the processor has instructions for them (x86 with AVX-512 VNNI): several
            times faster, but among nearly equal partners another one may win.

    Returns:
        (K, M) int64, the partner of each row of ``a`` in ``b`` or -1; and (K, M) float32,
        their cosine (always a float32 product). Among equally near rows of ``a`` the first is the
        partner; among equally near rows of ``b``, the one that the device's arg-max returns. The
        result is one to one.
    """
    k, m, n = desc_a.shape[0], desc_a.shape[1], desc_b.shape[1]
    if m == 0 or n == 0:
        return (
            torch.full((k, m), -1, dtype=torch.int64, device=desc_a.device),
            torch.zeros((k, m), device=desc_a.device),
        )
    on_cpu = desc_a.device.type == 'cpu'
    rounded = not exact and has_fast_integers(desc_a.device)
    nearest = _nearest_in_tiles if on_cpu else _nearest
    seen_a, seen_b = (_rounded(d) if rounded else d for d in (desc_a, desc_b))
    forward, best, columns = nearest(seen_a, valid_a, seen_b, valid_b)
    # A row is mutual if its maximum is also the maximum of that column. Comparing values needs
    # the maxima of the columns only, which are ten times cheaper on the CPU than their arg-max.
    mutual = (best == columns) & (best > _never(best.dtype))
    rows = torch.arange(m, device=desc_a.device).expand(k, m)
    # Several rows may tie for a column (binary descriptors often do): the first wins.
    first = torch.full((k, n), m, dtype=torch.int64, device=desc_a.device)
    first.scatter_reduce_(1, forward, torch.where(mutual, rows, m), 'amin')
    mutual &= first.gather(1, forward) == rows
    if rounded:
        partners = desc_b.flatten(0, 1)[forward + n * torch.arange(k)[:, None]]
        best = torch.linalg.vecdot(desc_a, partners)
    return torch.where(mutual, forward, -1), best.float()


@lru_cache(maxsize=4)
def has_fast_integers(device: torch.device) -> bool:
    """Return whether it is a CPU with instructions for 8-bit products that torch uses."""
    if device.type != 'cpu':
        return False
    # No public name for either as yet.
    return hasattr(torch, '_int_mm') and getattr(torch.cpu, '_is_vnni_supported', bool)()


def _rounded(desc: torch.Tensor) -> torch.Tensor:
    """Round descriptors to int8 so that their largest entry becomes ``_LEVELS``."""
    largest = desc.abs().amax().clamp(min=torch.finfo(torch.float32).tiny)
    return (desc * (_LEVELS / largest)).round_().to(torch.int8)


def _never(dtype: torch.dtype) -> float:
    return _NEVER if dtype.is_floating_point else _NEVER_INT


_Nearest = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def _nearest(
    desc_a: torch.Tensor, valid_a: torch.Tensor, desc_b: torch.Tensor, valid_b: torch.Tensor
) -> _Nearest:
    """Return each row's nearest column, its cosine, and the maximum of that column: (K, M)."""
    similarity = torch.bmm(desc_a, desc_b.transpose(1, 2))
    similarity = similarity.masked_fill(~(valid_a[:, :, None] & valid_b[:, None, :]), _NEVER)
    best, forward = similarity.max(dim=2)
    return forward, best, similarity.amax(dim=1).gather(1, forward)


def _nearest_in_tiles(
    desc_a: torch.Tensor, valid_a: torch.Tensor, desc_b: torch.Tensor, valid_b: torch.Tensor
) -> _Nearest:
    """Compute :func:`_nearest` for some rows at a time, so that a tile stays in a core's cache.

    The whole table of cosines would be written to memory and read back three times, with page
    faults at each call: twice the time at 2048 keypoints, more at 8192.
    """
    k, m, n = desc_a.shape[0], desc_a.shape[1], desc_b.shape[1]
    rounded = desc_a.dtype == torch.int8
    dtype, product = (torch.int32, torch._int_mm) if rounded else (desc_a.dtype, torch.mm)
    never = _never(dtype)
    forward = torch.empty((k, m), dtype=torch.int64)
    best = torch.empty((k, m), dtype=dtype)
    columns = torch.full((k, n), never, dtype=dtype)
    size = max(1, min(m, _TILE // n))
    tile = torch.empty((size, n), dtype=dtype)
    all_a, all_b = bool(valid_a.all()), bool(valid_b.all())
    for i in range(k):
        for start in range(0, m, size):
            rows = slice(start, min(m, start + size))
            part = product(desc_a[i, rows], desc_b[i].T, out=tile[: rows.stop - start])
            if not all_b:
                part[:, ~valid_b[i]] = never
            if not all_a:
                part[~valid_a[i, rows]] = never
            forward[i, rows] = _argmax_rows(part)
            torch.amax(part, 1, out=best[i, rows])
            torch.maximum(columns[i], part.amax(0), out=columns[i])
    return forward, best, columns.gather(1, forward)


def _argmax_rows(table: torch.Tensor) -> torch.Tensor:
    """Return the (M,) int64 arg-max along the last axis; NumPy's is ten times faster if it can."""
    if table.dtype in (torch.float32, torch.int32):
        return torch.from_numpy(table.numpy().argmax(1))
    return table.argmax(dim=1)


def _by_set(features: Features, num_sets: int) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Return descriptors padded to (K, M, D), validity (K, M), and the row of each slot (K, M)."""
    counts = np.bincount(features.sets, minlength=num_sets)
    padded = features.padded
    if padded is not None and padded.valid.shape[1] == num_sets:
        rows = (np.cumsum(counts) - counts)[:, None] + np.arange(padded.valid.shape[2])
        return padded.descriptors[0], padded.valid[0], rows
    m = int(counts.max()) if len(features) else 0
    order = np.argsort(features.sets, kind='stable')
    slots = np.arange(len(features)) - np.repeat(np.cumsum(counts) - counts, counts)
    sets = features.sets[order]
    rows = np.full((num_sets, m), -1, np.int64)
    rows[sets, slots] = order
    table = np.zeros((num_sets, m, features.descriptors.shape[1]), np.float32)
    table[sets, slots] = features.descriptors[order]
    return torch.from_numpy(table), torch.from_numpy(rows >= 0), rows


def match_mutual_nearest(
    a: Features,
    b: Features,
    *,
    across_sets: bool = False,
    min_similarity: float = -1.0,
    exact: bool = True,
) -> Matches:
    """Match the features of two images by mutual nearest neighbour.

    Args:
        a: features of the first image.
        b: features of the second image, same descriptor length.
        across_sets: match all keypoints against all, ignoring the sets (for comparison).
        min_similarity: matches with a lower cosine are dropped.
        exact: compare float32 products, see :func:`mutual_nearest`.

    Returns:
        The matches, ordered by row in ``a``.

    Raises:
        ValueError: if the descriptors differ in length.
    """
    if a.descriptors.shape[1:] != b.descriptors.shape[1:]:
        raise ValueError(
            'descriptors: expected the same length in both images, got '
            f'{a.descriptors.shape[1:]} and {b.descriptors.shape[1:]}'
        )
    if across_sets:
        a_desc, b_desc = (
            torch.from_numpy(np.ascontiguousarray(f.descriptors))[None] for f in (a, b)
        )
        a_valid, b_valid = (torch.ones(d.shape[:2], dtype=torch.bool) for d in (a_desc, b_desc))
        a_rows, b_rows = (np.arange(len(f))[None] for f in (a, b))
    else:
        num_sets = max(a.num_sets, b.num_sets)
        a_desc, a_valid, a_rows = _by_set(a, num_sets)
        b_desc, b_valid, b_rows = _by_set(b, num_sets)
    known = None if across_sets else _matches_of_frame_step(a, b)
    if known is not None:
        partner, cosine = known.partner, known.similarity
    else:
        device = a_desc.device
        found = mutual_nearest(a_desc, a_valid, b_desc.to(device), b_valid.to(device), exact)
        partner, cosine = (table.cpu().numpy() for table in found)
    which, slot = np.nonzero((partner >= 0) & (cosine >= min_similarity))
    rows_a = a_rows[which, slot]
    rows_b = b_rows[which, partner[which, slot]]
    order = np.argsort(rows_a, kind='stable')
    indices = np.stack([rows_a, rows_b], axis=1)[order]
    return Matches(indices=indices, similarity=cosine[which, slot][order])


def _matches_of_frame_step(a: Features, b: Features) -> StepMatches | None:
    """Return the matches from ``a`` to ``b`` if one pass found them with the features of ``a``."""
    if a.padded is None or b.padded is None or not a.padded.matches or not b.padded.matches:
        return None
    matches, earlier = a.padded.matches[0], b.padded.matches[0]
    if matches.previous is None or matches.previous() is not earlier:
        return None
    return matches
