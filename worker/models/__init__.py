"""Models a node serves: what they are (manifest), where they come from (catalogue)."""

from worker.models.catalogue import ModelDir, ensure, find, from_directory, from_hub, offered_as
from worker.models.entries import CATALOGUE, Entry, Task
from worker.models.errors import ModelError, ModelErrorCode
from worker.models.manifest import Manifest

__all__ = [
    "CATALOGUE",
    "Entry",
    "Manifest",
    "ModelDir",
    "ModelError",
    "ModelErrorCode",
    "Task",
    "ensure",
    "find",
    "from_directory",
    "from_hub",
    "offered_as",
]
