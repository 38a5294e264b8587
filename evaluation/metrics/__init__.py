"""Scores of single answers, rankings and latencies."""
