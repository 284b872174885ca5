"""Draws and evidence on disk, found again by what they depend on, each file written in one step, no pickle. Floor 4.

`packed` has records of arrays, `draws` the draws of an output folder and of a run,
`shelf` those of one key, `vocab` what tokens spell. May import: `generators` (what they say of themselves) and below.
"""

from alignbench.store.draws import DrawRequest as DrawRequest
from alignbench.store.draws import DrawStore as DrawStore
from alignbench.store.draws import Stored as Stored
from alignbench.store.packed import evidence_files as evidence_files
from alignbench.store.packed import pack as pack
from alignbench.store.packed import unpack as unpack
from alignbench.store.vocab import keep_vocab as keep_vocab
from alignbench.store.vocab import read_vocab as read_vocab
