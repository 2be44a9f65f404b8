"""A bag of tracks as a page to look at."""
