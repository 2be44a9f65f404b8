"""HTML page of a bag of tracks."""
