"""The pages of the reference, written from the code whenever the documentation is built."""
