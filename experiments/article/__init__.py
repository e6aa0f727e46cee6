"""The article "Why residual networks train", with its experiments, its figures and the code that writes its page."""
