"""Publishes a checkpoint on the Hugging Face Hub with a model card written from its run, and a Space that shows it.

    acebert publish --model_dir runs/mine --report outputs/evaluation --repo_id you/my-search --dry_run
    acebert publish --model_dir runs/mine --report outputs/evaluation --repo_id you/my-search \
        --space_id you/my-search-space --catalog build/my-catalog

`HF_ENDPOINT` names another Hub. The same command resumes an upload that was stopped: large files that arrived aren't
sent again. Publishing other weights under the same name makes a new revision; the old one still loads by its commit.
"""

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from transformers import AutoModel, AutoProcessor

from acebert.encoding.query_export import write_query_encoder
from acebert.hub.model_card import Power, is_edited, read_stages, write_card
from acebert.hub.publishing import (
    QUERY_ENCODER,
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
from acebert.utils.command_line import make_parser
from acebert.utils.fingerprints import product_weights_sha256, weights_sha256


@dataclass
class ModelArguments:
    """The checkpoint, and the repository that it becomes."""

    _argument_group_name: ClassVar[str] = "model"

    model_dir: str = field(metadata={"help": "Folder of the checkpoint: an --output_dir of training."})
    repo_id: str = field(metadata={"help": "Model repository: name, or owner/name."})
    private: bool = field(default=False, metadata={"help": "Make new repositories private."})
    tag: str | None = field(default=None, metadata={"help": "Tag for the model's commit, as v1.0."})
    query_encoder: bool = field(
        default=False,
        metadata={"help": "Also publish the query encoder alone, as the folder query/, which needs no remote code."},
    )


@dataclass
class CardArguments:
    """What the model card says beside what the run recorded."""

    _argument_group_name: ClassVar[str] = "model card"

    report: str | None = field(
        default=None, metadata={"help": "Results for the card: the report.json of `acebert evaluate`, or its folder."}
    )
    license: str = field(
        default="apache-2.0", metadata={"help": "Licence of the weights, by its identifier on the Hub."}
    )
    hardware: str | None = field(default=None, metadata={"help": "Hardware that the model was trained on, in words."})
    power_watts: float | None = field(
        default=None, metadata={"help": "Average power draw of that hardware, in watts, to estimate the emissions."}
    )
    carbon_intensity: float | None = field(
        default=None, metadata={"help": "Emissions of the electricity, in grams of CO2 equivalent per kilowatt-hour."}
    )
    overwrite_card: bool = field(
        default=False, metadata={"help": "Overwrite the model card even if it was edited by hand."}
    )


@dataclass
class SpaceArguments:
    """The Space, and what it searches."""

    _argument_group_name: ClassVar[str] = "Space"

    space_id: str | None = field(
        default=None, metadata={"help": "Space to publish with the model: name, or owner/name. None by default."}
    )
    catalog: str | None = field(
        default=None,
        metadata={
            "help": "Products that the Space searches: a folder of `acebert build-catalog`, which becomes a dataset "
            "repository, or a dataset on the Hub. By default the Space's own."
        },
    )
    catalog_id: str | None = field(
        default=None,
        metadata={"help": "Dataset repository for a folder of --catalog; by default --repo_id followed by -catalog."},
    )
    space_settings: list[str] = field(
        default_factory=list,
        metadata={"help": f"Settings of the Space, as name=value; the names: {', '.join(SPACE_SETTINGS)}."},
    )

    def __post_init__(self) -> None:
        self.settings = dict(setting.partition("=")[::2] for setting in self.space_settings)
        if not set(self.settings) <= set(SPACE_SETTINGS) or not all(self.settings.values()):
            raise ValueError(
                f"--space_settings takes name=value with the names {', '.join(SPACE_SETTINGS)}, got "
                f"{self.space_settings}."
            )
        if not self.space_id and (self.catalog or self.settings):
            raise ValueError("--catalog and --space_settings are settings of the Space: add --space_id.")
        if self.catalog_id and not self.catalog_folder:
            raise ValueError(
                "--catalog_id names the repository of a catalogue's folder: name that folder by --catalog."
            )
        if self.catalog and not self.catalog_folder:
            check_dataset_name(self.catalog)

    @property
    def catalog_folder(self) -> Path | None:
        """The folder that is published as a dataset; None for a dataset that is on the Hub already."""
        return Path(self.catalog) if self.catalog and Path(self.catalog).is_dir() else None


@dataclass
class PreviewArguments:
    """What to do instead of publishing."""

    _argument_group_name: ClassVar[str] = "preview"

    dry_run: bool = field(
        default=False, metadata={"help": "List the files that would be uploaded and their sizes, and publish nothing."}
    )
    card_only: bool = field(
        default=False, metadata={"help": "Write the card to --model_dir, to read and edit it, and publish nothing."}
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Publishes, or shows what would be published.

    Args:
        argv: flags; those of the process by default.

    Raises:
        SystemExit: with what is wrong and its remedy; before anything is uploaded, as far as it can be known then.
    """
    groups = (ModelArguments, CardArguments, SpaceArguments, PreviewArguments)
    parser = make_parser("acebert publish", __doc__.splitlines()[0], groups)
    try:
        model, card, space, preview = parser.parse_args_into_dataclasses(argv)
        with tempfile.TemporaryDirectory() as made:
            publication = Publication(model, card, space, Path(made))
            # What is missing or damaged here shows before a repository is made there.
            files = publication.list_files()
            publication.check_weights()
            if preview.dry_run:
                print_files(files)
            elif preview.card_only:
                publication.save_card()
            else:
                publication.upload(HfApi())
    except (PublishError, ValueError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("Stopped; the same command resumes.")


class Publication:
    """A checkpoint with its card, its Space and its catalogue.

    Args:
        model, card, space: the flags.
        made: an empty folder, for files that are made to be published.

    Raises:
        ValueError: for a report that can't be read, or a power draw without a carbon intensity.
    """

    def __init__(self, model: ModelArguments, card: CardArguments, space: SpaceArguments, made: Path):
        self.model, self.card, self.space, self.made = model, card, space, made
        self.folder = Path(model.model_dir)
        self.catalog_id = space.catalog_id or f"{model.repo_id}-catalog"
        self.report = read_report(Path(card.report)) if card.report else None
        self.power = Power(card.hardware, card.power_watts, card.carbon_intensity)

    @property
    def card_path(self) -> Path:
        return self.folder / "README.md"

    @cached_property
    def keeps_card(self) -> bool:
        """Whether the folder has a card that was edited by hand."""
        has_card = self.card_path.is_file() and not self.card.overwrite_card
        return has_card and is_edited(self.card_path.read_text(encoding="utf-8"))

    def make_card(self, repo_id: str, revision: str | None = None) -> str:
        return write_card(
            repo_id,
            read_stages(self.folder),
            self.report,
            revision=revision,
            flags=default_settings(),
            license=self.card.license,
            power=self.power,
            query_encoder=self.model.query_encoder,
        )

    @cached_property
    def query_encoder(self) -> Path | None:
        """The folder of the query encoder alone, written when it is first asked for; None where none is wanted."""
        if not self.model.query_encoder:
            return None
        model_files(self.folder)  # names what is missing or damaged, which loading it might not
        options = {"trust_remote_code": True}
        model = AutoModel.from_pretrained(self.folder.resolve(), use_safetensors=True, **options)
        processor = AutoProcessor.from_pretrained(self.folder.resolve(), **options)
        write_query_encoder(model, processor, self.made / QUERY_ENCODER)
        return self.made / QUERY_ENCODER

    def save_card(self) -> None:
        """Writes the card to the checkpoint's folder."""
        if self.keeps_card:
            raise ValueError(f"{self.card_path} was edited by hand: --overwrite_card replaces it.")
        self.card_path.write_text(self.make_card(self.model.repo_id), encoding="utf-8")
        print(f"The card is in {self.card_path}.")

    def check_weights(self) -> None:
        """Makes sure that the report measured these weights, and that the catalogue was encoded by them.

        Raises:
            ValueError: where they were others.
        """
        catalog_folder = self.space.catalog_folder
        catalog = catalog_folder and json.loads((catalog_folder / "catalog.json").read_text(encoding="utf-8"))
        made_by = {"--report": self.report and self.report["model"], "--catalog": catalog and catalog["model"]}
        given = {flag: model for flag, model in made_by.items() if model}
        if not given:
            return
        options = {"dtype": torch.float32, "trust_remote_code": True}
        model = AutoModel.from_pretrained(self.folder.resolve(), use_safetensors=True, **options)
        for flag, other in given.items():
            # A catalogue holds vectors of products, so that it may be searched with another query encoder.
            name, fingerprint = ("weights_sha256", weights_sha256)
            if flag == "--catalog":
                name, fingerprint = ("product_weights_sha256", product_weights_sha256)
            if name not in other:
                raise ValueError(f"{flag} has no '{name}', since an earlier version made it: make it again.")
            if other[name] != fingerprint(model):
                raise ValueError(
                    f"{flag} was made with {other['name']}, whose weights (sha256 {other[name][:12]}) aren't those in "
                    f"{self.folder} ({fingerprint(model)[:12]}): make it again with this checkpoint."
                )

    def list_files(self) -> dict[str, Files]:
        """All files by repository, with the card as it is or would be written.

        Raises:
            ValueError: for files that are missing or damaged.
        """
        repo_id = self.model.repo_id
        files = {f"model {repo_id}": model_files(self.folder, self.query_encoder)}
        card = self.card_path.read_text(encoding="utf-8") if self.keeps_card else self.make_card(repo_id)
        files[f"model {repo_id}"] |= card_files(card, self.folder)
        if self.space.catalog_folder:
            files[f"dataset {self.catalog_id}"] = catalog_files(self.space.catalog_folder)
        if self.space.space_id:
            settings = self.space.settings
            if self.space.catalog and not self.space.catalog_folder:
                settings = {**settings, "catalog": self.space.catalog}
            files[f"space {self.space.space_id}"] = space_files(Published(repo_id, "<commit>"), settings=settings)
        return files

    def upload(self, api: HfApi) -> None:
        """Makes the repositories and uploads the files: the model first, since the others name its commit.

        Raises:
            PublishError: see [`open_repository`]. All names are checked before the first repository is made, and all
                repositories are made before the first upload.
        """
        private = True if self.model.private else None
        settings = dict(self.space.settings)
        if self.space.catalog and not self.space.catalog_folder:
            settings |= {"catalog": self.space.catalog, "catalog_revision": find_dataset(api, self.space.catalog)}
        names: dict[RepoType, str] = {"model": self.model.repo_id}
        if self.space.catalog_folder:
            names["dataset"] = self.catalog_id
        if self.space.space_id:
            names["space"] = self.space.space_id
        for repo_type, name in names.items():
            check_repository(api, name, repo_type, private)
        names = {repo_type: open_repository(api, name, repo_type, private) for repo_type, name in names.items()}

        repo_id = names["model"]
        model = publish_model(
            api,
            self.folder,
            repo_id,
            lambda revision: self.make_card(repo_id, revision),
            overwrite_card=self.card.overwrite_card,
            tag=self.model.tag,
            query_encoder=self.query_encoder,
        )
        print(f"The model is at {api.endpoint}/{repo_id}; load it with revision={model.revision!r}.")
        catalog = None
        if self.space.catalog_folder:
            catalog = publish_catalog(api, self.space.catalog_folder, names["dataset"], model)
            print(f"The catalogue is at {api.endpoint}/datasets/{names['dataset']}.")
        if self.space.space_id:
            publish_space(api, names["space"], model, catalog, settings)
            print(f"The Space is at {api.endpoint}/spaces/{names['space']}.")
            if self.model.private:
                print("It reads private repositories: add a token that may read them to its secrets, as HF_TOKEN.")


def check_dataset_name(name: str) -> None:
    """Checks that what isn't a folder here can be the name of a dataset on the Hub, without asking the Hub.

    Raises:
        ValueError: if it can't.
    """
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ValueError(f"--catalog {name} is neither a folder here nor the name of a dataset, owner/name.") from error


def find_dataset(api: HfApi, repo_id: str) -> str:
    """The newest commit of a dataset on the Hub.

    Raises:
        PublishError: if there is no such dataset.
    """
    with clear_errors(api, repo_id):
        if not api.repo_exists(repo_id, repo_type="dataset"):
            raise PublishError(f"--catalog {repo_id} is neither a folder here nor a dataset on {api.endpoint}.")
        return api.repo_info(repo_id, repo_type="dataset").sha


def read_report(path: Path) -> dict[str, Any]:
    """The report of an evaluation, from its file or its folder.

    Raises:
        ValueError: for a file that is missing or no JSON.
    """
    path = path / "report.json" if path.is_dir() else path
    if not path.is_file():
        raise ValueError(f"--report {path} is no file: name the report.json that `acebert evaluate` wrote.")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"--report {path} can't be read ({error}): run `acebert evaluate` again.") from error


def print_files(repositories: dict[str, Files]) -> None:
    """Lists the files of each repository with their sizes in bytes."""
    for repository, files in repositories.items():
        print(f"{repository}: {len(files)} files, {sum(map(size_of, files.values())):,} bytes")
        for name, file in files.items():
            print(f"  {size_of(file):>13,}  {name}")


if __name__ == "__main__":
    main()
