# On the host: swaps a directory and a symbolic link, as fast as it can, until the file named last is there.
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
AT_FDCWD, RENAME_EXCHANGE = -100, 2
a, b, stop = (os.fsencode(x) for x in sys.argv[1:])
swaps = 0
while not (swaps % 64 == 0 and os.path.exists(stop)):
    if libc.renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE) != 0:
        sys.exit(os.strerror(ctypes.get_errno()))
    swaps += 1
print(swaps)
