"""What users rely on: nothing is unpickled, no text becomes code, the remote code keeps to itself."""

import ast
import importlib.metadata
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers import WORDS
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from acebert.training.checkpoints import refuse_code

ROOT = Path(__file__).parents[2]
REMOTE = (
    "configuration_acebert.py",
    "image_processing_acebert.py",
    "losses_acebert.py",
    "modeling_acebert.py",
    "processing_acebert.py",
    "sentence_transformers_acebert.py",
    "vision_acebert.py",
)
# Classes of models, not those of configurations, tokenizers and processors.
MODELS = re.compile(r"^(AutoModel\w*|\w+_class)$")
PICKLERS = ("pickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve")


def files(*endings: str) -> list[Path]:
    """The project's own files, from the root; not what was installed, built or run there."""
    found = []
    for folder, folders, names in os.walk(ROOT):
        if Path(folder) == ROOT:
            folders[:] = [name for name in folders if name not in ("build", "dist", "outputs", "runs")]
        folders[:] = [name for name in folders if not name.startswith((".", "_"))]
        found += [Path(folder, name).relative_to(ROOT) for name in names if name.endswith(endings)]
    return sorted(found)


# ----------------------------------------------------------------------------------------------------------------------
# The sources
# ----------------------------------------------------------------------------------------------------------------------


def name_of(node: ast.expr) -> str:
    """`torch.load` of the call `torch.load(...)`; of `f(x).load`, `.load`."""
    if isinstance(node, ast.Name):
        return node.id
    return f"{name_of(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else ""


def dangers(source: str) -> Iterator[tuple[int, str]]:
    """Calls by which a file, a name or a text could become running code."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = name_of(node.func)
        package, _, function = name.rpartition(".")
        options = {keyword.arg: getattr(keyword.value, "value", "?") for keyword in node.keywords}
        if name in ("eval", "exec", "compile", "__import__"):
            yield node.lineno, f"{name} makes code of a text"
        elif name == "torch.load" and options.get("weights_only") is not True:
            yield node.lineno, "torch.load without weights_only=True unpickles"
        elif (
            (package in PICKLERS and function in ("load", "loads", "Unpickler", "open"))
            or function == "read_pickle"
            or options.get("allow_pickle", False) is not False
        ):
            yield node.lineno, f"{name} unpickles"
        elif package == "yaml" and function in ("load", "load_all", "full_load", "unsafe_load"):
            yield node.lineno, f"{name} makes any object: take yaml.safe_load"
        elif name in ("os.system", "os.popen", "subprocess.getoutput") or options.get("shell", False) is not False:
            yield node.lineno, f"{name} starts a shell"
        elif function == "load_dataset" and "trust_remote_code" in options:
            yield node.lineno, "load_dataset runs a dataset's script"
        elif function == "from_pretrained" and MODELS.search(package) and options.get("use_safetensors") is not True:
            yield node.lineno, f"{name} without use_safetensors=True may unpickle"
        elif function == "load_state":
            yield node.lineno, "accelerate's load_state unpickles: resume by acebert.training.checkpoints"


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=choice)",
        "pickle.loads(data)",
        "joblib.load(path)",
        "np.load(path, allow_pickle=True)",
        "pd.read_pickle(path)",
        "yaml.load(text)",
        "eval(text)",
        "exec(text)",
        "os.system(command)",
        "subprocess.run(command, shell=True)",
        "load_dataset(name, trust_remote_code=True)",
        "accelerator.load_state(folder)",
        "AutoModel.from_pretrained(path, dtype=dtype)",
    ],
)
def test_the_scan_finds(source: str) -> None:
    assert len(list(dangers(source))) == 1


def test_no_source_makes_code_of_a_file_or_a_text() -> None:
    allowed = {
        "training/checkpoints.py": "accelerate's load_state",  # after `refuse_code`
        "sentence_transformers_acebert.py": "AutoModel.from_pretrained without use_safetensors",  # its options hold it
        "tests/hub/test_publishing.py": "exec makes code of a text",  # the snippet of a card that was just written
    }
    found = [
        f"{path}:{line}: {what}"
        for path in files(".py")
        for line, what in dangers((ROOT / path).read_text(encoding="utf-8"))
        if not what.startswith(allowed.get(str(path), "nothing"))
        # Tests and benchmarks load what this project saved.
        if "use_safetensors" not in what or path.parts[0] not in ("tests", "benchmarks")
    ]
    assert found == []


def test_what_could_run_code_in_a_checkpoint_is_refused(tmp_path: Path) -> None:
    torch.save(
        {"step": 3, "best_metrics": {"recall@10": 0.5}, "rows": torch.ones(2)}, tmp_path / "custom_checkpoint_0.pkl"
    )
    refuse_code(tmp_path)

    class Harmful:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "harmed"),)

    for save in (torch.save, lambda state, path: path.write_bytes(pickle.dumps(state, protocol=2))):
        save({"step": Harmful()}, tmp_path / "custom_checkpoint_1.pkl")
        with pytest.raises(SystemExit, match=r"custom_checkpoint_1\.pkl holds more than tensors"):
            refuse_code(tmp_path)
    assert not (tmp_path / "harmed").exists()


def test_weights_are_safetensors() -> None:
    """Nowhere is a pickled file of weights written, named or shipped."""
    assert files(".bin", ".pt", ".pth", ".ckpt", ".pkl", ".joblib", ".npy") == []
    assert (ROOT / "model.safetensors").exists()


# ----------------------------------------------------------------------------------------------------------------------
# The documentation
# ----------------------------------------------------------------------------------------------------------------------

TRUSTED = re.compile(r"([\w.]+)\((?=((?:[^()]|\([^()]*\))*)\))(?:[^()]|\([^()]*\))*?trust_remote_code=True")


def unpinned(text: str) -> list[str]:
    """Calls that run the code of a Hub id without the revision of it that was read."""
    calls = [match.group(2) for match in TRUSTED.finditer(text)]
    sources = [re.match(r"""\s*["']([^"']+)["']""", call) for call in calls]
    return [
        call
        for call, source in zip(calls, sources, strict=True)
        if source and re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", source[1]) and "revision=" not in call
        if source[1].split("/")[0] not in ("runs", "build", "path")
    ]


def test_documentation_pins_the_code_that_it_runs() -> None:
    assert unpinned('AutoModel.from_pretrained("you/acebert", trust_remote_code=True)')
    assert unpinned("SentenceTransformer(\n    'you/acebert', dtype=f(x),\n    trust_remote_code=True)")
    assert not unpinned('AutoModel.from_pretrained("you/acebert", trust_remote_code=True, revision="0c8d53c")')
    assert not unpinned('AutoModel.from_pretrained(".", trust_remote_code=True)')
    pages = files(".md", ".py", ".txt", ".jinja")
    tests = Path("tests")
    found = {
        str(page): calls
        for page in pages
        if tests not in page.parents and (calls := unpinned((ROOT / page).read_text(encoding="utf-8")))
    }
    assert found == {}


# ----------------------------------------------------------------------------------------------------------------------
# The remote code
# ----------------------------------------------------------------------------------------------------------------------

HARMLESS = {
    *("__future__", "collections", "copy", "dataclasses", "difflib", "functools", "io", "itertools", "json", "math"),
    *("os", "pathlib", "re", "threading", "typing"),
}
OF_THE_FIELD = {"torch", "transformers", "numpy", "PIL", "huggingface_hub"}


@pytest.mark.parametrize("name", REMOTE)
def test_the_remote_code_imports_nothing_that_reaches_out(name: str) -> None:
    tree = ast.parse((ROOT / name).read_text(encoding="utf-8"))
    more = {"sentence_transformers"} if name == "sentence_transformers_acebert.py" else set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module] if not node.level else []
            assert not node.level or f"{node.module}.py" in REMOTE
        else:
            continue
        assert {module.split(".")[0] for module in modules} <= HARMLESS | OF_THE_FIELD | more
    # Of the modules that could: names of paths, and bytes in memory.
    used = {name_of(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert {name for name in used if name.split(".")[0] in ("os", "io")} <= {"os.PathLike", "os.fspath", "io.BytesIO"}


# Run with -I in another folder. What is watched for is listed at https://docs.python.org/3/library/audit_events.html.
AUDITED = """
import importlib, json, socket, subprocess, sys
from PIL import Image
from transformers import BertTokenizer
folder, words, config = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
tokenizer = BertTokenizer(vocab={word: number for number, word in enumerate(words)})
sys.path.insert(0, folder)
READS = {"open", "os.listdir", "os.scandir"}
WATCHED = READS | set(
    "socket.__new__ socket.connect socket.bind socket.getaddrinfo socket.gethostbyname urllib.Request "
    "subprocess.Popen os.system os.exec os.fork os.forkpty os.posix_spawn os.spawn os.startfile pty.spawn os.kill "
    "os.remove os.rename os.mkdir os.rmdir os.link os.symlink os.truncate os.chmod os.chown os.utime os.putenv "
    "shutil.rmtree shutil.move shutil.copyfile tempfile.mkstemp tempfile.mkdtemp mmap.__new__ sqlite3.connect "
    "ctypes.dlopen".split()
)
events, listening = [], False

def watch(event, arguments):
    if listening and event in WATCHED:
        writes = event == "open" and (set(arguments[1] or "r") & set("wax+") or arguments[2] & 3)
        # Python imports the modules by reading their folder.
        if event not in READS or writes or not str(arguments[0]).startswith(folder):
            events.append([event, str(arguments[0]) if arguments else ""])

def use(package):
    importlib.import_module(package + ".configuration_acebert")
    processing = importlib.import_module(package + ".processing_acebert")
    modeling = importlib.import_module(package + ".modeling_acebert")
    photo = Image.new("RGB", (24, 32), "red")
    for cls in (modeling.AceBertModel, modeling.AceBertForPreTraining, modeling.AceBertForRetrieval):
        model = cls(cls.config_class(**config)).eval()
        images = processing.AceBertImageProcessor(patch_size=8, max_num_patches=12)
        processor = processing.AceBertProcessor(images, tokenizer)
        queries = processor(text=["red shirt"], return_tensors="pt")
        products = processor(text=["the shirt", None], images=[photo, photo], return_tensors="pt")
        model.base_model.get_text_features(**queries)
        model.base_model.get_product_features(**products)
        model.base_model.get_image_features(**processor(images=[photo], return_tensors="pt"))

use("before")  # the libraries load parts of theirs when they are first needed
sys.addaudithook(watch)
listening = True
use("remote")
listening = False
print(json.dumps(events))
listening = True
open(folder + "/new", "w").close()
socket.getaddrinfo("localhost", 80)
subprocess.run(["true"])
listening = False
print(json.dumps([event for event, _ in events]))
"""


def test_the_remote_code_opens_no_network_no_file_and_no_process(tiny_config: object, tmp_path: Path) -> None:
    for package in ("before", "remote"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
        for name in REMOTE:
            if name != "sentence_transformers_acebert.py":  # which needs that library
                shutil.copy(ROOT / name, tmp_path / package)
    config = tiny_config().to_diff_dict()
    run = subprocess.run(
        [sys.executable, "-I", "-B", "-c", AUDITED, str(tmp_path), json.dumps(WORDS), json.dumps(config)],
        cwd=tmp_path,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    seen, of_the_check = map(json.loads, run.stdout.splitlines()[-2:])
    assert seen == []
    assert {"open", "socket.getaddrinfo", "subprocess.Popen"} <= set(of_the_check)  # the watch was awake


# ----------------------------------------------------------------------------------------------------------------------
# The dependencies
# ----------------------------------------------------------------------------------------------------------------------


def pins() -> dict[str, str]:
    """The versions in constraints.txt that hold for this interpreter, by name."""
    lines = (line.split("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines())
    requirements = [Requirement(line) for line in lines if line]
    assert all(re.fullmatch(r"==[^*,]+", str(requirement.specifier)) for requirement in requirements)
    return {
        canonicalize_name(requirement.name): str(requirement.specifier).removeprefix("==")
        for requirement in requirements
        if requirement.marker is None or requirement.marker.evaluate()
    }


def test_every_dependency_is_locked() -> None:
    """All that `pip install -e .[dev]` brings, direct or not, is pinned to the version that is installed."""
    locked, waiting, seen = pins(), [("acebert", frozenset({"dev"}))], set()
    installed: dict[str, str] = {}
    while waiting:
        name, extras = waiting.pop()
        distribution = importlib.metadata.distribution(name)
        installed[name] = distribution.version.split("+")[0]
        for text in distribution.requires or []:
            requirement = Requirement(text)
            if requirement.marker and not any(requirement.marker.evaluate({"extra": e}) for e in extras | {""}):
                continue
            needed = canonicalize_name(requirement.name), frozenset(requirement.extras)
            if needed not in seen:
                seen.add(needed)
                waiting.append(needed)
    del installed["acebert"]
    assert {name: version for name, version in installed.items() if locked.get(name) != version} == {}
    assert len(installed) > 100
