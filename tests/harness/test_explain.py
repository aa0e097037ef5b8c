# SPDX-License-Identifier: GPL-2.0-or-later
"""One address explained: the walk, what each reading says, and why an access faults."""

import json

import pytest
from rich.console import Console

from harness.architecture import CR0_PE, CR0_PG, CR0_WP, ControlRegisters
from harness.explain import Explanation, explain, explain_image
from kernel_model.errors import BadInput
from kernel_model.ram import Ram
from tests.harness.planting import DATA, TEXT, Planted, planted_machine
from tests.linux_images import linux_image


@pytest.fixture(scope="module")
def planted() -> Planted:
    return planted_machine()


def text_of(explanation: Explanation) -> str:
    console = Console(width=240)
    with console.capture() as capture:
        console.print(explanation)
    return capture.get()


def answers(explanation: Explanation, ring: int, access: str) -> dict[str, str]:
    rows = json.loads(json.dumps(explanation.as_json()))["accesses"]
    row = next(row for row in rows if (row["ring"], row["access"]) == (ring, access))
    return {name: answer["text"] for name, answer in row["answers"].items()}


@pytest.mark.book("3.2")
def test_direct_map(planted: Planted) -> None:
    explanation = explain(planted.machine, 0xC0900123)
    assert explanation.ok
    document = explanation.as_json()
    assert [step["level"] for step in document["steps"]] == ["PDE"]
    assert document["paddr"] == 0x900123
    assert document["page_size"] == 4 << 20
    frame = dict.fromkeys(("intent", "spec", "cpu", "access"), "frame 0x900")
    assert answers(explanation, 0, "write") == frame
    denied = "faults with 7 (P|W|U)"
    expected = {"intent": denied, "spec": denied, "cpu": "faults", "access": denied}
    assert answers(explanation, 3, "write") == expected


@pytest.mark.book("3.2")
def test_read_only_text(planted: Planted) -> None:
    explanation = explain(planted.machine, TEXT + 8)
    assert explanation.ok
    text = text_of(explanation)
    assert "PDE[32]" in text
    assert "PTE[72]" in text
    assert "user r-x" in text
    assert "R/W=0, user write: error code 7 (P|W|U)" in text
    assert "the readings agree" in text


def test_nothing_there(planted: Planted) -> None:
    explanation = explain(planted.machine, 0)
    assert explanation.ok
    assert answers(explanation, 3, "read")["access"] == "faults with 4 (U), not present"
    assert explanation.as_json()["rights"] is None


def test_disagreement_is_told() -> None:
    planted = planted_machine()
    planted.change(DATA, clear=2)
    planted.machine.cpu.flush_tlb_global()
    explanation = explain(planted.machine, DATA)
    assert not explanation.ok
    assert answers(explanation, 3, "write")["intent"].startswith("frame")
    assert answers(explanation, 3, "write")["access"] == "faults with 7 (P|W|U)"
    assert "THE READINGS DISAGREE" in text_of(explanation)


def test_explaining_leaves_no_trace(planted: Planted) -> None:
    machine = planted.machine
    before = [machine.ram.read(start, end - start) for start, end in machine.ram.ranges]
    registers = machine.cpu.registers.snapshot()
    explain(machine, DATA)
    after = [machine.ram.read(start, end - start) for start, end in machine.ram.ranges]
    assert before == after
    assert registers == machine.cpu.registers.snapshot()


def test_image_with_list() -> None:
    space = linux_image("pae128_nonx").address_spaces[0]
    va = int(space.expectation.va[100])
    ram = linux_image("pae128_nonx").new_ram()
    explanation = explain_image(ram, space.registers, va, expectation=space.expectation)
    assert explanation.ok
    assert set(answers(explanation, 3, "read")) == {"list", "spec", "cpu"}
    assert [step["level"] for step in explanation.as_json()["steps"]] == ["PDPTE", "PDE", "PTE"]
    assert any("reserved bits 0x20" in note for note in explanation.notes)


def test_table_outside_ram() -> None:
    ram = Ram(1 << 20)
    ram.write32(0x1000, 0xF0000007)
    explanation = explain_image(ram, ControlRegisters(CR0_PE | CR0_PG | CR0_WP, 0x1000), 0x1234)
    assert answers(explanation, 0, "read")["spec"] == "says nothing"
    assert "lies outside RAM" in text_of(explanation)


@pytest.mark.parametrize("va", [-1, 1 << 32])
def test_address_of_more_than_32_bits(planted: Planted, va: int) -> None:
    with pytest.raises(BadInput, match="32 bits"):
        explain(planted.machine, va)
