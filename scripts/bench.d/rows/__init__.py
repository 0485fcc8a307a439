"""One file a row of the table (some measure more than one figure)."""
