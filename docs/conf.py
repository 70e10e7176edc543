"""Configuration of the documentation; build it with ``make docs``."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version as installed_version
from pathlib import Path

project = "sczoo"
author = "The sczoo developers"
copyright = "2026, the sczoo developers"
release = version = installed_version("sczoo")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "**.ipynb_checkpoints", "images"]
templates_path = ["_templates"]
html_static_path = []
html_theme = "sphinx_book_theme"
html_title = "sczoo"
html_theme_options = {"show_toc_level": 2, "home_page_in_toc": True}

myst_enable_extensions = ["amsmath", "attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
# Tutorials are committed with their output, and tests run them again: a page never shows a
# result that its own code did not give, and building the site needs no data.
nb_execution_mode = "off"
nb_merge_streams = True

autosummary_generate = True
autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_param = True

# other projects' names are linked where the network allows, and never needed
intersphinx_mapping = {}
suppress_warnings = ["myst.xref_missing"]


def _write_api_pages() -> None:
    """Write a page for each part from its public names, so that none is ever left out."""
    import sczoo

    folder = Path(__file__).parent / "api" / "parts"
    folder.mkdir(exist_ok=True)
    for page in folder.glob("*.rst"):
        page.unlink()
    top = {*sczoo.__all__} - {"__version__", "doctor", "load", "transfer"}
    for part in sorted({*top, "model.grit.scorers", "model.scvitools"}):
        module = import_module(f"sczoo.{part}")
        title = f"sczoo.{part}"
        lines = [title, "=" * len(title), "", f".. automodule:: sczoo.{part}", "   :no-members:"]
        lines += ["", f".. currentmodule:: sczoo.{part}", "", ".. autosummary::"]
        lines += ["   :toctree: ../generated", "   :nosignatures:", ""]
        lines += [f"   {name}" for name in sorted(module.__all__)]
        (folder / f"{part}.rst").write_text("\n".join(lines) + "\n")


_write_api_pages()


def _skip_what_libraries_bring(app, what, name, member, skip, options):
    """Leave out members inherited from other packages; their own pages document them."""
    member = getattr(member, "fget", member)
    module = getattr(member, "__module__", None)
    return True if module and not module.startswith("sczoo") else None


def setup(app):
    """Register the hook with sphinx."""
    app.connect("autodoc-skip-member", _skip_what_libraries_bring)
