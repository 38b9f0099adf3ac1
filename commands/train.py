"""`acebert train` runs `train_accelerate.py` as `accelerate launch` does."""

from collections.abc import Sequence

from acebert.commands.launch import launch


def main(argv: Sequence[str] | None = None) -> None:
    """See [`launch`]."""
    launch("acebert.train_accelerate", argv)


if __name__ == "__main__":
    main()
