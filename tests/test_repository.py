"""The repository keeps its own rules: what reviewers would otherwise have to look for."""

import ast
import os
import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import rekv
from rekv.cli import VERBS

ROOT = Path(__file__).parent.parent
NOT_OURS = {".git", ".venv", "out", "build", "dist", "__pycache__", ".idea", ".vscode"}
MODULES = sorted((ROOT / "rekv").rglob("*.py"))
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

# A stranger's clone knows nothing of the machine that a line was written on, nor of the indexes it uses.
FOREIGN = re.compile(
    r"(?<![\w.~-])/(?:work|opt|root|home|Users|tmp)/\w"
    r"|\b(?:pypi|pythonhosted|npmjs)\.org|\bdownload\.pytorch\b|\bdeb\.debian\b|\.\./shared\b"
)


def project_files() -> Iterator[Path]:
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in NOT_OURS and not name.endswith(("_cache", ".egg-info"))]
        yield from (Path(folder, name) for name in files)


def text_files() -> Iterator[tuple[Path, str]]:
    for path in project_files():
        try:
            yield path.relative_to(ROOT), path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_the_project_speaks_of_itself_alone() -> None:
    found = [
        f"{path}:{number}: {line.strip()[:100]}"
        for path, text in text_files()
        for number, line in enumerate(text.splitlines(), 1)
        if FOREIGN.search(line)
    ]
    assert not found, "\n".join(found)


def test_text_files_end_with_one_newline() -> None:
    found = [
        str(path)
        for path, text in text_files()
        if text and (not text.endswith("\n") or text.endswith("\n\n")) and path.suffix not in (".json", ".jinja")
    ]
    assert not found, found


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_module(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    assert ast.get_docstring(tree), "a module starts with a docstring"
    assert len(source.splitlines()) <= 400, "one concept per file"
    if path.parent != ROOT / "rekv" / "cli":
        printing = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Call) and is_print(node)]
        assert not printing, f"the library logs, it does not print: lines {printing}"


def is_print(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Name) and call.func.id == "print"


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_imports_point_one_way(path: Path) -> None:
    """The command line uses the engine, the engine uses the parts, the parts use the nouns; never back."""
    package = path.relative_to(ROOT / "rekv").parts[0].removesuffix(".py")
    upper = {
        "core": {"rekv.(?!errors).*"},
        "errors": {"rekv.*"},
        "cli": set(),
        "__main__": set(),
        "__init__": {"rekv.cli", "rekv.doctor"},
        "doctor": {"rekv.cli"},
        "evaluation": {"rekv.cli", "rekv.doctor"},
        "ingestion": {"rekv.cli", "rekv.doctor", "rekv.evaluation"},
        "engine": {"rekv.cli", "rekv.doctor"},
    }.get(package, {"rekv.cli", "rekv.doctor", "rekv.engine"})
    found = [module for module in imports(path) if any(re.match(pattern, module) for pattern in upper)]
    assert not found, f"{name(path)} imports {found}"


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_the_readme_shows_every_command(verb: str) -> None:
    assert f"rekv {verb}" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_links_between_documents_lead_somewhere() -> None:
    broken = [
        f"{path}: {target}"
        for path, text in text_files()
        if path.suffix == ".md"
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
        if "://" not in target and not (ROOT / path.parent / target).exists()
    ]
    assert not broken, broken


def test_one_version() -> None:
    assert version("rekv") == rekv.__version__, "installed from another state: run make setup"
    assert f"\nversion: {rekv.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_the_tested_versions_are_in_the_declared_ranges() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    tested = dict(line.lower().replace("_", "-").split("==") for line in lines if not line.startswith("#"))
    project = PYPROJECT["project"]
    declared = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    for requirement in map(Requirement, declared):
        assert requirement.specifier.contains(tested[requirement.name.lower()]), requirement


def test_continuous_integration_can_be_run() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
