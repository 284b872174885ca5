"""Draws and evidence on disk, found again by what they depend on, each file written in one step, no pickle. Floor 4.

`packed` has records of arrays, `draws` the draws of an output folder and of a run, `shelf` those of one key and
`places` where each is, `vocab` what tokens spell. May import: `generators` (what they say of themselves) and below;
`packed` and `vocab`, which reports read, import no torch.
"""
