"""How right, how close and how fast vectors are."""
