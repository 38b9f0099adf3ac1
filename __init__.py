"""ACE-BERT: product search that sees the photo as well as it reads the title."""

__version__ = "0.1.0"
