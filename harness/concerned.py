# SPDX-License-Identifier: GPL-2.0-or-later
"""What an address and a difference concern: functions of the kernel, sections of the manual.

Two tables. A region of the linear address space (book 4.1) has the functions that fill it and
the book's section about them; a kind of difference has the section of the Intel manual, volume
3A, that decides who is right. Nothing here can fail.
"""

from dataclasses import dataclass
from typing import Any, Final

from harness.architecture import PF_FETCH, PF_PRESENT, PF_RESERVED
from harness.readings.reading import ASTRAY
from harness.verdict import Answer, Finding, Verdict
from kernel_model.arch_i386.fixmap import fixed_addresses, last_pkmap
from kernel_model.arch_i386.page import PAGE_OFFSET, PAGE_SIZE, TASK_SIZE

MANUAL: Final = "Intel SDM 3A"
TRANSLATION: Final = "4.3 (32-bit paging) and 4.4 (PAE paging): which frame an entry names"
RESERVED: Final = "4.3 (32-bit paging) and 4.4 (PAE paging): reserved bits"
NOT_PRESENT: Final = "4.3 (32-bit paging) and 4.4 (PAE paging): P=0, the entry maps nothing"
RIGHTS: Final = "4.6: access rights (P, R/W, U/S, CR0.WP, XD)"
ERROR_CODE: Final = "4.7: page-fault exceptions, their error code and CR2"
MARKS: Final = "4.8: accessed and dirty flags"
DIRECTORY_POINTERS: Final = "4.4.1: the PDPTE registers, loaded with CR3"
FLUSHES: Final = "4.10.4: invalidation of TLBs; 4.10.4.2: what software must invalidate"
FLUSH_API: Final = "flush_tlb_page(), flush_tlb_range(), flush_tlb_mm(), flush_tlb_all() (book 3.8)"
GLOBAL_PAGES: Final = "4.10.2.4: global pages stay in the TLB when CR3 is loaded"


@dataclass(frozen=True, slots=True)
class Region:
    """A part of the linear address space, and who fills it."""

    name: str
    functions: str
    book: str


USER: Final = Region(
    "user space",
    "handle_mm_fault(), change_protection(), copy_page_range(), zap_page_range(), mm/memory.c",
    "4.4, 4.6",
)
DIRECT_MAP: Final = Region("direct map", "pagetable_init(), arch/i386/mm/init.c", "3.6.2")
VMALLOC: Final = Region(
    "vmalloc space", "vmalloc_area_pages(), vmfree_area_pages(), mm/vmalloc.c", "7.1-7.3"
)
KMAP: Final = Region("kmap window", "kmap_high(): map_new_virtual(), mm/highmem.c", "9.2")
FIXED: Final = Region("fixed addresses", "fixrange_init(), kmap_atomic()", "3.6.2, 9.4")
NOTHING: Final = Region("a gap that no kernel maps", "pagetable_init(), zap_low_mappings()", "4.1")


def region_of(kernel: Any, va: int) -> Region:
    """The region of ``va`` in the address space of ``kernel``."""
    if va < TASK_SIZE:
        return USER
    start, end = kernel.vmalloc_range
    # With 4 MiB pages the direct map runs on over the gap before vmalloc space.
    if PAGE_OFFSET <= va < min(start, PAGE_OFFSET + (int(kernel.statics.max_low_pfn) << 12)):
        return DIRECT_MAP
    if start <= va < end:
        return VMALLOC
    if _in_kmap_window(kernel, va):
        return KMAP
    fixed = fixed_addresses(kernel.config)
    return FIXED if fixed.lowest <= va < fixed.plan.top + PAGE_SIZE else NOTHING


def _in_kmap_window(kernel: Any, va: int) -> bool:
    size = last_pkmap(kernel.config.pae) * PAGE_SIZE
    base = fixed_addresses(kernel.config).pkmap_base
    return kernel.config.highmem.value != "none" and base <= va < base + size


def section_of(finding: Finding) -> str:
    """The section of the manual that a finding of a comparison is about."""
    if finding.verdict is Verdict.MISSING_FLUSH:
        return FLUSHES
    if not finding.questions:
        return GLOBAL_PAGES if _is_global(finding) else RIGHTS
    first, second = finding.answers[:2]
    codes = [answer.error_code for answer in (first, second) if answer.pfn is None]
    if not codes or ASTRAY in (first.code, second.code):
        return TRANSLATION
    if len(codes) == 2:
        return ERROR_CODE if None not in codes else TRANSLATION
    return section_of_error_code(codes[0])


def _is_global(finding: Finding) -> bool:
    return finding.entry is not None and bool(finding.entry.value & 0x100)


def section_of_error_code(code: int | None) -> str:
    """What a page fault with ``code`` is about."""
    if code is None:
        return RIGHTS
    if code & PF_RESERVED:
        return RESERVED
    return RIGHTS if code & (PF_PRESENT | PF_FETCH) else NOT_PRESENT


_FIELDS: Final = {
    "CR3 load": DIRECTORY_POINTERS,
    "error code": ERROR_CODE,
    "CR2": ERROR_CODE,
    "value": TRANSLATION,
    "PDE after": MARKS,
    "PTE after": MARKS,
    "second PTE after": MARKS,
    "PDPTE after": DIRECTORY_POINTERS,
    "stray": MARKS,
}


def section_of_case(field: str, setting: str) -> str:
    """The section that a case of the matrix is about: its first wrong ``field``, its setting."""
    if ", flush " in setting:
        return FLUSHES
    field = field.removeprefix("first ")
    if field == "outcome" and ".bit" in setting:
        return RESERVED
    return _FIELDS.get(field, RIGHTS)


def answer_source(answer: Answer) -> str:
    """Who speaks in a reading of this name."""
    return _SOURCES.get(answer.reading, "")


_SOURCES: Final = {
    "intent": "the kernel's own records",
    "spec": "the Intel manual, over the tables in RAM",
    "cpu": "the CPU's MMU, asked with its TLB as it stands",
    "cpu after a flush": "the same, TLB flushed",
    "access": "loads, stores and calls of guest code",
    "qemu": "loads, stores and calls of guest code on QEMU",
    "list": "the translations that you expect",
    "VMAs": "the most that the VMA allows",
}
