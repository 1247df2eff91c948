"""What `fasterrcnn predict` writes: images, videos, crops and tables, always whole, and a journal to go on from."""
