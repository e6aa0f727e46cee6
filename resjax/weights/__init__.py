"""Weights: loading those of other libraries, and exporting ours."""

from resjax.models.variants import Bare, Form
from resjax.weights.card import Card, Measured
from resjax.weights.export import export
from resjax.weights.load import load_weights

__all__ = ["Bare", "Card", "Form", "Measured", "export", "load_weights"]
