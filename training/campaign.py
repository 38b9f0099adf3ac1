"""The plan of an ablation campaign: arms that differ from a base in one thing, several seeds each."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from acebert.training.command_line import parse_arguments
from acebert.utils.arguments import defaults_of, groups_of
from acebert.utils.config_file import to_argv
from acebert.utils.fingerprints import json_sha256

BASE = "base"  # the arm that the others are compared with
SECTIONS = ("both", "model", "pretrain", "finetune")
OURS = ("stage", "seed", "output_dir", "overwrite_output_dir", "model_name_or_path")  # flags that the runner sets


@dataclass(frozen=True)
class Run:
    """One call of the training script.

    Args:
        name: of its folder; ends with a digest of its settings, so that other settings are another run.
        flags: of the training script, but for `output_dir`; `model_name_or_path` is the name of another run.
        settings: all of the script's settings that follow from the flags.
    """

    name: str
    flags: dict[str, Any]
    settings: dict[str, Any]

    @property
    def products(self) -> int:
        """Products that a process sees."""
        batches = self.settings["max_train_steps"] * self.settings["gradient_accumulation_steps"]
        return batches * self.settings["per_device_batch_size"]

    def arguments(self, output_dir: Path) -> list[str]:
        paths = {"output_dir": output_dir / self.name}
        if "model_name_or_path" in self.flags:
            paths["model_name_or_path"] = output_dir / self.flags["model_name_or_path"]
        return to_argv({**self.flags, **paths})


@dataclass(frozen=True)
class Trial:
    """One arm with one seed: its runs in their order, pre-training (if the arm has any) and fine-tuning."""

    arm: str
    seed: int
    runs: tuple[Run, ...]


def load_config(path: str | Path) -> dict[str, Any]:
    """Reads `seeds`, `arms` and the four sections of flags.

    Raises:
        SystemExit: for a part that is missing or unknown, or a flag that is not the file's to set; naming it.
    """
    config = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    parts = {"seeds": list, "arms": dict} | dict.fromkeys(SECTIONS, dict)
    if not isinstance(config, dict) or set(config) != set(parts):
        raise SystemExit(f"{path} must hold {', '.join(parts)}, and nothing else.")
    for name, kind in parts.items():
        if not isinstance(config[name], kind):
            raise SystemExit(f"{path}: {name} must be a {kind.__name__}, got {config[name]!r}.")
    if BASE not in config["arms"]:
        raise SystemExit(f"{path} must hold an arm '{BASE}', which the others are compared with.")
    for name, arm in config["arms"].items():
        if not isinstance(arm, dict) or "description" not in arm or not set(arm) <= {"description", *SECTIONS}:
            raise SystemExit(f"{path}: the arm '{name}' must hold a description, and may hold {', '.join(SECTIONS)}.")
    for part in (config, *config["arms"].values()):
        for section in SECTIONS:
            if section == "pretrain" and part.get(section) == "none":
                continue
            flags = part.get(section, {})
            if not isinstance(flags, dict):
                raise SystemExit(f"{path}: {section} must hold `flag: value` lines, got {flags!r}.")
            if set(flags) & set(OURS):
                raise SystemExit(f"{path}: leave {', '.join(sorted(set(flags) & set(OURS)))} out, it is set here.")
    return config


def plan(config: dict[str, Any], seeds: Sequence[int]) -> list[Trial]:
    """All arms with all seeds, seed by seed, so that a campaign that is stopped has whole seeds to compare.

    Raises:
        SystemExit: for flags that the training script does not take, a run without a budget, or two arms that are the
            same.
    """
    trials = []
    for seed in seeds:
        seen: dict[str, str] = {}
        for name, arm in config["arms"].items():
            both, model, pretrain, finetune = ({**config[section], **_changes(arm, section)} for section in SECTIONS)
            runs: tuple[Run, ...] = ()
            if arm.get("pretrain") == "none":
                both |= model  # fine-tuning builds the model
            else:
                runs = (make_run("pretrain", {"stage": "pretrain", "seed": seed, **both, **model, **pretrain}, name),)
                both["model_name_or_path"] = runs[0].name
            runs += (make_run(name, {"stage": "finetune", "seed": seed, **both, **finetune}, name),)
            other = seen.setdefault(runs[-1].name.removeprefix(f"seed{seed}-{name}-"), name)
            if other != name:
                raise SystemExit(f"The arms '{other}' and '{name}' have the same settings: what is '{name}' to change?")
            trials.append(Trial(name, seed, runs))
    return trials


def _changes(arm: dict[str, Any], section: str) -> dict[str, Any]:
    changes = arm.get(section, {})
    return {} if changes == "none" else changes


def make_run(label: str, flags: dict[str, Any], arm: str) -> Run:
    """Checks the flags as the training script will, and names the run by all of its settings that are no defaults."""
    try:
        args = parse_arguments(to_argv({**flags, "output_dir": "unused"}))
    except (SystemExit, ValueError) as error:
        reason = error if isinstance(error, ValueError) else "see above"
        raise SystemExit(f"The arm '{arm}' can't run: the {flags['stage']} flags are wrong ({reason}).") from None
    settings = {name: value for name, value in asdict(args).items() if name != "output_dir"}
    if settings["max_train_steps"] is None:
        raise SystemExit(f"The arm '{arm}' has no max_train_steps to {flags['stage']}: arms compare at a fixed budget.")
    # Of what differs from the defaults of its group of flags, which stages share, so that a flag which a later version
    # adds, or another default of one stage, leaves finished runs finished.
    defaults = {name: value for group in groups_of(type(args)) for name, value in defaults_of(group).items()}
    changed = {name: value for name, value in settings.items() if value != defaults[name]}
    digest = json_sha256(changed, sort_keys=True)[:12]
    return Run(f"seed{flags['seed']}-{label}-{digest}", flags, settings)
