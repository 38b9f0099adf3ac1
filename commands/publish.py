"""Publishes a checkpoint on the Hugging Face Hub with a card written from its run, and a Space that shows it.

    python publish.py --model_dir runs/mine --report outputs/evaluation --repo_id you/my-search --dry_run
    python publish.py --model_dir runs/mine --report outputs/evaluation --repo_id you/my-search \
        --space_id you/my-search-space --catalog build/my-catalog

`HF_ENDPOINT` names another Hub. Stopped at any moment, the same command goes on: large files that arrived aren't sent
again. Run once more with other weights, it makes a new revision; the old one still loads by its own.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from transformers import AutoModel, HfArgumentParser

from acebert.hub.model_card import Power, is_edited, read_stages, write_card
from acebert.hub.publishing import (
    SPACE_SETTINGS,
    Files,
    Published,
    PublishError,
    RepoType,
    card_files,
    catalog_files,
    check_repository,
    clear_errors,
    model_files,
    open_repository,
    publish_catalog,
    publish_model,
    publish_space,
    size_of,
    space_files,
)
from acebert.training.command_line import default_settings
from acebert.utils.fingerprints import product_weights_sha256, weights_sha256


@dataclass
class PublishArguments:
    """What to publish, and under which names."""

    model_dir: str = field(metadata={"help": "Folder of the checkpoint: an --output_dir of train_accelerate.py."})
    repo_id: str = field(metadata={"help": "Model repository: name, or owner/name."})
    report: str | None = field(
        default=None, metadata={"help": "report.json of evaluate_accelerate.py, or its folder, for the card."}
    )
    space_id: str | None = field(default=None, metadata={"help": "Space to publish with it: name, or owner/name."})
    catalog: str | None = field(
        default=None,
        metadata={
            "help": "What the Space searches: a folder of build_catalog.py, which becomes a dataset repository, or a "
            "dataset on the Hub. By default a fashion catalogue."
        },
    )
    catalog_id: str | None = field(
        default=None, metadata={"help": "Dataset repository for a folder; by default --repo_id with -catalog added."}
    )
    space_settings: list[str] = field(
        default_factory=list,
        metadata={"help": f"Of the Space, as name=value: {', '.join(SPACE_SETTINGS)}."},
    )
    private: bool = field(default=False, metadata={"help": "Make new repositories private."})
    tag: str | None = field(default=None, metadata={"help": "Tag for the model's commit, as v1.0."})
    license: str = field(default="apache-2.0", metadata={"help": "Of the weights, as the Hub writes it in cards."})
    hardware: str | None = field(default=None, metadata={"help": "What it was trained on, in words, for the card."})
    power_watts: float | None = field(
        default=None, metadata={"help": "What the hardware drew on average, for an estimate of the carbon."}
    )
    carbon_intensity: float | None = field(
        default=None, metadata={"help": "Grams of CO2 equivalent a kilowatt-hour of the grid's electricity."}
    )
    overwrite_card: bool = field(default=False, metadata={"help": "Also a card that was edited by hand."})
    card_only: bool = field(
        default=False, metadata={"help": "Write the card into --model_dir, to read and edit. Nothing is published."}
    )
    dry_run: bool = field(default=False, metadata={"help": "List the files and their sizes. Nothing is published."})

    def __post_init__(self) -> None:
        self.settings = dict(setting.partition("=")[::2] for setting in self.space_settings)
        unknown = sorted(set(self.settings) - set(SPACE_SETTINGS))
        if unknown or not all(self.settings.values()):
            raise ValueError(
                f"--space_settings takes name=value with the names {', '.join(SPACE_SETTINGS)}, got "
                f"{self.space_settings}."
            )
        if not self.space_id and (self.catalog or self.settings):
            raise ValueError("--catalog and --space_settings are the Space's: give --space_id.")


def main(argv: Sequence[str] | None = None) -> None:
    try:
        (args,) = HfArgumentParser(PublishArguments).parse_args_into_dataclasses(argv)
        publish(args, HfApi())
    except (PublishError, ValueError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("Stopped; the same command goes on from there.")


def publish(args: PublishArguments, api: HfApi) -> None:
    # What is wrong here shows before anything is made there.
    folder = Path(args.model_dir)
    report = read_report(Path(args.report)) if args.report else None
    make_card = partial(
        write_card,
        stages=read_stages(folder),
        report=report,
        flags=default_settings(),
        license=args.license,
        power=Power(args.hardware, args.power_watts, args.carbon_intensity),
    )
    card, catalog_id = folder / "README.md", args.catalog_id or f"{args.repo_id}-catalog"
    keeps_card = card.is_file() and is_edited(card.read_text(encoding="utf-8")) and not args.overwrite_card
    catalog_folder = Path(args.catalog) if args.catalog and Path(args.catalog).is_dir() else None
    if args.catalog and not catalog_folder:
        check_dataset_name(args.catalog)
    if args.catalog_id and not catalog_folder:
        raise ValueError("--catalog_id is for a catalogue of build_catalog.py: name its folder by --catalog.")
    settings = args.settings | ({"catalog": args.catalog} if args.catalog and not catalog_folder else {})
    files = {f"model {args.repo_id}": model_files(folder)}
    text = card.read_text(encoding="utf-8") if keeps_card else make_card(args.repo_id)
    files[f"model {args.repo_id}"] |= card_files(text, folder)
    if catalog_folder:
        files[f"dataset {catalog_id}"] = catalog_files(catalog_folder)
    if args.space_id:
        files[f"space {args.space_id}"] = space_files(Published(args.repo_id, "<commit>"), settings=settings)
    check_weights(folder, report, catalog_folder)
    if args.dry_run:
        print_files(files)
        return
    if args.card_only:
        if keeps_card:
            raise ValueError(f"{card} was edited by hand: --overwrite_card writes it anew.")
        card.write_text(text, encoding="utf-8")
        print(f"The card is in {card}.")
        return

    # Every name is looked at before the first repository is made, and all are made before the first upload.
    private = True if args.private else None
    if args.catalog and not catalog_folder:
        settings["catalog_revision"] = find_dataset(api, args.catalog)
    names: dict[RepoType, str] = {"model": args.repo_id}
    if catalog_folder:
        names["dataset"] = catalog_id
    if args.space_id:
        names["space"] = args.space_id
    for repo_type, name in names.items():
        check_repository(api, name, repo_type, private)
    names = {repo_type: open_repository(api, name, repo_type, private) for repo_type, name in names.items()}

    repo_id = names["model"]
    model = publish_model(
        api,
        folder,
        repo_id,
        lambda revision: make_card(repo_id, revision=revision),
        overwrite_card=args.overwrite_card,
        tag=args.tag,
    )
    print(f"The model is at {api.endpoint}/{repo_id}; load it with revision={model.revision!r}.")
    catalog = None
    if catalog_folder:
        catalog = publish_catalog(api, catalog_folder, names["dataset"], model)
        print(f"The catalogue is at {api.endpoint}/datasets/{names['dataset']}.")
    if args.space_id:
        publish_space(api, names["space"], model, catalog, settings)
        print(f"The Space is at {api.endpoint}/spaces/{names['space']}.")
        if args.private:
            print("It reads private repositories: give it a token that may, as the secret HF_TOKEN in its settings.")


def check_dataset_name(name: str) -> None:
    """Makes sure that what is no folder here can be a dataset's name on the Hub; asks nobody.

    Raises:
        ValueError: where it can't.
    """
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ValueError(f"--catalog {name} is no folder here, and no name of a dataset: owner/name.") from error


def find_dataset(api: HfApi, repo_id: str) -> str:
    """The present commit of a dataset on the Hub.

    Raises:
        PublishError: where there is none.
    """
    with clear_errors(api, repo_id):
        if not api.repo_exists(repo_id, repo_type="dataset"):
            raise PublishError(f"--catalog {repo_id} is neither a folder here nor a dataset on {api.endpoint}.")
        return api.repo_info(repo_id, repo_type="dataset").sha


def read_report(path: Path) -> dict[str, Any]:
    path = path / "report.json" if path.is_dir() else path
    if not path.is_file():
        raise ValueError(f"--report {path} is no file: name the report.json that evaluate_accelerate.py wrote.")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"--report {path} can't be read ({error}): run evaluate_accelerate.py again.") from error


def check_weights(folder: Path, report: dict[str, Any] | None, catalog_folder: Path | None) -> None:
    """Makes sure that the report measured these weights, and that the catalogue was encoded by them.

    Raises:
        ValueError: where they were others.
    """
    catalog = catalog_folder and json.loads((catalog_folder / "catalog.json").read_text(encoding="utf-8"))
    made_by = {"--report": report and report["model"], "--catalog": catalog and catalog["model"]}
    given = {flag: model for flag, model in made_by.items() if model}
    if not given:
        return
    options = {"dtype": torch.float32, "trust_remote_code": True}
    model = AutoModel.from_pretrained(folder.resolve(), use_safetensors=True, **options)
    for flag, other in given.items():
        # A catalogue holds what the product side made, whatever the query side.
        name, fingerprint = ("weights_sha256", weights_sha256)
        if flag == "--catalog":
            name, fingerprint = ("product_weights_sha256", product_weights_sha256)
        if name not in other:
            raise ValueError(f"{flag} records no '{name}', as those of earlier versions: make it again.")
        if other[name] != fingerprint(model):
            raise ValueError(
                f"{flag} was made with {other['name']}, whose weights (sha256 {other[name][:12]}) aren't those in "
                f"{folder} ({fingerprint(model)[:12]}): make it again with this checkpoint."
            )


def print_files(repositories: dict[str, Files]) -> None:
    for repository, files in repositories.items():
        print(f"{repository}: {len(files)} files, {sum(map(size_of, files.values())):,} bytes")
        for name, file in files.items():
            print(f"  {size_of(file):>13,}  {name}")


if __name__ == "__main__":
    main()
