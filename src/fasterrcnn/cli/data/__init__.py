"""``fasterrcnn data``: one file per command. Only anchors and show need torch: they ask the network."""
