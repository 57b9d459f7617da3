"""Sessions on disk: one folder each, with a SQLite catalog and segments of blocks that are safetensors files."""
