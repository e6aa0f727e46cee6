"""The command `python -m experiments.article`."""

from experiments.article.measurements import article
from resjax.console.command_line import script

if __name__ == "__main__":
    script(article)
