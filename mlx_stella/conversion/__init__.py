"""Write a checkpoint in another type, or quantized, and prove what became of its vectors."""
