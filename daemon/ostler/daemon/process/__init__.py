"""The process: limits of the kernel, forked children, signals, exit, and the source code as it was at the start.

Not here: anything that knows services or messages.
"""
