"""Weights in and out: what others have trained, here; and what was trained here, anywhere."""

from resjax.models.variants import Bare, Form
from resjax.weights.card import Card, Measured
from resjax.weights.export import export
from resjax.weights.load import load_weights

__all__ = ["Bare", "Card", "Form", "Measured", "export", "load_weights"]
