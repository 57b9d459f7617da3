"""Reading video files into sessions on disk, so that it can be stopped at any moment and gone on with."""
