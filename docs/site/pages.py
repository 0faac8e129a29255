"""Pages of the site that do not lie in docs/: those of the repository's root, and one for each package.

MkDocs calls the functions whose names begin with `on_`. What a package offers is its `__all__`, read from the
source: nothing is imported.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
OF_THE_ROOT = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "SECURITY.md": "SECURITY.md",
}
PACKAGES = ("engine", "store", "store.analysis", "store.plots", "kernels", "specs")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    for source, name in OF_THE_ROOT.items():
        text = (ROOT / source).read_text("utf-8")
        text = re.sub(r"\]\(docs/", "](", text)
        files.append(File.generated(config, name, content=text.replace("](README.md", "](index.md")))
    for package in PACKAGES:
        files.append(File.generated(config, f"api/{package}.md", content=page(package)))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Turn links to pages of the root into links to their copies here."""
    names = "|".join(map(re.escape, OF_THE_ROOT))
    return re.sub(rf"\]\(\.\./({names})", lambda found: f"]({OF_THE_ROOT[found[1]]}", markdown)


def page(package: str) -> str:
    """Give the page of a package: its docstring, and every public name where it is defined."""
    tree = ast.parse(source_of(package).read_text("utf-8"))
    homes = imports(tree)
    names = (name for name in public(tree) if not name.startswith("__"))
    described = (f"::: {homes.get(name, package)}.{name}" for name in names)
    return "\n\n".join([f"# {package}", ast.get_docstring(tree) or "", *described]) + "\n"


def source_of(package: str) -> Path:
    """Give the file of a package's names."""
    return ROOT.joinpath(*package.split("."), "__init__.py")


def public(tree: ast.Module) -> list[str]:
    """Give the names in `__all__`."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    raise ValueError("no __all__")


def imports(tree: ast.Module) -> dict[str, str]:
    """Give name → module of what a file imports from modules, also for types alone or inside a function."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {alias.asname or alias.name: node.module for alias in node.names}
    return found
