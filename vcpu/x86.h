/* Architectural constants of the i386, with the names of the Intel SDM. Nothing of ring3 is in here. */
#ifndef RING3_X86_H
#define RING3_X86_H

/* EFLAGS (SDM Vol 1 3.4.3) */
#define EFLAGS_CF         0x00000001u
#define EFLAGS_FIXED      0x00000002u
#define EFLAGS_PF         0x00000004u
#define EFLAGS_AF         0x00000010u
#define EFLAGS_ZF         0x00000040u
#define EFLAGS_SF         0x00000080u
#define EFLAGS_TF         0x00000100u
#define EFLAGS_IF         0x00000200u
#define EFLAGS_DF         0x00000400u
#define EFLAGS_OF         0x00000800u
#define EFLAGS_IOPL       0x00003000u
#define EFLAGS_IOPL_SHIFT 12
#define EFLAGS_NT         0x00004000u
#define EFLAGS_RF         0x00010000u
#define EFLAGS_VM         0x00020000u
#define EFLAGS_AC         0x00040000u
#define EFLAGS_VIF        0x00080000u
#define EFLAGS_VIP        0x00100000u
#define EFLAGS_ID         0x00200000u
/* The bits that exist, but for the fixed one. */
#define EFLAGS_DEFINED 0x003f7fd5u

/* CR0, CR4, EFER (SDM Vol 3A 2.5, 2.2.1) */
#define CR0_PE 0x00000001u
#define CR0_MP 0x00000002u
#define CR0_EM 0x00000004u
#define CR0_TS 0x00000008u
#define CR0_ET 0x00000010u
#define CR0_NE 0x00000020u
#define CR0_WP 0x00010000u
#define CR0_AM 0x00040000u
#define CR0_NW 0x20000000u
#define CR0_CD 0x40000000u
#define CR0_PG 0x80000000u

#define CR4_VME        0x00000001u
#define CR4_PVI        0x00000002u
#define CR4_TSD        0x00000004u
#define CR4_DE         0x00000008u
#define CR4_PSE        0x00000010u
#define CR4_PAE        0x00000020u
#define CR4_MCE        0x00000040u
#define CR4_PGE        0x00000080u
#define CR4_PCE        0x00000100u
#define CR4_OSFXSR     0x00000200u
#define CR4_OSXMMEXCPT 0x00000400u

#define CR3_PDPT_FRAME 0xffffffe0u /* under PAE: of four PDPTEs */

/* DR6, DR7 (SDM Vol 3B 17.2.3, 17.2.4) */
#define DR6_BD       0x2000u /* MOV DR under DR7.GD */
#define DR6_BS       0x4000u /* single step */
#define DR6_BT       0x8000u /* task switch to a TSS with T set */
#define DR6_FIXED    0xffff0ff0u
#define DR6_WRITABLE 0xe00fu
#define DR7_LOCALS   0x0155u /* L0-L3 and LE: cleared by a task switch */
#define DR7_FIXED    0x0400u
#define DR7_GD       0x2000u
#define DR7_ENABLES  0x00ffu /* L0-G3 */
#define DR7_WRITABLE 0xffff23ffu

#define EFER_NXE 0x00000800u

/* Exceptions (SDM Vol 3A table 6-1) */
enum exception {
    EXCEPTION_DE = 0,
    EXCEPTION_DB = 1,
    EXCEPTION_NMI = 2,
    EXCEPTION_BP = 3,
    EXCEPTION_OF = 4,
    EXCEPTION_BR = 5,
    EXCEPTION_UD = 6,
    EXCEPTION_NM = 7,
    EXCEPTION_DF = 8,
    EXCEPTION_TS = 10,
    EXCEPTION_NP = 11,
    EXCEPTION_SS = 12,
    EXCEPTION_GP = 13,
    EXCEPTION_PF = 14,
    EXCEPTION_MF = 16,
    EXCEPTION_AC = 17,
    EXCEPTION_MC = 18,
    EXCEPTION_XM = 19,
};

/* Error code of #PF (SDM Vol 3A 4.7) and of selectors (6.13) */
#define PF_PRESENT  0x01u
#define PF_WRITE    0x02u
#define PF_USER     0x04u
#define PF_RESERVED 0x08u
#define PF_FETCH    0x10u
#define ERROR_EXT   0x01u
#define ERROR_IDT   0x02u
#define ERROR_TI    0x04u

/* Page-table entries (SDM Vol 3A 4.3, 4.4) */
#define PTE_P      0x001u
#define PTE_W      0x002u
#define PTE_U      0x004u
#define PTE_PWT    0x008u
#define PTE_PCD    0x010u
#define PTE_A      0x020u
#define PTE_D      0x040u
#define PTE_PS     0x080u /* in a page-directory entry: 4 MiB page, or 2 MiB under PAE */
#define PTE_G      0x100u
#define PTE_NX     (UINT64_C(1) << 63) /* under PAE, with EFER.NXE */
#define PAGE_SHIFT 12
#define PAGE_SIZE  4096u
#define PAGE_MASK  0xfffu

/* Segment attributes: bytes 5-6 of a descriptor (SDM Vol 3A 3.4.5) */
#define SEGMENT_TYPE       0x000fu
#define SEGMENT_ACCESSED   0x0001u
#define SEGMENT_WRITABLE   0x0002u /* data */
#define SEGMENT_READABLE   0x0002u /* code */
#define SEGMENT_DOWN       0x0004u /* data: expand-down */
#define SEGMENT_CONFORMING 0x0004u /* code */
#define SEGMENT_CODE       0x0008u
#define SEGMENT_S          0x0010u /* code or data, not system */
#define SEGMENT_DPL        0x0060u
#define SEGMENT_DPL_SHIFT  5
#define SEGMENT_P          0x0080u
#define SEGMENT_AVL        0x1000u
#define SEGMENT_DB         0x4000u
#define SEGMENT_G          0x8000u

/* System descriptor types (SDM Vol 3A table 3-2) */
enum system_type {
    SYSTEM_TSS16 = 1,
    SYSTEM_LDT = 2,
    SYSTEM_TSS16_BUSY = 3,
    SYSTEM_CALL16 = 4,
    SYSTEM_TASK_GATE = 5,
    SYSTEM_INT16 = 6,
    SYSTEM_TRAP16 = 7,
    SYSTEM_TSS32 = 9,
    SYSTEM_TSS32_BUSY = 11,
    SYSTEM_CALL32 = 12,
    SYSTEM_INT32 = 14,
    SYSTEM_TRAP32 = 15,
};

#define SELECTOR_RPL 0x3u
#define SELECTOR_TI  0x4u

/* MSRs (SDM Vol 4) */
#define MSR_TSC            0x010u
#define MSR_PLATFORM_ID    0x017u
#define MSR_APIC_BASE      0x01bu
#define MSR_BIOS_SIGN_ID   0x08bu
#define MSR_SYSENTER_CS    0x174u
#define MSR_SYSENTER_ESP   0x175u
#define MSR_SYSENTER_EIP   0x176u
#define MSR_MISC_ENABLE    0x1a0u
#define MSR_MTRR_CAP       0x0feu
#define MSR_MTRR_PHYS_BASE 0x200u
#define MSR_MTRR_FIX_64K   0x250u
#define MSR_MTRR_FIX_16K_0 0x258u
#define MSR_MTRR_FIX_16K_1 0x259u
#define MSR_MTRR_FIX_4K_0  0x268u
#define MSR_PAT            0x277u
#define MSR_MTRR_DEF_TYPE  0x2ffu
#define MSR_EFER           0xc0000080u
/* KVM's paravirtual clock (kernel Documentation/virt/kvm/x86/msr.rst); the first two by their older numbers,
 * too */
#define MSR_KVM_WALL_CLOCK_OLD  0x11u
#define MSR_KVM_SYSTEM_TIME_OLD 0x12u
#define MSR_KVM_WALL_CLOCK      0x4b564d00u
#define MSR_KVM_SYSTEM_TIME     0x4b564d01u
#define MSR_KVM_STEAL_TIME      0x4b564d03u

#define MSR_KVM_ENABLED        0x01ull /* of system time and steal time */
#define MSR_KVM_STEAL_RESERVED 0x3eull /* its record is aligned to 64 bytes */

#define APIC_BASE_BSP    0x100u
#define APIC_BASE_ENABLE 0x800u

#define MISC_ENABLE_FAST_STRINGS 0x00000001u
#define MISC_ENABLE_LIMIT_CPUID  0x00400000u

#endif
