"""The sections that explain a verdict."""
