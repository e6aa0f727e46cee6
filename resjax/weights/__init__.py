"""Loads the weights of other libraries, and exports our weights to their formats."""

from resjax.experiment.fields import Format
from resjax.models.families import Bare
from resjax.weights.card import Card, Measured
from resjax.weights.export import export
from resjax.weights.load import load_weights

__all__ = ["Bare", "Card", "Format", "Measured", "export", "load_weights"]
