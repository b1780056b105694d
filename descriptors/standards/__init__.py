"""Published standards' own forms, read and written: pure, without any input or output."""
