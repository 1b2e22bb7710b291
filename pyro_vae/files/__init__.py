"""Opening and writing files, in one place.

Files that others may have written are opened, limited and checked here, and ours are written whole
or not at all; what is in a file, such as a program or a data set, does not belong here.
"""
