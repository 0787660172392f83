"""What a scenario says, and what clients do because of it: the same seed issues the same operations."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import msgspec
import pytest

from orlop.bin.load.scenario import (
    Choice,
    Even,
    Lognormal,
    Scenario,
    Uniform,
    Zipf,
    find_scenario,
    parse_scenario,
    ready_scenarios,
)
from orlop.bin.load.steps import client as steps
from orlop.bin.load.steps.blobs import Blob, bytes_at, digest_of_blob, pieces
from orlop.bin.load.steps.chance import chance_of, pick_index, pick_size
from orlop.protocol.errors import InvalidArgument, NotFound

from ..support.layers import digest_of
from ..support.loading import short

READY = ("ci-runner", "cold-pull", "gc-churn", "many-tenants", "metadata", "mixed", "model-store")


def taken(scenario: Scenario, client: int, count: int, clients: int = 8) -> list[steps.Step]:
    return list(islice(steps.Client(scenario, client, clients), count))


# what is said ------------------------------------------------------------------------------------------------


def test_the_ready_ones_are_there() -> None:
    assert tuple(ready_scenarios()) == READY
    assert all(scenario.name == name and scenario.about for name, scenario in ready_scenarios().items())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name = 1", "Expected `str`"),
        ('name = "a"', "missing required field `operations`"),
        ('name = "a"\noperations = []', "length >= 1"),
        ('name = "a"\n[[operations]]\ndo = "fly"', "Invalid value 'fly'"),
        ('name = "a"\n[[operations]]\ndo = "image-create"\nwieght = 1', "unknown field `wieght`"),
        ('name = "a"\n[[operations]]\ndo = "image-create"\nweight = 0', "> 0"),
        ('name = "a"\nduration_s = 0\n[[operations]]\ndo = "image-create"', "> 0"),
        ('name = "a"\n[load]\nclients = 0\n[[operations]]\ndo = "image-create"', ">= 1"),
        ('name = "a"\n[[operations]]\ndo = "image-get"', "population.images"),
        ('name = "a"\n[[operations]]\ndo = "blob-read"', "population.blobs"),
        ('name = "a"\n[[operations]]\ndo = "pull"', "references"),
        ("name = ", "no TOML"),
    ],
)
def test_what_is_wrong_is_told(text: str, said: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        parse_scenario(text, "mine")
    assert "mine" in refused.value.message
    assert said in f"{refused.value.message} {refused.value.hint}"


def test_a_scenario_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(NotFound) as refused:
        find_scenario("none")
    assert all(name in refused.value.hint for name in READY)


# what is done ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", READY)
def test_the_same_seed_issues_the_same_operations(name: str) -> None:
    scenario = find_scenario(name)
    assert taken(scenario, 3, 300) == taken(scenario, 3, 300)
    if name != "cold-pull":  # there is nothing to choose
        assert taken(scenario, 3, 300) != taken(scenario, 4, 300)
        assert taken(msgspec.structs.replace(scenario, seed=2), 3, 300) != taken(scenario, 3, 300)


def test_operations_come_by_their_weights() -> None:
    found = Counter(
        step.operation for step in taken(short("image-get 6, image-create 3, image-list 1", POPULATED), 0, 10_000)
    )
    assert found["image-get"] == pytest.approx(6000, rel=0.1)
    assert found["image-create"] == pytest.approx(3000, rel=0.1)
    assert found["image-list"] == pytest.approx(1000, rel=0.15)


POPULATED = "[population]\nimages = 100\nblobs = 50\nsnapshots = 5"


def test_a_client_deletes_only_what_it_made_and_each_once() -> None:
    made: set[str] = set()
    for step in taken(short("image-create, image-delete 2, image-publish"), 0, 2000):
        if isinstance(step.action, steps.Create | steps.Publish):
            assert step.action.name not in made
            made.add(step.action.name)
        else:
            assert isinstance(step.action, steps.Delete)
            made.remove(step.action.name)


def test_an_image_of_the_population_is_updated_by_one_client_alone() -> None:
    owners: dict[str, int] = {}
    for client in range(8):
        for step in taken(short("image-update", POPULATED), client, 500):
            assert isinstance(step.action, steps.Update)
            assert owners.setdefault(step.action.name, client) == client
    assert len(owners) == 100


def test_more_clients_than_images_make_their_own() -> None:
    actions = [step.action for step in taken(short("image-update", POPULATED), 300, 50, clients=400)]
    assert all(isinstance(action, steps.Create) for action in actions)


def test_blobs_beyond_those_to_keep_go_in_order() -> None:
    here: list[Blob] = []
    for step in taken(short("blob-ingest"), 0, 500):
        if isinstance(step.action, steps.Ingest):
            here.append(step.action.blob)
        else:
            assert step.action == steps.DeleteBlob(here.pop(0))
        assert len(here) <= 101


def test_snapshots_are_prepared_committed_and_removed_in_order() -> None:
    active: list[str] = []
    committed: list[str] = []
    for step in taken(short("snapshot-prepare, snapshot-commit", POPULATED), 0, 500):
        match step.action:
            case steps.Prepare(key=key):
                active.append(key)
            case steps.Commit(name=name, key=key):
                assert key == active.pop(0)
                committed.append(name)
            case steps.RemoveSnapshot(key=key):
                assert key == committed.pop(0)
    assert len(committed) == 10


def test_reads_lie_within_their_blob() -> None:
    for step in taken(
        short("blob-read-at", POPULATED + '\nblob_size = { kind = "even", least = 1, most = 9000 }'), 0, 500
    ):
        assert isinstance(step.action, steps.ReadAt)
        blob, offset, length = step.action
        assert length >= 1
        assert 0 <= offset <= offset + length <= blob.size


def test_tenants_get_their_share() -> None:
    scenario = short("image-create", "[tenants]\ncount = 10\nchoose = { kind = 'zipf', skew = 1.0 }")
    found = Counter(step.namespace for step in taken(scenario, 0, 5000))
    assert len(found) == 10
    assert found["load-0"] == pytest.approx(5000 / 2.929, rel=0.1)  # the 10th harmonic number


# chance and bytes --------------------------------------------------------------------------------------------


def test_zipf_is_what_it_says_and_uniform_is_even() -> None:
    chance = chance_of("a")
    skewed = Counter(pick_index(chance, Zipf(1.0), 100) for _ in range(20_000))
    assert skewed[0] / skewed[9] == pytest.approx(10, rel=0.3)
    assert max(skewed) < 100
    even = Counter(pick_index(chance, Uniform(), 10) for _ in range(10_000))
    assert all(count == pytest.approx(1000, rel=0.2) for count in even.values())


def test_sizes_are_what_is_said() -> None:
    chance = chance_of("b")
    assert {pick_size(chance, 7) for _ in range(10)} == {7}
    even = [pick_size(chance, Even(10, 20)) for _ in range(1000)]
    assert (min(even), max(even)) == (10, 20)
    skewed = sorted(pick_size(chance, Lognormal(1000, 1.0, 50_000)) for _ in range(4001))
    assert skewed[2000] == pytest.approx(1000, rel=0.1)
    assert skewed[-1] <= 50_000
    chosen = Counter(pick_size(chance, Choice([(3, 1), (1, 2)])) for _ in range(4000))
    assert chosen[1] / chosen[2] == pytest.approx(3, rel=0.2)


@pytest.mark.parametrize("size", [1, 63, 64, 65, 4096, 1024 * 1024, 1024 * 1024 + 1, 3_000_000])
def test_bytes_of_a_blob_are_the_same_wherever_one_looks(size: int) -> None:
    blob = Blob(f"a blob of {size}", size)
    whole = b"".join(pieces(blob))
    assert len(whole) == size
    assert digest_of_blob(blob) == digest_of(whole)
    chance = chance_of(size)
    for _ in range(20):
        offset = chance.randrange(size)
        length = chance.randint(1, size - offset)
        assert bytes_at(blob, offset, length) == whole[offset : offset + length]


def test_no_two_blobs_have_the_same_bytes() -> None:
    assert len({digest_of_blob(Blob(f"b{number}", 16)) for number in range(1000)}) == 1000
