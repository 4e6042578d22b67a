"""How the documentation is built: ``python -m sphinx -W docs docs/_build/html``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

import pellucid

project = "pellucid"
author = "pellucid contributors"
release = version = pellucid.__version__
copyright = author

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "plain"]
exclude_patterns = ["_build", "_ext"]
myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3
html_math_renderer = "mathml"
default_role = "code"

html_theme = "furo"
html_title = f"pellucid {release}"
html_static_path = ["_static"]
html_css_files = ["pellucid.css"]
html_copy_source = False

autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_inherit_docstrings = False
