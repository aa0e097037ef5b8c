# SPDX-License-Identifier: GPL-2.0-or-later
"""The virtual file system: what programs see as files.

A tree of inodes in memory, above a read-only view of a folder of the host. Nothing here writes to
the host, follows a link out of the folder, or opens a device, FIFO or socket of the host.

=================  ===========================================================================
``filesystem``     the whole tree: root, ``/dev``, ``/proc``
``inode``          what all files have in common
``regular``        regular files, by page and by byte
``directory``      directories and whiteouts
``host``           the folder of the host
``overlay``        inodes made from it
``devices``        ``/dev``
``proc``           ``/proc``
``mounts``         which file system hangs where
``streams``        standard input, output and error
``pipe``           pipes and FIFOs
``socket_pair``    two sockets connected with each other
``anonymous``      files that no path leads to: ``eventfd``, ``timerfd``, ``epoll``
``namei``          paths
``operations``     create, remove, rename, link
``open_file``      open file descriptions
``descriptors``    descriptor tables
``credentials``    IDs and permissions
``quota``          bounds
=================  ===========================================================================
"""
