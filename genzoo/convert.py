"""Foreign checkpoints into safetensors: the one place where a pickle is read, in a process apart, for tensors only.

The worker reads with ``weights_only=True`` of a torch that has no known hole in it, under a bound of memory, time and
file size, and there is no second try without. What it wrote is checked by the reader that everything else goes through.
"""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from genzoo.cards import Asset
from genzoo.errors import GenzooError, WeightsError, out_of_memory
from genzoo.files import FULL, open_regular, sha256_of, whole_file

#: ``weights_only=True`` could be tricked before this version (CVE-2025-32434 and later ones).
SAFE_TORCH = (2, 10)

#: Memory beyond what torch itself takes, for a file of this many bytes.
SPARE = 1 << 30

SECONDS = 900
MAX_DEPTH = 8


class ConvertError(GenzooError):
    """A file that cannot be converted safely; the message says why and what to do."""


def convert(source: Path, out: Path, *, memory: int | None = None, key: str | None = None) -> Asset:
    """Write the tensors of a ``.pt``, ``.pth``, ``.bin`` or ``.ckpt`` file as safetensors.

    Nested mappings become dotted names; what is no tensor is left out.

    Args:
        source: the checkpoint.
        out: ends in ``.safetensors``; appears whole or not at all.
        memory: bytes that the worker may use beyond torch itself; by default four times the file and a gigabyte.
        key: take only what stands under this name, as ``g_ema`` or ``state_dict``.

    Raises:
        ConvertError: not a checkpoint, one that needs code, one that is damaged or too large.
    """
    if out.suffix != ".safetensors":
        raise ConvertError(f"{out}: what is written is safetensors; name it {out.with_suffix('.safetensors').name}")
    if source.suffix in (".pkl", ".pickle"):
        raise ConvertError(
            f"{source}: a pickle of whole objects holds code that runs when it is read, and is refused; "
            "save its state dict with torch.save on a machine that you can afford to lose, and convert that"
        )
    if not source.exists():
        raise ConvertError(f"{source}: no such file")
    with open_regular(source, ConvertError) as file:
        size = os.fstat(file.fileno()).st_size
    bound = memory if memory is not None else 4 * size + SPARE
    with whole_file(out) as part:
        _work(source, part, bound, key)
        _check(part, source)
    return Asset(file=out.name, sha256=sha256_of(out), size=out.stat().st_size)


def _work(source: Path, part: Path, bound: int, key: str | None) -> None:
    command = [
        sys.executable,
        "-P",  # not from the working folder: a torch.py that came with the checkpoint would be run
        "-m",
        "genzoo.convert",
        str(source.absolute()),
        str(part.absolute()),
        str(bound),
        key or "",
    ]
    # Nothing of the caller's environment that torch or a pickle could be led by.
    names = ("PATH", "HOME", "LANG", "TMPDIR", "PYTHONPATH")
    kept = {name: value for name, value in os.environ.items() if name in names}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, env=kept, check=False)
    except subprocess.TimeoutExpired:
        raise ConvertError(f"{source}: not read after {SECONDS} s; it is damaged, or a trap") from None
    try:
        told = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        told = {}
    if done.returncode == 0 and told.get("done"):
        return
    if "error" in told:
        raise ConvertError(f"{source}: {told['error']}")
    raise ConvertError(
        f"{source}: reading it ended without a result (status {done.returncode}); it needs more than {bound} bytes of "
        "memory, or is damaged; allow more with --memory"
    )


def _check(part: Path, source: Path) -> None:
    from genzoo.tensors import read

    try:
        read(part)
    except WeightsError as error:
        raise ConvertError(str(error).replace(str(part), str(source))) from None


# -- the worker --------------------------------------------------------------------------------------------------------


def main(arguments: list[str]) -> int:
    """The worker: SOURCE OUT MEMORY KEY; says in one line of JSON how it went."""
    source, out, memory, key = Path(arguments[0]), Path(arguments[1]), int(arguments[2]), arguments[3]
    try:
        count = _convert(source, out, memory, key)
    except MemoryError:
        told: dict[str, Any] = {
            "error": f"needs more than the {memory} bytes of memory that are allowed; raise --memory"
        }
    except _Refused as error:
        told = {"error": str(error)}
    except OSError as error:
        told = {"error": f"cannot be converted: {error.strerror}"}
    else:
        told = {"done": count}
    sys.stdout.write(json.dumps(told) + "\n")
    return 0 if "done" in told else 1


class _Refused(Exception):
    """Why the worker stopped."""


def _convert(source: Path, out: Path, memory: int, key: str) -> int:
    import torch

    from genzoo.tensors import write

    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if version < SAFE_TORCH:
        raise _Refused(f"torch {torch.__version__} does not read pickles safely; update to torch 2.10 or later")
    _limit(memory, 4 * source.stat().st_size + (1 << 20))
    tensors: dict[str, Any] = {}
    for name, tensor in _leaves(_load(source), ""):
        if name in tensors:
            raise _Refused(f"holds two tensors that would both be named {name[:80]!r}")
        tensors[name] = tensor
    if key:
        tensors = {name.removeprefix(f"{key}."): t for name, t in tensors.items() if name.startswith(f"{key}.")}
    if not tensors:
        raise _Refused(f"holds no tensors{f' under {key!r}' if key else ''}")
    needed = sum(tensor.nbytes for tensor in tensors.values())
    try:
        write(out, tensors, {"format": "pt", "genzoo.source": source.name[:200], "genzoo.sha256": sha256_of(source)})
    except WeightsError as error:
        raise _Refused(str(error).removeprefix(f"{out}: ")) from None
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise _Refused(f"its tensors take {needed} bytes, far more than the file does; it is a trap") from None
        if error.errno in FULL:
            raise _Refused(f"no space left in {out.parent}; {needed} bytes are needed") from None
        raise
    except RuntimeError as error:
        raise (MemoryError() if out_of_memory(error) else error) from None
    return len(tensors)


def _load(source: Path) -> Any:
    import zipfile

    import torch

    if zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            if any(name.split("/")[-1] == "constants.pkl" or "/code/" in name for name in archive.namelist()):
                raise _Refused("a TorchScript archive, which is a program; save its state dict instead")
    try:
        return torch.load(source, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:
        text = str(error)
        if type(error).__name__ == "UnpicklingError":
            named = re.search(r"GLOBAL ([\w.]{1,80})", text)
            what = f"asks for {named.group(1)}, which is code" if named else "holds more than tensors, or is damaged"
            raise _Refused(f"{what}; refused: save the model's state dict alone, and convert that") from None
        if out_of_memory(error):
            raise MemoryError from None
        raise _Refused(f"no checkpoint of torch, or a damaged one ({type(error).__name__}); fetch it again") from None


def _limit(memory: int, written: int) -> None:
    """Bound this process: memory beyond what it has now, the size of what it writes, and its time."""
    try:
        import resource
    except ImportError:  # not on Windows; the other guards hold there
        return
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    now = pages * resource.getpagesize() or 8 << 30
    resource.setrlimit(resource.RLIMIT_AS, (now + memory, now + memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (written, written))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _leaves(tree: Any, path: str, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """The tensors of nested mappings, by dotted name."""
    import torch

    if isinstance(tree, torch.Tensor):
        if tree.layout != torch.strided or tree.is_quantized:
            raise _Refused(f"{path[:80]!r} is a sparse or quantised tensor, which is not converted")
        yield path or "tensor", tree
    elif isinstance(tree, Mapping):
        if depth >= MAX_DEPTH:
            raise _Refused(f"nested deeper than {MAX_DEPTH} levels")
        for name, value in tree.items():
            if isinstance(name, str | int):
                yield from _leaves(value, f"{path}.{name}" if path else str(name), depth + 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
