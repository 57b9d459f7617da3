"""What a session remembers: per layer a sink, a window, blocks and an index; and the context a question reads.

`memory` ties them together and owns the one counter that makes frames visible.
"""
