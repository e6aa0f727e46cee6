"""Weights in and out: what others have trained, here; and what was trained here, anywhere."""

from resjax.models.variants import Bare, Form
from resjax.weights.export import export
from resjax.weights.load import load_weights
from resjax.weights.model_card import Measured

__all__ = ["Bare", "Form", "Measured", "export", "load_weights"]
