"""The Hugging Face Hub: repositories as files, fetched once, at one commit, checked, and never run."""

from genzoo.hub.errors import Cause, HubError, explained
from genzoo.hub.files import HubFiles
from genzoo.hub.lock import Lock, verify
from genzoo.hub.places import Access, Listing, Place
from genzoo.hub.pulls import pull

__all__ = ["Access", "Cause", "HubError", "HubFiles", "Listing", "Lock", "Place", "explained", "pull", "verify"]
