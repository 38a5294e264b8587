"""Short runs that leave no adapter: time estimate, learning-rate range test."""
