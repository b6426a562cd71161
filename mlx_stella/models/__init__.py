"""Backbones: one architecture a file, and the parts that several are made of."""
