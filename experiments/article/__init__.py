"""The article "Why residual networks train": one self-contained page with the measurements of this repository."""
