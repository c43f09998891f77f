"""Data sets: their files, splits, augmentation and batches."""
