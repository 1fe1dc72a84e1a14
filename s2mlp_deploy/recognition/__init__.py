"""Finding shifts by what they do: index maps, matching, regions, deformable sampling."""
