"""The pages of the site, as a hook of mkdocs: README.md, docs/, the experiments, and the API from the docstrings.

The site has the folders of the repository, so links between files work in both.
"""

import ast
import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
COPIED = (
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "docs/**/*",
    "experiments/**/*.py",
    "experiments/**/*.png",
    "tests/benchmarks/*.png",
)
STYLE = """.md-grid {max-width: 75rem} .md-typeset h2.doc-heading {border-top: .05rem solid #8886; padding-top: 1rem}"""
"""Columns wide enough for a signature, and a line above each entry of the API."""
ALONE = "{show_root_heading: true, show_root_toc_entry: true, heading_level: 2}"
"""The options for a function that is not among the members of a module."""
NOTEBOOK = "docs/ddpm_in_jax.ipynb"
ROOTS = (
    "ddpm_jax",
    "ddpm_jax.experiment",
    "ddpm_jax.sampling",
    "ddpm_jax.diffusion",
    "ddpm_jax.diffusion.ode",
    "ddpm_jax.networks",
    "ddpm_jax.data",
    "ddpm_jax.data.encodings",
    "ddpm_jax.training",
    "ddpm_jax.metrics",
    "ddpm_jax.interop",
)
"""The public packages, whose exported modules are public too, and public modules that no package exports."""


def on_config(config: MkDocsConfig) -> None:
    """The guides in the order in which README.md names them, then a page for each public module."""
    readme = (ROOT / "README.md").read_text()
    guides = list(dict.fromkeys([*re.findall(r"\((docs/\w+\.md)\)", readme), *_sources("docs/*.md")]))
    api = [f"api/{module}.md" for module in _modules()]
    config.nav = ["README.md", _page_of(NOTEBOOK), {"Guides": guides}, {"API": api}, "CONTRIBUTING.md", "CHANGELOG.md"]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The files of the repository in place of those of docs_dir alone, the notebook as a page, and the API."""
    copied = [
        File(path, str(ROOT), config.site_dir, config.use_directory_urls)
        for pattern in COPIED
        for path in _sources(pattern)
    ]
    pages = {_page_of(NOTEBOOK): _notebook((ROOT / NOTEBOOK).read_text())}
    pages |= {f"api/{module}.md": _api(module) for module in _modules()}
    pages["site.css"] = STYLE
    theme = [file for file in files if not file.src_uri.endswith((".md", ".ipynb", ".png"))]
    return Files([*theme, *copied, *(File.generated(config, path, content=text) for path, text in pages.items())])


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Names of the API in code, such as `losses.bound`, become links.

    Names without a dot do so on their own page only, and only where no function has an argument of that name.
    """
    module = page.file.src_uri.removeprefix("api/").removesuffix(".md")
    taken = _arguments(module)

    def link(found: re.Match[str]) -> str:
        name = _names().get(found[1]) or (found[1] not in taken and _names().get(f"{module}.{found[1]}"))
        return f'<autoref identifier="{name}" optional>{found[0]}</autoref>' if name else found[0]

    parts = re.split(r"(<pre.*?</pre>|<a .*?</a>|<h\d.*?</h\d>)", html, flags=re.DOTALL)
    return "".join(re.sub(r"<code>([\w.]+)</code>", link, part) if n % 2 == 0 else part for n, part in enumerate(parts))


def _sources(pattern: str) -> Iterator[str]:
    return (path.relative_to(ROOT).as_posix() for path in sorted(ROOT.glob(pattern)) if path.is_file())


def _page_of(notebook: str) -> str:
    return notebook.replace(".ipynb", ".md")


def _api(module: str) -> str:
    """The page of a module. A function with the name of its module, such as `samplers.ddim`, has a block of its own."""
    named = {name: _whole_name(module, name) for name in _members(module)}
    direct = [name for name, whole in named.items() if whole == f"{module}.{name}"]
    text = f"# {module.removeprefix('ddpm_jax.')}\n\n::: {module}\n    options: {{members: {json.dumps(direct)}}}\n"
    blocks = [f"\n::: {whole}\n    options: {ALONE}\n" for name, whole in named.items() if name not in direct]
    return text + "".join(blocks)


def _whole_name(module: str, name: str) -> str:
    return f"{module}.{name}.{name}" if _file(f"{module}.{name}") else f"{module}.{name}"


@functools.cache
def _modules() -> tuple[str, ...]:
    """The public modules: `ROOTS`, and the modules that they export, at any depth."""

    def below(module: str) -> Iterator[str]:
        yield module
        for name in _submodules(module):
            yield from below(f"{module}.{name}")

    return tuple(each for root in ROOTS for each in below(root))


def _members(module: str) -> list[str]:
    """The names that a page describes: what a package exports, modules aside, or all public names of a module."""
    return [name for name in _exported(module) or _defined(module) if name not in _submodules(module)]


@functools.cache
def _names() -> dict[str, str]:
    """Full names by how texts write them: in full, without ddpm_jax, or with the last part of their module."""
    names: dict[str, str] = {}
    for module in _modules():
        short = module.rpartition(".")[2]
        for name in _members(module):
            full, whole = f"{module}.{name}", _whole_name(module, name)
            names |= {full: whole, f"{short}.{name}": whole, full.removeprefix("ddpm_jax."): whole}
    return {written: whole for written, whole in names.items() if "." in written}


def _arguments(module: str) -> set[str]:
    """The names of the arguments of all functions of a module, or of the files of a package."""
    file = _file(module)
    files = [] if file is None else [file] if file.name != "__init__.py" else file.parent.glob("*.py")
    return {node.arg for path in files for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.arg)}


def _file(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    return next((each for each in (path / "__init__.py", path.with_suffix(".py")) if each.exists()), None)


def _exported(module: str) -> list[str]:
    """The value of `__all__` of a module; empty if it has none."""
    for node in _statements(module):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    return []


def _submodules(module: str) -> list[str]:
    """The modules among the names that a package exports. A function may have the name of a module: `data.digits`."""
    imports = (node for node in _statements(module) if isinstance(node, ast.ImportFrom) and node.module == module)
    imported = {alias.name for node in imports for alias in node.names}
    return [name for name in _exported(module) if name in imported]


def _defined(module: str) -> list[str]:
    """The public functions, classes and documented values that a module defines, in its order."""
    nodes = _statements(module)
    names: list[Any] = []
    for node, after in zip(nodes, [*nodes[1:], None], strict=True):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(after, ast.Expr):
            names.append(ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target))
    return [name for name in names if not name.startswith("_")]


def _statements(module: str) -> list[ast.stmt]:
    path = _file(module)
    return ast.parse(path.read_text()).body if path else []


def _notebook(text: str) -> str:
    """A notebook as Markdown: its text, its code, and the printed text and pictures that it has stored."""
    parts = []
    for cell in json.loads(text)["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        parts += [_output(output) for output in cell.get("outputs", [])]
    return "\n\n".join(parts)


def _output(output: dict[str, Any]) -> str:
    data = output.get("data", {})
    if "image/png" in data:
        return f"![](data:image/png;base64,{''.join(data['image/png']).replace(chr(10), '')})"
    return f"```\n{''.join(output.get('text', data.get('text/plain', '')))}```"
