"""Sphinx: MyST pages, the API from docstrings, and notebooks that are run while the pages are built."""

import os
import re
import sys
from importlib.metadata import version as installed
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tutorial's networks are small: more threads only get in each other's way

os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # the notebooks call the command
os.environ.pop("DYNCONF_HOME", None)
os.environ.setdefault("PYTHONWARNINGS", "ignore:IProgress not found")  # of tqdm in a notebook without ipywidgets

REPOSITORY = "https://github.com/dynconf/dynconf/blob/main/"
HERE = Path(__file__).resolve().parent
PAGES = {link.resolve(): link.stem for link in HERE.glob("*.md") if link.is_symlink()}
"""Files of the repository that are pages here too."""

project = "dynconf"
author = project_copyright = "dynconf contributors"
version = release = installed("dynconf")
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "generated"]
html_theme = "furo"
html_title = f"dynconf {version}"
html_static_path = ["_static"]
html_css_files = ["tables.css"]

myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = [("Class attributes", "Attributes")]

nb_execution_mode = "force"
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_merge_streams = True


def outside_links(app, docname, source):  # type: ignore[no-untyped-def]
    """Links to files of the repository lead to the page here where there is one, and to the repository where there is none."""
    page = Path(app.env.doc2path(docname)).resolve()

    def linked(match: re.Match[str]) -> str:
        text, (path, hash_sign, anchor) = match[1], match[2].partition("#")
        target = Path(os.path.normpath(page.parent / path))
        if target in PAGES:
            return f"{{doc}}`{text.strip('`')} </{PAGES[target]}>`"
        if target.is_relative_to(HERE) and target.suffix in (".md", ".ipynb"):
            return f"[{text}]({os.path.relpath(target, Path(app.srcdir, docname).parent)}{hash_sign}{anchor})"
        return f"[{text}]({REPOSITORY}{target.relative_to(HERE.parent)}{hash_sign}{anchor})"

    def pictured(match: re.Match[str]) -> str:
        return f"{match[1]}({os.path.relpath(page.parent / match[2], Path(app.srcdir, docname).parent)})"

    source[0] = re.sub(r"(!\[[^\]]*\])\((?!https?:)([^)\s]+)\)", pictured, source[0])
    text = r"[^\[\]]*" if page.suffix == ".ipynb" else r"[^\]]*"  # the JSON of a notebook has brackets of its own
    source[0] = re.sub(rf"(?<!!)\[({text})\]\((?!https?:|#|mailto:)([^)\s]+)\)", linked, source[0])


def plain_docstrings(app, what, name, obj, options, lines):  # type: ignore[no-untyped-def]
    """Docstrings write code in single backticks, as Markdown does; |V| is an absolute value, and "T." no numbered list."""
    for number, line in enumerate(lines):
        line = re.sub(r"(?<![`:\w])`([^`]+)`(?![`_])", r"``\1``", line)
        parts = re.split(r"(``.*?``)", line)
        line = "".join(part if part.startswith("``") else part.replace("|", r"\|") for part in parts)
        lines[number] = re.sub(r"(: )([A-Z])\.$", r"\1\2\\.", line)


def setup(app):  # type: ignore[no-untyped-def]
    app.connect("source-read", outside_links)
    app.connect("autodoc-process-docstring", plain_docstrings, priority=400)  # before napoleon reads them
