"""What a segment's file says by itself, without a catalog: are its header and its bytes those that were written."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from zlib_ng import zlib_ng

from rekv.errors import StoreError
from rekv.store.files import room
from rekv.store.header import PAGE
from rekv.store.meta import SessionMeta
from rekv.store.segment import Segment, index_crc

Faults = dict[int, tuple[str, str]]  # by slot, or frame: kind of problem, and in words


def counted(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def extent(segment: Segment) -> int:
    """The size of a whole file with this header. Raises `StoreError` if it is not one that rekv writes."""
    try:
        places = sorted(segment.places.values(), key=lambda place: place.start)
        rows = [segment.places[f"layer.{i}.index"] for i in range(segment.layers)]
        blocks = [segment.places[f"layer.{i}.blocks"] for i in range(segment.layers)]
        rows += [] if segment.is_reduced else blocks
        fits = (
            places[0].start % PAGE == 0
            and all(a.start + a.nbytes == b.start for a, b in pairwise(places))
            and all(place.shape[0] == segment.slots > 0 for place in rows)
            and all(len(place.shape) == 1 for place in blocks if segment.is_reduced)
            and len(segment.layout) == segment.layers
        )
        end = places[-1].start + places[-1].nbytes
    except (KeyError, TypeError, ValueError, IndexError):
        fits, end = False, 0
    if not fits:
        raise StoreError("its header is damaged")
    return end


def meta_of(metadata: Mapping[str, str]) -> SessionMeta | None:
    """The session that a sink's or a segment's metadata name."""
    try:
        return SessionMeta.loads(metadata["session"])
    except (KeyError, ValueError, TypeError):
        return None


def faults_of(segment: Segment, slots: Sequence[int]) -> Faults:
    """Slots whose blocks or representative keys are not those that were written."""
    cut = ("truncated", "they lay in the part that was cut off")
    faults: Faults = {}
    for layer in range(segment.layers):
        most = segment.places[f"layer.{layer}.blocks"].nbytes
        try:
            offset, size, crc = segment.blocks_table(layer)
            keys, key_crc = segment.index(layer, 0, segment.slots), segment.table("index_crc")[layer]
            masks = segment.masks(layer)
        except (OSError, StoreError):
            return dict.fromkeys(slots, cut)
        for slot in slots:
            if not 0 <= slot < segment.slots:
                faults[slot] = ("tables", "the file has no such slots")
            elif slot in faults:
                continue
            elif index_crc(keys[slot], None if masks is None else masks[slot]) != key_crc[slot]:
                faults[slot] = ("index", "representative keys are not as they were written")
            elif not (0 < size[slot] <= most and 0 <= offset[slot] <= most - size[slot]):
                faults[slot] = ("tables", "the file's tables are damaged")
            else:
                block = room(int(size[slot]))
                try:
                    done = segment.read_at(layer, int(offset[slot]), [block])
                except OSError as error:
                    faults[slot] = ("blocks", f"blocks cannot be read ({error.strerror})")
                    continue
                if done < len(block):
                    faults[slot] = cut
                elif zlib_ng.crc32(block) != crc[slot]:
                    faults[slot] = ("blocks", "blocks are not as they were written")
    return faults
