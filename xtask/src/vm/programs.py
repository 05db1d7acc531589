"""Tells which BPF programs are loaded, and how many instructions the verifier walked for each (0: it does not say).

bpftool does not tell that number; struct bpf_prog_info (include/uapi/linux/bpf.h) has it since Linux 5.16.
"""

import ctypes
import errno
import os
import struct

SYS_BPF = 321  # x86_64
PROG_GET_NEXT_ID, PROG_GET_FD_BY_ID, OBJ_GET_INFO_BY_FD = 11, 13, 15
NAME, VERIFIED_INSNS, SIZE = 64, 216, 256

libc = ctypes.CDLL(None, use_errno=True)


def bpf(command, attr):
    result = libc.syscall(SYS_BPF, command, attr, len(attr))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


last = 0
while True:
    attr = ctypes.create_string_buffer(struct.pack("<III", last, 0, 0), 12)
    try:
        bpf(PROG_GET_NEXT_ID, attr)
    except OSError as error:
        if error.errno == errno.ENOENT:
            break
        raise
    (last,) = struct.unpack_from("<I", attr, 4)
    fd = bpf(PROG_GET_FD_BY_ID, ctypes.create_string_buffer(struct.pack("<III", last, 0, 0), 12))
    info = ctypes.create_string_buffer(SIZE)
    attr = struct.pack("<IIQ", fd, SIZE, ctypes.addressof(info))
    bpf(OBJ_GET_INFO_BY_FD, ctypes.create_string_buffer(attr, 16))
    os.close(fd)
    name = info.raw[NAME : NAME + 16].split(b"\0")[0].decode()
    print("vm: program", name, struct.unpack_from("<I", info, VERIFIED_INSNS)[0])
