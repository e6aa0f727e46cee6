"""Where a surface of losses bends down, as a convex one nowhere does."""

import numpy as np


def bends_down(grid: np.ndarray) -> np.ndarray:
    """Say for every inner point of a grid `[rows, columns]` whether the surface bends down there in some direction.

    So it does where the smaller eigenvalue of the matrix of its second differences is negative: `[rows-2, columns-2]`.
    """
    middle = grid[1:-1, 1:-1]
    along = grid[2:, 1:-1] - 2 * middle + grid[:-2, 1:-1]
    across = grid[1:-1, 2:] - 2 * middle + grid[1:-1, :-2]
    mixed = (grid[2:, 2:] - grid[2:, :-2] - grid[:-2, 2:] + grid[:-2, :-2]) / 4
    bent: np.ndarray = (along + across) / 2 - np.hypot((along - across) / 2, mixed) < 0
    return bent
