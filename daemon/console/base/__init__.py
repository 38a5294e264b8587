"""Widgets, dialogs, charts, page session.

One rule for names: a function called `show_…` puts elements on the page where it is called and returns the
one that can be changed later, if any. `build_…` and `format_…` only make values.
"""
