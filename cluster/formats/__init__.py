"""The languages that content is written in, read and written without I/O, clock or chance."""
