"""`python -m server` is `evenflow`."""

from .cli import main

if __name__ == "__main__":
    main()
