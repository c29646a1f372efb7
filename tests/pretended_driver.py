"""A tiny libcuda, compiled here: it answers what sept.runtime.driver asks, from variables of the environment."""

import shutil
import subprocess
from pathlib import Path

SOURCE = r"""
#include <stdlib.h>
#include <string.h>

static int number(const char *name, int otherwise) {
    const char *text = getenv(name);
    return text ? atoi(text) : otherwise;
}

int cuInit(unsigned flags) {
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    if (visible && (!*visible || *visible == '-' || *visible == 'x')) return 100;
    return number("PRETENDED_INIT", 0);
}
int cuDeviceGetCount(int *count) { *count = number("PRETENDED_CARDS", 2); return 0; }
int cuDriverGetVersion(int *version) { *version = number("PRETENDED_CUDA", 13000); return 0; }
int cuDeviceGet(int *card, int place) { *card = 10 + place; return 0; }
int cuDeviceGetAttribute(int *value, int which, int card) {
    int both = number(card == 10 ? "PRETENDED_FIRST" : "PRETENDED_SECOND", 90);
    *value = which == 75 ? both / 10 : which == 76 ? both % 10 : -1;
    return 0;
}
int cuDeviceTotalMem_v2(size_t *bytes, int card) { *bytes = 80ul << 30; return 0; }
int cuDeviceGetName(char *name, int size, int card) { strncpy(name, "Pretended T4", size); return 0; }
"""


def compiled(folder: Path) -> Path | None:
    """The library, named as the driver's; None without a compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return None
    source, library = folder / "libcuda.c", folder / "libcuda.so.1"
    source.write_text(SOURCE)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    return library
