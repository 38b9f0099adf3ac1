"""What docs/catalog.md, the compose files and the workflow say about a server is so, as far as a stand-in can tell."""

import dataclasses
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from catalog_products import COUNT
from qdrant_server import QdrantStandIn

from acebert import commands
from acebert.catalog import ProductCatalog
from acebert.catalog.indexes.connection import TRIED, ServerOptions, parse_address

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "catalog.md").read_text(encoding="utf-8")


def test_the_commands_of_the_page_run_in_its_order(
    build: Callable[..., ProductCatalog], qdrant: QdrantStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("my-catalog", "new-catalog"):
        build(path=tmp_path / "build" / name).close()
    (tmp_path / "backup").mkdir()
    monkeypatch.chdir(tmp_path)
    lines = re.findall(r"^ *acebert ((?:move-index|snapshot) .*)$", PAGE, re.MULTILINE)
    assert len(lines) == 5
    for line in lines:
        commands.main(shlex.split(line.replace("http://localhost:6333", qdrant.url)))
        with ProductCatalog.load(shlex.split(line)[2]) as opened:
            assert len(opened) == COUNT
    assert (tmp_path / "backup" / "monday" / "catalog.json").exists()
    assert qdrant.names()["products"] is not None and len(qdrant.names()) == 2


def test_the_page_names_each_option_with_its_default() -> None:
    for field in dataclasses.fields(ServerOptions):
        if field.name != "api_key":
            assert f"`{field.name}`" in PAGE, field.name
    default = ServerOptions()
    row = next(line for line in PAGE.splitlines() if line.startswith("| `timeout`, `retries`"))
    assert f"{default.timeout:g} s, {default.retries} " in row
    row = next(line for line in PAGE.splitlines() if line.startswith("| `hnsw_m`"))
    assert f"{default.hnsw_m}, {default.hnsw_ef_construct}, {default.hnsw_ef} " in row
    row = next(line for line in PAGE.splitlines() if line.startswith("| `quantization`"))
    assert f"{default.quantization}, {default.oversampling} " in row


def test_the_addresses_of_the_page_are_understood() -> None:
    shown = re.findall(r"^\| `(https?://[^`]+)` \|", PAGE, re.MULTILINE)
    assert len(shown) == 3 and {parse_address(text).collection for text in shown} == {"products"}


@pytest.mark.parametrize("name", ["compose.yaml", "compose-cluster.yaml"])
def test_the_compose_files(name: str) -> None:
    text = (ROOT / "examples" / "qdrant" / name).read_text(encoding="utf-8")
    services = yaml.safe_load(text)["services"]
    assert len(services) == (1 if name == "compose.yaml" else 3)
    ports = [port for service in services.values() for port in service["ports"]]
    assert all(port.startswith("127.0.0.1:") for port in ports) and len(ports) == len(set(ports))
    for service in services.values():
        assert service["image"] == f"qdrant/qdrant:v{TRIED}"
        assert service["environment"]["QDRANT__SERVICE__API_KEY"] == "${QDRANT_API_KEY:?set QDRANT_API_KEY}"
        assert any(volume.endswith(":/qdrant/storage") for volume in service["volumes"])
    address = parse_address(re.search(r'index="([^"]+)"', text).group(1))
    assert {url.rpartition(":")[2] for url in address.urls} <= {port.split(":")[1] for port in ports}
    assert len(address.urls) == len(services)


def test_the_workflow_runs_the_tests_on_the_version_that_was_tried() -> None:
    text = (ROOT / ".github" / "workflows" / "server.yml").read_text(encoding="utf-8")
    jobs = yaml.safe_load(text)["jobs"]
    assert jobs["node"]["services"]["qdrant"]["image"] == f"qdrant/qdrant:v{TRIED}"
    assert {name for name, job in jobs.items() if "test-server" in job["steps"][-1]["run"]} == {
        "node",
        "key",
        "cluster",
    }
    for job in jobs.values():
        for path in re.findall(r"docker compose -f (\S+)", str(job)):
            assert (ROOT / path).exists()
