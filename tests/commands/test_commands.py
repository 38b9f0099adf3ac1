"""The command line: its help, its errors, and how it starts what it names."""

import json
import os
import pkgutil
import re
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import acebert
from acebert import commands
from acebert.commands.launch import launch

NAMES = [name for group in commands.COMMANDS.values() for name in group]
HELPERS = {"launch"}  # modules of the package that are no command
HEAVY = ("torch", "transformers", "datasets", "numpy", "accelerate")


@pytest.fixture(autouse=True)
def program(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command changes the program's name, by which argparse calls it."""
    monkeypatch.setattr(sys, "argv", ["acebert"])


def test_the_help_has_a_line_for_each_command_and_waits_for_no_library() -> None:
    script = (
        "import sys\n"
        "from acebert.commands import main\n"
        "try:\n    main(['--help'])\n"
        "finally:\n    print('LOADED', *sorted(name for name in sys.modules if '.' not in name))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    text, _, loaded = done.stdout.partition("LOADED ")
    for name in NAMES:
        assert len(re.findall(rf"^  {name}  +\w.*\.$", text, re.MULTILINE)) == 1, name
    assert max(map(len, text.splitlines())) <= 120
    assert not set(HEAVY) & set(loaded.split())


def test_the_commands_are_the_modules() -> None:
    modules = {module.name for module in pkgutil.iter_modules(commands.__path__)}
    assert {name.replace("-", "_") for name in NAMES} == modules - HELPERS


def test_the_extras_are_those_of_the_package() -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no reader of TOML.")
    project = tomllib.loads((Path(acebert.__file__).parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {extra for group in commands.COMMANDS.values() for _, extra in group.values()} <= set(
        project["optional-dependencies"]
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], r"Which command\? `acebert --help` lists"),
        (["tran"], r"no command 'tran'\. Did you mean 'train'\?"),
        (["build_catalog"], r"no command 'build_catalog'\. Did you mean 'build-catalog'\?"),
        (["x" * 200], rf"no command '{'x' * 80}'\. `acebert --help`"),
    ],
)
def test_an_unknown_command_is_named_with_the_nearest(arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        commands.main(arguments)


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        commands.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"acebert {acebert.__version__}\n"


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for name in ("acebert.commands.export_onnx", "acebert.encoding.onnx_export", "acebert.encoding.onnx_model"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(SystemExit, match=r"export-onnx needs the package 'onnxruntime'.*\"acebert\[onnx\]\""):
        commands.main(["export-onnx"])


def test_a_fault_of_our_own_is_not_blamed_on_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(flags: list[str]) -> None:
        import_module("acebert.nowhere")

    monkeypatch.setitem(sys.modules, "acebert.commands.publish", SimpleNamespace(main=fail))
    with pytest.raises(ModuleNotFoundError, match=r"acebert\.nowhere"):
        commands.main(["publish"])


# ----------------------------------------------------------------------------------------------------------------------
# Flags
# ----------------------------------------------------------------------------------------------------------------------

# These parse flags of their own; train and evaluate pass theirs on to the recipes, and space to the Space's app.
OWN_FLAGS = ["build-catalog", "encode", "export-onnx", "move-index", "publish", "sample-catalog", "serve", "snapshot"]


def help_of(name: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        commands.main([name, "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("name", OWN_FLAGS)
def test_each_flag_has_a_help_of_its_own(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(name, capsys)
    assert text.startswith(f"usage: acebert {name} [flags]\n")
    flags = {}
    for entry in re.split(r"^  (?=-)", text, flags=re.MULTILINE)[1:]:
        flag, *help_text = re.split(r" {2,}|\n +", entry.split("\n\n")[0].strip())
        assert flag not in flags
        flags[flag] = " ".join(help_text)
    assert len(flags) > 3
    for flag, help_text in flags.items():
        assert len(help_text) > 10, flag
        assert not re.match(r"(Of|Likewise|Also of|Its) ", help_text), flag  # says nothing without the flags around it
    assert len(text.splitlines()) <= 60  # one screen


@pytest.mark.parametrize("name", OWN_FLAGS)
def test_no_default_belongs_to_one_data_set(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(name, capsys)
    assert not re.search(r"productDisplayName|subCategory|articleType|ashraq|fashion", text)
    for column in ("id", "title", "image"):
        if f"--{column}_column" in text:
            entry = text.split(f"--{column}_column")[1].split("\n  --")[0]
            assert f"(default: {column})" in " ".join(entry.split())


# ----------------------------------------------------------------------------------------------------------------------
# Starting what is named
# ----------------------------------------------------------------------------------------------------------------------

RECIPE = """
import json, os, signal, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
(folder / "started.json").write_text(json.dumps([sys.argv[2:], os.environ["ACCELERATE_MIXED_PRECISION"]]))
(folder / f"rank{os.environ.get('RANK')}").write_text(os.environ.get("ACCELERATE_USE_CPU", ""))
if "--wait" in sys.argv:
    stopped = []
    signal.signal(signal.SIGINT, lambda *_: stopped.append(True))
    (folder / "ready").touch()
    while not stopped:
        time.sleep(0.05)
    time.sleep(0.5)  # a checkpoint takes its time
    (folder / "saved").touch()
if "--fail" in sys.argv:
    sys.exit("--fail: what was wrong.")
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "some_recipe.py").write_text(RECIPE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "some_recipe"


def test_a_recipe_gets_its_flags_and_the_launcher_what_follows(recipe: str, tmp_path: Path) -> None:
    launch(recipe, [str(tmp_path), "--seed", "3", "--", "--mixed_precision", "bf16", "--num_processes", "1", "--cpu"])
    assert json.loads((tmp_path / "started.json").read_text()) == [["--seed", "3"], "bf16"]


def test_processes_share_the_cpus(recipe: str, tmp_path: Path) -> None:
    launch(recipe, [str(tmp_path), "--", "--cpu", "--num_processes", "2"])
    assert {path.name: path.read_text() for path in tmp_path.glob("rank*")} == {"rank0": "1", "rank1": "1"}


def test_more_processes_than_accelerators_are_refused(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 1)
    with pytest.raises(SystemExit, match=r"--num_processes 2 asks for more .* accelerators, 1: lower it"):
        launch(recipe, ["--", "--num_processes", "2"])


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_recipe_that_fails_says_why_and_nothing_more(
    processes: str, recipe: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        launch(recipe, [str(tmp_path), "--fail", "--", "--cpu", "--num_processes", processes])
    assert ended.value.code == 1
    said = capfd.readouterr().err
    assert "--fail: what was wrong." in said and "Traceback" not in said


def test_after_ctrl_c_the_launcher_waits_for_the_recipe(recipe: str, tmp_path: Path) -> None:
    code = "import sys; from acebert.commands.launch import launch; launch(sys.argv[1], sys.argv[2:])"
    command = [sys.executable, "-c", code, recipe, str(tmp_path), "--wait", "--", "--cpu"]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        while process.poll() is None and not (tmp_path / "ready").exists():
            time.sleep(0.05)
        # As a terminal does: to the launcher and to the recipe.
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=60) == 0
        assert (tmp_path / "saved").exists()
    finally:
        process.kill()
        process.wait()


def test_the_recipes_are_the_root_s(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    for name in ("train", "evaluate"):
        monkeypatch.setattr(
            import_module(f"acebert.commands.{name}"), "launch", lambda *arguments: started.append(arguments)
        )
        commands.main([name, "--seed", "1"])
    assert started == [
        ("acebert.train_accelerate", ["--seed", "1"]),
        ("acebert.evaluate_accelerate", ["--seed", "1"]),
    ]


@pytest.mark.parametrize("name", ["train", "evaluate"])
def test_the_help_of_a_recipe_needs_no_launcher(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(name, capsys)
    assert text.startswith(f"usage: acebert {name} ")


def test_the_space_is_started_as_a_script(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        commands.main(["space", "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: acebert space") and "--model_name_or_path" in text and "--port" in text


def test_python_m_acebert_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "acebert", "--version"], capture_output=True, text=True, timeout=60)
    assert done.stdout == f"acebert {acebert.__version__}\n", done.stderr
