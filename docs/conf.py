"""The documentation site: ``make docs``. Built from the repository's root, so that links between folders hold."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "ext")]

from s2mlp_deploy import __version__  # noqa: E402

project = "s2mlp-deploy"
author = "the authors of s2mlp-deploy"
release = version = __version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "reference"]
# The source directory is the repository, not docs/, because pages link benchmarks/ and the changelog by relative paths.
root_doc = "docs/index"
include_patterns = ["docs/**", "benchmarks/*.md", "examples/**/*.md", "CHANGELOG.md", "SECURITY.md"]
exclude_patterns = [".*", "build", "dist", "s2mlp_deploy", "tests", "**/.*", "**/__pycache__", "docs/_*", "docs/ext"]

# Pages

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 4
nb_execution_mode = "off"
nb_merge_streams = True
highlight_language = "none"
# Quotation marks and dashes stay what was written: options begin with two hyphens.
smartquotes = False

# The Python API

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = True
nitpicky = True
# What names the API must be there; types of others, and what docstrings tell readers of the source, are not linked.
nitpick_ignore_regex = [("py:.*", r"(?!s2mlp_deploy\.api\.).*")]

# The site

html_theme = "furo"
html_title = f"s2mlp-deploy {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_extra_path = ["_extra"]
html_copy_source = False
html_show_sphinx = False
# A page opened from a file may not fetch others: their text could not be shown beside what is found.
html_show_search_summary = False
html_theme_options = {"navigation_with_keys": True}
