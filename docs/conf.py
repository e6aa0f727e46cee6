"""The site: `sphinx-build -W docs site`, offline. Pages are MyST; the look-up pages are made from the code."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

from sphinx.application import Sphinx

from resjax import __version__

project, author, release = "resjax", "resjax authors", __version__
copyright = "resjax authors, Apache-2.0"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton", "from_code"]
exclude_patterns = ["_ext", "README.md"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # tests/experiments/test_notebook.py runs the notebook and compares what its cells print

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_class_signature = "mixed"
toc_object_entries = False

html_theme = "sphinx_book_theme"
html_title = "resjax"
html_extra_path = ["../experiments/results/article/article.html"]
html_static_path, html_css_files, html_favicon = ["_static"], ["site.css"], "_static/icon.svg"
html_context = {"default_mode": "auto"}  # light or dark, as the reader's system is
html_theme_options = {"navbar_persistent": [], "use_download_button": False, "use_fullscreen_button": False,
                      "show_toc_level": 2, "home_page_in_toc": True}
html_show_sourcelink = False


def silence_theme(app: Sphinx, error: Exception | None) -> None:
    """Remove the theme's log messages, such as its mode on every page. The theme has no setting for this."""
    script = Path(app.outdir, "_static/scripts/pydata-sphinx-theme.js")
    if error is None and script.exists():
        script.write_text(script.read_text("utf-8").replace("console.log(", "void ("), "utf-8")


def setup(app: Sphinx) -> None:
    """Connect the function above to the end of the build."""
    app.connect("build-finished", silence_theme)
