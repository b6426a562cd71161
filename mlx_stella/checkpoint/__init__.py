"""A model on disk: found, opened, typed, and its tensors made parameters."""
