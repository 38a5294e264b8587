"""Is the candidate really better than what is live, and is nothing worse?"""
