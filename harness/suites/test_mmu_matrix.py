# SPDX-License-Identifier: GPL-2.0-or-later
"""The MMU conformance matrix: every chunk of it, against the Intel manual, chapter 4."""

from collections.abc import Iterator

import pytest

from harness.conformance.chunks import CHUNKS, Chunk, ChunkFailed, as_json, run_chunk
from harness.conformance.subject import Subject
from harness.pytest_plugin.options import session_options
from harness.pytest_plugin.results import MATRIX, TestResults


@pytest.fixture(scope="session")
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    """The CPU under test, with the conformance guest loaded."""
    options = session_options(request.config)
    made = options.backends.make_subject(options.cpu)
    yield made
    made.close()


@pytest.mark.parametrize("chunk", CHUNKS, ids=str)
def test_matrix(
    chunk: Chunk, subject: Subject, request: pytest.FixtureRequest, mmu_report: TestResults
) -> None:
    options = session_options(request.config)
    result = run_chunk(subject, chunk, options.suite, options.cpu_option)
    if result is None:
        pytest.skip(f"{subject.name} has no such cases: its features lack {chunk.mode}")
    mmu_report.add(as_json(chunk, result, options.suite), MATRIX)
    if not result.ok:
        raise ChunkFailed(chunk, result)
