"""The direction of derivatives that are narrower than a pixel, where a fitted shape's angle says next to nothing.

Two or three pixels of one row are a Gaussian's derivative of width 0.3 along nearly any angle, or, of order two, look
most like one that is turned by ten degrees. Their circular harmonic of the same order m has an angle all the same:

    C = Σ k·z^m·w,  z = x + iy about the fitted centre,  w = exp(-|z|²/(2·0.8²))

For m = 1 that is the windowed first moment, for m = 2 the part of the second that is not alike in all directions. A
kernel that varies along θ has arg C = m·θ. For m = 2 its sign is that of its response to a Laplacian of a Gaussian.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from evocompress.ideas.kernels.shapes import CENTRE_X, CENTRE_Y, LOG_SIGMA_U, LOG_SIGMA_V, THETA, Floats, pixels

__all__ = ["steered"]

_WINDOW = 0.8  # pixels
# Above these widths in pixels, by order, a fit meets enough pixels for its angle to be known; a second derivative has
# lobes farther from its middle, and what the harmonic misses between pixels biases it.
_NARROW = {1: 0.8, 2: 0.45}


def steered(order: Literal[1, 2], kernels: Floats, parameters: Floats, height: int, width: int) -> Floats:
    """Parameters (K, 6) of fitted derivatives, with the harmonic's angle where both widths are narrow.

    Args:
        order: Of the derivative.
        kernels: (K, height·width).
        parameters: Of the fits, as `shapes.sampled` has them.
        height: Of the kernels, and `width`.

    >>> forward = np.array([[0.0, 0, 0, 0, -1, 1, 0, 0, 0]])
    >>> fit = np.array([[1.3, np.log(0.3), np.log(0.3), 0.5, 0.0, 0.0]])
    >>> steered(1, forward, fit, 3, 3)[0, :2].round(3).tolist()
    [0.0, -1.204]
    """
    x, y = pixels(height, width)
    displacement = (x - parameters[:, [CENTRE_X]]) + 1j * (y - parameters[:, [CENTRE_Y]])
    scaled = np.square(np.abs(displacement) / _WINDOW) / 2
    windowed = kernels * np.exp(-scaled)
    harmonic = (windowed * displacement**order).sum(axis=1)
    if order == 2:
        harmonic = harmonic * np.sign((windowed * (scaled - 1)).sum(axis=1))
    narrow = np.maximum(parameters[:, LOG_SIGMA_U], parameters[:, LOG_SIGMA_V]) < np.log(_NARROW[order])
    turned = parameters.copy()
    turned[:, THETA] = np.where(narrow & (harmonic != 0), np.angle(harmonic) / order, parameters[:, THETA])
    return turned
