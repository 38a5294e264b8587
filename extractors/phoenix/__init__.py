"""Phoenix: its client, and the polls that keep a local mirror of its spans and feedback."""
