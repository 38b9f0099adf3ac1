"""The command line: `acebert <command>` runs `acebert.commands.<command>`, as `python -m` with that module does.

Nothing here imports a command before it is called, so that `acebert --help` doesn't wait for torch.
"""

import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module

# By heading: the commands, what each does, and the extra of `pip install "acebert[extra]"` that it needs.
COMMANDS = {
    "Train and measure": {
        "train": ("Train one stage of a model on a catalogue.", "train"),
        "evaluate": ("Measure a checkpoint on product retrieval, next to baselines.", "evaluate"),
        "find-learning-rate": ("Suggest learning rates by a range test.", "train"),
        "interpolate": ("Give fine-tuned text encoders back a share of their backbone (WiSE-FT).", "train"),
        "plot-training": ("Plot a run's loss and validation metrics.", "train"),
        "ablate": ("Measure what each part of the model contributes, over several seeds.", "evaluate"),
    },
    "Search": {
        "build-catalog": ("Encode a catalogue into a folder that can be searched.", "catalog"),
        "move-index": ("Move a catalogue's index to a Qdrant server, or back, without encoding anything.", "server"),
        "snapshot": ("Save a backup of a catalogue while it is in use.", "catalog"),
        "encode": ("Write products' vectors, ids and attributes for other search engines.", "catalog"),
        "serve": ("Serve a catalogue over HTTP, with changes, keys and metrics.", "serve"),
        "space": ("Search a catalogue in the browser.", "space"),
        "export-query-encoder": ("Export the query encoder for engines that run no remote code.", "evaluate"),
        "export-onnx": ("Export the encoders to ONNX, in float32 and 8 bits.", "onnx"),
    },
    "Share": {
        "publish": ("Publish a checkpoint on the Hub, with its model card and a Space.", "train"),
    },
    "Try it out": {
        "sample-catalog": ("Draw a catalogue of invented products, with queries and their answers.", "catalog"),
    },
}
USAGE = "usage: acebert <command> [flags]"


def main(argv: Sequence[str] | None = None) -> None:
    """Runs one command.

    Args:
        argv: the command's name and its flags; those of the process by default.

    Raises:
        SystemExit: without a command, for an unknown one, and for one whose packages aren't installed; with status 0
            after `--help` and `--version`.
    """
    name, *flags = (sys.argv[1:] if argv is None else argv) or [""]
    extras = {name: extra for commands in COMMANDS.values() for name, (_, extra) in commands.items()}
    if name in ("-h", "--help"):
        print(make_help())
        raise SystemExit(0)
    if name == "--version":
        from acebert import __version__

        print(f"acebert {__version__}")
        raise SystemExit(0)
    if name not in extras:
        nearest = get_close_matches(name.replace("_", "-"), extras, n=1)
        did_you_mean = f" Did you mean '{nearest[0]}'?" if nearest else ""
        problem = f"There is no command '{name[:80]}'.{did_you_mean}" if name else "Which command?"
        raise SystemExit(f"{USAGE}\n{problem} `acebert --help` lists the commands.")
    sys.argv[0] = f"acebert {name}"  # argparse names the program by it
    try:
        import_module(f"acebert.commands.{name.replace('-', '_')}").main(flags)
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package in ("", "acebert"):
            raise
        raise SystemExit(
            f"acebert {name} needs the package '{package}', which isn't installed: "
            f'pip install "acebert[{extras[name]}]".'
        ) from error


def make_help() -> str:
    """What `acebert --help` prints: one line for each command."""
    width = max(len(name) for commands in COMMANDS.values() for name in commands)
    lines = [USAGE, "", "Product search that sees the photo as well as it reads the title."]
    for heading, commands in COMMANDS.items():
        lines += ["", f"{heading}:", *(f"  {name:<{width}}  {text}" for name, (text, _) in commands.items())]
    return "\n".join(
        [
            *lines,
            "",
            "`acebert <command> --help` lists the flags of a command. train and evaluate run by accelerate launch and",
            "pass on what follows `--`: acebert train --stage pretrain ... -- --num_processes 2",
        ]
    )
