"""Exact error rates of networks on images: probabilities of views, then errors."""

from resjax.evaluation.error_rates import ErrorRates, ensemble, error_rates, evaluate, measure
from resjax.evaluation.probabilities import log_probabilities, log_probabilities_of_views
from resjax.evaluation.views import PROTOCOLS, views_of
from resjax.models.variants import Protocol

__all__ = ["PROTOCOLS", "ErrorRates", "Protocol", "ensemble", "error_rates", "evaluate",
           "log_probabilities", "log_probabilities_of_views", "measure", "views_of"]
