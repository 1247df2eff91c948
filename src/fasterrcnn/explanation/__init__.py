"""What a detector did with one picture, step by step, and where it lost the objects that it missed."""
