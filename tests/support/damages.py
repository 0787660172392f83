"""Kinds of damage to a store that nobody has open, each with what a check has to say of it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from orlop.protocol.messages import Fixed, Problem
from orlop.storage import keys, snapshots
from orlop.storage.blobs import ledger
from orlop.storage.codec import encode, open_value, seal
from orlop.storage.collection.state import (
    IDLE,
    ROOT,
    Clock,
    Extent,
    Link,
    Mode,
    State,
    decode_clock,
    decode_extent,
    decode_item,
    encode_states,
)
from orlop.storage.engine import Kind

from .furnished import BASE, BIG, CHILD, CONFIG, LAYER, MANIFEST, SMALL, Furnished

__all__ = ["ASIDE", "DAMAGES", "MENDED", "PERSON", "Damage"]

MENDED, ASIDE, PERSON = Fixed.MENDED, Fixed.QUARANTINED, Fixed.NO


class Damage(NamedTuple):
    """`lost`: what cannot be read as before, by words of `alive`; None: nothing. `hurts`: the collector cannot work
    until a person has been there."""

    name: str
    do: Callable[[Furnished], None]
    problem: Problem
    what: str
    fixed: Fixed = MENDED
    lost: str | None = None
    hurts: bool = False


DAMAGES: list[Damage] = []


def damage(problem: Problem, what: str, fixed: Fixed = MENDED, *, lost: str | None = None, hurts: bool = False):
    def add(do: Callable[[Furnished], None]) -> Callable[[Furnished], None]:
        DAMAGES.append(Damage(do.__name__, do, problem, what, fixed, lost, hurts))
        return do

    return add


def state(digest: str) -> bytes:
    return keys.state("default", b"b", digest)


# references -------------------------------------------------------------------------------------------------


@damage(Problem.REFERENCE, "kept:1")
def an_images_edge_removed(store: Furnished) -> None:
    store.delete(store.one(keys.edges_to("default", b"b", MANIFEST) + b"ai"))


@damage(Problem.REFERENCE, MANIFEST)
def a_labels_edge_removed(store: Furnished) -> None:
    store.delete(store.one(keys.edges_to("default", b"b", LAYER) + b"rb"))


@damage(Problem.REFERENCE, "normal")
def a_leases_edge_removed(store: Furnished) -> None:
    store.delete(store.one(keys.edges_to("default", b"x", "native/view") + b"zl\x01normal"))


@damage(Problem.REFERENCE, "flat")
def a_flat_edge_made_normal(store: Furnished) -> None:
    store.put(store.one(keys.edges_to("default", b"x", "native/view") + b"zl\x01flat"), b"N")


@damage(Problem.REFERENCE, "sha256:")
def a_back_reference_removed(store: Furnished) -> None:
    store.delete(store.one(keys.back_edges_from("default", b"b", SMALL)))


@damage(Problem.REFERENCE, "sha256:")
def a_condition_changed(store: Furnished) -> None:
    store.put(store.one(keys.edges_to("default", b"x", BASE) + b"q"), b"<1")


@damage(Problem.REFERENCE, "nobody")
def a_stray_edge(store: Furnished) -> None:
    store.put(keys.edges_to("default", b"b", BIG) + b"ai\x01nobody", b"")


@damage(Problem.REFERENCE, "normal")
def a_stray_edge_of_a_lease(store: Furnished) -> None:
    store.put(keys.edges_to("default", b"b", BIG) + b"zl\x01normal", b"N")


@damage(Problem.REFERENCE, "kept:1")
def a_stray_edge_to_a_long_name(store: Furnished) -> None:
    store.put(keys.edges_to("default", b"i", "x" * 450) + b"ri\x01docker.io/library/kept:1", b"")


@damage(Problem.REFERENCE, BIG)
def a_stray_back_reference(store: Furnished) -> None:
    store.put(keys.back_edges_from("default", b"i", "docker.io/library/kept:1") + b"b\x01" + BIG.encode(), b"")


@damage(Problem.REFERENCE, "")
def an_edge_that_says_nothing(store: Furnished) -> None:
    store.put(keys.EDGES + b"default\x00?", b"")


@damage(Problem.REFERENCE, "expires")
def an_alarm_removed(store: Furnished) -> None:
    (key,) = [key for key in store.under(keys.TIMES) if key.endswith(b"iexpires")]
    store.delete(key)


@damage(Problem.REFERENCE, "expires")
def a_stray_alarm(store: Furnished) -> None:
    store.put(keys.instant_of(4 * 10**18, "default", b"i", "expires"), b"")


@damage(Problem.REFERENCE, BASE)
def a_conditions_alarm_removed(store: Furnished) -> None:
    (key,) = [key for key in store.under(keys.TIMES) if key.endswith(b"x" + BASE.encode())]
    store.delete(key)


@damage(Problem.REFERENCE, "other")
def a_namespace_removed(store: Furnished) -> None:
    store.delete(keys.namespace("other"))


@damage(Problem.REFERENCE, "shared")
def the_mark_of_a_shareable_namespace_removed(store: Furnished) -> None:
    store.delete(keys.shareable("shared"))


@damage(Problem.REFERENCE, "nowhere")
def a_namespace_shareable_that_is_not(store: Furnished) -> None:
    store.put(keys.shareable("nowhere"), b"")


# what the collector knows -----------------------------------------------------------------------------------


@damage(Problem.STATE, SMALL)
def a_state_removed(store: Furnished) -> None:
    store.delete(state(SMALL))


@damage(Problem.STATE, SMALL)
def a_state_that_cannot_be_read(store: Furnished) -> None:
    store.put(state(SMALL), b"\xc1")


@damage(Problem.STATE, LAYER)
def a_stray_witness(store: Furnished) -> None:
    store.put_states(state(LAYER), State(Link("r", Kind.CONTENT, BIG)), IDLE)


@damage(Problem.STATE, LAYER)
def a_witness_by_its_own_right_that_is_none(store: Furnished) -> None:
    store.put_states(state(LAYER), State(ROOT), IDLE)


@damage(Problem.STATE, LAYER)
def a_witness_of_a_kind_that_is_not(store: Furnished) -> None:
    store.put_states(state(LAYER), State(Link("r", 99, "x")), IDLE)


@damage(Problem.STATE, "")
def two_that_keep_each_other(store: Furnished) -> None:
    """By labels that are there; and neither leads to a root."""
    manifest, layer = state(MANIFEST), state(LAYER)
    key = keys.records("default", b"b") + LAYER.encode()
    record = msgspec.msgpack.decode(open_value(store.get(key), key)[1])
    record["labels"] = {"containerd.io/gc.ref.content": MANIFEST}
    store.put(key, seal(msgspec.msgpack.encode(record)))
    store.put(keys.edges_to("default", b"b", MANIFEST) + b"rb\x01" + LAYER.encode(), b"")
    store.put_states(manifest, State(Link("r", Kind.CONTENT, LAYER)), IDLE)
    assert store.states(layer)[0] == State(Link("r", Kind.CONTENT, MANIFEST))


@damage(Problem.MARK, SMALL)
def a_living_one_that_nobody_knows_to_live(store: Furnished) -> None:
    _, flat = store.states(state(SMALL))
    queued, clock = next(iter(store.under(keys.QUEUE))), decode_clock(store.get(keys.CLOCK))
    round_ = int.from_bytes(queued[2:10], "big")
    item = decode_item(store.get(queued))
    dead = State(None, round_, 3, clock.sequence + 1)
    store.put(keys.CLOCK, encode(msgspec.structs.replace(clock, sequence=clock.sequence + 1)))
    store.put(
        keys.queued(round_, 3, clock.sequence + 1),
        encode(msgspec.structs.replace(item, name=SMALL, namespace="default")),
    )
    store.put_states(state(SMALL), dead, flat)


@damage(Problem.STATE, "sha256:")
def an_entry_of_the_queue_removed(store: Furnished) -> None:
    store.delete(store.under(keys.QUEUE)[0])


@damage(Problem.STATE, BIG)
def a_stray_entry_of_the_queue(store: Furnished) -> None:
    clock, item = decode_clock(store.get(keys.CLOCK)), decode_item(store.get(store.under(keys.QUEUE)[0]))
    stray = msgspec.structs.replace(item, name=BIG, mode=Mode.SUSPECT)
    store.put(keys.queued(clock.open, 1, 1), encode(stray))


@damage(Problem.STATE, "")
def an_entry_of_the_queue_that_cannot_be_read(store: Furnished) -> None:
    store.put(store.under(keys.QUEUE)[0], b"\xc1")


def _extent_of(store: Furnished) -> bytes:
    return store.under(keys.QUEUE_EXTENTS)[0]


@damage(Problem.STATE, "")
def an_extent_of_the_queue_removed(store: Furnished) -> None:
    store.delete(_extent_of(store))


@damage(Problem.STATE, "")
def an_extent_of_the_queue_that_begins_too_late(store: Furnished) -> None:
    extent = decode_extent(store.get(_extent_of(store)))
    store.put(_extent_of(store), encode(Extent(extent.count, extent.first + 1)))


@damage(Problem.STATE, "")
def an_extent_of_nothing(store: Furnished) -> None:
    store.put(keys.queue_extent(500, 1), encode(Extent(1, 1)))


@damage(Problem.REFERENCE, "default")
def back_references_counted_wrongly(store: Furnished) -> None:
    """Nobody would look for them."""
    store.delete(keys.back_count("default"))


@damage(Problem.STATE, "expired")
def a_round_of_the_bin_removed(store: Furnished) -> None:
    for key in store.under(keys.BINS):
        store.delete(key)


@damage(Problem.STATE, "clock")
def the_collectors_clock_removed(store: Furnished) -> None:
    store.delete(keys.CLOCK)


@damage(Problem.STATE, "clock")
def the_collectors_clock_set_back(store: Furnished) -> None:
    store.put(keys.CLOCK, encode(Clock(time=decode_clock(store.get(keys.CLOCK)).time)))


@damage(Problem.STATE, SMALL)
def one_that_is_to_tell_and_is_not_in_the_queue(store: Furnished) -> None:
    normal, flat = store.states(state(SMALL))
    store.put_states(state(SMALL), State(normal.witness, 0, 0, 0, 7, 7), flat)


@damage(Problem.STATE, SMALL)
def the_bytes_of_one_that_lives_counted_as_reclaimable(store: Furnished) -> None:
    store.put(state(SMALL), encode_states(*store.states(state(SMALL)), 7, "") or b"")


# records ----------------------------------------------------------------------------------------------------


@damage(Problem.RECORD, SMALL, PERSON, hurts=True)
def a_content_record_flipped(store: Furnished) -> None:
    store.flip(keys.records("default", b"b") + SMALL.encode())


@damage(Problem.RECORD, "normal", PERSON, hurts=True)
def a_lease_flipped(store: Furnished) -> None:
    store.flip(keys.records("default", b"l") + b"normal")


@damage(Problem.RECORD, "open", PERSON, hurts=True)
def an_ingest_flipped(store: Furnished) -> None:
    store.flip(keys.records("default", b"w") + b"open")


@damage(Problem.RECORD, "shared", PERSON, hurts=True)
def a_namespace_flipped(store: Furnished) -> None:
    store.flip(keys.namespace("shared"))


@damage(Problem.RECORD, "", PERSON, hurts=True)
def a_record_of_no_kind(store: Furnished) -> None:
    store.put(keys.RECORDS + b"default\x00?what", seal(b"\xc0"))


@damage(Problem.RECORD, BIG, PERSON, hurts=True)
def a_blobs_record_flipped(store: Furnished) -> None:
    store.flip(keys.blob(BIG))


@damage(Problem.RECORD, "", PERSON, hurts=True)
def a_backends_record_flipped(store: Furnished) -> None:
    store.flip(keys.backend_snapshot(store.id_of(CHILD)))


@damage(Problem.RECORD, "deleted:1", PERSON)
def an_image_in_the_bin_flipped(store: Furnished) -> None:
    store.flip(store.one(keys.DELETED_IMAGES))


@damage(Problem.RECORD, "3", PERSON)
def an_event_removed(store: Furnished) -> None:
    store.delete(keys.event(3))


@damage(Problem.RECORD, "3", PERSON)
def an_event_flipped(store: Furnished) -> None:
    store.flip(keys.event(3))


# blobs ------------------------------------------------------------------------------------------------------


@damage(Problem.HOLDERS, LAYER)
def a_holder_removed(store: Furnished) -> None:
    store.delete(keys.blob_holders(LAYER) + b"other")


@damage(Problem.HOLDERS, LAYER)
def a_stray_holder(store: Furnished) -> None:
    store.put(keys.blob_holders(LAYER) + b"shared", b"")


@damage(Problem.HOLDERS, "sha256:0000")
def a_holder_of_nothing(store: Furnished) -> None:
    store.put(keys.blob_holders("sha256:" + "0" * 64) + b"shared", b"")


def _change_blob(store: Furnished, digest: str, **changes: object) -> None:
    key = keys.blob(digest)
    blob = msgspec.msgpack.decode(open_value(store.get(key), key)[1], type=ledger.Blob)
    store.put(key, seal(encode(msgspec.structs.replace(blob, **changes))))


@damage(Problem.HOLDERS, LAYER)
def too_many_holders_counted(store: Furnished) -> None:
    _change_blob(store, LAYER, holders=5)


@damage(Problem.HOLDERS, LAYER)
def too_few_holders_counted(store: Furnished) -> None:
    """The collector would take it away."""
    _change_blob(store, LAYER, holders=1)


@damage(Problem.HOLDERS, BIG)
def a_blob_said_to_be_unheld(store: Furnished) -> None:
    store.put(keys.unheld("sha256:" + "0" * 64), b"")
    _change_blob(store, BIG, holders=2)


@damage(Problem.BYTES, LAYER)
def a_blobs_record_removed(store: Furnished) -> None:
    store.delete(keys.blob(LAYER))


@damage(Problem.BYTES, CONFIG)
def a_small_blobs_record_removed(store: Furnished) -> None:
    store.delete(keys.blob(CONFIG))


@damage(Problem.BYTES, LAYER, PERSON, lost=LAYER)
def a_blobs_record_and_file_removed(store: Furnished) -> None:
    store.delete(keys.blob(LAYER))
    store.path_of(LAYER).unlink()


@damage(Problem.BYTES, LAYER, PERSON, lost=LAYER)
def a_file_removed(store: Furnished) -> None:
    store.path_of(LAYER).unlink()


@damage(Problem.SIZE, LAYER, PERSON, lost=LAYER)
def a_file_cut_off(store: Furnished) -> None:
    os.chmod(store.path_of(LAYER), 0o600)
    os.truncate(store.path_of(LAYER), 1000)


@damage(Problem.BYTES, SMALL, PERSON, lost=SMALL)
def small_bytes_removed(store: Furnished) -> None:
    store.delete(keys.small_bytes(SMALL))


@damage(Problem.BYTES, SMALL, PERSON, lost=SMALL)
def small_bytes_flipped(store: Furnished) -> None:
    store.flip(keys.small_bytes(SMALL))


@damage(Problem.ORPHAN, "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae")
def small_bytes_that_belong_to_nothing(store: Furnished) -> None:
    store.put(keys.small_bytes("sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"), seal(b"foo"))


@damage(Problem.HOLDERS, BIG, PERSON, lost=BIG)
def a_content_record_removed(store: Furnished) -> None:
    """Its bytes stay, for whoever can say what the record was."""
    store.delete(keys.records("default", b"b") + BIG.encode())


# snapshots --------------------------------------------------------------------------------------------------


@damage(Problem.SNAPSHOT, "native/alone")
def a_snapshots_id_removed(store: Furnished) -> None:
    store.delete(keys.snapshot_id("other", "native/alone"))


@damage(Problem.SNAPSHOT, CHILD, PERSON, lost="child", hurts=True)
def the_id_of_one_of_several_alike_removed(store: Furnished) -> None:
    """Another one that lacks its id could have that folder as well."""
    store.delete(keys.snapshot_id("default", CHILD))
    store.delete(keys.snapshot_id("default", "native/of a container"))


@damage(Problem.SNAPSHOT, "native/alone", PERSON, lost="alone", hurts=True)
def a_backends_record_removed(store: Furnished) -> None:
    """Its folder stays, for it is held."""
    store.delete(keys.backend_snapshot(store.id_of("native/alone", "other")))


@damage(Problem.SNAPSHOT, "native/alone", PERSON, lost="alone")
def a_snapshots_record_removed(store: Furnished) -> None:
    """Its folder stays, for it is held."""
    store.delete(keys.records("other", b"x") + b"native/alone")


def _change_backend(store: Furnished, name: str, **changes: object) -> None:
    key = keys.backend_snapshot(store.id_of(name))
    backend = msgspec.msgpack.decode(open_value(store.get(key), key)[1], type=snapshots.BackendSnapshot)
    store.put(key, seal(encode(msgspec.structs.replace(backend, **changes))))


@damage(Problem.SNAPSHOT, "native/")
def too_many_children_counted(store: Furnished) -> None:
    _change_backend(store, BASE, children=9)


@damage(Problem.SNAPSHOT, "native/")
def too_few_children_counted(store: Furnished) -> None:
    _change_backend(store, BASE, children=1)


@damage(Problem.HOLDERS, "native/")
def a_snapshots_holders_counted_wrongly(store: Furnished) -> None:
    _change_backend(store, CHILD, holders=3)


@damage(Problem.HOLDERS, CHILD)
def a_snapshots_holder_removed(store: Furnished) -> None:
    store.delete(keys.snapshot_holders(store.id_of(CHILD)) + b"default")


@damage(Problem.HOLDERS, "")
def a_snapshots_stray_holder(store: Furnished) -> None:
    store.put(keys.snapshot_holders(store.id_of(CHILD)) + b"other", b"")


@damage(Problem.SNAPSHOT, CHILD)
def a_parent_that_does_not_know_of_its_child(store: Furnished) -> None:
    store.delete(keys.snapshot_children("default", BASE) + CHILD.encode())


@damage(Problem.SNAPSHOT, "native/nobody")
def a_child_that_is_none(store: Furnished) -> None:
    store.put(keys.snapshot_children("default", BASE) + b"native/nobody", b"")


@damage(Problem.SNAPSHOT, CHILD, PERSON)
def a_snapshot_on_another_parent(store: Furnished) -> None:
    _change_backend(store, CHILD, parent=0)


@damage(Problem.SNAPSHOT, "77")
def an_origin_of_nothing(store: Furnished) -> None:
    store.put(keys.unpacked(b"o" * 32), keys.number(77))


@damage(Problem.FOLDER, "snapshots/native/", PERSON, lost="child")
def a_folder_removed(store: Furnished) -> None:
    shutil.rmtree(store.folder / "snapshots" / "native" / str(store.id_of(CHILD)))


# what belongs to nothing ------------------------------------------------------------------------------------


@damage(Problem.ORPHAN, "blobs/sha256/" + "0" * 64 + ".999", ASIDE)
def a_stray_file(store: Furnished) -> None:
    (store.folder / "blobs" / "sha256" / ("0" * 64 + ".999")).write_bytes(b"whose?")


@damage(Problem.ORPHAN, ".999", ASIDE)
def a_file_of_another_generation(store: Furnished) -> None:
    path = store.path_of(LAYER)
    path.with_suffix(".999").write_bytes(path.read_bytes())


@damage(Problem.ORPHAN, "README", ASIDE)
def a_file_of_another_name(store: Furnished) -> None:
    (store.folder / "blobs" / "sha256" / "README").write_bytes(b"whose?")


@damage(Problem.ORPHAN, "snapshots/native/999", ASIDE)
def a_stray_folder(store: Furnished) -> None:
    (store.folder / "snapshots" / "native" / "999" / "inside").mkdir(parents=True)


@damage(Problem.ORPHAN, "snapshots/native/my-backup", ASIDE)
def a_folder_of_another_name(store: Furnished) -> None:
    (store.folder / "snapshots" / "native" / "my-backup").mkdir()


# numbers ----------------------------------------------------------------------------------------------------


@damage(Problem.USAGE, "default")
def bytes_counted_wrongly(store: Furnished) -> None:
    store.put_number(keys.count("default", b"\x01p"), 1000)


@damage(Problem.USAGE, "the store")
def bytes_of_the_store_counted_wrongly(store: Furnished) -> None:
    store.put_number(keys.count("", b"\x01p"), 5)


@damage(Problem.USAGE, "shared")
def bytes_of_an_empty_namespace(store: Furnished) -> None:
    store.put(keys.count("shared", b"\x01e"), keys.number(5))


@damage(Problem.USAGE, "default")
def records_counted_wrongly(store: Furnished) -> None:
    store.put_number(keys.count("default", b"i"), 2)


@damage(Problem.USAGE, "files and folders")
def the_number_of_files_set_back(store: Furnished) -> None:
    """The next snapshot would get the folder of one that lives."""
    store.put(keys.GENERATION, keys.number(2))


@damage(Problem.USAGE, "events")
def the_end_of_the_journal_set_back(store: Furnished) -> None:
    store.put(keys.JOURNAL_HEAD, keys.number(2))


@damage(Problem.USAGE, "events")
def the_beginning_of_the_journal_moved(store: Furnished) -> None:
    store.put(keys.JOURNAL_FLOOR, keys.number(4))


@damage(Problem.USAGE, "events")
def the_first_event_removed(store: Furnished) -> None:
    store.delete(keys.event(1))


@damage(Problem.USAGE, "removals")
def the_queue_of_removals_ends_before_it_begins(store: Furnished) -> None:
    """What is queued next would never be removed."""
    store.put(keys.QUEUE_FLOOR, keys.number(100))


@damage(Problem.USAGE, "removals")
def a_removal_of_what_lives_that_was_passed(store: Furnished) -> None:
    store.put(keys.QUEUE_HEAD, keys.number(100))
    store.put(keys.QUEUE_FLOOR, keys.number(100))
    store.queue_removal(str(store.path_of(LAYER).relative_to(store.folder)), 50)
