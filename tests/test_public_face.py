"""Importing sczoo is cheap, its public names exist, and imports run one way."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sczoo

SOURCE = Path(sczoo.__file__).parent
HEAVY = ("torch", "scvi", "scanpy", "anndata", "lightning", "matplotlib", "sklearn", "numba")

# what each part may import of sczoo, besides itself, errors and _compat
ALLOWED = {
    "base": {"model"},  # only to look up the allow-list of methods, inside a function
    "nn": set(),
    "graph": set(),
    "metrics": {"base", "graph"},
    "datasets": {"base"},
    "pl": {"base", "graph", "metrics"},
    "privacy": {"base", "nn", "graph", "metrics"},
    "model": {"base", "nn", "graph", "metrics", "privacy"},
    "recipes": {"base", "model", "metrics", "datasets", "privacy", "hub"},
    "hub": {"base", "model", "recipes"},
    "report": {"base", "pl"},
    "testing": {"base", "model", "hub", "datasets"},
}


def _modules_after(code: str) -> set[str]:
    out = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print('\\n'.join(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return {name.partition(".")[0] for name in out.stdout.split()}


@pytest.mark.parametrize(
    "code",
    [
        "import sczoo",
        "import sczoo.cli",
        "from sczoo.hub import list_artefacts; list_artefacts()",
        "import sczoo.base, sczoo.model, sczoo.datasets, sczoo.metrics, sczoo.errors",
        "from sczoo.model import list_methods; list_methods()",
    ],
)
def test_imports_are_cheap(code):
    assert not _modules_after(code) & set(HEAVY)


def test_every_public_name_exists():
    for name in sczoo.__all__:
        assert getattr(sczoo, name) is not None


@pytest.mark.parametrize(
    "package",
    ["base", "datasets", "graph", "hub", "metrics", "model", "nn", "pl", "privacy", "testing"],
)
def test_every_public_name_of_each_part_exists(package):
    module = getattr(sczoo, package)
    assert module.__all__
    for name in module.__all__:
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = module.no_such_name


def _imported_parts(path: Path) -> set[str]:
    parts = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module == "sczoo":
                names = [f"sczoo.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            if name.startswith("sczoo."):
                parts.add(name.split(".")[1])
    return parts - {"errors", "_compat", "__version__"}


@pytest.mark.parametrize("part", sorted(ALLOWED))
def test_imports_run_one_way(part):
    for path in sorted((SOURCE / part).rglob("*.py")):
        extra = _imported_parts(path) - ALLOWED[part] - {part}
        assert not extra, f"{path.relative_to(SOURCE)} imports {extra}"


def test_methods_do_not_import_each_other():
    folders = [p for p in (SOURCE / "model").iterdir() if (p / "__init__.py").exists()]
    assert folders
    for folder in folders:
        others = {f"sczoo.model.{other.name}" for other in folders if other != folder}
        for path in folder.rglob("*.py"):
            assert not any(other in path.read_text() for other in others)


def test_private_names_of_scvi_are_touched_in_one_place():
    for path in SOURCE.rglob("*.py"):
        if path.name == "_compat.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("scvi"):
                private = [a.name for a in node.names if a.name.startswith("_")]
                hidden = [p for p in node.module.split(".") if p.startswith("_")]
                assert not private, f"{path} imports {private}"
                assert not hidden, f"{path} imports from {node.module}"


def test_nothing_unpickles():
    # the battery patches pickle's functions to prove that models do not call them, and the
    # converter of scvi-tools' models reads a pickle on the caller's word
    converter = SOURCE / "hub" / "_from_scvi.py"
    assert converter.read_text().count("torch.load(") == 1
    paths = [path for path in SOURCE.rglob("*.py") if path.parent.name != "testing"]
    for path in set(paths) - {converter}:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert not {a.name for a in node.names} & {"pickle", "dill", "joblib", "shelve"}
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("torch.load", "pickle.load", "pickle.loads", "eval", "exec")
                assert "allow_pickle" not in {keyword.arg for keyword in node.keywords}
