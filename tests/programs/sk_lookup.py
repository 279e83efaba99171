"""A program of somebody else on the hook of connections, as dorc may meet one. It decides nothing.

usage: sk_lookup.py attach          until the end of its input
       sk_lookup.py pin FOLDER      with maps like dorc's, but of other sizes
"""
import ctypes, os, platform, struct, sys

LIBC = ctypes.CDLL(None, use_errno=True)
BPF = {"x86_64": 321, "aarch64": 280}[platform.machine()]
MAP_CREATE, PROG_LOAD, OBJ_PIN, LINK_CREATE = 0, 5, 6, 28
SK_LOOKUP_PROGRAM, SK_LOOKUP = 30, 36


def bpf(command, attributes):
    buffer = ctypes.create_string_buffer(attributes, 128)
    result = LIBC.syscall(BPF, command, buffer, 128)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def load():
    # r0 = SK_PASS; exit
    code = ctypes.create_string_buffer(struct.pack("<BBhiBBhi", 0xB7, 0, 0, 1, 0x95, 0, 0, 0))
    license = ctypes.create_string_buffer(b"GPL")
    attributes = struct.pack(
        "<IIQQIIQII16sII", SK_LOOKUP_PROGRAM, 2, ctypes.addressof(code), ctypes.addressof(license),
        0, 0, 0, 0, 0, b"stranger", 0, SK_LOOKUP,
    )
    return bpf(PROG_LOAD, attributes)


def attach(program):
    namespace = os.open("/proc/self/ns/net", os.O_RDONLY)
    return bpf(LINK_CREATE, struct.pack("<IIII", program, namespace, SK_LOOKUP, 0))


def make_map(kind, key, value, entries):
    return bpf(MAP_CREATE, struct.pack("<IIIII", kind, key, value, entries, 0))


def pin(descriptor, path):
    name = ctypes.create_string_buffer(path.encode())
    bpf(OBJ_PIN, struct.pack("<QII", ctypes.addressof(name), descriptor, 0))


program = load()
link = attach(program)
if sys.argv[1] == "attach":
    print("attached", file=sys.stderr, flush=True)
    sys.stdin.read()
else:
    folder = sys.argv[2]
    os.mkdir(folder)
    pin(program, f"{folder}/program")
    pin(link, f"{folder}/link")
    for name, kind, key, value in [("routes", 1, 16, 4), ("apps", 2, 4, 32), ("sockets", 15, 4, 8), ("counts", 2, 4, 16)]:
        pin(make_map(kind, key, value, 64), f"{folder}/{name}")
