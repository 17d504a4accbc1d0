"""The documents as a site: `make docs`. Sphinx with MyST, nothing fetched."""

from __future__ import annotations

project = "rsedge"
copyright = "the rsedge authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False
html_theme = "furo"
html_title = "rsedge"
html_copy_source = False
html_show_sphinx = False
myst_heading_anchors = 4
myst_enable_extensions = ["deflist"]
exclude_patterns = ["conf.py"]
