"""Short runs that leave nothing: time estimate, learning-rate range test."""
