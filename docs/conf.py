"""How the documentation is built: ``python -m sphinx -W docs docs/_build/html``."""

from __future__ import annotations

import pellucid

project = "pellucid"
author = "pellucid contributors"
release = version = pellucid.__version__
copyright = "pellucid contributors, MIT licence"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3
suppress_warnings = ["misc.highlighting_failure"]
default_role = "code"
nitpicky = False

html_theme = "furo"
html_title = f"pellucid {release}"
html_static_path = ["_static"]
html_css_files = ["pellucid.css"]

autodoc_member_order = "bysource"
autodoc_typehints = "none"
