"""Weights in and out: what others have trained, here; and what was trained here, anywhere."""

from resjax.weights.card import Measured
from resjax.weights.description import class_name
from resjax.weights.forms import Form, export
from resjax.weights.load import load_weights
from resjax.weights.recognize import Bare, StrideIn

__all__ = ["Bare", "Form", "Measured", "StrideIn", "class_name", "export", "load_weights"]
