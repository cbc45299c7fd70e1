"""How Sphinx builds these pages: `make docs`. Docstrings are Markdown under Google's headings; Sphinx gets what it reads."""

import inspect
import os
import re
import sys
from pathlib import Path

from sphinx.util.inspect import stringify_signature

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import tfctr.config  # noqa: E402

project = "tfctr"
author = "the authors of tfctr"
release = version = tfctr.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = f"tfctr {release}"
html_show_copyright = False
exclude_patterns = []
nitpicky = True
# Signatures and `Raises:` name classes of other libraries, and some of ours, that have no page here.
_UNLISTED = (
    "schema.Field",
    r"experiments\.recipes",
    r"serving\.client\.outcomes",
    r"serving\.exporting",
    r"serving\.publishing\.clicks",
)
_OTHERS = "collections|os|pathlib|datetime|keras|tensorflow|tf|numpy|np|pandas|ibis|pyarrow|pa|rich|grpc"
nitpick_ignore_regex = [("py:.*", rf"({_OTHERS})\..*"), ("py:class", rf"tfctr\.({'|'.join(_UNLISTED)}).*")]

myst_heading_anchors = 3
myst_links_external_new_tab = False

autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_custom_sections = [("Shapes", "notes_style")]

_ERRORS = ("TfctrError", "ConfigError", "DataError", "TrainingError", "ExportError", "StorageError")
_CODE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_LINK = re.compile(r"\[([^\]\[]+)\]\((\S+?)\)")
_RULE = re.compile(r"\s*\|(\s*:?-+:?\s*\|)+\s*")
_COLON = "\ue000"  # where napoleon would take what stands before a colon for a type


def _inline(text):
    """Code and links of Markdown, as reStructuredText."""
    parts = _CODE.split(text)  # text, code, text, ...
    for index, part in enumerate(parts):
        if index % 2:
            parts[index] = f"``{re.sub('^ | $', '␣', part)}``"  # no literal may begin or end with a space there
        else:
            part = _LINK.sub(r"`\1 <\2>`__", part.replace("*", r"\*"))
            parts[index] = rf"\ {part}" if index and part[:1].isalnum() else part
    return "".join(parts)


def _table(rows):
    """A Markdown table, as a `list-table`."""
    cells = [[cell.strip() for cell in row.strip().strip("|").split("|")] for row in rows if not _RULE.fullmatch(row)]
    indent = rows[0][: len(rows[0]) - len(rows[0].lstrip())]
    lines = ["", f"{indent}.. list-table::", f"{indent}   :header-rows: 1", ""]
    for row in cells:
        lines += [f"{indent}   {'* -' if index == 0 else '  -'} {_inline(cell)}" for index, cell in enumerate(row)]
    return [*lines, ""]


def _blocks(lines):
    """`(kind, lines)` of a docstring: "table", "literal" (doctests, and what is indented behind a colon) or "text"."""
    kind, block = "text", []
    for number, line in enumerate(lines):
        before = [*lines[:number], ""]
        if line.startswith(">>>"):
            now = "literal"
        elif kind == "literal":
            now = "literal" if line.strip() == "" or line[0] in " .>" or before[-2].strip() else "text"
        elif line.lstrip().startswith("|"):
            now = "table"
        elif line.startswith("    ") and number > 1 and not before[number - 1] and before[number - 2].endswith(":"):
            now = "literal"
            block[-2] += ":"  # the colon twice: a literal block
        else:
            now = "text"
        if now != kind:
            yield kind, block
            kind, block = now, []
        block.append(line)
    yield kind, block


def _from_markdown(app, what, name, obj, options, lines):
    """Rewrite one docstring in place, before napoleon reads its headings."""
    result = []
    for kind, block in _blocks(lines):
        result += {
            "text": lambda block: _inline("\n".join(block)).split("\n") if block else [],
            "literal": list,
            "table": _table,
        }[kind](block)
    if what in ("property", "attribute", "data") and result:
        result[0] = result[0].replace(":", _COLON)
    lines[:] = result


def _restore_colons(app, what, name, obj, options, lines):
    lines[:] = [line.replace(_COLON, ":") for line in lines]


def _signature(app, what, name, obj, options, signature, return_annotation):
    """That of `__init__`: Keras' classes, and ours, have a `__new__` that takes anything."""
    if what != "class" or obj.__init__ in (object.__init__, Exception.__init__):
        return None
    is_pydantic = hasattr(obj, "model_fields")  # whose `__init__` takes anything, too
    parameters = list(inspect.signature(obj if is_pydantic else obj.__init__).parameters.values())[not is_pydantic :]
    return stringify_signature(inspect.Signature(parameters), show_annotation=False), None


def _hide_annotations(module):
    """Those of pydantic's classes are validators, which nobody reads: the ranges stand in the docstrings."""
    for kind in vars(module).values():
        if hasattr(kind, "model_fields"):
            parameters = inspect.signature(kind).parameters.values()
            bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in parameters]
            kind.__signature__, kind.__annotations__ = inspect.Signature(bare), {}


def _find_errors(app, env, node, contnode):
    """`Raises:` names our errors without their module."""
    target = node.get("reftarget", "")
    if node.get("refdomain") == "py" and target in _ERRORS:
        domain = env.get_domain("py")
        return domain.resolve_xref(env, node["refdoc"], app.builder, "exc", f"tfctr.errors.{target}", node, contnode)
    return None


def setup(app):
    _hide_annotations(tfctr.config)
    app.connect("autodoc-process-docstring", _from_markdown, priority=400)
    app.connect("autodoc-process-docstring", _restore_colons, priority=600)
    app.connect("autodoc-process-signature", _signature)
    app.connect("missing-reference", _find_errors)
