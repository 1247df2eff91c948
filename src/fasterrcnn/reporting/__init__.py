"""What pages, images and terminals show: drawing, charts, tables."""
