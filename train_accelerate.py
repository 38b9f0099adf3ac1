"""Trains ACE-BERT on your own catalogue: titles and photos first, then queries.

    accelerate launch train_accelerate.py --stage align --share_encoders \\
        --backbone sentence-transformers/all-MiniLM-L6-v2 --image_backbone facebook/dinov2-small --max_num_patches 48 \\
        --dataset_name ashraq/fashion-product-images-small --title_column productDisplayName --output_dir runs/aligned
    accelerate launch train_accelerate.py --stage finetune --freeze_image_encoder \\
        --model_name_or_path runs/aligned --text_teacher sentence-transformers/all-MiniLM-L6-v2 \\
        --dataset_name ashraq/fashion-product-images-small --title_column productDisplayName \\
        --query_templates "{gender} {baseColour} {articleType}" --output_dir runs/finetuned

A model of one stream, without --image_backbone, begins with `--stage pretrain`; `--stage query_side` trains a query
encoder of its own against vectors that stay.
`--stage finetune --help` lists a stage's flags. `--config run.yaml` reads any of them from a file; flags on the command
line override it. The same command started again resumes from its latest checkpoint. `--output_dir` itself always holds
the best model so far as a complete Hub folder.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import transformers
from accelerate.utils import set_seed
from huggingface_hub import HfApi

from acebert.hub.model_card import read_stages, write_card
from acebert.hub.publishing import PublishError, open_repository, publish_model
from acebert.training.accelerator import make_accelerator
from acebert.training.arguments import TrainingArguments
from acebert.training.checkpoints import RunFolder
from acebert.training.command_line import default_settings, parse_arguments
from acebert.training.optimization import clamp_temperature, count_steps, make_optimizer, make_scheduler
from acebert.training.run import Run
from acebert.training.signals import explain_lost_processes
from acebert.training.stages import STAGES


@explain_lost_processes()
def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Runs one stage of training. Returns the best validation's metrics (empty without a validation split)."""
    args = parse_arguments(argv)
    accelerator = make_accelerator(args)
    # Fail fast: a wrong token or repository name shows before the long work starts.
    repository = create_repository(args) if args.push_to_hub and accelerator.is_main_process else None
    set_seed(args.seed)

    # 1. The stage knows what is learned: its data, its trainable weights, its losses and its metrics.
    stage = STAGES[args.stage](args, accelerator)
    folder = RunFolder.open(args, accelerator, fingerprints=stage.load_data())
    model = stage.load_model()
    train_loader, validation_loader = stage.make_loaders()

    # 2. The optimizer, and a schedule that ends with the last step.
    optimizer = make_optimizer(model, stage.learning_rates(), args)
    model, optimizer, train_loader = accelerator.prepare(model, optimizer, train_loader)
    total_steps = count_steps(args, len(train_loader))
    scheduler = accelerator.prepare(make_scheduler(optimizer, args, total_steps, accelerator))
    stage.prepare(model)  # query-side fine-tuning encodes the catalogue
    model.train()  # `from_pretrained` leaves dropout off

    # 3. The run remembers: progress, log, moving average, best model, checkpoints, signals.
    run = Run(args, accelerator, stage, folder, model, scheduler, train_loader, validation_loader, total_steps)
    run.resume()
    for batch in run.batches():  # epochs, their order, a seed for each step; what was done before is skipped
        with accelerator.accumulate(model):
            losses = stage.backward(model, batch, run.done)
            norm = None
            if accelerator.sync_gradients:
                norm = accelerator.clip_grad_norm_(model.parameters(), args.max_grad_norm)
            run.watch(losses, norm)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
        clamp_temperature(accelerator.unwrap_model(model))
        run.after_batch(losses)  # log, average, validate, save, stop
    metrics = run.finish()

    # Free the DDP wrapper before the process group is destroyed: its destructor could otherwise deadlock on Python's
    # lock (https://github.com/pytorch/pytorch/issues/56297).
    del run, model
    accelerator.free_memory()
    accelerator.end_training()
    if repository:
        push_to_hub(repository, args)
    return metrics


def create_repository(args: TrainingArguments) -> str:
    """The repository of `--push_to_hub`, made if need be."""
    name = args.hub_model_id or Path(args.output_dir).resolve().name
    try:
        return open_repository(HfApi(), name, "model", args.hub_private_repo or None)
    except PublishError as error:
        raise SystemExit(f"--push_to_hub: {error}") from error


def push_to_hub(repository: str, args: TrainingArguments) -> None:
    """Publishes the best model with a card written from the run."""
    folder = Path(args.output_dir)
    card = partial(write_card, repository, read_stages(folder), None, flags=default_settings())
    try:
        published = publish_model(
            HfApi(), folder, repository, lambda revision: card(revision=revision), message=f"Publish after {args.stage}"
        )
    except (PublishError, ValueError) as error:
        raise SystemExit(
            f"{error}\nThe model is complete in {folder}. `acebert publish --model_dir {folder} --repo_id "
            f"{repository}` publishes it."
        ) from error
    print(f"Pushed to {repository}: load it with revision={published.revision!r}.")


if __name__ == "__main__":
    transformers.utils.logging.set_verbosity_warning()
    main()
