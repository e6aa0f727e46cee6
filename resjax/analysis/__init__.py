"""Functions that measure networks, or that change their blocks and weights."""

from resjax.analysis.blocks import (
    gives_back,
    residual_ratios,
    with_identity_blocks,
    with_swapped_blocks,
    without_block,
)
from resjax.analysis.landscape import landscape
from resjax.analysis.layers import activation_norms, gradient_norms, response_deviations, with_gain
from resjax.analysis.saliency_maps import saliency

__all__ = ["activation_norms", "gives_back", "gradient_norms", "landscape", "residual_ratios", "response_deviations",
           "saliency", "with_gain", "with_identity_blocks", "with_swapped_blocks", "without_block"]
