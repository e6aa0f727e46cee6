"""Exact errors of a network on a set of images."""

from resjax.evaluation.evaluate import Errors, evaluate

__all__ = ["Errors", "evaluate"]
