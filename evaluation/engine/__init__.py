"""Answers, likelihoods and vectors of several adapters on one loaded base."""
