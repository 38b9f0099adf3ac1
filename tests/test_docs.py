"""The documentation builds, all of its links lead somewhere, and what it repeats says the same everywhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import acebert

ROOT = Path(acebert.__file__).parent
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
PAGES = [path.name for path in sorted(ROOT.glob("*.md"))] + ["examples/README.md", "space/README.md"]


@pytest.mark.parametrize("page", PAGES)
def test_links_of_a_page_lead_to_a_file(page: str) -> None:
    """Those of `docs/` are checked by mkdocs."""
    links = [link for link in LINK.findall((ROOT / page).read_text(encoding="utf-8")) if "://" not in link]
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []


def test_the_documentation_builds_without_a_warning(tmp_path: Path) -> None:
    package = tmp_path / "package" / "acebert"
    package.mkdir(parents=True)
    parts = [path for path in ROOT.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()]
    for path in parts:
        (package / path.name).symlink_to(path)
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert "[build/package]" in settings
    settings = settings.replace("[build/package]", f"[{package.parent}]").replace(
        "docs_dir: docs", f"docs_dir: {ROOT}/docs"
    )
    (tmp_path / "mkdocs.yml").write_text(settings, encoding="utf-8")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    build = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert build.returncode == 0, build.stderr
    reference = (tmp_path / "site" / "reference" / "model" / "index.html").read_text(encoding="utf-8")
    assert "get_product_features" in reference


def test_one_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == acebert.__version__
    assert f"## {acebert.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("file", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda path: path.name)
def test_workflows_and_forms_are_yaml(file: Path) -> None:
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert content["name"]
    # What a workflow calls exists: a renamed target would otherwise show on the server alone.
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    called = re.findall(r"run: (?:.*&& )?make ([a-z -]+)$", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert {target for names in called for target in names.split()} <= targets
