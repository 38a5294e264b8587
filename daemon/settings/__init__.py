"""One TOML file and LEARND_* variables, as frozen values."""
