"""`python -m acebert` is the command `acebert`."""

from acebert.commands import main

if __name__ == "__main__":
    main()
