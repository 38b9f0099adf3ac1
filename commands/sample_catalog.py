"""`acebert sample-catalog` is `python -m acebert.sample_catalog`."""

from acebert.sample_catalog.__main__ import main

if __name__ == "__main__":
    main()
