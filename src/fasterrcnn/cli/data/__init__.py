"""``fasterrcnn data``: one file per command. None of them needs torch, but for those that draw what it sees."""
