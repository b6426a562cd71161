"""Texts in, vectors out: settings, batches, memory, progress."""
