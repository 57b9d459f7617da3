"""The machine: system, processor, memory, GPUs."""

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rekv.doctor.finding import GIB, Finding, gib

if TYPE_CHECKING:
    import torch


def system() -> Iterator[Finding]:
    """Python and the operating system."""
    python = platform.python_version()
    yield Finding("Python", "ok", f"{python} at {sys.executable}", data={"version": python})
    yield Finding("System", "ok", platform.platform(), data={"machine": platform.machine()})


def processor() -> Iterator[Finding]:
    """Cores, vector width as PyTorch uses it, and whether bf16 is done in hardware."""
    import torch

    flags: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # not in the oldest PyTorch that works
    bf16 = sorted(name for name, there in flags.items() if "bf16" in name and there is True)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    vectors = torch.backends.cpu.get_cpu_capability()
    text = f"{cores} cores, {vectors}, bf16 in hardware: {', '.join(bf16) or 'no'}"
    data = {"cores": cores, "threads": torch.get_num_threads(), "capability": vectors, "bf16": bf16}
    yield Finding("CPU", "ok", text, data=data)


def memory() -> Iterator[Finding]:
    """RAM, where every frame's keys and values are kept."""
    total, free = ram()
    if total == 0:
        yield Finding("Memory", "ok", "the system does not say how much there is")
        return
    data = {"total": total, "free": free}
    text = f"{gib(free)} free of {gib(total)}"
    if free < 2 * GIB:
        advice = "close other programs: the keys and values of every frame are kept in memory"
        yield Finding("Memory", "warning", text, advice, data)
    else:
        yield Finding("Memory", "ok", text, data=data)


def ram() -> tuple[int, int]:
    """Bytes of RAM: all there is, and what is free now. Zeros where the system does not say."""
    try:
        page, total, free = (os.sysconf(name) for name in ("SC_PAGE_SIZE", "SC_PHYS_PAGES", "SC_AVPHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return 0, 0
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():  # its figure counts what the file cache would give back
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return page * total, int(line.split()[1]) * 1024
    return page * total, page * free


def gpus() -> Iterator[Finding]:
    """The GPUs that PyTorch sees, or why it sees none."""
    import torch

    if torch.cuda.is_available():
        yield from map(_gpu, range(torch.cuda.device_count()))
        return
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPUs"
    driver = shutil.which("nvidia-smi") is not None or Path("/proc/driver/nvidia/version").exists()
    data = {"build": build, "nvidia_driver": driver}
    if not driver:
        yield Finding("GPU", "ok", "none; models run on the CPU", data=data)
        return
    text = f"there is an NVIDIA driver, but PyTorch, built for {build}, sees no GPU"
    if torch.version.cuda:
        advice = "see nvidia-smi and CUDA_VISIBLE_DEVICES; the driver must be recent enough for this CUDA"
    else:
        advice = "install a build of PyTorch for CUDA: its website says how"
    yield Finding("GPU", "warning", text, advice, data)


def _gpu(index: int) -> Finding:
    import torch

    device = torch.cuda.get_device_properties(index)
    free, total = torch.cuda.mem_get_info(index)
    failure = _kernel_failure(torch.device("cuda", index))
    data = {"name": device.name, "total": total, "free": free, "kernel": not failure}
    text = f"{device.name}, {gib(free)} free of {gib(total)}"
    if failure:
        text += f"; the attention kernel fails: {failure}"
        advice = "use a GPU of compute capability 8.0 or newer and a PyTorch built for it, or device='cpu'"
        return Finding(f"GPU {index}", "warning", text, advice, data)
    return Finding(f"GPU {index}", "ok", f"{text}; the attention kernel works", data=data)


def _kernel_failure(device: "torch.device") -> str:
    """Run the attention kernel once, on a few tokens. Why it failed, or nothing."""
    import torch

    from rekv.attention.kernels import window_attention

    heads = torch.zeros(2, 4, 64, dtype=torch.bfloat16, device=device)
    try:
        window_attention(heads, heads, heads, 2, 1.0).cpu()
    except (ImportError, RuntimeError) as error:
        return next(iter(str(error).splitlines()), type(error).__name__)
    return ""
