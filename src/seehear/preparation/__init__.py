"""A folder of recordings becomes a corpus: which there are, what is said in them, where they are cut, their crops."""
