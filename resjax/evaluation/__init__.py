"""Exact errors of a network on a set of images."""

from resjax.evaluation.evaluate import Errors, evaluate
from resjax.evaluation.scores import class_probabilities, errors_of, image_probabilities
from resjax.evaluation.views import PROTOCOLS, Protocol, views_of

__all__ = ["PROTOCOLS", "Errors", "Protocol", "class_probabilities", "errors_of", "evaluate",
           "image_probabilities", "views_of"]
