"""The software: the packages that rekv needs, and the codecs in PyAV."""

from collections.abc import Iterator
from importlib import metadata
from typing import Literal

from rekv.doctor.finding import Finding, Level

DECODERS = {  # what videos are made of; any one of the decoders will do
    "H.264": ("h264",),
    "HEVC": ("hevc",),
    "VP9": ("vp9", "libvpx-vp9"),
    "AV1": ("libdav1d", "libaom-av1"),  # FFmpeg's own "av1" decodes nothing without a GPU
    "MPEG-4": ("mpeg4",),
    "MJPEG": ("mjpeg",),
}
REINSTALL_PYAV = "pip install --force-reinstall --only-binary :all: av"


def packages() -> Iterator[Finding]:
    """Every dependency that rekv's own metadata names: is it there, in the range that works?"""
    from packaging.requirements import Requirement

    try:
        declared = [Requirement(line) for line in metadata.requires("rekv") or ()]
    except metadata.PackageNotFoundError:
        yield Finding("rekv", "problem", "is not installed", "in rekv's folder: pip install -e .")
        return
    version = metadata.version("rekv")
    yield Finding("rekv", "ok", version, data={"version": version})
    for requirement in declared:
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield package(requirement.name, str(requirement.specifier), "problem")
        elif requirement.marker.evaluate({"extra": "report"}):
            yield package(requirement.name, str(requirement.specifier), "warning")


def package(name: str, wanted: str, otherwise: Level) -> Finding:
    """Whether the installed version of a package is in a range; `otherwise` is how bad it is if not."""
    from packaging.specifiers import SpecifierSet

    advice = f'pip install "{name}{wanted}"'
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Finding(name, otherwise, "is not installed", advice, {"wanted": wanted})
    data = {"version": version, "wanted": wanted}
    if not SpecifierSet(wanted).contains(version, prereleases=True):
        return Finding(name, otherwise, f"{version}, but rekv works with {wanted}", advice, data)
    return Finding(name, "ok", version, data=data)


def video() -> Iterator[Finding]:
    """Which kinds of video can be read, and whether the demo can write its own."""
    import av

    version = av.ffmpeg_version_info
    found = [name for name, codecs in DECODERS.items() if any(has_codec(codec, "r") for codec in codecs)]
    missing = [name for name in DECODERS if name not in found]
    text, data = f"FFmpeg {version} reads {', '.join(found)}", {"ffmpeg": version, "decoders": found}
    if missing:
        yield Finding("Video", "warning", f"{text}; not {', '.join(missing)}", REINSTALL_PYAV, data)
    else:
        yield Finding("Video", "ok", text, data=data)
    if not has_codec("libx264", "w"):
        yield Finding("H.264 encoder", "warning", "none, so 'rekv demo' cannot write its video", REINSTALL_PYAV)


def has_codec(name: str, mode: Literal["r", "w"]) -> bool:
    """Whether PyAV's FFmpeg has the decoder ("r") or encoder ("w") of this name."""
    from av.codec import Codec
    from av.codec.codec import UnknownCodecError

    try:
        Codec(name, mode)
    except UnknownCodecError:
        return False
    return True
