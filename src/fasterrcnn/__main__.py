"""``python -m fasterrcnn`` is the ``fasterrcnn`` command."""

from fasterrcnn.cli.main import main

if __name__ == "__main__":
    main()
