"""What did production teach us? Spans and feedback become typed examples and a frozen snapshot."""
