"""The versions that RELEASE.md says are tested are those that pyproject.toml allows and that the workflows run."""

import re
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

import acebert

ROOT = Path(acebert.__file__).parent
TOOLS = {"dev", "docs", "minilm", "mteb"}  # extras of those who work on the project
HERE = {"python_full_version": "3.11.7", "python_version": "3.11", "sys_platform": "linux"}


@pytest.fixture(scope="module")
def project() -> dict:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no reader of TOML.")
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def table() -> dict[str, tuple[list[str], str]]:
    """Of RELEASE.md: name to the lowest versions and the tested one."""
    section = (ROOT / "RELEASE.md").read_text(encoding="utf-8").split("## Which versions are tested")[1]
    found = re.findall(r"^\| ([\w.-]+) \| ([^|]+) \| ([\d.]+) \|$", section.split("\n## ")[0], flags=re.MULTILINE)
    return {name: (re.findall(r"[\d.]+", lowest), tested) for name, lowest, tested in found}


def test_the_table_has_every_lower_bound(project: dict, table: dict[str, tuple[list[str], str]]) -> None:
    extras = {name: each for name, each in project["optional-dependencies"].items() if name not in TOOLS}
    lowest: dict[str, set[str]] = {"Python": {"3.10"}}
    for line in [*project["dependencies"], *(line for each in extras.values() for line in each)]:
        requirement = Requirement(line)
        if requirement.name != "acebert":
            bounds = [each.version for each in requirement.specifier if each.operator == ">="]
            assert len(bounds) == 1, f"{line} has no lower bound"
            lowest.setdefault(requirement.name, set()).add(bounds[0])
    assert project["requires-python"].startswith(">=3.10,")
    assert {name: set(bounds) for name, (bounds, _) in table.items()} == lowest


def test_the_table_has_the_versions_of_the_constraints(table: dict[str, tuple[list[str], str]]) -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {}
    for requirement in (Requirement(line) for line in lines if line and not line.startswith("#")):
        if requirement.marker is None or requirement.marker.evaluate(HERE):
            pinned[requirement.name] = next(iter(requirement.specifier)).version
    for name, (lowest, tested) in table.items():
        assert tested == ("3.11" if name == "Python" else pinned[name.lower()]), name
        assert all(Version(bound) <= Version(tested) for bound in lowest), name


def test_both_ends_of_the_range_are_run(project: dict) -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "versions.yml").read_text(encoding="utf-8"))["jobs"]
    run = {step["run"]: job["steps"][1]["with"]["python-version"] for job in jobs.values() for step in job["steps"][2:]}
    assert run == {"make test-oldest": "3.10", "make test-newest": "3.13"}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    versions = dict(re.findall(r"^build/(\w+)/\.ready: VERSION := ([\d.]+)$", makefile, flags=re.MULTILINE))
    assert versions == {"oldest": "3.10", "newest": "3.13"}
    matrix = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8"))
    pythons = matrix["jobs"]["fast"]["strategy"]["matrix"]["python"]
    allowed = Requirement(f"python{project['requires-python']}").specifier
    assert [f"3.{minor}" for minor in range(30) if f"3.{minor}" in allowed] == pythons
