"""Weight files that mean harm, or are broken: bytes by name, made by hand so that no writer's checks are in the way.

Whatever would run code touches the file whose path is given: the canary.
"""

import io
import json
import pickle
import struct
import tarfile
import zipfile
import zlib

import torch

MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
SIX = MAGIC + b"\x80\x02M\xe9\x03.", b"\x80\x02}."
"""The beginning of a torch file from before 1.6: magic number, protocol; then the system, here an empty dict."""


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def calls(module: str, name: str, *arguments: str) -> bytes:
    """Opcodes that call a global with texts."""
    return b"c" + f"{module}\n{name}\n".encode() + b"(" + b"".join(map(text, arguments)) + b"tR"


def short(value: str) -> bytes:
    raw = value.encode()
    return b"\x8c" + bytes([len(raw)]) + raw


def gadgets(canary: str) -> dict[str, bytes]:
    """Opcodes that run code in an unpickler that lets them; each leaves one value on the stack."""
    shell, code = f"touch {canary}", f"open({canary!r}, 'w').close()"
    imported = calls("builtins", "__import__", "os")
    write = calls("io", "open", canary, "w")
    return {
        "os.system": calls("os", "system", shell),
        "posix.system": calls("posix", "system", shell),
        "nt.system": calls("nt", "system", shell),
        "subprocess": b"csubprocess\nPopen\n((" + b"".join(map(text, ("touch", canary))) + b"ltR",
        "check_output": calls("subprocess", "getoutput", shell),
        "eval": calls("builtins", "eval", code),
        "exec": calls("builtins", "exec", code),
        "python 2 eval": calls("__builtin__", "eval", code),
        "open": write,
        "getattr chain": b"cbuiltins\ngetattr\n(" + imported + text("system") + b"tR(" + text(shell) + b"tR",
        "getattr of a skipped class": b"cbuiltins\ngetattr\n(cmmengine.config\nConfig\n"
        + text("__init__") + b"tR(" + text(shell) + b"tR",
        "getattr of an allowed one": b"cbuiltins\ngetattr\n(ccollections\nOrderedDict\n" + text("fromkeys") + b"tR",
        "import_module": calls("importlib", "import_module", "antigravity"),
        "attrgetter": calls("operator", "attrgetter", "system"),
        "methodcaller": calls("operator", "methodcaller", "system", shell),
        "partial": b"cfunctools\npartial\n(cos\nsystem\n" + text(shell) + b"tR",
        "map": b"cbuiltins\nmap\n(cos\nsystem\n(" + text(shell) + b"ltR",
        "runpy": calls("runpy", "_run_code", code),
        "pty": calls("pty", "spawn", shell),
        "runstring": calls("numpy.testing._private.utils", "runstring", code),
        "numpy.load": calls("numpy", "load", canary),
        "_load_from_bytes": b"ctorch.storage\n_load_from_bytes\n(C\x05abcdetR",
        "torch.load": calls("torch", "load", canary),
        "torch.hub": calls("torch.hub", "load", "a/b", "c"),
        "pickle.loads": b"cpickle\nloads\n(C\x01.tR",
        "rmtree": calls("shutil", "rmtree", canary),
        "pdb": calls("pdb", "run", code),
        "timeit": calls("timeit", "timeit", code),
        "webbrowser": calls("webbrowser", "open", canary),
        "logging config": calls("logging.config", "_resolve", "os.system"),
        "dotted name": calls("collections", "abc.sys.modules", shell),
        "stack global": short("os") + short("system") + b"\x93(" + text(shell) + b"tR",
        "stack global from memo": short("system") + b"\x94" + short("os") + b"h\x00\x93(" + text(shell) + b"tR",
        "stack global put together": b"cbuiltins\nstr\n(" + text("os") + b"tR" + short("system") + b"\x93)R",
        "stack global of numbers": b"K\x01K\x02\x93)R",
        "instance": b"(" + text(shell) + b"ios\nsystem\n",
        "object": b"(cos\nsystem\n" + text(shell) + b"o",
        "newobj": b"cos\nsystem\n(" + text(shell) + b"t\x81",
        "newobj_ex": b"cos\nsystem\n(" + text(shell) + b"t}\x92",
        "build": b"ccollections\nOrderedDict\n)R}(" + text("__setstate__") + b"cos\nsystem\nub" + text(shell) + b"b",
        "extension": b"\x82\x01",
        "persistent text": b"Pos.system\n",
        "name with a space": calls("os system", "x", shell),
        "long name": calls("o" * 100_000, "system", shell),
        "name of no letters": "c\u043es\nsystem\n)R".encode(),
        "call of a text": text("os.system") + b"(" + text(shell) + b"tR",
        "call of a call": b"ccollections\nOrderedDict\n)R)R",
        "codec": calls("_codecs", "encode", "a" * 100_000, "punycode"),
        "decode": calls("_codecs", "decode", shell, "rot13"),
        "rebuild by type": b"ctorch._tensor\n_rebuild_from_type_v2\n(cos\nsystem\nctorch\nTensor\n("
        + text(shell) + b"t}tR",
        "wrapper subclass": b"ctorch._utils\n_rebuild_wrapper_subclass\n)R",
        "big tensor": b"ctorch\nFloatTensor\n(J\xff\xff\xff\x7ftR",
        "bytearray": b"cbuiltins\nbytearray\n(\x8a\x06\x00\x00\x00\x00\x00\x10tR",
        "bytes": b"cbuiltins\nbytes\n(\x8a\x06\x00\x00\x00\x00\x00\x10tR",
    }  # fmt: skip


def bombs() -> dict[str, bytes]:
    """Opcodes that take time or memory, or that are torn; the last is not always reached."""
    deep = b")" + b"\x85" * 300_000
    shallower = b")" + b"\x85" * 9000
    laughs = b"K\x01K\x01\x86" + b"".join(b"q" + bytes([i]) + b"0" * 0 + b"h" + bytes([i]) + b"\x86" for i in range(60))
    lists = b"]" + b"".join(b"q" + bytes([i]) + b"](h" + bytes([i]) + b"h" + bytes([i]) + b"e" for i in range(60))
    wide = b"(" + b"K\x01" * 9000 + b"tq\x00" + b"}" + b"(" + b"h\x00N" * 60_000 + b"u"
    ordered = b"ccollections\nOrderedDict\n(](" + b"(" + b"K\x01" * 90 + b"tN\x86" * 1 + b"etq\x010"
    one_hash = b"".join(b"\x8a\x0a" + (i * (2**61 - 1)).to_bytes(10, "little") + b"N" for i in range(25_000))
    encode = b"(c_codecs\nencode\nq\x00" + text("a" * 100_000) + b"q\x01" + text("latin1") + b"q\x02"
    size = b"(ctorch\nSize\nq\x00(" + b"K\x01" * 9000 + b"tq\x01"
    return {
        "keys of one hash": b"}(" + one_hash + b"u",
        "copies of a text": encode + b"h\x00h\x01h\x02\x86R" * 20_000 + b"t",
        "a size again and again": size + b"h\x00h\x01\x85R" * 20_000 + b"t",
        "a name again and again": b"(" + text("mmcv." + "a" * 100_000) + b"q\x00" + b"h\x00h\x00\x93" * 20_000 + b"t",
        "memo of 2 billion": b"Nr\xff\xff\xff\x7f",
        "memo of 4 billion": b"Nr\xff\xff\xff\xff",
        "memo by text": b"Np99999999999999\n",
        "memo below zero": b"Np-5\n",
        "memo never written": b"h\x07",
        "text of 4 GB": b"X\xff\xff\xff\xff",
        "text of 8 EB": b"\x8d" + b"\xff" * 7 + b"\x7f",
        "bytes of 2 GB": b"B\xff\xff\xff\x7f",
        "bytes of 4 EB": b"\x8e" + b"\x00" * 7 + b"\x40",
        "bytearray of 1 TB": b"\x96\x00\x00\x00\x00\x00\x01\x00\x00",
        "integer of 2 GB": b"\x8b\xff\xff\xff\x7f",
        "negative integer size": b"\x8b\xff\xff\xff\xff",
        "integer of 2,000 bits": b"\x8a\xff" + b"\x7f" * 255,
        "integer of a million digits": b"I" + b"9" * 1_000_000 + b"\n",
        "long of a million digits": b"L" + b"9" * 1_000_000 + b"L\n",
        "frame of 8 EB": b"\x95" + b"\xff" * 7 + b"\x7fN",
        "deep tuples": deep,
        "deep tuples as a key": b"}" + deep + b"Ns",
        "less deep tuples as a key": b"}" + shallower + b"Ns",
        "deep lists": b"]" * 300_000 + b"a" * 299_999,
        "billion laughs": laughs,
        "billion laughs as a key": b"}" + laughs + b"Ns",
        "billion laughs of lists": lists,
        "a wide key again and again": wide,
        "ordered from pairs": ordered,
        "two million steps": b"N0" * 1_000_000 + b"N",
        "two million values": b"(" + b"N" * 2_000_000 + b"t",
        "marks": b"(" * 500_000,
        "pop of nothing": b"0",
        "tuple without mark": b"t",
        "append to nothing": b"Na",
        "set items of nothing": b"(NNu",
        "build of nothing": b"b",
        "unknown instruction": b"\xff",
        "buffer": b"\x97",
        "frozen set": b"(K\x01\x91",
        "set": b"\x8f(K\x01\x90",
        "no text": b"X\x02\x00\x00\x00\xff\xfe",
        "itself in itself": b"}q\x00" + text("model") + b"h\x00s",
        "list in itself": b"]q\x00h\x00a",
        "attributes for a dict": b"ccollections\nOrderedDict\n)R}(" + text("items") + b"N" + text("get") + b"Nub",
        "key that cannot be hashed": b"}]Ns",
        "a number": b"K\x01",
        "a list": b"]",
        "names of numbers": b"}K\x01K\x02s",
        "no tensor": b"}" + text("model") + b"}" + text("a") + b"K\x01ss",
        "two values": b"NN",
    }


def arrays() -> dict[str, bytes]:
    """Opcodes of numpy arrays that are none."""

    def array(
        shape: bytes, kind: str = "f4", raw: bytes = b"C\x04abcd", order: bytes = b"\x89", more: bytes = b""
    ) -> bytes:
        numbers = b"cnumpy\ndtype\n(" + text(kind) + b"K\x00K\x01tR" + more
        made = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tC\x01btR"
        return b"}" + text("model") + b"}" + text("w") + made + b"(K\x01" + shape + numbers + b"\x89" + raw + b"tbss"

    def fields(state: bytes) -> bytes:
        return b"(K\x03" + text("<") + state + b"tb"

    huge = b"\x8a\x08" + b"\xff" * 7 + b"\x0f"
    laughs = b"](K\x01K\x01e" + b"".join(b"q%c](h%ch%ce" % (i, i, i) for i in range(60))
    unbuilt = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tC\x01btR"
    state = b"(K\x01(J" + struct.pack("<i", 100_000) + b"tcnumpy\ndtype\n(" + text("u1") + b"K\x00K\x01tR\x89h\x00tb"
    shared = b"".join(text(f"w{i}") + unbuilt + state for i in range(200))
    return {
        "kind of lists": b"cnumpy\ndtype\n((" + laughs + b"tK\x00K\x01tR",
        "shape of lists": array(b"(" + laughs + b"t"),
        "scalar of lists": b"cnumpy.core.multiarray\nscalar\n((" + laughs + b"tNtR",
        "bytes of many arrays": b"}(" + text("meta") + b"B" + struct.pack("<I", 100_000) + bytes(100_000) + b"q\x00"
        + text("model") + b"}(" + shared + b"uu",
        "huge shape": array(b"(" + huge + b"t"),
        "huge shape times nothing": array(b"(" + huge + b"K\x00t", raw=b"C\x00"),
        "overflowing shape": array(b"(" + b"J\xff\xff\xff\x7f" * 3 + b"t"),
        "negative shape": array(b"(J\xff\xff\xff\xff" + b"J\xff\xff\xff\xfft"),
        "shape of text": array(b"(" + text("1") + b"t"),
        "shape is a number": array(b"K\x01"),
        "forty dimensions": array(b"(" + b"K\x01" * 40 + b"t"),
        "objects": array(b"(K\x01t", "O8", b"](cos\nsystem\ne"),
        "objects without a name": array(b"(K\x01t", "O8", b"]Na"),
        "structures": array(b"(K\x01t", "V4"),
        "texts": array(b"(K\x01t", "S4"),
        "fields": array(b"(K\x01t", more=fields(b"N(" + text("a") + b"t}J\xff\xff\xff\x7fK\x01K\x00")),
        "sub-array": array(b"(K\x01t", more=fields(b"(Nt" + b"NNK\x01K\x01K\x00")),
        "half of the bytes": array(b"(K\x01t", raw=b"C\x02ab"),
        "no bytes": array(b"(K\x01t", raw=b"N"),
        "state of the wrong length": array(b"(K\x01t")[:-3] + b"Ntbss",
        "without a state": b"}" + text("w") + b"cnumpy.core.multiarray\n_reconstruct\n)Rs",
        "class as a value": b"}" + text("w") + b"cnumpy\nndarray\ns",
        "buffer": b"}" + text("w") + b"cnumpy.core.numeric\n_frombuffer\n(C\x04abcd"
        + text("f4") + b"K\x01" + text("C") + b"tRs",
        "ndarray called": b"}" + text("w") + b"cnumpy\nndarray\n((" + huge + b"ttRs",
    }  # fmt: skip


def zipped(content: dict[str, bytes], *, packed: bool = False) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as archive:
        for name, raw in content.items():
            archive.writestr(name, raw)
    return buffer.getvalue()


def torch_zip(opcodes: bytes, **more: bytes) -> bytes:
    """An archive as torch's, whose pickle holds the given value."""
    members = {"a/data.pkl": b"\x80\x02" + opcodes + b".", "a/version": b"3\n", "a/byteorder": b"little"}
    return zipped(members | {f"a/{name}": raw for name, raw in more.items()})


def tensor(shape: bytes, stride: bytes, *, count: int = 4, offset: bytes = b"K\x00", kind: str = "Float") -> bytes:
    """Opcodes of a state dict of one tensor."""
    storage = b"(" + text("storage") + f"ctorch\n{kind}Storage\n".encode() + text("0") + text("cpu")
    number = b"\x8a\x08" + struct.pack("<q", count)
    whole = b"ctorch._utils\n_rebuild_tensor_v2\n((" + storage[1:] + number + b"tQ" + offset + shape + stride
    return b"}" + text("w") + whole + b"\x89ccollections\nOrderedDict\n)RtRs"


def tensors() -> dict[str, bytes]:
    """Torch archives whose tensors are not what their bytes are."""
    four, data = b"(K\x02K\x02t", {"data/0": bytes(16)}
    million = b"J\x40\x42\x0f\x00"
    huge = b"\x8a\x08" + struct.pack("<q", 2**62)
    cases = {
        "right but no detector": tensor(four, b"(K\x02K\x01t"),
        "a million by a million of one number": tensor(b"(" + million * 2 + b"t", b"(K\x00K\x00t"),
        "many of one number": tensor(b"(" + million + b"t", b"(K\x00t"),
        "shape beyond the bytes": tensor(b"(" + million + b"t", b"(K\x01t"),
        "shape beyond all": tensor(b"(" + huge + b"t", b"(K\x01t"),
        "negative shape": tensor(b"(J\xff\xff\xff\xfft", b"(K\x01t"),
        "negative stride": tensor(four, b"(J\xff\xff\xff\xffK\x01t"),
        "offset beyond the bytes": tensor(four, b"(K\x02K\x01t", offset=huge),
        "negative offset": tensor(four, b"(K\x02K\x01t", offset=b"J\xff\xff\xff\xff"),
        "storage of another size": tensor(four, b"(K\x02K\x01t", count=1000),
        "storage of 2 EB": tensor(four, b"(K\x02K\x01t", count=2**61),
        "storage below zero": tensor(four, b"(K\x02K\x01t", count=-4),
        "quantized": tensor(four, b"(K\x02K\x01t", kind="QInt8"),
        "complex": tensor(four, b"(K\x02K\x01t", kind="ComplexFloat"),
        "cuda": tensor(four, b"(K\x02K\x01t").replace(b"torch\nFloat", b"torch.cuda\nFloat"),
        "shape as text": tensor(text("ab"), b"(K\x01t"),
        "storage that is none": b"}" + text("w") + text("0") + b"Qs",
        "module": b"(" + text("module") + b"NNNtQ",
    }
    found = {name: torch_zip(opcodes, **data) for name, opcodes in cases.items()}
    right = cases["right but no detector"]
    swapped = (
        right[:-1] + text("v") + right[right.index(b"ctorch") : -1].replace(b"\x8a\x08\x04", b"\x8a\x08\x02") + b"s"
    )
    return found | {
        "keys that are deep": b"".join(SIX) + b"\x80\x02}.\x80\x02]" + b")" + b"\x85" * 9000 + b"a.",
        "storage is not there": torch_zip(right),
        "storage of two sizes": torch_zip(swapped, **data),
    }


def archives(canary: str) -> dict[str, bytes]:
    """Zip and tar archives that are no checkpoints."""
    evil = b"\x80\x02" + gadgets(canary)["os.system"] + b"."
    whole = torch_zip(tensor(b"(K\x02K\x02t", b"(K\x02K\x01t"), **{"data/0": bytes(16)})
    directory = whole.index(b"PK\x01\x02")
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        for name in ("pickle", "storages", "tensors", "sys_info"):
            member = tarfile.TarInfo(name)
            member.size = len(evil)
            archive.addfile(member, io.BytesIO(evil))
    twice = io.BytesIO()
    with zipfile.ZipFile(twice, "w") as archive:
        for raw in (b"\x80\x02}.", evil):
            archive.writestr("a/data.pkl" if raw == evil else "a/DATA.PKL", raw)
    return {
        "tar": tar.getvalue(),
        "zip of text": zipped({"readme.txt": b"hello"}),
        "zip of nothing": zipped({}),
        "zip in a zip": zipped({"inner.pth": whole}),
        "zip as the pickle": zipped({"a/data.pkl": whole}),
        "pickle at the top": zipped({"data.pkl": evil}),
        "two pickles": zipped({"a/data.pkl": evil, "b/data.pkl": b"\x80\x02}."}),
        "names that differ in case": twice.getvalue(),
        "name above the folder": zipped({"../../data.pkl": evil}),
        "torchscript": zipped({"a/data.pkl": b"\x80\x02c__torch__\nNet\n)\x81.", "a/code/__torch__.py": b"x"}),
        "packed": zipped({"a/data.pkl": b"\x80\x02}.", "a/data/0": bytes(10**6)}, packed=True),
        "entries of nothing": zipped({f"a/{i}": b"" for i in range(20_001)}),
        "comment": whole[:-2] + b"\x05\x00hello",
        "wrong checksum": whole.replace(b"_rebuild_tensor_v2", b"_rebuild_tensor_v3"),
        "sizes that lie": whole[: directory + 20] + b"\xf0\xff\xff\x7f" * 2 + whole[directory + 28 :],
        "encrypted": whole[: directory + 8] + b"\x01" + whole[directory + 9 :],
        "offset beyond": whole[: directory + 42] + b"\xff\xff\xff\x7f" + whole[directory + 46 :],
        "directory beyond": whole[:-6] + b"\xff\xff\xff\x7f" + whole[-2:],
        "only its end": whole[-22:],
        "only its beginning": whole[:directory],
        "entries over each other": overlapping(),
    }  # fmt: skip


def overlapping() -> bytes:
    """Two thousand entries that are all the same two megabytes."""
    whole = zipped({"a/data.pkl": b"\x80\x02}.", "a/data/0": bytes(2_000_000)})
    start = whole.index(b"PK\x01\x02")
    entry = whole.index(b"PK\x01\x02", start + 1)
    one = whole[entry : whole.index(b"PK\x05\x06", entry)]
    names = [one.replace(b"a/data/0", f"a/d/{i:04}".encode()) for i in range(2000)]
    directory = whole[start:entry] + b"".join(names)
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 2001, 2001, len(directory), start, 0)
    return whole[:start] + directory + end


def zip_bomb(gigabytes: int = 2) -> bytes:
    """A torch archive of a few megabytes with a storage of that many gigabytes of zeros."""
    packer = zlib.compressobj(1, wbits=-15)
    block = bytes(2**24)
    checksum, raw = 0, []
    for _ in range(64 * gigabytes):
        raw.append(packer.compress(block))
        checksum = zlib.crc32(block, checksum)
    packed = b"".join([*raw, packer.flush()])
    size = gigabytes * 2**30
    named = struct.pack("<5H3I2H", 20, 0, 8, 0, 33, checksum, len(packed), size, 10, 0)
    local = b"PK\x03\x04" + named + b"a/data.pkl" + packed
    central = b"PK\x01\x02" + struct.pack("<H", 20) + named + struct.pack("<3H2I", 0, 0, 0, 0, 0) + b"a/data.pkl"
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 1, 1, len(central), len(local), 0)
    return local + central + end


def safetensors(table: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    raw = table if isinstance(table, bytes) else json.dumps(table).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def safetensors_files(canary: str) -> dict[str, bytes]:
    """safetensors whose header is not what the file is."""

    def one(dtype: object = "F32", shape: object = (2, 2), place: object = (0, 16)) -> dict[str, object]:
        return {"dtype": dtype, "shape": shape, "data_offsets": place}

    evil = b"\x80\x02" + gadgets(canary)["os.system"] + b"."
    header = {"format": 1, "notes": {}, "model": {"preset": "resnet50-fpn", "classes": ["a"]}}

    def ours(**model: object) -> bytes:
        text = json.dumps({**header, "model": header["model"] | model})
        return safetensors({"__metadata__": {"fasterrcnn": text}, "w": one()}, bytes(16))

    return {
        "header of 8 EB": safetensors(b"{}", length=2**63 - 1),
        "header of 16 EB": safetensors(b"{}", length=2**64 - 1),
        "header of 3 GB": safetensors(b"{}", length=3 * 10**9),
        "header of 100 MB": safetensors(b"{" + b" " * 10**8),
        "header longer than the file": safetensors(b"{}", length=100),
        "header of nothing": safetensors(b"", b"{}"),
        "no JSON": safetensors(b"{abc}"),
        "a list": safetensors(b"{}".replace(b"{}", b'{"a":[1]}')),
        "deep JSON": safetensors(b'{"a":' + b"[" * 500_000),
        "deep objects": safetensors(b'{"a":' * 100_000),
        "numbers of a million digits": safetensors(b'{"a":' + b"9" * 10**6 + b"}"),
        "another encoding": safetensors('{"w":{}}'.encode("utf-16-le")),
        "no text": safetensors(b'{"\xff\xfe":{}}'),
        "no tensors": safetensors({}),
        "data of no tensor": safetensors({}, bytes(100)),
        "overlapping": safetensors({"a": one(), "b": one(place=(8, 24))}, bytes(24)),
        "the same place twice": safetensors({"a": one(), "b": one()}, bytes(16)),
        "a gap": safetensors({"a": one(), "b": one(place=(20, 36))}, bytes(36)),
        "beyond the end": safetensors({"a": one(place=(0, 16))}, bytes(8)),
        "far beyond the end": safetensors({"a": one(shape=(2**38,), place=(0, 2**40))}, bytes(8)),
        "backwards": safetensors({"a": one(place=(16, 0))}, bytes(16)),
        "below zero": safetensors({"a": one(place=(-16, 0))}, bytes(16)),
        "fractions": safetensors({"a": one(place=(0.0, 16.0))}, bytes(16)),
        "ground_truths": safetensors({"a": one(shape=(True, 4))}, bytes(16)),
        "three places": safetensors({"a": one(place=(0, 8, 16))}, bytes(16)),
        "no place": safetensors({"a": {"dtype": "F32", "shape": [4]}}, bytes(16)),
        "shape of a text": safetensors({"a": one(shape="ab")}, bytes(16)),
        "negative shape": safetensors({"a": one(shape=(-2, -2))}, bytes(16)),
        "overflowing shape": safetensors({"a": one(shape=(2**32, 2**32, 4))}, bytes(16)),
        "huge shape times nothing": safetensors({"a": one(shape=(0, 2**62), place=(0, 0))}),
        "forty dimensions": safetensors({"a": one(shape=(1,) * 39 + (4,))}, bytes(16)),
        "unknown numbers": safetensors({"a": one("F4096")}, bytes(16)),
        "numbers as a list": safetensors({"a": one(["F32"])}, bytes(16)),
        "metadata of numbers": safetensors({"__metadata__": {"a": 1}, "w": one()}, bytes(16)),
        "metadata as a list": safetensors({"__metadata__": ["a"], "w": one()}, bytes(16)),
        "a hundred thousand tensors": safetensors({f"{i}": one(shape=(0,), place=(0, 0)) for i in range(100_000)}),
        "pickle as a tensor": safetensors({"w": one("U8", (len(evil),), (0, len(evil)))}, evil),
        "pickle in the metadata": safetensors({"__metadata__": {"fasterrcnn": evil.decode("latin1")}}),
        "pickle behind it": safetensors({"w": one()}, bytes(16) + evil),
        "pickle whose length is a header": b"\x80\x02" + bytes(6) + b"{" + evil,
        "our header, deep": safetensors({"__metadata__": {"fasterrcnn": "[" * 100_000}}),
        "our header, no object": safetensors({"__metadata__": {"fasterrcnn": "[1]"}}),
        "our header, a future one": safetensors({"__metadata__": {"fasterrcnn": '{"format": 9}'}}),
        "our header, other tensors": ours(),
        "a billion layers": ours(regions={"convs": 10**9}),
        "a billion layers of the RPN": ours(rpn={"convs": 10**9}),
        "layers of a billion": ours(regions={"widths": [10**9] * 3}),
        "a million layers": ours(regions={"widths": [1] * 10**5}),
        "a neck of a billion": ours(backbone={"neck_channels": 10**9}),
        "pooled to a million": ours(regions={"output_size": 10**6}),
        "a million anchors": ours(anchors={"sizes": [[1.0] * 10**5] * 5, "ratios": [[1.0] * 100] * 5}),
        "input of a billion": ours(input={"short_side": 10**9, "long_side": 10**9}),
        "backbone from the net": ours(backbone={"body": "timm:hf-hub:someone/something"}),
        "backbone from a folder": ours(backbone={"body": f"timm:local-dir:{canary}"}),
        "backbone of no name": ours(backbone={"body": "../../etc/passwd"}),
        "strides of nothing": ours(backbone={"body": "timm:test_resnet", "strides": [0, -1, 7]}),
        "no anchors": ours(anchors={"sizes": [], "ratios": []}),
        "not a number": ours(backbone={"norm_eps": float("nan")}),
        "a class of a million letters": ours(classes=["a" * 10**6]),
        "a hundred thousand classes": ours(classes=[str(i) for i in range(10**5)]),
    }


def strangers() -> dict[str, bytes]:
    """What is no weight file at all."""
    return {
        "empty": b"",
        "one byte": b"\x80",
        "zeros": bytes(1000),
        "text": b"hello world\n",
        "web page": b"<!DOCTYPE html><title>404</title>",
        "LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "gzip": b"\x1f\x8b\x08\x00" + bytes(30),
        "PNG": b"\x89PNG\r\n\x1a\n" + bytes(30),
        "program": b"\x7fELF" + bytes(60),
        "JSON": b'{"model": {}}',
        "pickle of protocol 0": b"cos\nsystem\n(S'true'\ntR.",
        "protocol 255": b"\x80\xffN.",
        "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(100),
    }


def pieces() -> dict[str, bytes]:
    """Whole files cut short at many places, and with a byte turned."""
    state = {"model": {"w": torch.arange(64.0), "b": torch.ones(3)}, "epoch": 1}
    modern, legacy = io.BytesIO(), io.BytesIO()
    torch.save(state, modern)
    torch.save(state, legacy, _use_new_zipfile_serialization=False)
    plain = pickle.dumps({"model": {"w": state["model"]["w"].numpy()}}, protocol=4)
    whole = {
        "torch": modern.getvalue(),
        "legacy": legacy.getvalue(),
        "numpy": plain,
        "safetensors": safetensors({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}, bytes(16)),
    }
    found = {}
    for kind, raw in whole.items():
        for share in (0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98):
            found[f"{kind} cut at {share}"] = raw[: int(len(raw) * share)]
            place = int(len(raw) * share)
            found[f"{kind} turned at {share}"] = raw[:place] + bytes([raw[place] ^ 0x55]) + raw[place + 1 :]
    return found


def all_files(canary: str) -> dict[str, bytes]:
    """Every case, by a name that describes it."""
    found: dict[str, bytes] = {}
    values = gadgets(canary) | {f"bomb, {name}": code for name, code in bombs().items()}
    for name, code in values.items():
        found[f"pickle: {name}"] = b"\x80\x04" + code + b"."
        if len(code) > 400_000 and name != "bomb, two million values":
            continue  # once is enough: they take seconds
        found[f"torch: {name}"] = torch_zip(code)
        found[f"legacy: {name}"] = b"".join(SIX) + b"\x80\x02" + code + b".\x80\x02]."
    for name, code in gadgets(canary).items():
        found[f"legacy system: {name}"] = SIX[0] + b"\x80\x02" + code + b".\x80\x02}.\x80\x02]."
        inside = b"}(" + text("model") + b"}" + text("meta") + b"}" + text("env") + code + b"su"
        found[f"beside the weights: {name}"] = torch_zip(inside)
    groups = {
        "array": {name: b"\x80\x04" + code + b"." for name, code in arrays().items()},
        "tensor": tensors(),
        "archive": archives(canary),
        "safetensors": safetensors_files(canary),
        "stranger": strangers(),
        "piece": pieces(),
    }
    return found | {f"{group}: {name}": raw for group, files in groups.items() for name, raw in files.items()}
