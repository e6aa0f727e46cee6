"""Anchors: the boxes of a few sizes and shapes at every position of the map, from which proposals are predicted."""

import numpy as np


def anchor_shapes(sizes: tuple[float, ...], ratios: tuple[float, ...]) -> np.ndarray:
    """List the widths and heights `[len(sizes) * len(ratios), 2]`: of area size^2, with height / width = ratio.

    All ratios of the first size come first.
    """
    return np.array([(size / ratio**0.5, size * ratio**0.5) for size in sizes for ratio in ratios], np.float32)


def anchor_grid(height: int, width: int, stride: int, shapes: np.ndarray) -> np.ndarray:
    """Centre every shape on every position of a map: `[height * width * len(shapes), 4]`, in pixels of the image.

    Position (row, column) stands for the pixel square of side `stride` there. Rows come first, then columns, then
    shapes (Ren et al. 2015, section 3.1).
    """
    rows, columns = ((np.arange(count, dtype=np.float32) + 0.5) * stride for count in (height, width))
    x, y = np.meshgrid(columns, rows)
    centres = np.stack([x, y], -1)[:, :, None]
    return np.concatenate([centres - shapes / 2, centres + shapes / 2], -1).reshape(-1, 4)
