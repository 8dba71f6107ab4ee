"""Random blocks of every type, and GGUF files as the gguf package writes them."""

import gguf
import numpy as np

from triptych.weights.gguf import BLOCKS

Q = gguf.GGMLQuantizationType

# Where float16 scales lie in a block: bytes of any kind would make infinities of them.
HALVES = {
    "Q4_0": [0],
    "Q4_1": [0, 2],
    "Q5_0": [0],
    "Q5_1": [0, 2],
    "Q8_0": [0],
    "Q2_K": [80, 82],
    "Q3_K": [108],
    "Q4_K": [0, 2],
    "Q5_K": [0, 2],
    "Q6_K": [208],
    "IQ4_NL": [0],
    "IQ4_XS": [0],
}


def blocks(form, rows, columns, seed=0):
    """Random bytes of rows, with scales that are numbers: (rows, bytes)."""
    random = np.random.default_rng(seed)
    count, size = BLOCKS[form]
    found = random.integers(0, 256, (rows * columns // count, size), dtype=np.uint8)
    for at in HALVES[form]:
        found[:, at : at + 2] = random.normal(size=(len(found), 1)).astype(np.float16).view(np.uint8)
    return found.reshape(rows, -1)


def written(path, tensors, arch="flux", **values):
    """A file as ComfyUI-GGUF's converter writes it. tensors: name to (bytes or numbers, type)."""
    writer = gguf.GGUFWriter(path=None, arch=arch)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    for name, value in values.items():
        (writer.add_array if isinstance(value, list) else writer.add_string)(name, value)
    for name, (data, kind) in tensors.items():
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file(path=path)
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
