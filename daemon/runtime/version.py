"""The version of learnd that is installed; every adapter version records it."""

from importlib.metadata import version

VERSION = version("learnd")
