"""Image verifiers: real programs that are asked before a pull brings anything, and what becomes of it.

Source: spec registry 9, step 2, and 9.3; the number in a comment is that of its section 14.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio

import orlop
from orlop.protocol.errors import FailedPrecondition, OrlopError
from orlop.protocol.messages import TransferProgress, TransferState
from tests.support.faulty_registry import FaultyRegistry, Status
from tests.support.images import MANIFEST, MadeImage, write_layout
from tests.support.programs import Programs, all_ended, is_running, written
from tests.support.transfers import (
    AT_ONCE,
    PLAIN,
    TIMEOUT_S,
    digests,
    has,
    lines,
    opened,
    pull,
    random_image,
    stored,
)  # fmt: skip
from tests.support.writable_registry import WritableRegistry

REPOSITORY = "lib/app"
ASKED = "echo ${0##*/} >> $NOTES/asked"
LONG = 3600  # seconds that nobody here waits
HEAD = f"HEAD /v2/{REPOSITORY}/manifests/latest"
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(scope="module")
def made() -> MadeImage:
    return random_image("verified")


@pytest.fixture(scope="module")
def layout(made: MadeImage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_layout(tmp_path_factory.mktemp("verified") / "layout", made)


@pytest.fixture
def registry(layout: Path) -> Iterator[FaultyRegistry]:
    with FaultyRegistry({REPOSITORY: layout}) as registry:
        yield registry


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    return Programs.below(tmp_path)


@pytest.fixture
async def store(tmp_path: Path, programs: Programs) -> AsyncIterator[orlop.Store]:
    async with verifying(tmp_path, programs.folder) as store:
        yield store


@asynccontextmanager
async def verifying(tmp_path: Path, folder: Path, **more: Any) -> AsyncIterator[orlop.Store]:
    config = orlop.VerifierConfig(str(folder), **{"per_verifier_timeout_s": TIMEOUT_S, **more})
    async with opened(tmp_path / "store", verifiers=config) as store:
        yield store


def at(registry: FaultyRegistry, repository: str = REPOSITORY) -> str:
    return f"{registry.address}/{repository}:latest"


async def denied(store: orlop.Store, reference: str, **options: Any) -> str:
    """The pull fails for a verifier's sake, in one line, and leaves nothing; what it says."""
    with pytest.raises(FailedPrecondition) as caught:
        await pull(store, reference, **options)
    assert "\n" not in str(caught.value)
    await holds_nothing(store)
    return str(caught.value)


async def holds_nothing(store: orlop.Store) -> None:
    assert [found async for found in store.images.list()] == []
    assert await digests(store) == set()
    assert [found async for found in store.content.ingests()] == []
    assert [found async for found in store.leases.list()] == []


def verdicts(logged: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [entry for entry in logged if "verifier" in entry]


# Verdicts


async def test_a_verifier_allows(
    store: orlop.Store, registry: FaultyRegistry, made: MadeImage, programs: Programs
) -> None:
    programs.add("one", f"{ASKED}; echo 'signed by\nus'; echo noise >&2")
    with structlog.testing.capture_logs() as logged:
        assert (await pull(store, at(registry))).target.digest == made.target.digest
    await has(store, made)
    assert programs.lines() == ["one"]
    [verdict] = verdicts(logged)
    assert verdict["log_level"] == "info"
    assert {key: verdict[key] for key in ("verifier", "reference", "digest", "reason", "stderr")} == {
        "verifier": "one",
        "reference": at(registry),
        "digest": made.target.digest,
        "reason": "signed by us",
        "stderr": "noise",
    }


@pytest.mark.parametrize("way", ["embedded", "unix"])
async def test_a_verifier_denies(
    way: str, tmp_path: Path, registry: FaultyRegistry, made: MadeImage, programs: Programs
) -> None:  # 56
    programs.add("signatures", "echo 'not signed\nby us'; echo noise >&2; exit 1")
    settings = orlop.StoreConfig(str(tmp_path / "store"), verifiers=orlop.VerifierConfig(str(programs.folder)))
    with structlog.testing.capture_logs() as logged:
        async with orlop.open_store(settings) as own:
            if way == "embedded":
                said = await denied(own, at(registry))
            else:
                async with orlop.connect(f"unix:{tmp_path}/store/socket") as store:
                    said = await denied(store, at(registry))
    assert f'image "{at(registry)}": image verifier "signatures" denies it (exit code 1): not signed by us' in said
    assert "noise" not in said
    assert lines(registry, "/v2/lib") == [HEAD]
    [verdict] = verdicts(logged)
    assert (verdict["log_level"], verdict["verifier"]) == ("warning", "signatures")
    assert (verdict["reason"], verdict["stderr"]) == ("not signed by us", "noise")
    assert verdict["digest"] == made.target.digest


async def test_a_denied_pull_leaves_an_older_image_as_it_is(
    store: orlop.Store, registry: FaultyRegistry, programs: Programs
) -> None:
    old = random_image("older")
    await stored(store, at(registry), old)
    before = await store.images.get(at(registry))
    programs.add("one", "exit 1")
    with pytest.raises(FailedPrecondition):
        await pull(store, at(registry))
    assert await store.images.get(at(registry)) == before
    assert await digests(store) == set(old.blobs)


async def test_they_are_asked_in_the_order_of_their_names_until_one_denies(
    store: orlop.Store, registry: FaultyRegistry, programs: Programs
) -> None:
    for name in ("9-never", "10-first", "20-second"):
        programs.add(name, ASKED)
    programs.add("30-denies", f"{ASKED}; exit 7")
    said = await denied(store, at(registry))
    assert 'image verifier "30-denies" denies it (exit code 7): it gives no reason' in said
    assert programs.lines() == ["10-first", "20-second", "30-denies"]


async def test_one_that_dies_denies(store: orlop.Store, registry: FaultyRegistry, programs: Programs) -> None:
    programs.add("one", "echo so far so good; kill -KILL $$")
    assert "killed by signal 9" in await denied(store, at(registry))


# What they are given


async def test_what_a_verifier_is_given(
    store: orlop.Store,
    registry: FaultyRegistry,
    made: MadeImage,
    programs: Programs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ORLOP_TEST_WORD", "inherited")
    programs.add(
        "one",
        "import json, os, sys\n"
        "given = [sys.argv[1:], sys.stdin.read(), os.environ['ORLOP_TEST_WORD']]\n"
        "json.dump(given, open('$NOTES/given', 'w'))",
        interpreter=sys.executable,
    )
    await pull(store, at(registry))
    arguments, data, word = json.loads(programs.noted("given"))
    media_type = "application/vnd.oci.descriptor.v1+json"
    assert arguments == ["-name", at(registry), "-digest", made.target.digest, "-stdin-media-type", media_type]
    assert json.loads(data) == {"mediaType": MANIFEST, "digest": made.target.digest, "size": len(made.manifest)}
    assert data.endswith("}\n")
    assert data.count("\n") == 1
    assert word == "inherited"


async def test_a_verifier_hears_what_a_reference_means(
    store: orlop.Store, registry: FaultyRegistry, made: MadeImage, programs: Programs
) -> None:
    """However it is spelled: here as if it came from a place that is trusted."""
    programs.add("one", 'echo "$2" > $NOTES/name')
    pulled = await pull(store, at(registry, f"trusted/../{REPOSITORY}"))
    assert programs.lines("name") == [at(registry)]
    assert pulled.target.digest == made.target.digest


async def test_a_verifier_hears_of_a_digest(
    store: orlop.Store, registry: FaultyRegistry, made: MadeImage, programs: Programs
) -> None:
    programs.add("one", 'echo "$2 $4" > $NOTES/given')
    reference = f"{registry.address}/{REPOSITORY}@{made.target.digest}"
    await pull(store, reference)
    assert programs.lines("given") == [f"{reference} {made.target.digest}"]


async def test_a_verifier_need_not_read(store: orlop.Store, registry: FaultyRegistry, programs: Programs) -> None:
    programs.add("one", f"exec 0<&-; {ASKED}")
    programs.add("two", ASKED)
    await pull(store, at(registry))
    assert programs.lines() == ["one", "two"]


# Which of them


@pytest.mark.parametrize("most, asked", [(0, []), (1, ["1"]), (2, ["1", "2"]), (3, ["1", "2"]), (-1, ["1", "2"])])
async def test_no_more_are_asked_than_may_be(
    tmp_path: Path, registry: FaultyRegistry, programs: Programs, most: int, asked: list[str]
) -> None:
    """Who is left out cannot deny, so that is told."""
    programs.add("0-not-executable", ASKED, mode=0o644)  # and does not count
    programs.add("1", ASKED)
    programs.add("2", ASKED)
    with structlog.testing.capture_logs() as logged:
        async with verifying(tmp_path, programs.folder, max_verifiers=most) as store:
            await pull(store, at(registry))
    assert programs.lines() == asked
    left_out = [name for entry in logged for name in entry.get("left_out", ())]
    assert left_out == ["1", "2"][len(asked) :]


async def test_without_a_folder_every_image_is_allowed(tmp_path: Path, registry: FaultyRegistry) -> None:
    """But it was named, so that is told."""
    with structlog.testing.capture_logs() as logged:
        async with verifying(tmp_path, tmp_path / "missing") as store:
            await pull(store, at(registry))
    assert [entry["folder"] for entry in logged if entry["log_level"] == "warning"] == [str(tmp_path / "missing")]


async def test_an_empty_folder_allows(store: orlop.Store, registry: FaultyRegistry) -> None:
    await pull(store, at(registry))


async def test_a_folder_that_cannot_be_read_denies(tmp_path: Path, registry: FaultyRegistry) -> None:
    (tmp_path / "file").write_text("")
    async with verifying(tmp_path, tmp_path / "file") as store:
        assert f'"{tmp_path}/file": Not a directory' in await denied(store, at(registry))


async def test_what_is_no_executable_file_is_not_asked(
    store: orlop.Store, registry: FaultyRegistry, programs: Programs
) -> None:
    programs.add("README", f"{ASKED}; exit 1", mode=0o644)
    (programs.folder / "folder").mkdir()
    (programs.folder / "link-to-folder").symlink_to(programs.folder)
    programs.add("asked", ASKED)
    await pull(store, at(registry))
    assert programs.lines() == ["asked"]


async def test_hidden_files_and_links_are_asked(
    store: orlop.Store, registry: FaultyRegistry, programs: Programs, tmp_path: Path
) -> None:
    programs.add(".hidden", ASKED)
    elsewhere = Path(programs.add("elsewhere", ASKED)).rename(tmp_path / "elsewhere")
    (programs.folder / "link").symlink_to(elsewhere)
    await pull(store, at(registry))
    assert programs.lines() == [".hidden", "link"]


# Those that cannot be run, talk too much, or never end


@pytest.mark.parametrize(
    "interpreter, why",
    [("/nowhere/at/all", "the interpreter that its first line names"), ("", "format"), ("/", "ermission denied")],
    ids=["missing", "none", "folder"],
)
async def test_one_that_cannot_be_run_denies(
    store: orlop.Store, registry: FaultyRegistry, programs: Programs, interpreter: str, why: str
) -> None:
    programs.add("one", "exit 0", interpreter=interpreter)
    said = await denied(store, at(registry))
    assert 'image verifier "one" cannot be run: ' in said
    assert why in said


async def test_a_link_to_nowhere_denies(store: orlop.Store, registry: FaultyRegistry, programs: Programs) -> None:
    """Somebody wanted it asked; that it is gone must not let anything in."""
    (programs.folder / "link").symlink_to("gone")
    assert 'image verifier "link" cannot be run' in await denied(store, at(registry))


async def test_a_name_that_is_no_text_denies_in_words(
    store: orlop.Store, registry: FaultyRegistry, programs: Programs
) -> None:
    program = Path(programs.add("one", "exit 1"))
    program.rename(programs.folder / "bad-\udcff\n")
    assert "\\udcff" in await denied(store, at(registry))


@pytest.mark.parametrize("code", [0, 1])
async def test_of_long_output_the_beginning_is_kept(
    tmp_path: Path, registry: FaultyRegistry, programs: Programs, code: int
) -> None:
    """All of it is taken: the verifier's code is its own, not that of a broken pipe."""
    body = f"yes | head -c {1 << 20} | tr '\\n' x && {ASKED} && exit {code}; exit 99"
    programs.add("one", body)
    with structlog.testing.capture_logs() as logged:
        async with verifying(tmp_path, programs.folder) as store:
            if code == 0:
                await pull(store, at(registry))
            else:
                said = await denied(store, at(registry))
                assert "(exit code 1): yxyx" in said
                assert len(said) < 1500
    assert programs.lines() == ["one"]
    [verdict] = verdicts(logged)
    assert verdict["reason"] == "yx" * (1 << 14) + "… (cut)"


@linux
@pytest.mark.slow
async def test_one_that_does_not_answer_is_killed_with_its_children(
    tmp_path: Path, registry: FaultyRegistry, programs: Programs
) -> None:
    sleeper = f"sh -c 'echo $$ > $NOTES/grandchild; exec sleep {LONG}'"
    programs.add("slow", f"echo $$ > $NOTES/own; sh -c {shlex.quote(sleeper + ' & wait')} & wait")
    programs.add("then", ASKED)
    async with verifying(tmp_path, programs.folder, per_verifier_timeout_s=1) as store:
        said = await denied(store, at(registry))
    assert 'image verifier "slow" has not answered within 1 s' in said
    assert programs.lines() == []
    assert not Path(f"/proc/{programs.noted('own').strip()}").exists()
    assert not is_running(int(programs.noted("grandchild")))


@linux
@pytest.mark.parametrize("way", ["embedded", "unix"])
async def test_a_cancelled_pull_kills_its_verifier(
    way: str, tmp_path: Path, registry: FaultyRegistry, programs: Programs
) -> None:
    body = f"sleep {LONG} & echo $! > $NOTES/child; echo $$ > $NOTES/own; wait"
    programs.add("one", body)
    settings = orlop.StoreConfig(
        str(tmp_path / "store"), verifiers=orlop.VerifierConfig(str(programs.folder), -1, LONG)
    )
    async with orlop.open_store(settings) as own, orlop.connect(f"unix:{tmp_path}/store/socket") as remote:
        store = own if way == "embedded" else remote
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pull, store, at(registry))
            pids = [int(await written(programs.notes / name)) for name in ("own", "child")]
            nursery.cancel_scope.cancel()
        await all_ended(pids)
        with trio.fail_after(TIMEOUT_S):  # over a socket a cancelled call ends a moment later
            while [found async for found in own.leases.list()]:
                await trio.sleep(0.005)
        await holds_nothing(own)


@linux
async def test_no_verifier_outlives_its_store(tmp_path: Path, registry: FaultyRegistry, programs: Programs) -> None:
    programs.add("one", f"echo $$ > $NOTES/own; exec sleep {LONG}")
    config = orlop.StoreConfig(
        str(tmp_path / "store"), drain_s=0, verifiers=orlop.VerifierConfig(str(programs.folder), -1, LONG)
    )

    async def pull_until_the_end(store: orlop.Store) -> None:
        with pytest.raises(OrlopError):
            await pull(store, at(registry))

    async with trio.open_nursery() as nursery:
        async with orlop.open_store(config), orlop.connect(f"unix:{tmp_path}/store/socket") as remote:
            nursery.start_soon(pull_until_the_end, remote)
            own = int(await written(programs.notes / "own"))
        assert not Path(f"/proc/{own}").exists()
        nursery.cancel_scope.cancel()


# When they are asked


async def test_verifying_follows_resolving_and_comes_before_all_else(
    store: orlop.Store, registry: FaultyRegistry, made: MadeImage, programs: Programs
) -> None:
    programs.add("one", "exit 0")
    seen: list[TransferProgress] = []
    with trio.fail_after(TIMEOUT_S):
        await store.pull(orlop.PullImage(at(registry), access=PLAIN), seen.append)
    first = [TransferState.RESOLVING, TransferState.RESOLVED, TransferState.VERIFYING]
    assert [step.state for step in seen[:3]] == first
    assert (seen[2].name, seen[2].digest) == (at(registry), made.target.digest)
    assert TransferState.VERIFYING not in [step.state for step in seen[3:]]


async def test_nobody_is_asked_unless_a_folder_is_named(tmp_path: Path, registry: FaultyRegistry) -> None:
    seen: list[TransferProgress] = []
    async with opened(tmp_path / "store") as store:
        with trio.fail_after(TIMEOUT_S):
            await store.pull(orlop.PullImage(at(registry), access=PLAIN), seen.append)
    assert TransferState.VERIFYING not in [step.state for step in seen]


async def test_every_namespace_is_asked_for_itself(
    store: orlop.Store, registry: FaultyRegistry, programs: Programs
) -> None:
    programs.add("one", ASKED)
    await pull(store, at(registry))
    await pull(store.in_namespace("other"), at(registry))
    assert programs.lines() == ["one", "one"]
    programs.add("one", "exit 1")
    await denied(store.in_namespace("third"), at(registry))


async def test_what_is_here_is_not_verified_again_where_nobody_resolves_it(
    store: orlop.Store, registry: FaultyRegistry, programs: Programs
) -> None:
    await pull(store, at(registry))
    programs.add("one", f"{ASKED}; exit 1")
    for policy in (orlop.PullPolicy.MISSING, orlop.PullPolicy.NEVER):
        await pull(store, at(registry), policy=policy)
    assert programs.lines() == []
    registry.fault(HEAD, Status(503, headers=AT_ONCE), times=None)
    await pull(store, at(registry), policy=orlop.PullPolicy.NEWER)
    assert programs.lines() == []
    registry.heal()
    with pytest.raises(FailedPrecondition):
        await pull(store, at(registry), policy=orlop.PullPolicy.NEWER)
    await store.images.delete(at(registry))
    with pytest.raises(FailedPrecondition):
        await pull(store, at(registry), policy=orlop.PullPolicy.MISSING)
    assert programs.lines() == ["one", "one"]


async def test_nothing_but_a_pull_is_verified(
    store: orlop.Store, registry: FaultyRegistry, made: MadeImage, programs: Programs, layout: Path
) -> None:
    programs.add("one", f"{ASKED}; exit 1")
    with trio.fail_after(TIMEOUT_S), WritableRegistry() as target:
        assert await store.resolve(at(registry), PLAIN) == made.target
        copied = await store.copy(
            orlop.CopyImage(at(registry), f"{target.address}/{REPOSITORY}:v", source_access=PLAIN, target_access=PLAIN)
        )
        assert copied.target.digest == made.target.digest
        await store.fetch(orlop.FetchBlobs(f"{registry.address}/{REPOSITORY}", [made.target], PLAIN))
        imported = await orlop.import_archive(store, layout, orlop.ImportOptions(orlop.Naming(prefix="imported")))
    assert [image.target.digest for image in imported] == [made.target.digest]
    assert programs.lines() == []
