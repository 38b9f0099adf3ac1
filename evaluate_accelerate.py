"""Measures a checkpoint on product retrieval, next to what people use instead, on the same queries.

On your own catalogue, with queries that your shoppers type and the products that answer them,
{query: {product id: grade}}:

    accelerate launch evaluate_accelerate.py \
        --model_name_or_path path/to/checkpoint \
        --dataset_name path/to/catalogue --id_column sku \
        --queries_file queries.json

The released checkpoint on the catalogue that it was trained on, with every task, as in docs/results.md:

    accelerate launch evaluate_accelerate.py --config configs/evaluate-fashion.yaml --model_name_or_path .

The same lines run on a CPU, a GPU or several processes. The model is loaded as any user of the Hub loads it. Product
vectors are kept under the output folder, so a second run, or one that was interrupted, encodes only what is missing.
The report is printed as Markdown and saved as `report.md` and `report.json`, with pictures in `plots` and the scores of
every query in `queries.jsonl`. It begins with natural queries; those made from the catalogue come after, as synthetic.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from tqdm.auto import tqdm

from acebert.encoding.corpus_encoder import CorpusEncoder
from acebert.evaluation.arguments import parse_arguments
from acebert.evaluation.queries import QueryFile
from acebert.evaluation.report import make_report, write_report
from acebert.evaluation.scoring import choose_photo_weight, score_task
from acebert.evaluation.suite import load_corpus, load_training, make_baselines, make_tasks, make_tuning_tasks
from acebert.evaluation.vectors import Vectors, encode_modality_gaps


def main(argv: Sequence[str] | None = None) -> dict[str, Any] | None:
    """Runs the evaluation.

    Args:
        argv: command-line arguments; those of the process by default.

    Returns:
        What `report.json` holds; None on processes other than the main one.
    """
    args = parse_arguments(argv, __doc__.splitlines()[0])
    accelerator = Accelerator(mixed_precision=args.mixed_precision)
    output_dir = Path(args.output_dir)
    seconds: dict[str, float] = {}

    # 1. The model, the catalogue and the tasks. Whatever is wrong with them shows before the long work starts.
    with timed(seconds, "load model"), accelerator.main_process_first():
        encoder = CorpusEncoder.from_pretrained(
            args.model_name_or_path,
            accelerator,
            output_dir / "vectors",
            args.revision,
            batch_size=args.per_device_batch_size,
            num_workers=args.dataloader_num_workers,
        )
    with timed(seconds, "load catalogue and make tasks"):
        files = [QueryFile.read(path) for path in args.queries_file]
        corpus = load_corpus(args, files, accelerator)
        training = load_training(args, accelerator)
        with accelerator.main_process_first():
            tasks = make_tasks(args, files, corpus, training)
        tuning = make_tuning_tasks(args, training)
    with timed(seconds, "load and train baselines"):
        baselines = make_baselines(args, tasks, encoder, training) if accelerator.is_main_process else None

    # 2. Encode, by all processes: each text and each view of a catalogue once.
    with timed(seconds, "encode"):
        vectors = Vectors.encode(encoder, tasks, args.fusion_baselines)
        tuning_vectors = Vectors.encode(encoder, tuning, args.fusion_baselines)
        gap_vectors = encode_modality_gaps(args, encoder, corpus, tasks)

    # 3. Rank, on the main process.
    report = None
    if baselines is not None:
        with timed(seconds, "rank"):
            for task in tuning:
                baselines.photo_weights[task.hidden_columns] = choose_photo_weight(task, tuning_vectors)
            widths = encoder.model.config.matryoshka_dims or []
            held_out = zip(corpus.ids, corpus.splits, strict=True)
            unseen = {product for product, split in held_out if split == args.validation_split}
            results = [score_task(task, vectors, baselines, widths, unseen) for task in tqdm(tasks, desc="tasks")]

        # 4. Test and report.
        report = make_report(args, encoder, corpus, results, gap_vectors, seconds)
        write_report(report, results, output_dir)
        if args.plots:
            # Here, because only this needs matplotlib.
            from acebert.evaluation.plots import save_plots

            save_plots(report, gap_vectors, output_dir / "plots")
    accelerator.end_training()
    return report


@contextmanager
def timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    """Writes the wall-clock seconds of a block under its name."""
    start = time.perf_counter()
    yield
    seconds[step] = round(time.perf_counter() - start, 2)


if __name__ == "__main__":
    main()
