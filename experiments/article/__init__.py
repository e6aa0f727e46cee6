"""The article: why residual networks train, taught on one page that needs no network, with what was measured here."""
