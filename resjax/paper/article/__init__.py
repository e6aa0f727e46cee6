"""The article: why residual networks train, taught on one page that needs no network, with what was measured here."""

from resjax.paper.article.measurement import Found, Measured, measured
from resjax.paper.article.networks import titled
from resjax.paper.article.page import write_article

__all__ = ["Found", "Measured", "measured", "titled", "write_article"]
