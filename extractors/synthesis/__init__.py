"""Synthetic examples: recipes, generation, filters."""
