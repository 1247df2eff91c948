"""``fasterrcnn weights``: files of weights."""
