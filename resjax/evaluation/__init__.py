"""Measures error rates. The class probabilities of an image are averaged over its views (crops and scales)."""

from resjax.evaluation.error_rates import ensemble, evaluate, measure_networks
from resjax.evaluation.outcomes import ClassErrors, ErrorRates, Evaluation, Mistake, error_rates
from resjax.evaluation.probabilities import log_probabilities, log_probabilities_of_views
from resjax.evaluation.views import PROTOCOLS, views_of
from resjax.experiment.fields import TestProtocol

__all__ = ["PROTOCOLS", "ClassErrors", "ErrorRates", "Evaluation", "Mistake", "TestProtocol", "ensemble",
           "error_rates", "evaluate", "log_probabilities", "log_probabilities_of_views", "measure_networks", "views_of"]
