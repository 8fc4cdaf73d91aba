"""Pure tensor parts: they know nothing of files, data sets, Lightning or where a backbone comes from."""
