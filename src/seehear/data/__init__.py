"""Media files to mouth clips, to a corpus, to batches."""
