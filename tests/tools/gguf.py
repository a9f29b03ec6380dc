"""A reader of GGUF, written from the specification alone."""
import struct

KINDS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
TYPES = {0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20),
         6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 10: ("Q2_K", 256, 84),
         11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176),
         14: ("Q6_K", 256, 210), 30: ("BF16", 1, 2)}
ARRAY_NAMES = {4: "u32", 5: "i32", 6: "f32", 8: "string"}


class Reader:
    def __init__(self, path):
        self.file = open(path, "rb")
        assert self.file.read(4) == b"GGUF"
        self.version, tensors, keys = self.take("IQQ")
        self.arrays = {}  # by key: their elements
        self.keys = dict(self.key() for _ in range(keys))
        infos = [self.info() for _ in range(tensors)]
        align = self.keys.get("general.alignment", 32)
        data = -(-self.file.tell() // align) * align
        self.tensors = [dict(t, offset=t["offset"] + data) for t in infos]

    def take(self, form):
        got = struct.unpack("<" + form, self.file.read(struct.calcsize("<" + form)))
        return got[0] if len(got) == 1 else got

    def text(self):
        return self.file.read(self.take("Q"))

    def value(self, kind):
        if kind == 8:
            return self.text().decode("utf-8", "replace")
        if kind != 9:
            return self.take(KINDS[kind])
        element, n = self.take("IQ")
        self.elements = [self.value(element) for _ in range(n)]
        return {"array_of": ARRAY_NAMES[element], "length": n}

    def key(self):
        name, kind = self.text().decode(), self.take("I")
        value = self.value(kind)
        if kind == 9:
            self.arrays[name] = self.elements
        return name, value

    def info(self):
        name = self.text().decode()
        shape = [self.take("Q") for _ in range(self.take("I"))]
        kind, offset = self.take("IQ")
        label, block, size = TYPES[kind]
        elements = 1
        for d in shape:
            elements *= d
        return {"name": name, "type": label, "shape": shape, "bytes": elements // block * size,
                "part": 1, "offset": offset}
