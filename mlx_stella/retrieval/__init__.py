"""From a folder of files to answers: walk, read, chunk, embed, store, search, evaluate."""
