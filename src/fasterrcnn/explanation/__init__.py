"""What a detector did with one image, step by step, and where it lost the objects that it missed."""
