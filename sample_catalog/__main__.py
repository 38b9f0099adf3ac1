"""Draws the sample catalogue: a shop of invented products that anyone may copy, and queries with known answers.

    acebert sample-catalog --output_dir build/sample-catalog

The folder is for `datasets.load_dataset(folder)`, with the splits train and validation, the columns of the Hub dataset
`ashraq/fashion-product-images-small` and a few more; and for `load_dataset(folder, "queries")`.
"""

from argparse import ArgumentParser
from collections.abc import Sequence

from acebert.sample_catalog.generate import write_sample_catalog
from acebert.utils.command_line import HelpFormatter


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the catalogue.

    Args:
        argv: flags; those of the process by default.

    Raises:
        SystemExit: for wrong flags.
        FileExistsError, ValueError: see [`write_sample_catalog`].
    """
    parser = ArgumentParser(
        prog="acebert sample-catalog",
        description=__doc__.splitlines()[0],
        usage="acebert sample-catalog [flags]",
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--output_dir", required=True, help="Folder to write.")
    parser.add_argument("--num_products", type=int, default=3000, help="Number of products.")
    parser.add_argument("--seed", type=int, default=0, help="Random seed of products, pictures and queries.")
    parser.add_argument(
        "--hidden_share",
        type=float,
        default=0.4,
        help="Share of products whose title leaves out something that the picture shows, 0 to 1.",
    )
    parser.add_argument(
        "--num_proc", type=int, default=1, help="Processes that draw; the catalogue doesn't depend on it."
    )
    args = parser.parse_args(argv)
    folder = write_sample_catalog(args.output_dir, args.num_products, args.seed, args.hidden_share, args.num_proc)
    print(f"The sample catalogue is in {folder}.")


if __name__ == "__main__":
    main()
