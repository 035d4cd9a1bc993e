"""Sentences with numbers, held to what the notebooks compute, with one seed or several."""
