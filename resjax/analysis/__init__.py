"""What can be measured on a network and its variables: pure functions that return arrays."""

from resjax.analysis.blocks import (
    gives_back,
    residual_ratios,
    with_identity_blocks,
    with_swapped_blocks,
    without_block,
)
from resjax.analysis.counts import Layer, count_macs, count_parameters, list_layers, variable_shapes
from resjax.analysis.landscape import landscape
from resjax.analysis.layers import activation_norms, gradient_norms, response_deviations, with_gain

__all__ = ["Layer", "activation_norms", "count_macs", "count_parameters", "gives_back", "gradient_norms", "landscape",
           "list_layers", "residual_ratios", "response_deviations", "variable_shapes", "with_gain",
           "with_identity_blocks", "with_swapped_blocks", "without_block"]
